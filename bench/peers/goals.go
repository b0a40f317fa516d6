//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// goal is something that notifyd is to reach.
type goal struct {
	About string
	Of    figure
	// To is what it is compared with: Of is to be at most Limit times that. Without
	// it, Of itself is to be at most Limit. Plus, if any, is added to To.
	To    figure
	Plus  figure
	Limit float64
	// Open says why the goal is known to be missed, which docs/benchmarks/2026-11.md tells at length.
	Open string
	// Sizes, if any, are scenarios of growing size. Of and To are unused: the metric
	// is to stay flat from each to every greater one, see flatness.
	Sizes []string
}

// figure is a metric of one server in one scenario.
type figure struct {
	scenario, server string
	metric           metric
}

// flatMetric is what a goal with sizes is about.
var flatMetric = cpuPerDelivery

var goals = slices.Concat(
	against("fan1000-w32", cpuPerDelivery, limits{"floor": 1.2, "centrifuge": 0.25, "nats": 0.35}),
	against("fan1000-w1", cpuPerDelivery, limits{"floor": 1.15}),
	against("fan10000-w8", cpuPerDelivery, limits{"centrifuge": 0.2}),
	against("pairs100-w1", cpuPerDelivery, limits{"gws": 1}),
	open("threads are woken and parked, and a goroutine moves between them", against("pairs100-w1", cpuPerDelivery, limits{"centrifuge": 0.55})),
	open("reading the claims of a new token and remembering it", []goal{{
		About: "pairs100-w1-fresh", Of: figure{"pairs100-w1-fresh", "notifyd", cpuPerDelivery},
		To: figure{"pairs100-w1", "notifyd", cpuPerDelivery}, Plus: figure{"pairs100-w1-fresh", "notifyd", rawVerify}, Limit: 1.1,
	}}),
	against("pairs100-w16", cpuPerDelivery, limits{"centrifuge": 0.4, "gws": 1}),
	open("sleep and wake-up in Go's poller", against("pairs100-r3000", cpuPerDelivery, limits{"centrifuge": 0.4})),
	against("pairs100-r3000", cpuPerDelivery, limits{"gws": 1}),
	[]goal{{About: "idle15000", Of: figure{"idle15000", "notifyd", rssPerConnection}, Limit: 470}},
	against("idle15000", cpuPerConnection, limits{"floor": 1.5, "centrifuge": 0.4}),
	against("fan1000-r30", latency99, limits{"centrifuge": 1, "nats": 1}),
	open("one loop writes to a thousand subscribers", against("fan1000-r30", latency99, limits{"gws": 1})),
	[]goal{
		{About: "stalled", Of: figure{"stalled", "notifyd", stalled99}, To: figure{"stalled", "notifyd", calm99}, Limit: 1.2},
		{About: "stalled", Of: figure{"stalled", "notifyd", rssPerStalled}, Limit: 1 << 20}, // limits.pending_bytes by default
		{About: "stalled", Of: figure{"stalled", "notifyd", kept}, Limit: 0},
		{About: "flood", Of: figure{"flood", "notifyd", flooded99}, To: figure{"flood", "notifyd", quiet99}, Limit: 1.3},
		{About: "flatness", Sizes: []string{"fan100-w32", "fan1000-w32", "fan10000-w32"}, Limit: 1.15},
	},
)

// besides are the figures that are measured without a goal, for the plot.
var besides = []figure{
	{"fan1000-w1", "gws", cpuPerDelivery},
	{"fan1000-w1", "nats", cpuPerDelivery},
	{"fan1000-w1", "centrifuge", cpuPerDelivery},
	{"fan1000-w32", "gws", cpuPerDelivery},
	{"fan1000-r30", "floor", latency99},
}

// limits are by server.
type limits map[string]float64

func against(scenario string, m metric, l limits) (goals []goal) {
	for _, server := range hubNames() {
		if limit, ok := l[server]; ok {
			goals = append(goals, goal{About: scenario, Of: figure{scenario, "notifyd", m}, To: figure{scenario, server, m}, Limit: limit})
		}
	}
	return goals
}

// open marks goals as known to be missed.
func open(why string, goals []goal) []goal {
	for i := range goals {
		goals[i].Open = why
	}
	return goals
}

