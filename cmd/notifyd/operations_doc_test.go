//go:build linux

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/authz"
)

// docs/operations.md lists the metrics that a node serves, with their types, and no others.
func TestOperationsDocListsMetrics(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(notifyd_[a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(text), -1) {
		listed = append(listed, m[1]+" "+m[2])
	}

	_, body := serveHere(t, "--dev", `--streams=[{"name":"a","topics":"a","max_per_topic":1}]`).get(t, "/metrics")
	var served []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE notifyd_"); ok {
			served = append(served, "notifyd_"+strings.TrimSpace(name))
		}
	}
	slices.Sort(listed)
	slices.Sort(served)
	if !slices.Equal(listed, served) {
		t.Errorf("listed: %q\nserved: %q", listed, served)
	}
}

// And the reasons for which tokens are refused.
func TestOperationsDocListsReasons(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(text), "\n| `notifyd_tokens_refused_total` |")
	row, _, _ = strings.Cut(row, "\n")
	for _, r := range authz.Reasons() {
		if !strings.Contains(row, "`"+r.String()+"`") {
			t.Errorf("%q is not listed", r)
		}
	}
}
