//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/bench/load"
)

var errGone = errors.New("gone\nwith details")

// reported has three rounds of a floor, one twice as dear, one that failed and one
// that could not take part.
func reported() (*report, *scenario) {
	s := window("w1", "about", load.Fanout(1000), 1, small)
	r := newReport([]trial{{&s, []*candidate{{name: "floor"}, {name: "gws", version: "v1"}, {name: "gone"}, {name: "large"}}}},
		&options{rounds: 3, duration: time.Second})
	for _, v := range []float64{4, 2, 3} {
		for server, times := range map[string]float64{"floor": 1, "gws": 2} {
			cost := v * times
			r.add(&s, server, map[metric]float64{cpuPerDelivery: cost, ownPerDelivery: 1}, []load.Result{{
				Server: server, Scenario: "fanout", Load: "window 1", Connections: 1000, Size: small,
				Delivered: 1, DeliveriesPerSecond: 1e6, CPUPerPublish: &cost, ServerCores: &cost, Latency: load.Latency{Count: 1},
			}})
		}
		r.fail(&s, "gone", errGone)
	}
	r.skip(&s, "large", "needs more")
	r.finish()
	return r, &s
}

func TestMarkdown(t *testing.T) {
	r, s := reported()
	var b strings.Builder
	r.markdown(&b)
	for _, line := range []string{
		"| floor | 3.00 | 1.00 | 1.00 | 1.00 |", "| gws v1 | 6.00 | 2.00 | 1.00 | 1.00 |", "| gone | – | – | – | – |",
		"\nlarge: needs more\n", "\ngone, in one round: gone\n",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
	if errs := r.find(s.Name, "gone", cpuPerDelivery).Errors; len(errs) != 3 {
		t.Errorf("errors are %q", errs)
	}
}

func TestBars(t *testing.T) {
	r, _ := reported()
	var b bytes.Buffer
	if err := r.svg(&b); err != nil {
		t.Fatal(err)
	}
	var drawn struct {
		Bars []struct {
			Width string `xml:"width,attr"`
		} `xml:"rect"`
	}
	if err := xml.Unmarshal(b.Bytes(), &drawn); err != nil {
		t.Fatal(err)
	}
	var widths []string
	for _, bar := range drawn.Bars[1:] { // the first is the background
		widths = append(widths, bar.Width)
	}
	if want := []string{"120.0", "240.0", "0.0", "0.0"}; !slices.Equal(widths, want) { // none for the generator's own
		t.Errorf("bars are %v wide, not %v", widths, want)
	}
}

func TestPlot(t *testing.T) {
	r, s := reported()
	m, ok := r.middle(s, "gws")
	if !ok || *m.CPUPerPublish != 6 || m.Latency.Count != 0 {
		t.Errorf("in the middle is %+v", m)
	}
	var b bytes.Buffer
	if err := r.plot(&b); err == nil {
		t.Error("a plot without latencies")
	}
	late := rate("r30", "about", load.Fanout(1000), 30, small, 1)
	r.trials = append(r.trials, trial{&late, []*candidate{{name: "gws"}}})
	for _, p99 := range []float64{300, 100, 200} {
		r.results = append(r.results, load.Result{
			Server: "gws", Scenario: "fanout", Load: "rate 30", Connections: 1000, Size: small, ServerCores: new(float64), Delivered: 1,
			Latency: load.Latency{Count: 100, P99: p99, Percentiles: []load.Percentile{{Percent: 0, Micros: 50}, {Percent: 99, Micros: p99}}},
		})
	}
	if m, _ := r.middle(&late, "gws"); m.Latency.P99 != 200 || m.ServerCores != nil {
		t.Errorf("in the middle is %+v", m)
	}
	if err := r.plot(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "gws fanout") {
		t.Error("gws is not in the plot")
	}
}

// A peer that does not keep those apart who do not read is no failure of the
// comparison, but one of notifyd's would be.
func TestFail(t *testing.T) {
	stalled := rate("stalled", "", load.Slow(10), 1, small, 1)
	all := []*candidate{{name: "gws"}, {name: "notifyd"}}
	r := newReport([]trial{{&stalled, all}, {&tiny[0], all}}, &options{rounds: 1})
	lost := fmt.Errorf("7 %w", errLost)
	for _, test := range []struct {
		s      *scenario
		server string
		err    error
		want   bool
	}{
		{&stalled, "gws", lost, false},
		{&stalled, "gws", errGone, true},
		{&stalled, "notifyd", lost, true},
		{&tiny[0], "gws", lost, true},
	} {
		if got := r.fail(test.s, test.server, test.err); got != test.want {
			t.Errorf("%s, %s, %v: %v", test.s.Name, test.server, test.err, got)
		}
	}
}

func TestImpossible(t *testing.T) {
	if why := tiny[0].impossible(); why != "" {
		t.Error(why)
	}
	s := scenario{Plan: load.Idle(1 << 40)}
	if why := s.impossible(); !strings.Contains(why, "descriptors") {
		t.Errorf("%q", why)
	}
}
