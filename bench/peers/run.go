//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// trial is a scenario and the candidates that take part in it.
type trial struct {
	scenario   *scenario
	candidates []*candidate
}

// run puts all chosen servers through all chosen scenarios.
func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "notifyd-peers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	all, err := candidates(strings.Split(o.peers, ","), &o, dir)
	if err != nil {
		return err
	}
	var trials []trial
	for name := range strings.SplitSeq(o.scenarios, ",") {
		s, err := findScenario(name)
		if err != nil {
			return err
		}
		h := trial{scenario: s}
		for _, c := range all {
			if c.takesPart(s) {
				h.candidates = append(h.candidates, c)
			}
		}
		if len(h.candidates) > 0 {
			trials = append(trials, h)
		}
	}
	r := newReport(trials, &o)
	failed := rounds(ctx, r, &o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(r.write(os.Stdout, &o), failed)
}

// rounds lets all candidates of each trial take turns, so that what else the
// machine does hits them alike. An interrupted or incomplete comparison is an
// error.
func rounds(ctx context.Context, r *report, o *options) error {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
	var whole, done time.Duration
	for _, h := range r.trials {
		whole += h.scenario.estimate(o) * time.Duration(len(h.candidates)*o.rounds)
	}
	say("this takes about %v", whole.Round(time.Minute))
	began, failed := time.Now(), 0
	for round := range o.rounds {
		for _, h := range r.trials {
			s := h.scenario
			for turn := range h.candidates {
				c := h.candidates[(turn+round)%len(h.candidates)]
				done += s.estimate(o)
				if why := cmp.Or(s.impossible(), c.cannot(s)); why != "" {
					r.skip(s, c.name, why)
					continue
				}
				values, results, err := c.run(ctx, s, o)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					if r.fail(s, c.name, err) {
						failed++
					}
					say("%s, %s: %v", c.name, s.Name, err)
				} else {
					r.add(s, c.name, values, results)
				}
				left := time.Duration(float64(time.Since(began)) / float64(done) * float64(whole-done))
				say("round %d of %d, %v left: %s %s %s", round+1, o.rounds, left.Round(time.Second), s.Name, c.name, brief(s, values))
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d measurements failed", failed)
	}
	return nil
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
