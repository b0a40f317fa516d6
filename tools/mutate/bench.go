package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// bench tests mutants of one package.
type bench struct {
	options
	pkg     *pkg
	dir     string // of temporary files
	timeout time.Duration
	tests   []string
	took    map[string]time.Duration // by test, alone
	blocks  map[string][]block       // by file
	helpers string                   // the file
}

// block is a piece of code that runs from its begin to its end, and the tests in which it does.
type block struct {
	from, until place
	tests       map[string]bool
}

type place struct{ line, column int }

func (p place) before(q place) bool {
	return p.line < q.line || p.line == q.line && p.column < q.column
}

// slack is added to the time that tests may take, for starting a process on a busy machine.
const slack = 10 * time.Second

// newBench runs the tests once without a mutant: all together for the time that they take, and each alone for the code
// that it reaches.
func newBench(ctx context.Context, o options, p *pkg) (_ *bench, err error) {
	b := &bench{options: o, pkg: p, took: map[string]time.Duration{}, blocks: map[string][]block{}, timeout: o.timeout}
	if b.dir, err = os.MkdirTemp("", "notifyd-mutate-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	b.helpers = filepath.Join(b.dir, "helpers.go")
	if err := os.WriteFile(b.helpers, fmt.Appendf(nil, helpers, p.Name), 0o600); err != nil {
		return nil, err
	}
	bin := filepath.Join(b.dir, "cover.test")
	if out, err := b.compile(ctx, bin, "-cover", "-covermode=set"); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	began := time.Now()
	if r := b.run(ctx, bin, ""); r.status != survived {
		return nil, fmt.Errorf("the tests fail without a mutant\n%s", r.output)
	}
	b.timeout = min(o.timeout, slack+10*time.Since(began))
	list := exec.CommandContext(ctx, bin, "-test.list", ".")
	list.Dir = p.Dir
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	for name := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(name, "Benchmark") {
			b.tests = append(b.tests, name)
		}
	}
	return b, b.cover(ctx, bin)
}

func (b *bench) close() { _ = os.RemoveAll(b.dir) }

// cover finds out what each test reaches and how long it takes. A test that fails alone reaches what it reached until then.
func (b *bench) cover(ctx context.Context, bin string) error {
	found := map[string]map[string]*block{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	todo := make(chan string)
	for i := range b.workers {
		workers.Go(func() {
			profile := filepath.Join(b.dir, fmt.Sprintf("cover-%d", i))
			for test := range todo {
				_ = os.Remove(profile)
				began := time.Now()
				b.run(ctx, bin, "^"+test+"$", "-test.coverprofile", profile)
				text, _ := os.ReadFile(profile) // none after a panic
				mu.Lock()
				b.took[test] = time.Since(began)
				addProfile(found, string(text), test)
				mu.Unlock()
			}
		})
	}
	for _, test := range b.tests {
		todo <- test
	}
	close(todo)
	workers.Wait()
	for file, blocks := range found {
		for _, one := range blocks {
			b.blocks[file] = append(b.blocks[file], *one)
		}
	}
	return ctx.Err()
}

// profileLine is one of a cover profile: name.go:line.column,line.column statements count.
var profileLine = regexp.MustCompile(`^(.+):(\d+)\.(\d+),(\d+)\.(\d+) \d+ (\d+)$`)

func addProfile(found map[string]map[string]*block, text, test string) {
	for line := range strings.Lines(text) {
		m := profileLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		file := path.Base(m[1])
		if found[file] == nil {
			found[file] = map[string]*block{}
		}
		at := strings.Join(m[2:6], ".")
		one := found[file][at]
		if one == nil {
			one = &block{from: place{number(m[2]), number(m[3])}, until: place{number(m[4]), number(m[5])}, tests: map[string]bool{}}
			found[file][at] = one
		}
		if m[6] != "0" {
			one.tests[test] = true
		}
	}
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // digits by the expression
	return n
}

// reaching gives the tests that reach a mutant, and whether that is known: what stands outside functions is in no block.
// A place in a function that is in no block, such as a label of a case, is reached by those that reach the function.
func (b *bench) reaching(m *mutant) (tests []string, known bool) {
	f := b.pkg.fset
	at := f.Position(f.File(m.decl.Pos()).Pos(m.from))
	start, end := f.Position(m.decl.Pos()), f.Position(m.decl.End())
	here := place{at.Line, at.Column}
	inside := func(p, from, until place) bool { return !p.before(from) && p.before(until) }
	reached, near := map[string]bool{}, map[string]bool{} // near: by what stands in the same function
	nearby := false
	for _, one := range b.blocks[m.File] {
		if inside(here, one.from, one.until) {
			known = true
			maps.Copy(reached, one.tests)
		}
		if inside(one.from, place{start.Line, start.Column}, place{end.Line, end.Column}) {
			nearby = true
			maps.Copy(near, one.tests)
		}
	}
	if !known {
		reached, known = near, nearby
	}
	return slices.Sorted(maps.Keys(reached)), known
}

// try compiles one mutant and runs the tests on it.
func (b *bench) try(ctx context.Context, m *mutant) error {
	tests, known := b.reaching(m)
	dir, err := os.MkdirTemp(b.dir, "mutant-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin := filepath.Join(dir, "mutant.test")
	overlay, err := b.overlay(dir, m)
	if err != nil {
		return err
	}
	if _, err := b.compile(ctx, bin, "-overlay", overlay); err != nil {
		m.Status = unbuilt
		return ctx.Err()
	}
	if known && len(tests) == 0 {
		m.Status, m.Unreached = survived, true
		return nil
	}
	result := outcome{status: survived}
	if known {
		fast, slow := b.byTime(tests)
		for _, some := range [][]string{fast, slow} {
			if result.status == survived && len(some) > 0 {
				result = b.runFor(ctx, b.limit(some), bin, "^("+strings.Join(some, "|")+")$", "-test.failfast")
			}
		}
	}
	if result.status == survived && (!known || len(tests) < len(b.tests)) {
		result = b.run(ctx, bin, "", "-test.failfast")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.Status, m.Test = result.status, result.failed()
	return nil
}

// byTime parts the tests into the fastest, which take a tenth of the time that all of them take, and the others. Most
// mutants are killed by one of the first.
func (b *bench) byTime(tests []string) (fast, slow []string) {
	tests = slices.SortedFunc(slices.Values(tests), func(x, y string) int { return cmp.Compare(b.took[x], b.took[y]) })
	var all, sum time.Duration
	for _, test := range tests {
		all += b.took[test]
	}
	n := 0
	for ; n < len(tests) && sum+b.took[tests[n]] <= all/10; n++ {
		sum += b.took[tests[n]]
	}
	return tests[:n], tests[n:]
}

// overlay writes the mutated file, and what the go command reads instead of which file.
func (b *bench) overlay(dir string, m *mutant) (string, error) {
	text := slices.Concat(m.source.text[:m.from], []byte(m.text), m.source.text[m.until:])
	mutated, config := filepath.Join(dir, m.File), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(b.pkg.Dir, m.File):                     mutated,
		filepath.Join(b.pkg.Dir, "zz_helpers_of_mutants.go"): b.helpers,
	}})
	if err == nil {
		err = os.WriteFile(mutated, text, 0o600)
	}
	if err == nil {
		err = os.WriteFile(config, replace, 0o600)
	}
	return config, err
}

