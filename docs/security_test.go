package docs

import (
	"regexp"
	"strings"
	"testing"
)

var (
	limitKey = regexp.MustCompile("(?m)^\\| `(limits\\.[a-z_]+)` \\|")
	testName = regexp.MustCompile("`(Test[A-Z]\\w+)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// The security model says what each limit stops, and the tests that it names exist.
func TestSecurityModel(t *testing.T) {
	model := read(t, "docs/security-model.md")
	keys := submatches(limitKey, read(t, "docs/configuration.md"))
	if len(keys) < 10 {
		t.Fatalf("%d limits in docs/configuration.md", len(keys))
	}
	for _, key := range keys {
		if !strings.Contains(model, "`"+key+"`") {
			t.Errorf("docs/security-model.md does not mention %s", key)
		}
	}
	exist := map[string]bool{}
	for _, file := range tree(t, "_test.go") {
		for _, name := range submatches(testFunc, read(t, file)) {
			exist[name] = true
		}
	}
	named := submatches(testName, model)
	if len(named) < 20 {
		t.Fatalf("docs/security-model.md names %d tests", len(named))
	}
	for _, name := range named {
		if !exist[name] {
			t.Errorf("docs/security-model.md names the test %s, which does not exist", name)
		}
	}
}
