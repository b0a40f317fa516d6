//go:build linux

package load

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func TestResultDivides(t *testing.T) {
	r := &run{Options: Options{Plan: Fanout(10), Server: "x", Size: 128, Process: RunningProcess(1)}}
	at := time.Unix(1000, 0)
	from := measure{at: at, cpu: time.Second, own: time.Second, rss: 1 << 20, count: counters{published: 100, delivered: 1000}}
	until := measure{at: at.Add(2 * time.Second), cpu: 2 * time.Second, own: 1500 * time.Millisecond, rss: 3 << 20, count: counters{published: 300, delivered: 3000}}
	got := r.result("window 1", from, until)
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"published", float64(got.Published), 200},
		{"delivered", float64(got.Delivered), 2000},
		{"publishes a second", got.PublishesPerSecond, 100},
		{"deliveries a second", got.DeliveriesPerSecond, 1000},
		{"cores", *got.ServerCores, 0.5},
		{"µs a delivery", *got.CPUPerDelivery, 500},
		{"µs a publish", *got.CPUPerPublish, 5000},
		{"own µs a delivery", *got.OwnCPUPerDelivery, 250},
		{"rss", float64(*got.RSS), 3 << 20},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	r.connected(&got, 10, from, until)
	if *got.CPUPerConnect != 100_000 || *got.RSSPerConnection != 2<<20/10. {
		t.Errorf("a connection: %v µs, %v B", *got.CPUPerConnect, *got.RSSPerConnection)
	}
	r.Process = nil
	if got = r.result("window 1", from, until); got.CPUPerDelivery != nil || got.RSS != nil || got.OwnCPUPerDelivery == nil {
		t.Errorf("costs of a server that is not known: %+v", got)
	}
	until.count = from.count
	if got = r.result("window 1", from, until); got.OwnCPUPerDelivery != nil {
		t.Error("divided by no deliveries")
	}
}

func TestLatency(t *testing.T) {
	h := hdrhistogram.New(minLatency, maxLatency, latencyDigits)
	for ms := range int64(1000) {
		if err := h.RecordValue((ms + 1) * 1e6); err != nil {
			t.Fatal(err)
		}
	}
	l := newLatency(h)
	for _, c := range []struct{ got, want float64 }{{l.P50, 500_000}, {l.P90, 900_000}, {l.P99, 990_000}, {l.P999, 999_000}, {l.Max, 1_000_000}} {
		if c.got < c.want*0.998 || c.got > c.want*1.002 {
			t.Errorf("%v µs, want %v", c.got, c.want)
		}
	}
	if l.Count != 1000 || !slices.IsSortedFunc(l.Percentiles, func(a, b Percentile) int { return int(a.Micros - b.Micros) }) {
		t.Errorf("%+v", l)
	}
	if got := newLatency(hdrhistogram.New(minLatency, maxLatency, latencyDigits)); got.Count != 0 || got.Percentiles != nil {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestTable(t *testing.T) {
	h := hdrhistogram.New(minLatency, maxLatency, latencyDigits)
	_ = h.RecordValues(2_000_000, 1000)
	cores, cost := 0.75, 0.25
	results := []Result{
		{Server: "fast & <bold>", Scenario: "fanout", Load: "window 32", Connections: 1000, Size: 128, Delivered: 5, DeliveriesPerSecond: 2e6, ServerCores: &cores, CPUPerDelivery: &cost, Latency: newLatency(h)},
		{Server: "unknown", Scenario: "fanout", Load: "rate 30", Stalled: 7, Dropped: 5},
		{Server: "unknown", Scenario: "flood", Load: "rate 9", Flooded: &Flooded{Sent: 32, Refused: 10}},
	}
	var table bytes.Buffer
	if err := WriteTable(&table, results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"window 32", "2000000", "75%", "0.250", "rate 30, 7 stalled (5 closed)", "rate 9, flooded (32 sent, 10 refused)"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

func TestBar(t *testing.T) {
	var out bytes.Buffer
	progress, clearBar := Bar(&out)
	progress(Progress{Doing: "fanout", Done: 0.5, Deliveries: 1234, Connected: 7})
	clearBar()
	for _, want := range []string{"fanout [############............]  50%", "7 connections", "1234 deliveries/s", "\r\x1b[K"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
}
