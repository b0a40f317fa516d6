//go:build linux

package abuse

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// This program is also the process of an attack.
const workEnv = "ABUSE_TEST_WORK"

func TestMain(m *testing.M) {
	if os.Getenv(workEnv) == "" {
		os.Exit(m.Run())
	}
	if err := Work(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func options(t *testing.T) Options {
	t.Helper()
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Options{Bin: bin, Duration: 150 * time.Millisecond, Short: true, Worker: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), workEnv+"=1"), os.Stderr
		return cmd
	}}
}

// TestAbuses: whatever an attacker does, the honest clients lose nothing, stay connected, and others can come. How late
// their events are is not asked here, but by the long form.
func TestAbuses(t *testing.T) {
	o := options(t)
	if len(List) < 20 {
		t.Fatalf("%d abuses", len(List))
	}
	for _, a := range List {
		t.Run(a.Name, func(t *testing.T) {
			o := o
			o.Only = []string{a.Name}
			results, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			r := results[0]
			for _, failure := range r.Failures {
				t.Error(failure)
			}
			if r.With.Published == 0 || r.With.Newcomers == 0 || r.RSSPeak == 0 {
				t.Errorf("nothing was measured: %+v", r)
			}
			t.Logf("%+v", r)
		})
	}
}

// TestElsewhere: the long form also measures a pair at a node that is not attacked.
func TestElsewhere(t *testing.T) {
	o := options(t)
	o.Short, o.Only = false, []string{"forbidden-topics"}
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	m := results[0].Elsewhere
	if m.Published == 0 || m.Newcomers == 0 || m.P50 == 0 || m.Lost > 0 || m.Refused > 0 || m.Disconnected != "" || len(m.NewcomersFailed) > 0 {
		t.Errorf("%+v", m)
	}
}

func TestUnknownAbuse(t *testing.T) {
	if _, err := Run(t.Context(), Options{Only: []string{"politeness"}}); err == nil || !strings.Contains(err.Error(), "politeness") {
		t.Error(err)
	}
}

func TestJudge(t *testing.T) {
	good := Measured{Published: 100, P99: 8, Newcomers: 2}
	for _, c := range []struct {
		name   string
		change func(r *Result)
		want   string
	}{
		{"nothing", func(*Result) {}, ""},
		{"lost", func(r *Result) { r.With.Lost = 3 }, "3 events lost"},
		{"refused", func(r *Result) { r.With.Refused = 4 }, "4 publishes refused"},
		{"disconnected", func(r *Result) { r.With.Disconnected = "EOF" }, "disconnected: EOF"},
		{"newcomer", func(r *Result) { r.With.NewcomersFailed = []string{"ticket: 503"} }, "1 newcomers failed: ticket: 503"},
		{"at the ratio", func(r *Result) { r.With.P99 = 8 * MaxRatio }, ""},
		{"late", func(r *Result) { r.With.P99 = 8*MaxRatio + 0.1 }, "p99 12.10 ms, over 12.00"},
		{"as elsewhere", func(r *Result) { r.Elsewhere.P99, r.With.P99 = 12, 12*MaxRatio }, ""},
		{"later than elsewhere", func(r *Result) { r.Elsewhere.P99, r.With.P99 = 12, 12*MaxRatio+0.1 }, "p99 18.10 ms, over 18.00"},
		{"sooner than elsewhere", func(r *Result) { r.Elsewhere.P99, r.With.P99 = 1, 8*MaxRatio+0.1 }, "p99 12.10 ms, over 12.00"},
		{"at the floor", func(r *Result) { r.Without.P99, r.With.P99 = 1, milliseconds(Floor) }, ""},
		{"no attack", func(r *Result) { delete(r.Got, "ack") }, `the attacker never got "ack": no attack took place`},
	} {
		r := Result{Without: good, With: good, Got: map[string]uint64{"ack": 1}}
		c.change(&r)
		r.judge(Abuse{wants: []string{"ack"}}, true)
		if got := strings.Join(r.Failures, "; "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOverlappingPatterns(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range overlapping(honestTopic, 1000) {
		parts, topic := strings.Split(p, "."), strings.Split(honestTopic, ".")
		if seen[p] || len(parts) != len(topic) {
			t.Fatal(p)
		}
		for i := range parts {
			if parts[i] != topic[i] && parts[i] != "*" {
				t.Fatal(p)
			}
		}
		seen[p] = true
	}
}

func TestReport(t *testing.T) {
	r := Result{Name: "x", Without: Measured{P99: 1}, Elsewhere: Measured{P99: 2}, With: Measured{P99: 3, Published: 10}, Got: map[string]uint64{"ack": 1, "close 4401": 7}}
	var b strings.Builder
	if err := WriteTable(&b, []Result{r}); err != nil || !strings.Contains(b.String(), "close 4401 7, ack 1") || !strings.Contains(b.String(), "1.5") {
		t.Error(b.String(), err)
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"p99_ms":3`) {
		t.Error(string(text), err)
	}
}