// figures are what has to be measured for a goal.
func (g *goal) figures() (all []figure) {
	for _, s := range g.Sizes {
		all = append(all, figure{s, "notifyd", flatMetric}, figure{s, "floor", flatMetric})
	}
	for _, f := range []figure{g.Of, g.To, g.Plus} {
		if f != (figure{}) {
			all = append(all, f)
		}
	}
	return all
}

// judgeGoals measures what the goals need, and nothing more than that and what
// the plot shows.
func judgeGoals(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "notifyd-peers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	wanted := slices.Clone(besides)
	for i := range goals {
		wanted = append(wanted, goals[i].figures()...)
	}
	trials, err := trialsFor(wanted, &o, dir)
	if err != nil {
		return err
	}
	r := newReport(trials, &o)
	failed := rounds(ctx, r, &o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.finish()
	for i := range goals {
		r.Goals = append(r.Goals, r.judge(&goals[i]))
	}
	err = errors.Join(r.write(os.Stdout, &o), failed)
	if o.check {
		err = errors.Join(err, r.check())
	}
	return err
}

// check is an error for goals that were met before and are missed now: those that are not open, and that are missed in
// every round, since on a busy machine a median may be off.
func (r *report) check() error {
	var missed []error
	for _, v := range r.Goals {
		if v.Open != "" || v.Met != nil && (*v.Met || v.Least > 0 && v.Least <= v.Limit) {
			continue
		}
		missed = append(missed, fmt.Errorf("missed: %s", strings.Join(v.cells(), ", ")))
	}
	return errors.Join(missed...)
}

// trialsFor gives the scenarios in which figures are measured, each with the
// servers that are needed in it.
func trialsFor(wanted []figure, o *options, dir string) (trials []trial, err error) {
	var names []string
	for _, name := range append(hubNames(), "notifyd") {
		if slices.ContainsFunc(wanted, func(f figure) bool { return f.server == name }) {
			names = append(names, name)
		}
	}
	all, err := candidates(names, o, dir)
	if err != nil {
		return nil, err
	}
	for i := range scenarios {
		h := trial{scenario: &scenarios[i]}
		for _, c := range all {
			if slices.ContainsFunc(wanted, func(f figure) bool { return f.scenario == h.scenario.Name && f.server == c.name }) {
				h.candidates = append(h.candidates, c)
			}
		}
		if len(h.candidates) > 0 {
			trials = append(trials, h)
		}
	}
	return trials, nil
}

// verdict is what was found about a goal.
type verdict struct {
	Measure string   `json:"measure"`
	Unit    string   `json:"unit"`
	Value   float64  `json:"value"`
	Against string   `json:"against,omitempty"` // "": nothing
	Other   float64  `json:"other,omitempty"`
	Ratio   float64  `json:"ratio,omitempty"` // of the medians
	Least   float64  `json:"least,omitempty"` // ratio of one round
	Most    float64  `json:"most,omitempty"`
	Limit   float64  `json:"limit"`
	Met     *bool    `json:"met"` // null: not known
	Missing []string `json:"missing,omitempty"`
	Open    string   `json:"open,omitempty"` // why it is known to be missed
}

func (r *report) judge(g *goal) verdict {
	v := verdict{Limit: g.Limit, Open: g.Open}
	for _, f := range g.figures() {
		if row := r.find(f.scenario, f.server, f.metric); row == nil || !row.known() {
			v.Missing = append(v.Missing, f.server+" in "+f.scenario)
		}
	}
	if len(g.Sizes) > 0 {
		v.Measure, v.Unit = flatMetric.Name+", "+strings.Join(g.Sizes, ", ")+", less what floor rises", flatMetric.Unit
	} else {
		v.Measure, v.Unit = g.Of.scenario+": "+g.Of.metric.Name, g.Of.metric.Unit
		v.Against = g.against()
	}
	if len(v.Missing) > 0 {
		return v
	}
	var met bool
	switch {
	case len(g.Sizes) > 0:
		r.flat(&v, g.Sizes)
		met = v.Ratio <= g.Limit
	case g.To == figure{}:
		v.Value = r.find(g.Of.scenario, g.Of.server, g.Of.metric).Median
		met = v.Value <= g.Limit
	default:
		of, to := r.find(g.Of.scenario, g.Of.server, g.Of.metric), r.find(g.To.scenario, g.To.server, g.To.metric)
		if g.Plus != (figure{}) {
			to = to.plus(r.find(g.Plus.scenario, g.Plus.server, g.Plus.metric))
		}
		v.Value, v.Other = of.Median, to.Median
		v.Ratio = v.Value / v.Other
		v.Least, v.Most = spread(of.Values, to.Values)
		met = v.Ratio <= g.Limit
	}
	v.Met = &met
	return v
}

// against names what a ratio is to.
func (g *goal) against() string {
	switch {
	case g.To == figure{}:
		return ""
	case g.Plus != figure{}:
		return g.To.scenario + " + " + g.Plus.metric.Name
	case g.To.server == g.Of.server:
		return g.To.metric.Name
	}
	return g.To.server
}

// plus adds up the medians, and the rounds where none is missing.
func (r *row) plus(other *row) *row {
	sum := &row{Median: r.Median + other.Median}
	if len(r.Values) != len(other.Values) {
		return sum
	}
	for i := range r.Values {
		sum.Values = append(sum.Values, r.Values[i]+other.Values[i])
	}
	return sum
}

// spread is the least and the greatest ratio of one round; zeros where rounds are
// missing.
func spread(of, to []float64) (least, most float64) {
	if len(of) != len(to) {
		return 0, 0
	}
	for i := range of {
		ratio := of[i] / to[i]
		if i == 0 {
			least, most = ratio, ratio
		}
		least, most = min(least, ratio), max(most, ratio)
	}
	return least, most
}

// flat puts the greatest rise between sizes into v.
func (r *report) flat(v *verdict, sizes []string) {
	var own, floor []float64
	for _, s := range sizes {
		own = append(own, r.find(s, "notifyd", flatMetric).Median)
		floor = append(floor, r.find(s, "floor", flatMetric).Median)
	}
	from, to := steepest(less(own, floor))
	v.Against = sizes[from]
	v.Other, v.Value = less(own, floor)[from], less(own, floor)[to]
	v.Ratio = v.Value / v.Other
}

// less takes off what the floor rises since the first size.
func less(own, floor []float64) []float64 {
	rest := slices.Clone(own)
	for i := range rest {
		rest[i] -= floor[i] - floor[0]
	}
	return rest
}

// steepest finds the pair in which the latter is the most times the former. With
// values that only fall, that is the pair with the least fall.
func steepest(values []float64) (from, to int) {
	most := 0.0
	for i := range values {
		for j := i + 1; j < len(values); j++ {
			if rise := values[j] / values[i]; rise > most {
				from, to, most = i, j, rise
			}
		}
	}
	return from, to
}

// verdicts prints the table of goals.
func (r *report) verdicts(w io.Writer) {
	met := 0
	_, _ = fmt.Fprint(w, "\n| measure | notifyd | against | ratio (rounds) | goal | met? |\n|---|---:|---|---:|---:|---|\n") // into memory
	for _, v := range r.Goals {
		if v.Met != nil && *v.Met {
			met++
		}
		_, _ = fmt.Fprintf(w, "| %s |\n", strings.Join(v.cells(), " | "))
	}
	_, _ = fmt.Fprintf(w, "\n%d of %d goals are met.\n", met, len(r.Goals))
}

func (v *verdict) cells() []string {
	value, other, ratio, goal, met := number(v.Value)+" "+v.Unit, "–", "–", "≤ "+number(v.Limit), "no"
	if v.Against == "" && v.Ratio == 0 {
		goal += " " + v.Unit
	}
	if v.Against != "" {
		other = v.Against + ", " + number(v.Other) + " " + v.Unit
	}
	if v.Ratio != 0 {
		ratio = number(v.Ratio)
	}
	if v.Most > 0 {
		ratio += fmt.Sprintf(" (%s–%s)", number(v.Least), number(v.Most))
	}
	switch {
	case v.Met == nil:
		value, other, ratio, met = "–", v.Against, "–", "not known: no "+strings.Join(v.Missing, ", no ")
	case *v.Met:
		met = "yes"
	}
	return []string{v.Measure, value, other, ratio, goal, met}
}
