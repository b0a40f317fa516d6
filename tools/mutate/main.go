// Mutate plants small mistakes in a package, one at a time, and says which of them its tests do not notice:
//
//	go run ./tools/mutate [--n 150] [--seed 1] [--min 95] [--json FILE] PACKAGE…
//
// A mistake ("mutant") is one comparison, operator, constant, condition, returned value, case or statement that is
// changed or left out. Each is compiled with "go test -overlay", so the tree is not touched, and runs first against the
// tests that reach its line, the fastest before the others, then against all tests of the package. It is killed when a
// test fails, runs out of time or out of memory. A mutant that does not compile is not counted.
//
// Some mutants change nothing that anyone could see. They stand with the reason in testdata/mutants.txt of the package,
// and are not counted either; equivalents.go says how.
//
// The exit code is 1 if fewer than --min percent of the mutants of a package are killed, or if a list of equivalents
// names mutants that do not exist.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

type options struct {
	packages   []string
	n          int
	seed       uint64
	min        float64
	workers    int
	timeout    time.Duration
	memory     int64 // bytes
	short      bool
	only       *regexp.Regexp
	again      string
	json       string
	list       bool
	equivalent bool
	out        io.Writer
	progress   io.Writer
}

// errMin is what too few killed mutants are. The summary has said it already.
var errMin = errors.New("too few mutants were killed")

