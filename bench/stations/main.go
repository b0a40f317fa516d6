// Stations runs the Go benchmarks that stand beside the code of each station of a message's path, and compares them with
// those of the last tag or of another revision:
//
//	go run ./bench stations [--base REVISION] [--count 10] [--benchtime 100ms] [--bench REGEXP] [--packages wire,…]
//
// Both are built first, the old ones from a worktree that is removed afterwards; then they take turns, so that other work
// of the machine slows both down. benchstat compares. Without a tag and without --base there is nothing to compare with:
// the figures of the working tree are printed alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const benchstat = "golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da"

// stations are the packages that the path leads through.
const stations = "wire,authz,bus,server,server/loop"

type options struct {
	dir                   string // in the working tree
	base, bench, packages string
	count                 int
	benchtime             string
	compare               []string  // the command that compares
	out                   io.Writer // where that is printed
	progress              io.Writer
}

func main() {
	o := options{dir: ".", compare: []string{"go", "run", benchstat}, out: os.Stdout, progress: os.Stderr}
	flag.StringVar(&o.base, "base", "", "the `revision` to compare with; empty: the last tag, if there is one")
	flag.StringVar(&o.bench, "bench", ".", "which benchmarks, a `regexp`")
	flag.StringVar(&o.packages, "packages", stations, "which packages, a `list`")
	flag.IntVar(&o.count, "count", 10, "rounds")
	flag.StringVar(&o.benchtime, "benchtime", "100ms", "how long each benchmark runs in a round")
	flag.Parse()
	// A signal must not leave the worktree behind; the children get it, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stations:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	root, err := git(ctx, o.dir, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if o.base == "" {
		if o.base, err = git(ctx, root, "describe", "--tags", "--abbrev=0"); err != nil && ctx.Err() == nil {
			o.base = ""
			_, _ = fmt.Fprintln(o.out, "There is no tag yet to compare with: these are the present figures alone.")
		}
	}
	dir, err := os.MkdirTemp("", "notifyd-stations-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var sides []*side
	if o.base != "" {
		tree := filepath.Join(dir, "tree")
		if _, err := git(ctx, root, "worktree", "add", "--quiet", "--detach", tree, o.base); err != nil {
			return err
		}
		defer func() {
			_, gone := git(context.Background(), root, "worktree", "remove", "--force", tree)
			err = errors.Join(err, gone)
		}()
		sides = append(sides, &side{name: "old", tree: tree})
	}
	sides = append(sides, &side{name: "new", tree: root})
	for _, s := range sides {
		if err := s.build(ctx, o, dir); err != nil {
			return err
		}
	}
	for round := range o.count {
		_, _ = fmt.Fprintf(o.progress, "round %d of %d\n", round+1, o.count)
		for i := range sides {
			s := sides[(round+i)%len(sides)] // the sides take turns at going first, too
			if err := s.measure(ctx, o); err != nil {
				return err
			}
		}
	}
	return compare(ctx, o, dir, sides)
}

// side is the benchmarks of one state of the code.
type side struct {
	name, tree string
	programs   []program
	results    []byte
}

type program struct{ path, dir string }

// build compiles the benchmarks of each package that has tests.
func (s *side) build(ctx context.Context, o options, dir string) error {
	for pkg := range strings.SplitSeq(o.packages, ",") {
		in := filepath.Join(s.tree, pkg)
		tests, err := filepath.Glob(filepath.Join(in, "*_test.go"))
		if err != nil {
			return err
		}
		if len(tests) == 0 {
			_, _ = fmt.Fprintf(o.progress, "%s: %s has no tests\n", s.name, pkg)
			continue
		}
		p := program{filepath.Join(dir, s.name+"-"+strings.ReplaceAll(pkg, "/", "-")+".test"), in}
		if _, err := output(ctx, in, "go", "test", "-c", "-o", p.path, "."); err != nil {
			return err
		}
		s.programs = append(s.programs, p)
	}
	return nil
}

// measure runs every benchmark once.
func (s *side) measure(ctx context.Context, o options) error {
	for _, p := range s.programs {
		out, err := output(ctx, p.dir, p.path, "-test.run", "^$", "-test.bench", o.bench, "-test.benchmem", "-test.benchtime", o.benchtime, "-test.timeout", "10m")
		if err != nil {
			return err
		}
		s.results = append(s.results, out...)
	}
	return nil
}

// compare prints what benchstat makes of it, package by package.
func compare(ctx context.Context, o options, dir string, sides []*side) error {
	args := o.compare[1:]
	for _, s := range sides {
		path := filepath.Join(dir, s.name+".txt")
		if err := os.WriteFile(path, s.results, 0o600); err != nil {
			return err
		}
		title := s.name
		if s.name == "old" {
			title = o.base
		}
		args = append(args, title+"="+path)
	}
	out, err := output(ctx, dir, o.compare[0], args...)
	if err == nil {
		_, err = o.out.Write(out)
	}
	return err
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := output(ctx, dir, "git", args...)
	return strings.TrimSpace(string(out)), err
}

// output runs a program and gives what it prints, or why it failed.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, complaints.String(), out)
	}
	return out, nil
}
