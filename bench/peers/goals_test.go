//go:build linux

package main

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/bench/load"
)

// with gives a report of these medians, by scenario and server, all of one
// metric and two rounds around the median.
func with(m metric, medians map[string]map[string]float64) *report {
	r := &report{}
	for s, servers := range medians {
		for server, v := range servers {
			r.Rows = append(r.Rows, row{Scenario: s, Server: server, Metric: m.Name, Unit: m.Unit, Values: []float64{0.9 * v, 1.1 * v}})
		}
	}
	r.finish()
	return r
}

func TestRatioGoal(t *testing.T) {
	for _, test := range []struct {
		own  float64
		met  bool
		cell string
	}{
		{1.9, true, "0.95 (0.95–0.95)"},
		{2, true, "1.00 (1.00–1.00)"}, // at most
		{2.002, false, "1.00 (1.00–1.00)"},
	} {
		r := with(cpuPerDelivery, map[string]map[string]float64{"s": {"notifyd": test.own, "gws": 2}})
		v := r.judge(&against("s", cpuPerDelivery, limits{"gws": 1})[0])
		if v.Met == nil || *v.Met != test.met {
			t.Errorf("%v: %+v", test.own, v)
		}
		if cells := v.cells(); cells[2] != "gws, 2.00 µs" || cells[3] != test.cell || cells[4] != "≤ 1.00" {
			t.Errorf("%q", cells)
		}
	}
}

// What is added to the other side counts.
func TestSumGoal(t *testing.T) {
	for own, met := range map[float64]string{55: "yes", 55.1: "no"} {
		r := with(cpuPerDelivery, map[string]map[string]float64{"s": {"notifyd": own}, "t": {"notifyd": 10}})
		r.Rows = append(r.Rows, with(rawVerify, map[string]map[string]float64{"s": {"notifyd": 40}}).Rows...)
		g := goal{Of: figure{"s", "notifyd", cpuPerDelivery}, To: figure{"t", "notifyd", cpuPerDelivery}, Plus: figure{"s", "notifyd", rawVerify}, Limit: 1.1}
		v := r.judge(&g)
		if cells := v.cells(); cells[5] != met || cells[2] != "t + ed25519.Verify alone, 50.0 µs" || cells[3] != "1.10 (1.10–1.10)" {
			t.Errorf("%v: %q", own, cells)
		}
		r.Rows = r.Rows[:2]
		if v := r.judge(&g); v.Met != nil {
			t.Errorf("judged without one side's part: %+v", v)
		}
	}
	two := &row{Values: []float64{1, 2}}
	if sum := two.plus(&row{Values: []float64{1}}); sum.Values != nil {
		t.Errorf("rounds are missing, yet %v", sum.Values)
	}
}

func TestAbsoluteGoal(t *testing.T) {
	for own, met := range map[float64]string{0: "yes", 469: "yes", 470: "yes", 471: "no"} {
		r := with(rssPerConnection, map[string]map[string]float64{"s": {"notifyd": own}})
		v := r.judge(&goal{Of: figure{"s", "notifyd", rssPerConnection}, Limit: 470})
		if cells := v.cells(); cells[5] != met || cells[2] != "–" || cells[3] != "–" || cells[4] != "≤ 470 B" {
			t.Errorf("%v: %q", own, cells)
		}
	}
}

