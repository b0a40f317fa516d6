//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/bench/load"
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
	Goals    []verdict         `json:"goals,omitempty"`

	trials  []trial
	results []load.Result // one for each measurement
}

// row is one metric of one server in one scenario.
type row struct {
	Scenario string    `json:"scenario"`
	Server   string    `json:"server"`
	Metric   string    `json:"metric"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`            // one a round, without those that failed
	Median   float64   `json:"median"`            // says nothing without values
	Ratio    float64   `json:"ratio,omitempty"`   // to the floor's median, where that is known
	Skipped  string    `json:"skipped,omitempty"` // why it is not measured
	Errors   []string  `json:"errors,omitempty"`
}

func (r *row) known() bool { return len(r.Values) > 0 }

func newReport(trials []trial, o *options) *report {
	r := &report{
		Date: time.Now().Truncate(time.Second), CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: kernel(), Go: runtime.Version(),
		Rounds: o.rounds, Seconds: o.duration.Seconds(), Versions: map[string]string{}, trials: trials,
	}
	for _, h := range trials {
		for _, c := range h.candidates {
			r.Versions[c.name] = c.version
		}
		for _, m := range h.scenario.metrics() {
			for _, c := range h.candidates {
				r.Rows = append(r.Rows, row{Scenario: h.scenario.Name, Server: c.name, Metric: m.Name, Unit: m.Unit})
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

// add takes what one round measured.
func (r *report) add(s *scenario, server string, values map[metric]float64, results []load.Result) {
	for _, m := range s.metrics() {
		row := r.find(s.Name, server, m)
		row.Values = append(row.Values, values[m])
	}
	r.results = append(r.results, results...)
}

func (r *report) skip(s *scenario, server, why string) {
	for _, m := range s.metrics() {
		r.find(s.Name, server, m).Skipped = why
	}
}

// fail notes that one round failed, and says whether that makes the comparison
// incomplete. A peer that lets the others wait for those who do not read has been
// compared.
func (r *report) fail(s *scenario, server string, err error) bool {
	if errors.Is(err, errLost) && s.Plan.Stalled > 0 && server != "notifyd" {
		r.skip(s, server, err.Error())
		return false
	}
	for _, m := range s.metrics() {
		row := r.find(s.Name, server, m)
		row.Errors = append(row.Errors, err.Error())
	}
	return true
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

// write prints the tables, and puts JSON and plots where they are wanted.
func (r *report) write(w io.Writer, o *options) error {
	r.finish()
	if err := r.files(o); err != nil {
		return err
	}
	var b bytes.Buffer
	_, _ = fmt.Fprintln(&b, r.machine()) // into memory
	if len(r.Goals) > 0 {
		r.verdicts(&b)
	}
	r.markdown(&b)
	_, err := w.Write(b.Bytes())
	return err
}

func (r *report) files(o *options) error {
	for file, draw := range map[string]func(io.Writer) error{o.json: r.json, o.svg: r.svg, o.plot: r.plot} {
		if file == "" {
			continue
		}
		var b bytes.Buffer
		if err := draw(&b); err != nil {
			return err
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// machine says what the figures hold for.
func (r *report) machine() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s. Medians of %d rounds of %g s.",
		r.CPU, r.Cores, r.Kernel, r.Go, r.Date.Format("2 January 2006"), r.Rounds, r.Seconds)
}

// markdown prints one table for each scenario.
func (r *report) markdown(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // into memory
	for _, h := range r.trials {
		s := h.scenario
		p("\n### %s: %s\n\n| server |", s.Name, s.About)
		for _, m := range s.metrics() {
			p(" %s, %s | × floor |", m.Name, m.Unit)
		}
		p("\n|---|%s\n", strings.Repeat("---:|---:|", len(s.metrics())))
		var notes []string
		for _, c := range h.candidates {
			p("| %s |", strings.TrimSpace(c.name+" "+r.Versions[c.name]))
			for _, m := range s.metrics() {
				row := r.find(s.Name, c.name, m)
				p(" %s | %s |", row.median(), ratio(row.Ratio))
				notes = append(notes, row.notes()...)
			}
			p("\n")
		}
		for i, note := range slices.Compact(notes) {
			if i == 0 {
				p("\n")
			}
			p("%s\n", note)
		}
	}
}

// notes say why figures are missing.
func (r *row) notes() (notes []string) {
	if r.Skipped != "" {
		notes = append(notes, r.Server+": "+r.Skipped)
	}
	for _, err := range r.Errors {
		first, _, _ := strings.Cut(err, "\n")
		notes = append(notes, r.Server+", in one round: "+first)
	}
	return notes
}

func (r *row) median() string {
	if !r.known() {
		return "–"
	}
	return number(r.Median)
}

func ratio(v float64) string {
	if v == 0 {
		return "–"
	}
	return number(v)
}

// number shows three digits.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
