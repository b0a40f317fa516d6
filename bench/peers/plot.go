//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
)

// Measures of the plot in pixels.
const (
	panelWidth  = 380
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
func (r *report) svg(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // into memory
	panelHeight := panelTop + barStep*len(r.contestants) + barStep
	panels := len(r.Rows) / len(r.contestants)
	p(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		panelsInRow*panelWidth, headHeight+(panels+panelsInRow-1)/panelsInRow*panelHeight)
	p(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	p(`<text x="10" y="20">%s</text>`+"\n", escape(r.machine()))
	for panel := range panels {
		rows := r.Rows[panel*len(r.contestants):][:len(r.contestants)]
		x, y := panel%panelsInRow*panelWidth, headHeight+panel/panelsInRow*panelHeight
		p(`<text x="%d" y="%d" font-weight="bold">%s: %s, %s</text>`+"\n",
			x+10, y+20, escape(rows[0].Scenario), escape(rows[0].Metric), escape(rows[0].Unit))
		var longest float64
		for _, row := range rows {
			longest = max(longest, row.Median)
		}
		for i, row := range rows {
			top, width, colour := y+panelTop+i*barStep, 0.0, "#9aa7b5"
			if longest > 0 {
				width = row.Median / longest * (panelWidth - labelWidth - valueWidth - 20)
			}
			if row.Server == "notifyd" {
				colour = "#1f6feb"
			}
			p(`<text x="%d" y="%d">%s</text>`, x+10, top+barHeight-2, escape(row.Server))
			p(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, x+10+labelWidth, top, width, barHeight, colour)
			p(`<text x="%.1f" y="%d">%s</text>`+"\n", float64(x+14+labelWidth)+width, top+barHeight-2, number(row.Median))
		}
	}
	p("</svg>\n")
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // into memory
	return b.String()
}
