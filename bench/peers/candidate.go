//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/bench/load"
	"github.com/notifyd/notifyd/bench/peers/hub"
	"github.com/notifyd/notifyd/wire"
)

// candidate is a server to compare: how to start it and how to speak to it.
type candidate struct {
	name, version string
	command       func(addr string) []string
	path          string // of its WebSocket endpoint
	target        load.Target
	fresh         *load.Notifyd // makes a new token for each publish; only notifyd takes tokens
	tooSlow       string        // close code of connections that do not read; "": whatever ends them
}

// play starts the server, puts it through one scenario and ends it.
func (c *candidate) run(ctx context.Context, s *scenario, o *options) (map[metric]float64, []load.Result, error) {
	p, err := start(c.command)
	if err != nil {
		return nil, nil, err
	}
	values, results, err := s.measure(ctx, p, c, o)
	p.stop()
	if err != nil && p.stderr.Len() > 0 {
		err = fmt.Errorf("%w\n%s", err, p.stderr.String())
	}
	return values, results, err
}

func candidates(names []string, notifyd, dir string) (all []*candidate, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var c *candidate
		if name == "notifyd" {
			c, err = newNotifyd(notifyd, dir)
		} else {
			c, err = newPeer(name, self)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func newPeer(name, self string) (c *candidate, err error) {
	s, ok := hub.Find(name)
	if !ok {
		return nil, fmt.Errorf("no peer %q; there are notifyd, %s", name, strings.Join(hubNames(), ", "))
	}
	c = &candidate{name: name, version: moduleVersion(s.Module), path: "/", target: hubTarget{}}
	c.command = func(addr string) []string { return []string{self, "serve", name, "--listen", addr} }
	switch name {
	case "nats":
		c.target = natsTarget{}
	case "centrifuge":
		c.target, err = newCentrifugeTarget()
	}
	return c, err
}

// takesPart says whether a scenario is one for this server.
func (c *candidate) takesPart(s *scenario) bool { return c.fresh != nil || !s.tokens() }

// newNotifyd makes ready what notifyd needs: the program, unless one is given, a
// key, and a token for every message; and a key of another kind, of which bad
// tokens are made.
func newNotifyd(program, dir string) (*candidate, error) {
	if program == "" {
		program = filepath.Join(dir, "notifyd")
		root, err := output("go", "list", "-m", "-f", "{{.Dir}}", "github.com/notifyd/notifyd")
		if err != nil {
			return nil, fmt.Errorf("notifyd is built from its tree, so run this there or use --notifyd: %w", err)
		}
		build := exec.Command("go", "build", "-o", program, "./cmd/notifyd")
		build.Dir = root // with the versions of its own go.mod
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
	}
	good, file, err := newSigner(dir, "EdDSA")
	if err != nil {
		return nil, err
	}
	bad, badFile, err := newSigner(dir, "ES256")
	if err != nil {
		return nil, err
	}
	version, err := output(program, "version")
	return &candidate{
		name:    "notifyd",
		version: strings.TrimPrefix(version, "notifyd "),
		path:    wire.Path,
		target:  &load.Notifyd{Token: good.Token, Spoil: bad.Token},
		fresh:   good,
		tooSlow: strconv.Itoa(int(wire.CloseSlowConsumer)),
		command: func(addr string) []string {
			// It is killed, and what it leaves behind goes with dir.
			return []string{"env", "TMPDIR=" + dir, program, "serve", "--listen", addr, "--admin.listen", "", "--limits.connections-per-ip", "0", "--auth.keys", file, "--auth.keys", badFile}
		},
	}, err
}

// tokenTTL is more than a run takes.
const tokenTTL = 24 * time.Hour

// newSigner makes a key, in a file for the server, and what signs with it.
func newSigner(dir, alg string) (signer *load.Notifyd, file string, err error) {
	key, file, err := rig.NewKey(dir, alg)
	if err != nil {
		return nil, "", err
	}
	signer, err = load.NewNotifyd(key, authz.Claims{Subject: "bench"}, tokenTTL, true)
	return signer, file, err
}

// output is what a program prints, without the line's end.
func output(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w\n%s", program, args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