func (b *bench) compile(ctx context.Context, bin string, flags ...string) ([]byte, error) {
	args := append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", bin}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, b.pkg.ImportPath)...)
	cmd.Dir = b.pkg.Dir
	return cmd.CombinedOutput()
}

// outcome is what the tests said.
type outcome struct {
	status status
	output []byte
}

var failure = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

func (o outcome) failed() string {
	if m := failure.FindSubmatch(o.output); m != nil {
		return string(m[1])
	}
	return ""
}

// limit is how long some tests may run.
func (b *bench) limit(tests []string) time.Duration {
	var sum time.Duration
	for _, test := range tests {
		sum += b.took[test]
	}
	return min(b.timeout, slack+10*sum)
}

// run runs the tests that match a pattern, all of them if it is empty.
func (b *bench) run(ctx context.Context, bin, pattern string, flags ...string) outcome {
	return b.runFor(ctx, b.timeout, bin, pattern, flags...)
}

// runFor is run with a limit. The tests have a temporary folder of their own.
func (b *bench) runFor(ctx context.Context, limit time.Duration, bin, pattern string, flags ...string) outcome {
	temp, err := os.MkdirTemp(b.dir, "tests-")
	if err != nil {
		return outcome{output: []byte(err.Error())}
	}
	defer func() { _ = os.RemoveAll(temp) }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := append([]string{"-test.count=1", "-test.timeout=0", "-test.run=" + pattern}, flags...)
	if b.short {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.WaitDelay = b.pkg.Dir, time.Second
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return outcome{output: []byte(err.Error())}
	}
	done := make(chan struct{})
	go b.watch(cmd.Process, done)
	err = cmd.Wait()
	close(done)
	switch {
	case err == nil:
		return outcome{survived, nil}
	case ctx.Err() != nil:
		return outcome{timeout, out.Bytes()}
	}
	return outcome{killed, out.Bytes()}
}

// watch ends a process that takes too much memory: a loop that was to end may collect without end.
func (b *bench) watch(p *os.Process, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if resident(p.Pid) > b.memory {
			_ = p.Kill()
			return
		}
	}
}

// resident is the memory of a process in bytes; 0 where the system does not say it as Linux does.
func resident(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	words := bufio.NewScanner(f)
	words.Split(bufio.ScanWords)
	words.Scan()
	words.Scan() // the second is the resident set, in pages
	return int64(number(words.Text())) * int64(os.Getpagesize())
}
