package draw

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/bench/auth"
	"github.com/notifyd/notifyd/bench/load"
)

// drawn is the picture of v after a trip through JSON, and is XML.
func drawn(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "in.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var piped, svg bytes.Buffer
	if err := Main(nil, bytes.NewReader(text), &piped); err != nil {
		t.Fatal(err)
	}
	if err := Main([]string{file}, nil, &svg); err != nil || svg.String() != piped.String() {
		t.Fatalf("%v; the file and the pipe differ: %v", err, svg.String() != piped.String())
	}
	for d := xml.NewDecoder(&piped); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return svg.String()
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoad(t *testing.T) {
	cores, cost := 0.75, 0.25
	svg := drawn(t, load.Report{Machine: "a machine", Results: []load.Result{
		{
			Server: "fast & <bold>", Scenario: "fanout", Load: "window 32", Size: 128, Delivered: 5, DeliveriesPerSecond: 2e6, ServerCores: &cores, CPUPerDelivery: &cost,
			Latency: load.Latency{Count: 1000, Percentiles: []load.Percentile{{Percent: 0, Micros: 1000}, {Percent: 100, Micros: 2000}}},
		},
		{Server: "unknown", Scenario: "fanout", Load: "rate 30", Stalled: 7, Dropped: 5},
	}})
	for _, want := range []string{"<svg", "latency: a machine", "window 32", "99.9"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in the plot", want)
		}
	}
}

// measured is a report in which every figure differs.
func measured() *auth.Report {
	var r auth.Report
	micros := 0.0
	add := func(to *[]*auth.Cost, token string, names ...string) {
		for _, alg := range auth.Algorithms {
			for _, name := range names {
				micros++
				*to = append(*to, &auth.Cost{Name: name, Token: token, Alg: alg, Micros: auth.Summary{Median: micros}})
			}
		}
	}
	add(&r.Connect, auth.Fresh, "message", "first-message")
	add(&r.Connect, auth.Remembered, "message", "first-message")
	add(&r.Publish, auth.Remembered, "plain")
	add(&r.Publish, auth.Fresh, "plain", "digest and once")
	for i, alg := range auth.Algorithms {
		for j, kind := range []string{"plain", "digest and once"} {
			r.Bytes = append(r.Bytes, auth.Bytes{Kind: kind, Alg: alg, Frame: 1000*i + j})
		}
		delay := auth.Delay{Alg: alg, Last: auth.Spread{P50: -float64(i)}, Told: auth.Spread{P50: float64(i)}}
		r.Expiry, r.Revocation = append(r.Expiry, delay), append(r.Revocation, delay)
	}
	return &r
}

func TestAuth(t *testing.T) {
	r := measured()
	for _, p := range panels(r) {
		if len(p.values) != len(auth.Algorithms) {
			t.Errorf("%s: %d algorithms", p.title, len(p.values))
		}
		for _, v := range p.values {
			if len(v) != len(p.groups) {
				t.Errorf("%s: %d bars, %d groups", p.title, len(v), len(p.groups))
			}
		}
	}
	if size := panels(r)[2]; !slices.Equal(size.values[3], []float64{3000, 3001}) {
		t.Errorf("sizes of the last algorithm: %v", size.values[3])
	}
	svg := drawn(t, r)
	for _, name := range append(slices.Clone(auth.Algorithms), "first-message", "digest and once", "first sight") {
		if !strings.Contains(svg, ">"+name+"<") {
			t.Errorf("%q is not in the picture", name)
		}
	}
}

func TestNothingToDraw(t *testing.T) {
	for _, text := range []string{"", "[]", "{}", `{"results": 1}`} {
		if err := Main(nil, strings.NewReader(text), io.Discard); err == nil {
			t.Errorf("%q was drawn", text)
		}
	}
	if err := Main([]string{filepath.Join(t.TempDir(), "none")}, nil, io.Discard); err == nil {
		t.Error("a file that does not exist was drawn")
	}
	if err := Main([]string{"a", "b"}, nil, io.Discard); err == nil {
		t.Error("two files were drawn")
	}
}

// A comparison shows a line for each server and each scenario that was measured at several rates.
func TestRates(t *testing.T) {
	type rows []map[string]any
	row := func(scenario, server, metric string, median float64) map[string]any {
		return map[string]any{"scenario": scenario, "server": server, "metric": metric, "median": median, "values": []float64{median}}
	}
	failed := row("fan1000-r2000", "gws", "latency p99", 0)
	failed["values"] = nil
	svg := drawn(t, map[string]any{"cpu": "a machine", "rows": rows{
		row("fan1000-r30", "notifyd", "latency p99", 9000), row("fan1000-r1000", "notifyd", "latency p99", 20000),
		row("fan1000-r30", "gws", "latency p99", 8000), failed,
		row("fan1000-w1", "floor", "CPU per delivery", 5), row("pairs-r5", "floor", "latency p50", 5), row("pairs-r6", "floor", "latency p50", 5),
	}})
	if !strings.Contains(svg, "notifyd, fan1000") || !strings.Contains(svg, "a machine") {
		t.Error("notifyd is not in the picture")
	}
	for _, name := range []string{"gws", "floor"} {
		if strings.Contains(svg, name) {
			t.Errorf("%s is in the picture, and has no two rates", name)
		}
	}
	if err := Main(nil, strings.NewReader(`{"rows": []}`), io.Discard); err == nil {
		t.Error("nothing was drawn")
	}
}
