package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/notifyd/notifyd/bench/abuse"
	"github.com/notifyd/notifyd/bench/load"
)

type abuseCmd struct {
	Only     []string      `help:"Name of an abuse. Repeatable. None: all." placeholder:"NAME"`
	List     bool          `help:"Print the names of all abuses and what they do."`
	Duration time.Duration `help:"How long to measure without, and again with each abuse." short:"d" default:"10s"`
	Short    bool          `help:"Fewer attackers, no second server, and no look at how late events are."`
	Bin      string        `help:"The notifyd to start. Empty: this one." placeholder:"FILE"`
	JSON     bool          `help:"Print everything measured as JSON." name:"json"`
}

// Help is shown by --help.
func (abuseCmd) Help() string {
	return fmt.Sprintf(`For each abuse it starts a notifyd, and an honest publisher and subscriber that exchange 200 events a second. Twice a second another honest client comes with a new token: it connects, subscribes, publishes, receives and gets a ticket. First they are alone, then a process with the lowest priority attacks from another address (127.0.0.2). Elsewhere is what the same honest clients see meanwhile at a second notifyd, which is not attacked: the attacker and the attacked take the processors from it as well.

The exit code is 1 if an honest client lost an event, was refused or cut off, or if p99 with the attack is over %v and more than %.1f times that without or that elsewhere, whichever is more.`, abuse.Floor, abuse.MaxRatio)
}

// Run attacks.
func (c *abuseCmd) Run(p *process) error {
	if c.List {
		t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		for _, a := range abuse.List {
			_, _ = fmt.Fprintf(t, "%s\t%s\n", a.Name, a.About)
		}
		return t.Flush()
	}
	if c.Duration <= 0 {
		return usagef("--duration: %v; use a second or more", c.Duration)
	}
	for _, name := range c.Only {
		if !slices.ContainsFunc(abuse.List, func(a abuse.Abuse) bool { return a.Name == name }) {
			return usagef("--only: %q is none of the abuses; --list prints them", name)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := abuse.Options{Bin: c.Bin, Only: c.Only, Duration: c.Duration, Short: c.Short, Worker: func() *exec.Cmd {
		cmd := exec.Command(self, "bench", "abuser")
		cmd.Stderr = os.Stderr // a panic's
		return cmd
	}}
	if o.Bin == "" {
		o.Bin = self
	}
	if terminal(p.stderr) {
		o.Progress = func(doing string) { _, _ = fmt.Fprintf(p.stderr, "\r\x1b[K%s", doing) }
		defer func() { _, _ = fmt.Fprint(p.stderr, "\r\x1b[K") }()
	}
	results, err := abuse.Run(p.ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		err = out.Encode(abuse.Report{Date: time.Now().UTC().Truncate(time.Second), Version: versionText(), Machine: load.Machine(), Results: results})
	} else {
		err = abuse.WriteTable(p.stdout, results)
	}
	var failed []string
	for _, r := range results {
		if len(r.Failures) > 0 {
			failed = append(failed, r.Name)
		}
	}
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("honest clients noticed: %s", strings.Join(failed, ", ")))
	}
	return err
}

// abuserCmd is the process of one attack. It is told which on its standard input.
type abuserCmd struct{}

// Run attacks until the standard input ends.
func (*abuserCmd) Run(p *process) error {
	return abuse.Work(p.ctx, p.stdin, p.stdout)
}
