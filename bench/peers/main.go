//go:build linux

// Peers compares notifyd with other ways to push events, on one machine in one
// run:
//
//	go run . run [--peers floor,gws] [--scenarios fan1000-w1] [--rounds 5] [--json FILE] [--svg FILE]
//	go run . serve NAME --listen 127.0.0.1:9000
//
// run starts each server as a process of its own, drives all of them through the
// scenarios in turn, and prints a table of medians with their ratio to the floor:
// the barest hub on epoll, which is what this approach costs at least. What counts
// is the CPU time of the server's process, which holds on noisy machines. All
// traffic stays on 127.0.0.1. A full run takes half an hour. Linux only.
//
// It is a module of its own, so that the peers stay out of notifyd's go.mod.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/notifyd/notifyd/bench/peers/hub"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: peers serve NAME --listen ADDR | peers run [flags]; run --help tells more")

func command(args []string) error {
	switch {
	case len(args) > 1 && args[0] == "serve":
		return serve(args[1], args[2:])
	case len(args) > 0 && args[0] == "run":
		return compare(args[1:])
	}
	return errUsage
}

func serve(name string, args []string) error {
	s, ok := hub.Find(name)
	if !ok {
		return fmt.Errorf("no server %q; there are %s", name, strings.Join(hubNames(), ", "))
	}
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:9000", "host and port")
	_ = flags.Parse(args) // it exits
	return s.Serve(*listen)
}

func hubNames() []string {
	var names []string
	for _, s := range hub.Servers {
		names = append(names, s.Name)
	}
	return names
}

// options are the flags of run.
type options struct {
	peers, scenarios string
	notifyd          string
	json, svg        string
	rounds           int
	duration, settle time.Duration
}

func compare(args []string) error {
	var o options
	var names []string
	for _, s := range scenarios {
		names = append(names, s.Name)
	}
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	flags.StringVar(&o.peers, "peers", strings.Join(append(hubNames(), "notifyd"), ","), "servers to compare")
	flags.StringVar(&o.scenarios, "scenarios", strings.Join(names, ","), "what to put them through")
	flags.StringVar(&o.notifyd, "notifyd", "", "notifyd's program; empty: built from ../../cmd/notifyd")
	flags.StringVar(&o.json, "json", "", "file for every single result")
	flags.StringVar(&o.svg, "svg", "", "file for a plot of the medians")
	flags.IntVar(&o.rounds, "rounds", 5, "times that each server goes through each scenario; the medians count")
	flags.DurationVar(&o.duration, "duration", 3*time.Second, "how long each measurement takes, after a warm-up of a quarter of it")
	flags.DurationVar(&o.settle, "settle", 5*time.Second, "how long connections idle before their memory is read")
	_ = flags.Parse(args) // it exits
	if flags.NArg() > 0 || o.rounds < 1 || o.duration <= 0 {
		return errUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, o)
}