func main() {
	o := options{out: os.Stdout, progress: os.Stderr}
	memory, only := 0, ""
	flag.IntVar(&o.n, "n", 0, "how many mutants of each package to test, chosen at random; 0: all")
	flag.Uint64Var(&o.seed, "seed", 1, "which ones are chosen; the same seed chooses the same")
	flag.Float64Var(&o.min, "min", 0, "exit with code 1 if fewer `percent` of a package's mutants are killed")
	flag.IntVar(&o.workers, "workers", 2, "mutants at a time")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "how long the tests may run on one mutant; less where they are much faster without it")
	flag.IntVar(&memory, "memory", 2048, "how many `MiB` the tests may take on one mutant (Linux)")
	flag.BoolVar(&o.short, "short", true, "run the tests with -short")
	flag.StringVar(&only, "only", "", "test only mutants whose line in the report matches this `regexp`")
	flag.StringVar(&o.again, "again", "", "test only those that survived in this `file` of an earlier --json")
	flag.StringVar(&o.json, "json", "", "write every mutant and what became of it to this `file`")
	flag.BoolVar(&o.list, "list", false, "print the mutants and test none")
	flag.BoolVar(&o.equivalent, "equivalent", false, "test the mutants that are listed as equivalent: none should be killed")
	flag.Parse()
	o.packages, o.memory = flag.Args(), int64(memory)<<20
	var err error
	if o.only, err = regexp.Compile(only); err != nil || len(o.packages) == 0 || o.workers < 1 {
		fmt.Fprintln(os.Stderr, "usage: go run ./tools/mutate [flags] PACKAGE…", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// report is what became of the mutants of one package.
type report struct {
	Package    string    `json:"package"`
	Seed       uint64    `json:"seed"`
	Total      int       `json:"total"`      // all that there are, equivalents included
	Equivalent int       `json:"equivalent"` // listed as such
	Unbuilt    int       `json:"unbuilt"`    // of those tried, which did not compile
	Tested     int       `json:"tested"`
	Killed     int       `json:"killed"`
	Timeouts   int       `json:"timeouts"` // of those killed
	Survived   int       `json:"survived"`
	Percent    float64   `json:"percent"`
	Seconds    float64   `json:"seconds"`
	Mutants    []*mutant `json:"mutants"` // those tested, in the order of the files
}

func run(ctx context.Context, o options) error {
	before, err := survivorsOf(o.again)
	if err != nil {
		return err
	}
	var reports []*report
	var failed error
	for _, pattern := range o.packages {
		p, err := load(ctx, pattern)
		if err != nil {
			return err
		}
		r, err := measure(ctx, o, p, before)
		if err != nil {
			return fmt.Errorf("%s: %w", p.ImportPath, err)
		}
		if o.list {
			continue
		}
		reports = append(reports, r)
		if r.summary(o.out); r.Percent < o.min {
			failed = errMin
		}
		if o.equivalent && r.Killed > 0 {
			failed = errors.New("mutants that are listed as equivalent were killed")
		}
	}
	if o.json != "" {
		text, err := json.MarshalIndent(reports, "", "  ")
		if err == nil {
			err = os.WriteFile(o.json, append(text, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return failed
}

// survivorsOf reads the mutants that survived an earlier run, by package and key; nil without a file.
func survivorsOf(file string) (map[string]bool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var reports []report
	if err := json.Unmarshal(text, &reports); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	survivors := map[string]bool{}
	for _, r := range reports {
		for _, m := range r.Mutants {
			if m.Status == survived {
				survivors[r.Package+" "+m.Key] = true
			}
		}
	}
	return survivors, nil
}

// measure tests the chosen mutants of one package.
func measure(ctx context.Context, o options, p *pkg, before map[string]bool) (*report, error) {
	all := p.mutants()
	listed, err := readEquivalents(p.Dir, all)
	if err != nil {
		return nil, err
	}
	r := &report{Package: p.ImportPath, Seed: o.seed, Total: len(all), Equivalent: len(listed)}
	var chosen []*mutant
	for _, i := range rand.New(rand.NewPCG(o.seed, 0)).Perm(len(all)) {
		m := all[i]
		if listed[m.Key] == o.equivalent && o.only.MatchString(m.Key) && (before == nil || before[p.ImportPath+" "+m.Key]) {
			chosen = append(chosen, m)
		}
	}
	if o.list {
		slices.SortFunc(chosen, byPlace)
		for _, m := range chosen {
			_, _ = fmt.Fprintf(o.out, "%s:%d %s\n", p.Name, m.Line, m.Key)
		}
		return r, nil
	}
	began := time.Now()
	b, err := newBench(ctx, o, p)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := r.test(ctx, o, b, chosen); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// test runs mutants in the order in which they were chosen until enough were built. No more are begun than could be
// needed, so the same seed tests the same ones, however many do not compile.
func (r *report) test(ctx context.Context, o options, b *bench, chosen []*mutant) error {
	want := len(chosen)
	if o.n > 0 {
		want = min(want, o.n)
	}
	var (
		mu      sync.Mutex
		changed = sync.NewCond(&mu)
		next    int
		running int
		failure error
		workers sync.WaitGroup
	)
	take := func() *mutant {
		mu.Lock()
		defer mu.Unlock()
		for failure == nil && next < len(chosen) && r.Tested+running >= want && r.Tested < want {
			changed.Wait()
		}
		if failure != nil || next == len(chosen) || r.Tested+running >= want {
			return nil
		}
		running++
		next++
		return chosen[next-1]
	}
	for range o.workers {
		workers.Go(func() {
			for m := take(); m != nil; m = take() {
				err := b.try(ctx, m)
				mu.Lock()
				running--
				if err != nil && failure == nil {
					failure = err
				}
				r.count(m)
				if m.Status != unbuilt {
					_, _ = fmt.Fprintf(o.progress, "%d/%d %s: %s:%d %s\n", r.Tested, want, m.Status, b.pkg.Name, m.Line, m.Key)
				}
				changed.Broadcast()
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	slices.SortFunc(r.Mutants, byPlace)
	r.Percent = 100
	if r.Tested > 0 {
		r.Percent = 100 * float64(r.Killed) / float64(r.Tested)
	}
	return failure
}

func (r *report) count(m *mutant) {
	switch m.Status {
	case unbuilt:
		r.Unbuilt++
		return
	case timeout:
		r.Timeouts++
		r.Killed++
	case killed:
		r.Killed++
	case survived:
		r.Survived++
	default:
		return // the run ended before this one did
	}
	r.Tested++
	r.Mutants = append(r.Mutants, m)
}

// summary prints the survivors and the counts.
func (r *report) summary(w io.Writer) {
	for _, m := range r.Mutants {
		if m.Status == survived {
			why := ""
			if m.Unreached {
				why = " (no test reaches it)"
			}
			_, _ = fmt.Fprintf(w, "survived: line %d%s\n\t%s\n", m.Line, why, m.Key)
		}
	}
	_, _ = fmt.Fprintf(w, "%s: %.1f %% of %d mutants killed: %d killed (%d by time), %d survived; of %d in all %d are listed as equivalent, %d of those tried did not compile; seed %d; %.0f s\n",
		r.Package, r.Percent, r.Tested, r.Killed, r.Timeouts, r.Survived, r.Total, r.Equivalent, r.Unbuilt, r.Seed, r.Seconds)
}
