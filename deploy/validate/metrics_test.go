package validate

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// A metric is one that a node has at /metrics: its type, and the values of its labels where docs/operations.md names them.
type metric struct {
	kind   string
	labels map[string][]string
}

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(notifyd_[a-z_]+)` \\| ([a-z]+) \\|(.*?)\\| ")
	labelName = regexp.MustCompile("`([a-z]+)`(?:: (`[^:]*`))?")
	labelText = regexp.MustCompile("`([a-z_]+)`")
)

// served are the metrics that docs/operations.md lists, which a test of cmd/notifyd compares with those of a node, and
// those of every process that are used here.
func served(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]metric{
		"up": {kind: "gauge"}, "process_start_time_seconds": {kind: "gauge"}, "process_resident_memory_bytes": {kind: "gauge"},
		"process_open_fds": {kind: "gauge"}, "process_max_fds": {kind: "gauge"}, "process_cpu_seconds_total": {kind: "counter"},
	}
	for _, row := range metricRow.FindAllStringSubmatch(string(text), -1) {
		m := metric{row[2], map[string][]string{}}
		for _, label := range labelName.FindAllStringSubmatch(row[3], -1) {
			m.labels[label[1]] = nil
			for _, value := range labelText.FindAllStringSubmatch(label[2], -1) {
				m.labels[label[1]] = append(m.labels[label[1]], value[1])
			}
			if strings.Contains(row[3], "code") {
				m.labels[label[1]] = nil // any code of the protocol
			}
		}
		all[row[1]] = m
		switch m.kind {
		case "histogram":
			m.labels["le"] = nil
			all[row[1]+"_bucket"] = metric{"counter", m.labels}
			fallthrough
		case "summary":
			all[row[1]+"_sum"], all[row[1]+"_count"] = metric{"counter", m.labels}, metric{"counter", m.labels}
			delete(all, row[1])
		}
	}
	if len(all) < 50 || !slices.Equal(all["notifyd_stream_stores_total"].labels["result"], []string{"stored", "duplicate", "refused", "timeout"}) {
		t.Fatalf("docs/operations.md was not understood: %d metrics", len(all))
	}
	return all
}

// overTime are the functions for counters. changes is for gauges alone.
var overTime = []string{"rate", "increase"}

// examine says what is wrong with an expression: it is none, a metric does not exist or has no such label, a counter is not
// looked at over time.
func examine(expr string, all map[string]metric) error {
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return err
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var known []string // labels of what stands in it
	parser.Inspect(e, func(node parser.Node, above []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, ok := all[s.Name]
		if !ok {
			wrong("no metric %s", s.Name)
			return nil
		}
		for name := range m.labels {
			known = append(known, name)
		}
		for _, matcher := range s.LabelMatchers {
			values, ok := m.labels[matcher.Name]
			switch {
			case slices.Contains([]string{"__name__", "job", "instance"}, matcher.Name):
			case !ok:
				wrong("%s has no label %s", s.Name, matcher.Name)
			case values == nil:
			case (matcher.Type == labels.MatchEqual || matcher.Type == labels.MatchRegexp) && !slices.ContainsFunc(values, matcher.Matches):
				wrong("%s has no %s %s", s.Name, matcher.Name, matcher.Value)
			}
		}
		over := slices.ContainsFunc(above, func(n parser.Node) bool {
			call, ok := n.(*parser.Call)
			return ok && slices.Contains(overTime, call.Func.Name)
		})
		if over != (m.kind == "counter") {
			wrong("%s is a %s; over time: %v", s.Name, m.kind, over)
		}
		return nil
	})
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if a, ok := node.(*parser.AggregateExpr); ok {
			for _, name := range a.Grouping {
				if !slices.Contains(known, name) && name != "job" && name != "instance" {
					wrong("nothing in it has a label %s", name)
				}
			}
		}
		return nil
	})
	return errors.Join(errs...)
}

// Each of these mistakes would be found.
func TestExamine(t *testing.T) {
	all := served(t)
	for _, good := range []string{
		`sum by (stream) (rate(notifyd_stream_stores_total{result="timeout", job="x"}[5m])) > 0`,
		`histogram_quantile(0.99, sum by (le) (rate(notifyd_verify_seconds_bucket[5m])))`,
		`rate(notifyd_publishes_total{result="ok"}[5m])`,
		`changes(notifyd_stream_created_timestamp_seconds[5m]) > 0`,
	} {
		if err := examine(good, all); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		`rate(notifyd_stream_stores_total[5m]`,
		`rate(notifyd_stream_store_total[5m])`,
		`rate(notifyd_stream_stores_total{result="timeouts"}[5m])`,
		`rate(notifyd_stream_stores_total{outcome="timeout"}[5m])`,
		`sum by (node) (rate(notifyd_stream_stores_total[5m]))`,
		`notifyd_stream_stores_total > 0`,
		`rate(notifyd_connections[5m])`,
		`rate(notifyd_verify_seconds[5m])`,
		`rate(notifyd_batch_frames_bucket{code="x"}[5m])`,
	} {
		if examine(bad, all) == nil {
			t.Errorf("%s passes", bad)
		}
	}
}
