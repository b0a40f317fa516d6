//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run found. Its exported fields are the JSON.
type report struct {
	Date     time.Time         `json:"date"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds"` // of each measurement
	Versions map[string]string `json:"versions"`
	Rows     []row             `json:"rows"`

	scenarios   []scenario
	contestants []string
}

// row is one metric of one server in one scenario.
type row struct {
	Scenario string    `json:"scenario"`
	Server   string    `json:"server"`
	Metric   string    `json:"metric"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`           // one a round, without those that failed
	Median   float64   `json:"median,omitempty"` // absent when all failed
	Ratio    float64   `json:"ratio,omitempty"`  // to the floor's median, where that is known
	Errors   []string  `json:"errors,omitempty"`
}

func newReport(chosen []scenario, all []contestant, o options) *report {
	r := &report{
		Date: time.Now().Truncate(time.Second), CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: kernel(), Go: runtime.Version(),
		Rounds: o.rounds, Seconds: o.duration.Seconds(), Versions: map[string]string{}, scenarios: chosen,
	}
	for _, c := range all {
		r.Versions[c.name] = c.version
		r.contestants = append(r.contestants, c.name)
	}
	for i := range chosen {
		for _, m := range chosen[i].metrics() {
			for _, c := range all {
				r.Rows = append(r.Rows, row{Scenario: chosen[i].Name, Server: c.name, Metric: m.Name, Unit: m.Unit})
			}
		}
	}
	return r
}

func (r *report) find(scenario, server string, m metric) *row {
	i := slices.IndexFunc(r.Rows, func(row row) bool {
		return row.Scenario == scenario && row.Server == server && row.Metric == m.Name
	})
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}

// add takes the result of one round.
func (r *report) add(s *scenario, server string, values map[metric]float64, err error) {
	for _, m := range s.metrics() {
		row := r.find(s.Name, server, m)
		if err != nil {
			row.Errors = append(row.Errors, err.Error())
		} else {
			row.Values = append(row.Values, values[m])
		}
	}
}

// finish works out medians and ratios.
func (r *report) finish() {
	for i := range r.Rows {
		r.Rows[i].Median = median(r.Rows[i].Values)
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		if floor := r.find(row.Scenario, "floor", metric{row.Metric, row.Unit}); floor != nil && floor.Median > 0 {
			row.Ratio = row.Median / floor.Median
		}
	}
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// write prints the table, and puts JSON and plot where they are wanted.
func (r *report) write(jsonFile, svgFile string) error {
	r.finish()
	if jsonFile != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err = os.WriteFile(jsonFile, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if svgFile != "" {
		r.svg(&b)
		if err := os.WriteFile(svgFile, b.Bytes(), 0o644); err != nil {
			return err
		}
		b.Reset()
	}
	r.markdown(&b)
	_, err := os.Stdout.Write(b.Bytes())
	return err
}

// machine says what the figures hold for.
func (r *report) machine() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s. Medians of %d rounds of %g s, %d B of data an event.",
		r.CPU, r.Cores, r.Kernel, r.Go, r.Date.Format("2 January 2006"), r.Rounds, r.Seconds, payloadBytes)
}

// markdown prints one table for each scenario.
func (r *report) markdown(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // into memory
	p("%s\n", r.machine())
	for i := range r.scenarios {
		s := &r.scenarios[i]
		p("\n### %s: %s\n\n| server |", s.Name, s.About)
		for _, m := range s.metrics() {
			p(" %s, %s | × floor |", m.Name, m.Unit)
		}
		p("\n|---|%s\n", strings.Repeat("---:|---:|", len(s.metrics())))
		for _, server := range r.contestants {
			p("| %s %s |", server, r.Versions[server])
			for _, m := range s.metrics() {
				row := r.find(s.Name, server, m)
				p(" %s | %s |", number(row.Median), number(row.Ratio))
			}
			p("\n")
		}
	}
}

// number shows three digits, and what is not known as a dash.
func number(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// brief is one round's result for the progress line.
func brief(s *scenario, values map[metric]float64) string {
	if values == nil {
		return "failed"
	}
	var parts []string
	for _, m := range s.metrics() {
		parts = append(parts, number(values[m])+" "+m.Unit)
	}
	return strings.Join(parts, ", ")
}

// moduleVersion is the version of a module that this program was built with.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return ""
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
