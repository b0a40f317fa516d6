// Bench is the way to every benchmark of notifyd:
//
//	go run ./bench COMMAND [flags]
//
// README.md in this folder says what each measures. Those that are programs of their own are built and started from
// here; flags go to them as they are, and --help tells which there are.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/notifyd/notifyd/bench/auth"
	"github.com/notifyd/notifyd/bench/draw"
)

// command is one of the benchmarks. do is nil for a program of its own: a package in a folder of the tree, which gets
// args before those of the command line.
type command struct {
	name, about string
	do          func(args []string) error
	dir, path   string
	args        []string
}

var commands = []command{
	{name: "load", about: "a load on a notifyd: notifyd bench SCENARIO", path: "./cmd/notifyd", args: []string{"bench"}},
	{name: "stations", about: "Go benchmarks of each station of a message's path, against the last tag or --base", path: "./bench/stations"},
	{name: "auth", about: "what each way to authenticate costs, for each algorithm", do: auth.Main},
	{name: "peers", about: "the same loads on notifyd and on other servers; two hours", dir: "bench/peers", path: ".", args: []string{"run"}},
	{name: "goals", about: "whether notifyd reaches its goals; a quarter of an hour", dir: "bench/peers", path: ".", args: []string{"goals"}},
	{name: "echo", about: "a WebSocket echo server on notifyd's engine, for conformance suites", path: "./bench/echo"},
	{name: "draw", about: "draw the JSON of load or auth, a file or the standard input, as SVG", do: func(args []string) error {
		return draw.Main(args, os.Stdin, os.Stdout)
	}},
}

func main() {
	c, err := find(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	err = c.run(os.Args[2:])
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1)) // the program said why
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
		os.Exit(1)
	}
}

func find(args []string) (*command, error) {
	for i := range commands {
		if len(args) > 0 && args[0] == commands[i].name {
			return &commands[i], nil
		}
	}
	var b bytes.Buffer
	_, _ = fmt.Fprint(&b, "usage: go run ./bench COMMAND [flags]\n\n")
	for _, c := range commands {
		_, _ = fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.about)
	}
	return nil, errors.New(b.String())
}

func (c *command) run(args []string) error {
	if c.do != nil {
		return c.do(args)
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/notifyd/notifyd").Output()
	if err != nil {
		return fmt.Errorf("the tree of notifyd is not here: %w", err)
	}
	temp, err := os.MkdirTemp("", "notifyd-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	program := filepath.Join(temp, c.name)
	build := exec.Command("go", "build", "-o", program, c.path)
	build.Dir = filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(c.dir))
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	// An interrupt reaches the program as well; this one waits for its end, and then removes it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, program, append(c.args, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
