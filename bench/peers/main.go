//go:build linux

// Peers compares notifyd with other ways to push events, on one machine in one
// run:
//
//	go run ./bench goals [--check] [--json FILE] [--svg FILE] [--plot FILE]
//	go run ./bench peers [--peers floor,gws] [--scenarios fan1000-w1] [--rounds 5]
//	cd bench/peers && go run . serve NAME --listen 127.0.0.1:9000
//
// peers, which is called run in this folder, starts each server as a process of its own, drives all of them through the
// scenarios in turn, and prints tables of medians with their ratio to the floor: the barest hub on epoll, which is what this
// approach costs at least. goals measures only what notifyd's goals are about, and says which of them are met. What counts
// is the CPU time of the server's process, which also holds on machines with other work. All traffic stays on 127.0.0.1.
// goals takes a quarter of an hour, a full run well over an hour. Linux only.
//
// One generator drives all of them, package bench/load, for which each server is
// a load.Target. It looks at frames and marks alone, and so costs about what the
// floor costs; the tables show that beside each server.
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

	"github.com/notifyd/notifyd/bench/load"
	"github.com/notifyd/notifyd/bench/peers/hub"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: peers serve NAME --listen ADDR | peers run [flags] | peers goals [flags]; --help tells more")

func command(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "plain":
		return load.PlainWork(context.Background(), os.Stdin, os.Stdout)
	case len(args) > 1 && args[0] == "serve":
		return serve(args[1], args[2:])
	case len(args) > 0 && args[0] == "run":
		return measured(args, 3*time.Second, run)
	case len(args) > 0 && args[0] == "goals":
		return measured(args, 2*time.Second, judgeGoals)
	}
	return errUsage
}

func serve(name string, args []string) error {
	s, ok := hub.Find(name)
	if name == busName {
		s, ok = hub.Server{Name: busName, Serve: hub.ServeBus}, true
	}
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

// options are the flags of run and goals.
type options struct {
	peers, scenarios string // of run
	notifyd          string
	centrifugo       string
	json, svg, plot  string
	check            bool // of goals
	rounds           int
	duration, settle time.Duration
}

// measured reads the flags of the command args[0] and does it.
func measured(args []string, duration time.Duration, do func(context.Context, options) error) error {
	var o options
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	if args[0] == "run" {
		flags.StringVar(&o.peers, "peers", strings.Join(append(hubNames(), "notifyd"), ","), "servers to compare; there are also "+strings.Join(besideNATS, ", "))
		flags.StringVar(&o.scenarios, "scenarios", strings.Join(scenarioNames(), ","), "what to put them through")
	}
	if args[0] == "goals" {
		flags.BoolVar(&o.check, "check", false, "exit with code 1 if a goal is missed in every round, unless it is known to be missed")
	}
	flags.StringVar(&o.notifyd, "notifyd", "", "notifyd's program; empty: built from this tree")
	flags.StringVar(&o.centrifugo, "centrifugo", "centrifugo", "Centrifugo's program, for the servers of that name: go install github.com/centrifugal/centrifugo/v6@v6.9.1")
	flags.StringVar(&o.json, "json", "", "file for every single result")
	flags.StringVar(&o.svg, "svg", "", "file for a plot of the medians, as bars")
	flags.StringVar(&o.plot, "plot", "", "file for a plot of latency by percentile and of throughput against CPU, 1→1,000")
	flags.IntVar(&o.rounds, "rounds", 5, "times that each server goes through each scenario; the medians count")
	flags.DurationVar(&o.duration, "duration", duration, "how long each measurement takes, after a warm-up of a quarter of it; percentiles take two or three times as long")
	flags.DurationVar(&o.settle, "settle", 5*time.Second, "how long connections idle before their memory is read")
	_ = flags.Parse(args[1:]) // it exits
	if flags.NArg() > 0 || o.rounds < 1 || o.duration <= 0 {
		return errUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return do(ctx, o)
}
