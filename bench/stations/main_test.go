package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// repository has a module with a benchmark, and one commit.
func repository(t *testing.T) (dir string, do func(args ...string) string) {
	dir = t.TempDir()
	do = func(args ...string) string {
		t.Helper()
		out, err := git(t.Context(), dir, append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	do("init", "--quiet")
	write(t, dir, "go.mod", "module example.org/a\n\ngo 1.26\n")
	write(t, dir, "a_test.go", benchmark("Old"))
	do("add", ".")
	do("commit", "--quiet", "-m", "a")
	return dir, do
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func benchmark(name string) string {
	return "package a\n\nimport \"testing\"\n\nfunc Benchmark" + name + "(b *testing.B) { for b.Loop() {} }\n"
}

func stationsOf(dir string, out io.Writer, compare ...string) options {
	return options{dir: dir, bench: ".", packages: ".,gone", count: 2, benchtime: "1x", compare: compare, out: out, progress: io.Discard}
}

func TestBeforeAnyTag(t *testing.T) {
	dir, _ := repository(t)
	var out bytes.Buffer
	if err := run(t.Context(), stationsOf(dir, &out, "sh", "-c", `echo "$@"; cat "${1#*=}"`, "sh")); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if !strings.Contains(got, "no tag yet") || strings.Contains(got, "old.txt") || strings.Count(got, "BenchmarkOld") != 2 {
		t.Errorf("%s", got)
	}
}

func TestAgainstTheLastTag(t *testing.T) {
	dir, do := repository(t)
	do("tag", "-a", "v0.0.9", "-m", "a")
	do("commit", "--quiet", "--allow-empty", "-m", "b")
	do("tag", "-a", "v0.1.0", "-m", "b")
	write(t, dir, "a_test.go", benchmark("New")) // not even committed
	var out bytes.Buffer
	if err := run(t.Context(), stationsOf(dir, &out, "sh", "-c", `echo "$1"; cat "${1#*=}"; echo "$2"; cat "${2#*=}"`, "sh")); err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(out.String(), "new=")
	if !strings.HasPrefix(before, "v0.1.0=") || strings.Count(before, "BenchmarkOld") != 2 || strings.Contains(before, "BenchmarkNew") ||
		strings.Count(after, "BenchmarkNew") != 2 {
		t.Errorf("%s", out.String())
	}
	tidy(t, do)
}

// TestNothingStaysBehind when it does not go well.
func TestNothingStaysBehind(t *testing.T) {
	dir, do := repository(t)
	do("tag", "-a", "v0.1.0", "-m", "a")
	write(t, dir, "a_test.go", "package a\n\nnonsense\n")
	if err := run(t.Context(), stationsOf(dir, io.Discard, "true")); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v", err)
	}
	tidy(t, do)

	// A run that never ends is interrupted once the first build is there.
	write(t, dir, "a_test.go", benchmark("New"))
	o := stationsOf(dir, io.Discard, "true")
	ctx, cancel := context.WithCancel(t.Context())
	o.count, o.progress = 1<<30, writer(cancel)
	if err := run(ctx, o); err == nil {
		t.Error("ended by itself")
	}
	tidy(t, do)
	o = stationsOf(dir, io.Discard, "true")
	if o.base = "nowhere"; run(t.Context(), o) == nil {
		t.Error("compared with nothing")
	}
	tidy(t, do)
}

type writer func()

func (w writer) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("round")) {
		w()
	}
	return len(p), nil
}

func tidy(t *testing.T, do func(args ...string) string) {
	t.Helper()
	if trees := do("worktree", "list"); strings.Contains(trees, "\n") {
		t.Errorf("worktrees:\n%s", trees)
	}
}
