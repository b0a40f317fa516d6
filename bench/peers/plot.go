//go:build linux

package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/notifyd/notifyd/bench/draw"
	"github.com/notifyd/notifyd/bench/load"
)

// Measures of the bars in pixels.
const (
	panelWidth  = 400
	panelTop    = 40 // of a panel, above its bars
	barStep     = 20
	barHeight   = 14
	labelWidth  = 80
	valueWidth  = 60
	panelsInRow = 3
	headHeight  = 50
)

// svg draws the medians as bars, a panel for each metric. Each panel has a scale
// of its own, from zero.
func (r *report) svg(w io.Writer) error {
	var panels [][]row
	for rest := r.Rows; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(o row) bool { return o.Scenario != rest[0].Scenario || o.Metric != rest[0].Metric })
		if n < 0 {
			n = len(rest)
		}
		if rest[0].Metric != ownPerDelivery.Name { // is not the servers'
			panels = append(panels, rest[:n])
		}
		rest = rest[n:]
	}
	most := 0
	for _, rows := range panels {
		most = max(most, len(rows))
	}
	panelHeight := panelTop + barStep*most + barStep
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // into memory
	p(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		panelsInRow*panelWidth, headHeight+(len(panels)+panelsInRow-1)/panelsInRow*panelHeight)
	p(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	p(`<text x="10" y="20">%s</text>`+"\n", escape(r.machine()))
	for i, rows := range panels {
		panel(p, rows, i%panelsInRow*panelWidth, headHeight+i/panelsInRow*panelHeight)
	}
	p("</svg>\n")
	return nil
}

func panel(p func(string, ...any), rows []row, x, y int) {
	p(`<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", x+10, y+14, escape(rows[0].Scenario))
	p(`<text x="%d" y="%d">%s, %s</text>`+"\n", x+10, y+30, escape(rows[0].Metric), escape(rows[0].Unit))
	var longest float64
	for _, row := range rows {
		longest = max(longest, row.Median)
	}
	for i, row := range rows {
		top, width, colour := y+panelTop+i*barStep, 0.0, "#9aa7b5"
		if longest > 0 {
			width = max(0, row.Median/longest*(panelWidth-labelWidth-valueWidth-20))
		}
		if row.Server == "notifyd" {
			colour = "#1f6feb"
		}
		p(`<text x="%d" y="%d">%s</text>`, x+10, top+barHeight-2, escape(row.Server))
		p(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, x+10+labelWidth, top, width, barHeight, colour)
		p(`<text x="%.1f" y="%d">%s</text>`+"\n", float64(x+14+labelWidth)+width, top+barHeight-2, row.median())
	}
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // into memory
	return b.String()
}

// plot draws, of 1→1,000 with small events, latencies by percentile at a rate, and
// what throughput costs with windows. It shows the round that was in the middle.
func (r *report) plot(w io.Writer) error {
	var drawn []load.Result
	for _, h := range r.trials {
		s := h.scenario
		if s.Plan.Name != "fanout" || s.Plan.Connections != 1000 || s.Size != small || s.Load.Rate > 30 {
			continue
		}
		for _, c := range h.candidates {
			if m, ok := r.middle(s, c.name); ok {
				drawn = append(drawn, m)
			}
		}
	}
	if !slices.ContainsFunc(drawn, func(d load.Result) bool { return d.Latency.Count > 0 }) {
		return errors.New("--plot draws latencies of fan1000-r30, which was not measured")
	}
	return draw.Load(w, "1→1,000 at 30 events a second", drawn)
}

// middle is the result of a server in the middle of the rounds, with only what
// the plot is to show of it.
func (r *report) middle(s *scenario, server string) (load.Result, bool) {
	var all []load.Result
	for _, result := range r.results {
		if result.Server == server && result.Load == s.Load.String() && result.Connections == s.Plan.Connections && result.Size == s.Size && result.Scenario == s.Plan.Name {
			all = append(all, result)
		}
	}
	if len(all) == 0 {
		return load.Result{}, false
	}
	if s.Load.Rate > 0 {
		slices.SortFunc(all, func(a, b load.Result) int { return cmp.Compare(a.Latency.P99, b.Latency.P99) })
		m := all[len(all)/2]
		m.ServerCores = nil
		return m, true
	}
	slices.SortFunc(all, func(a, b load.Result) int { return cmp.Compare(*a.CPUPerPublish, *b.CPUPerPublish) })
	m := all[len(all)/2]
	m.Latency = load.Latency{}
	return m, true
}
