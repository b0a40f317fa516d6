package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const code = `package a

func less(a, b int) bool { return a < b }

func apart(n int) int {
	return n * 1
}

func untested(n int) bool { return n > 3 }

func endless() {
	for n := 0; n < 3; n++ {
	}
}
`

const codeTest = `package a

import "testing"

func TestLess(t *testing.T) {
	if !less(1, 2) || less(2, 1) {
		t.Error("less")
	}
	endless()
}

func TestApart(t *testing.T) {
	if apart(3) != 3 {
		t.Error("apart")
	}
}
`

func here() options {
	return options{packages: []string{"."}, seed: 1, workers: 2, timeout: time.Minute, memory: 2 << 30, short: true, only: regexp.MustCompile(""), out: io.Discard, progress: io.Discard}
}

// TestRun plants mistakes in a package of its own, whose tests notice some.
func TestRun(t *testing.T) {
	module(t, map[string]string{"a.go": code, "a_test.go": codeTest, "testdata/mutants.txt": "Division by one.\n\ta.go apart: return n * 1 => return n / 1\n"})
	o := here()
	o.json = filepath.Join(t.TempDir(), "mutants.json")
	o.only = regexp.MustCompile("^a.go (less|apart|untested):|n--")
	var out bytes.Buffer
	o.out = &out
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var reports []report
	if err := json.Unmarshal(text, &reports); err != nil {
		t.Fatal(err)
	}
	got := map[string]status{}
	for _, m := range reports[0].Mutants {
		got[m.Key] = m.Status
		if m.Unreached != strings.Contains(m.Key, "untested") {
			t.Errorf("%s: unreached %v", m.Key, m.Unreached)
		}
		if m.Status == killed && m.Test == "" {
			t.Errorf("%s: which test noticed?", m.Key)
		}
	}
	want := map[string]status{
		"a.go less: func less(a, b int) bool { return a < b } => func less(a, b int) bool { return a <= b }":       survived,
		"a.go less: func less(a, b int) bool { return a < b } => func less(a, b int) bool { return a >= b }":       killed,
		"a.go less: func less(a, b int) bool { return a < b } => func less(a, b int) bool { return zero }":         killed,
		"a.go apart: return n * 1 => return n * 2":                                                                 killed,
		"a.go apart: return n * 1 => return n * 0":                                                                 killed,
		"a.go apart: return n * 1 => return zero":                                                                  killed,
		"a.go untested: func untested(n int) bool { return n > 3 } => func untested(n int) bool { return n >= 3 }": survived,
		"a.go untested: func untested(n int) bool { return n > 3 } => func untested(n int) bool { return n <= 3 }": survived,
		"a.go untested: func untested(n int) bool { return n > 3 } => func untested(n int) bool { return n > 4 }":  survived,
		"a.go untested: func untested(n int) bool { return n > 3 } => func untested(n int) bool { return zero }":   survived,
		"a.go endless: for n := 0; n < 3; n++ { => for n := 0; n < 3; n-- {":                                       timeout,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if r := reports[0]; r.Tested != len(want) || r.Killed != 6 || r.Timeouts != 1 || r.Survived != 5 || r.Equivalent != 1 || r.Unbuilt == 0 {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"54.5 % of 11 mutants killed", "survived: line 3\n", "(no test reaches it)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}

	again := here()
	again.again, again.min = o.json, 1
	out.Reset()
	again.out = &out
	if err := run(t.Context(), again); !errors.Is(err, errMin) || !strings.Contains(out.String(), "0.0 % of 5 mutants killed") {
		t.Errorf("those that survived, once more: %v\n%s", err, out.String())
	}
}

// TestSeed chooses the same mutants with the same seed, and as many as were asked for although some do not compile.
func TestSeed(t *testing.T) {
	module(t, map[string]string{"a.go": strings.ReplaceAll(code, "n++", "n += 1"), "a_test.go": codeTest})
	chosen := func(seed uint64) string {
		var keys []string
		o := here()
		o.seed, o.n, o.only = seed, 3, regexp.MustCompile("less|apart|untested")
		p := loadHere(t)
		r, err := measure(t.Context(), o, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Tested != o.n {
			t.Errorf("%d tested, want %d", r.Tested, o.n)
		}
		for _, m := range r.Mutants {
			keys = append(keys, m.Key)
		}
		return strings.Join(keys, "\n")
	}
	first := chosen(1)
	if again := chosen(1); again != first {
		t.Errorf("seed 1 chose\n%s\nand then\n%s", first, again)
	}
	if chosen(2) == first && chosen(3) == first {
		t.Error("the seed changes nothing")
	}
}

// TestEquivalentMutantIsKilled finds an entry of the list that is wrong.
func TestEquivalentMutantIsKilled(t *testing.T) {
	module(t, map[string]string{"a.go": code, "a_test.go": codeTest, "testdata/mutants.txt": "It is not.\n\ta.go apart: return n * 1 => return n * 2\n"})
	o := here()
	o.equivalent = true
	if err := run(t.Context(), o); err == nil {
		t.Error("an equivalent mutant was killed, and nothing is said")
	}
}

// TestFailingTests are no ground to measure anything on.
func TestFailingTests(t *testing.T) {
	module(t, map[string]string{"a.go": strings.Replace(code, "a < b", "a > b", 1), "a_test.go": codeTest})
	if err := run(t.Context(), here()); err == nil || !strings.Contains(err.Error(), "TestLess") {
		t.Errorf("%v", err)
	}
}

func TestMemory(t *testing.T) {
	if resident(os.Getpid()) == 0 {
		t.Skip("this system does not say how much memory a process has")
	}
	grow := "package a\n\nvar all [][]byte\n\nfunc collect() {\n\tfor n := 0; n < 3; n++ {\n\t\tall = append(all, make([]byte, 1<<20))\n\t}\n}\n"
	module(t, map[string]string{"a.go": grow, "a_test.go": "package a\n\nimport \"testing\"\n\nfunc TestCollect(t *testing.T) { collect() }\n"})
	o := here()
	o.only, o.min, o.memory = regexp.MustCompile("n--"), 100, 64<<20
	var out bytes.Buffer
	o.out = &out
	if err := run(t.Context(), o); err != nil || !strings.Contains(out.String(), "1 killed (0 by time)") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestTheFastestTestsAreFirst(t *testing.T) {
	b := &bench{took: map[string]time.Duration{"a": 60, "b": 4, "c": 5, "d": 31, "e": 1}}
	for _, c := range []struct{ tests, fast, slow []string }{
		{[]string{"a", "b", "c", "d"}, []string{"b", "c"}, []string{"d", "a"}},
		{[]string{"a", "e"}, []string{"e"}, []string{"a"}},
		{[]string{"a"}, nil, []string{"a"}},
		{nil, nil, nil},
	} {
		if fast, slow := b.byTime(c.tests); !slices.Equal(fast, c.fast) || !slices.Equal(slow, c.slow) {
			t.Errorf("%v: %v first, then %v, want %v, then %v", c.tests, fast, slow, c.fast, c.slow)
		}
	}
}

func TestLimitOfATestRun(t *testing.T) {
	b := &bench{timeout: time.Minute, took: map[string]time.Duration{"a": time.Second, "b": 2 * time.Second, "c": time.Hour}}
	for _, c := range []struct {
		tests []string
		want  time.Duration
	}{
		{[]string{"a"}, slack + 10*time.Second},
		{[]string{"a", "b"}, slack + 30*time.Second},
		{[]string{"a", "c"}, time.Minute},
	} {
		if got := b.limit(c.tests); got != c.want {
			t.Errorf("%v may run for %v, want %v", c.tests, got, c.want)
		}
	}
}
