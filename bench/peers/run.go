//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notifyd/notifyd/bench/peers/hub"
)

// contestant is a server to compare: how to start it and how to speak to it.
type contestant struct {
	name, version string
	command       func(addr string) []string
	dialect       *dialect
}

// run lets all contestants take turns, so that what else the machine does hits
// them alike, and reports the medians.
func run(ctx context.Context, o options) error {
	chosen, err := choose(o.scenarios)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "notifyd-peers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	all, err := contestants(strings.Split(o.peers, ","), o.notifyd, dir)
	if err != nil {
		return err
	}
	r := newReport(chosen, all, o)
	failed := 0
	for round := range o.rounds {
		for i := range chosen {
			for turn := range all {
				c := &all[(turn+round)%len(all)]
				values, err := c.play(&chosen[i], &o)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					failed++
					err = fmt.Errorf("%s, %s: %w", c.name, chosen[i].Name, err)
					fmt.Fprintln(os.Stderr, err)
				}
				r.add(&chosen[i], c.name, values, err)
				fmt.Fprintf(os.Stderr, "round %d of %d: %s %s %s\n", round+1, o.rounds, chosen[i].Name, c.name, brief(&chosen[i], values))
			}
		}
	}
	if err := r.write(o.json, o.svg); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d measurements failed", failed)
	}
	return nil
}

// choose gives the scenarios with these names.
func choose(names string) ([]scenario, error) {
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; run --help lists them", name)
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}

// play starts the server, puts it through one scenario and ends it.
func (c *contestant) play(s *scenario, o *options) (map[metric]float64, error) {
	p, err := start(c.command)
	if err != nil {
		return nil, err
	}
	values, err := s.measure(p, c.dialect, o)
	p.stop()
	if err != nil && p.stderr.Len() > 0 {
		err = fmt.Errorf("%w\n%s", err, p.stderr.String())
	}
	return values, err
}

func contestants(names []string, notifyd, dir string) ([]contestant, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var all []contestant
	for _, name := range names {
		var c contestant
		if name == "notifyd" {
			if c, err = newNotifyd(notifyd, dir); err != nil {
				return nil, err
			}
			all = append(all, c)
			continue
		}
		s, ok := hub.Find(name)
		if !ok {
			return nil, fmt.Errorf("no peer %q; there are notifyd, %s", name, strings.Join(hubNames(), ", "))
		}
		c = contestant{name: name, version: moduleVersion(s.Module), dialect: hubDialect()}
		c.command = func(addr string) []string { return []string{self, "serve", name, "--listen", addr} }
		switch name {
		case "nats":
			c.dialect = natsDialect()
		case "centrifuge":
			if c.dialect, err = centrifugeDialect(); err != nil {
				return nil, err
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// newNotifyd makes ready what notifyd needs: the program, unless one is given, a
// key, and a token for every message.
func newNotifyd(program, dir string) (contestant, error) {
	if program == "" {
		program = filepath.Join(dir, "notifyd")
		build := exec.Command("go", "build", "-o", program, "./cmd/notifyd")
		build.Dir = filepath.Join("..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			return contestant{}, fmt.Errorf("notifyd is built from ../.., so run this in bench/peers or use --notifyd: %w\n%s", err, out)
		}
	}
	key, err := output(program, "keys", "generate", "--alg", "EdDSA")
	if err != nil {
		return contestant{}, err
	}
	file := filepath.Join(dir, "key.jwk")
	if err = os.WriteFile(file, []byte(key), 0o600); err != nil {
		return contestant{}, err
	}
	token, err := output(program, "token", "--key", file, "--sub", "bench", "--publish", ">", "--subscribe", ">", "--ttl", "24h")
	if err != nil {
		return contestant{}, err
	}
	version, err := output(program, "version")
	return contestant{
		name:    "notifyd",
		version: strings.TrimPrefix(version, "notifyd "),
		dialect: notifydDialect(token),
		command: func(addr string) []string {
			return []string{program, "serve", "--listen", addr, "--admin.listen", "", "--auth.keys", file}
		},
	}, err
}

// output is what a program prints, without the line's end.
func output(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w\n%s", program, args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