// TestCheck: an error is a goal that is missed in every round, or not known, unless it is open.
func TestCheck(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		name   string
		v      verdict
		missed bool
	}{
		{"met", verdict{Met: &yes, Ratio: 0.9, Least: 0.8, Most: 1.1, Limit: 1}, false},
		{"missed in every round", verdict{Met: &no, Ratio: 1.2, Least: 1.1, Most: 1.3, Limit: 1}, true},
		{"missed in most rounds", verdict{Met: &no, Ratio: 1.2, Least: 0.9, Most: 1.3, Limit: 1}, false},
		{"missed, nothing to compare with", verdict{Met: &no, Value: 471, Limit: 470}, true},
		{"not known", verdict{Limit: 1, Missing: []string{"gws in s"}}, true},
		{"open", verdict{Met: &no, Ratio: 1.2, Least: 1.1, Most: 1.3, Limit: 1, Open: "because"}, false},
	} {
		r := &report{Goals: []verdict{test.v}}
		if err := r.check(); (err != nil) != test.missed {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// What was not measured is neither met nor missed.
func TestUnknownGoal(t *testing.T) {
	r := with(cpuPerDelivery, map[string]map[string]float64{"s": {"notifyd": 1}, "t": {"notifyd": 1, "floor": 1}})
	for _, g := range []goal{
		against("s", cpuPerDelivery, limits{"gws": 1})[0],
		{Of: figure{"t", "notifyd", latency99}, Limit: 1},
		{Sizes: []string{"t", "s"}, Limit: 1},
	} {
		v := r.judge(&g)
		if v.Met != nil || !strings.HasPrefix(v.cells()[5], "not known: no ") {
			t.Errorf("%+v: %q", v, v.cells())
		}
	}
}

func TestFlatness(t *testing.T) {
	for _, test := range []struct {
		name       string
		own, floor [3]float64
		ratio      float64
	}{
		{"flat", [3]float64{2, 2, 2}, [3]float64{1, 1, 1}, 1},
		{"as floor rises", [3]float64{2, 2.5, 4}, [3]float64{1, 1.5, 3}, 1},
		{"more than floor", [3]float64{2, 2.5, 4}, [3]float64{1, 1.5, 2}, 1.5},
		{"floor falls", [3]float64{2, 2, 2}, [3]float64{2, 1, 1}, 1.5},
		{"falls, then rises", [3]float64{4, 2, 3}, [3]float64{1, 1, 1}, 1.5},
		{"only falls", [3]float64{4, 2, 1}, [3]float64{1, 1, 1}, 0.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			sizes := []string{"a", "b", "c"}
			figures := map[string]map[string]float64{}
			for i, s := range sizes {
				figures[s] = map[string]float64{"notifyd": test.own[i], "floor": test.floor[i]}
			}
			r := with(flatMetric, figures)
			v := r.judge(&goal{Sizes: sizes, Limit: 1.15})
			if math.Abs(v.Ratio-test.ratio) > 1e-9 || v.Met == nil || *v.Met != (test.ratio <= 1.15) {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	if least, most := spread([]float64{1, 6, 2}, []float64{2, 3, 2}); least != 0.5 || most != 2 {
		t.Errorf("%v to %v", least, most)
	}
	if least, most := spread([]float64{1}, []float64{2, 3}); least != 0 || most != 0 {
		t.Errorf("rounds are missing, yet %v to %v", least, most)
	}
}

// Each goal is about something that its scenario measures, and trials bring all
// that is needed.
func TestGoalsAreMeasured(t *testing.T) {
	var wanted []figure
	for i := range goals {
		wanted = append(wanted, goals[i].figures()...)
	}
	for _, f := range append(wanted, besides...) {
		s, err := findScenario(f.scenario)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(s.metrics(), f.metric) {
			t.Errorf("%s does not measure %s", f.scenario, f.metric.Name)
		}
	}
}

func TestVerdicts(t *testing.T) {
	r := with(cpuPerDelivery, map[string]map[string]float64{"s": {"notifyd": 1, "gws": 2, "floor": 0.5}})
	for _, g := range against("s", cpuPerDelivery, limits{"gws": 1, "floor": 1.2, "nats": 1}) {
		r.Goals = append(r.Goals, r.judge(&g))
	}
	var b strings.Builder
	r.verdicts(&b)
	for _, line := range []string{
		"| s: CPU per delivery | 1.00 µs | floor, 0.50 µs | 2.00 (2.00–2.00) | ≤ 1.20 | no |",
		"| s: CPU per delivery | 1.00 µs | gws, 2.00 µs | 0.50 (0.50–0.50) | ≤ 1.00 | yes |",
		"| s: CPU per delivery | – | nats | – | ≤ 1.00 | not known: no nats in s |",
		"\n1 of 3 goals are met.\n",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %q in\n%s", line, b.String())
		}
	}
}

func TestEstimate(t *testing.T) {
	o := &options{duration: 2e9, settle: 5e9}
	once := window("w", "", load.Fanout(1000), 1, small)
	slow := rate("r", "", load.Fanout(1000), 30, small, 3)
	if got := slow.estimate(o) - once.estimate(o); got != 2*o.duration {
		t.Errorf("three times as long is %v more", got)
	}
	pairs, flood := rate("p", "", load.Pairs(100), 1000, small, 3), rate("f", "", load.Flood(100), 1000, small, 3)
	if got := flood.estimate(o); got < 2*pairs.estimate(o) {
		t.Errorf("two passes take %v, one %v", got, pairs.estimate(o))
	}
}
