package main

import (
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module makes a module of one package and goes there.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.org/a\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func loadHere(t *testing.T) *pkg {
	t.Helper()
	p, err := load(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMutants(t *testing.T) {
	for _, c := range []struct {
		name, code string
		want       []string // without "a.go f: "
	}{
		{"a comparison is negated and its boundary moved", "func f(n, m int) {\n\t_ = n < m\n}", []string{
			"_ = n < m => _ = n <= m",
			"_ = n < m => _ = n >= m",
		}},
		{"a constant beside a comparison moves the other way", "func f(n int) {\n\tfor n > 3 {\n\t}\n\tfor 3 >= n {\n\t}\n\tfor n == 3 {\n\t}\n}", []string{
			"for n > 3 { => for n >= 3 {",
			"for n > 3 { => for n <= 3 {",
			"for n > 3 { => for n > 4 {",
			"for 3 >= n { => for 3 > n {",
			"for 3 >= n { => for 3 < n {",
			"for 3 >= n { => for 4 >= n {",
			"for n == 3 { => for n != 3 {",
			"for n == 3 { => for n == 4 {",
			"for n == 3 { => for n == 2 {",
		}},
		{"each side of && and || is left out once", "func f(a, b, c bool) {\n\tif a && b && c {\n\t}\n\tif a || b {\n\t}\n}", []string{
			"if a && b && c { => if true && b && c {",
			"if a && b && c { => if a && true && c {",
			"if a && b && c { => if a && b && true {",
			"if a || b { => if false || b {",
			"if a || b { => if a || false {",
		}},
		{"conditions without an operator are negated", "func f(a bool) {\n\tif a {\n\t}\n\tif !a {\n\t}\n\tswitch {\n\tcase a:\n\t}\n}", []string{
			"if a { => if !(a) {",
			"if !a { => if a {",
			"case a: => (left out)",
			"case a: => case !(a):",
		}},
		{"arithmetic, but not of strings", "func f(n int, s string) {\n\tn = n + n\n\ts = s + s\n\tn <<= n\n\ts += s\n\tn--\n}", []string{
			"n = n + n => n = n - n",
			"n = n + n => (left out)",
			"s = s + s => (left out)",
			"n <<= n => n >>= n",
			"n <<= n => (left out)",
			"s += s => (left out)",
			"n-- => n++",
			"n-- => (left out)",
		}},
		{"constants, but no capacities", "func f() {\n\t_ = make([]int, 2, 8)\n\t_ = 'a'\n\t_ = true\n}", []string{
			"_ = make([]int, 2, 8) => (left out)",
			"_ = make([]int, 2, 8) => _ = make([]int, 3, 8)",
			"_ = make([]int, 2, 8) => _ = make([]int, 1, 8)",
			"_ = 'a' => _ = 'a'+1",
			"_ = true => _ = false",
		}},
		{"statements are left out", "func f(c chan int) {\n\tgo f(c)\n\tdefer f(c)\n\tf(c)\n\tc <- min(len(c), cap(c))\n\tfor {\n\t\tbreak\n\t}\n}", []string{
			"go f(c) => (left out)",
			"defer f(c) => (left out)",
			"f(c) => (left out)",
			"c <- min(len(c), cap(c)) => (left out)",
			"c <- min(len(c), cap(c)) => c <- max(len(c), cap(c))",
			"break => (left out)",
		}},
		{"a return is left out or returns zeros", "func f(n int) (int, error) {\n\tif _, err := f(n); err != nil {\n\t\treturn n, err\n\t}\n\treturn f(n)\n}", []string{
			"if _, err := f(n); err != nil { => if _, err := f(n); err == nil {",
			"return n, err => (left out)",
			"return n, err => return zero, err",
			"return n, err => return n, zero",
			"return f(n) => (left out)",
			"return f(n) => return zero",
		}},
		{"a constant beside an error that may be nil is looked at", "func f(n int) (int, error) {\n\tvar err error\n\treturn 3, err\n}", []string{
			"return 3, err => (left out)",
			"return 3, err => return 4, err",
			"return 3, err => return 2, err",
			"return 3, err => return 3, zero",
		}},
		{"a constant beside an error or false is not", "var sentinel error\n\nfunc f(n int) (int, error) {\n\tif err := sentinel; err != nil {\n\t\treturn 3, err\n\t}\n\treturn 3, sentinel\n}\n\nfunc g(n int) (int, bool) {\n\treturn 3, false\n}", []string{
			"if err := sentinel; err != nil { => if err := sentinel; err == nil {",
			"return 3, err => (left out)",
			"return 3, err => return 3, zero",
			"return 3, sentinel => (left out)",
			"return 3, sentinel => return 3, zero",
			"a.go g: return 3, false => return 3, true",
			"a.go g: return 3, false => (left out)",
		}},
		{"what is computed beside an error is looked at", "var sentinel error\n\nfunc f(n int) (int, error) {\n\treturn n + 1, sentinel\n}", []string{
			"return n + 1, sentinel => (left out)",
			"return n + 1, sentinel => return n - 1, sentinel",
			"return n + 1, sentinel => return n + 2, sentinel",
			"return n + 1, sentinel => return n + 0, sentinel",
			"return n + 1, sentinel => return zero, sentinel",
			"return n + 1, sentinel => return n + 1, zero",
		}},
		{"labels of a case", "func f(n any, c byte) {\n\tswitch c {\n\tcase 'a', 'b':\n\t}\n\tswitch n.(type) {\n\tcase int:\n\t}\n}", []string{
			"case 'a', 'b': => case 'b':",
			"case 'a', 'b': => case 'a':",
			"case 'a', 'b': => case 'a'+1, 'b':",
			"case 'a', 'b': => case 'a', 'b'+1:",
			"case int: => (left out)",
		}},
		{"comments are not part of the key", "func f() {\n\tf() // again\n\tf()\n}", []string{
			"f() => (left out)",
			"f() => (left out) #2",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			module(t, map[string]string{"a.go": "package a\n\n" + c.code + "\n"})
			p := loadHere(t)
			var got []string
			for _, m := range p.mutants() {
				got = append(got, strings.TrimPrefix(m.Key, "a.go f: "))
				text := string(m.source.text[:m.from]) + m.text + string(m.source.text[m.until:])
				if _, err := format.Source([]byte(text)); err != nil {
					t.Errorf("%s is no Go: %v\n%s", m.Key, err, text)
				}
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(c.want, "\n\t"))
			}
		})
	}
}

func TestNamesInKeys(t *testing.T) {
	module(t, map[string]string{"a.go": "package a\n\nconst limit = 2\n\ntype s[T any] struct{}\n\nfunc (*s[T]) f() int { return 2 }\n"})
	var got []string
	for _, m := range loadHere(t).mutants() {
		name, _, _ := strings.Cut(m.Key, ": ")
		got = append(got, name)
	}
	if want := []string{"a.go limit", "a.go limit", "a.go s.f", "a.go s.f", "a.go s.f"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEquivalents(t *testing.T) {
	one, two := &mutant{Key: "a.go f: a => b"}, &mutant{Key: "a.go f: b => c"}
	for _, c := range []struct {
		text, want string // of the error
		listed     int
	}{
		{"# all\n\nOne reason.\n\ta.go f: a => b\n\nAnother one,\nin two lines.\n\ta.go f: b => c\n", "", 2},
		{"", "", 0},
		{"\ta.go f: a => b\n", ":1: no reason", 0},
		{"Reason.\n\n\ta.go f: a => b\n", ":3: no reason", 0},
		{"Reason.\n\ta.go f: x => y\n", ":2: there is no such mutant", 0},
		{"Reason.\n\ta.go f: a => b\n\ta.go f: a => b\n", ":3: this mutant stands there twice", 0},
		{"Reason.\n\ta.go f: a => b\nReason.\n\ta.go f: b => c\n", ":3: an empty line", 0},
	} {
		module(t, map[string]string{"testdata/mutants.txt": c.text})
		listed, err := readEquivalents(".", []*mutant{one, two})
		if c.want == "" && (err != nil || len(listed) != c.listed) {
			t.Errorf("%q: %v, %v", c.text, listed, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		}
	}
	module(t, map[string]string{})
	if listed, err := readEquivalents(".", []*mutant{one}); err != nil || len(listed) != 0 {
		t.Errorf("without a file: %v, %v", listed, err)
	}
}
