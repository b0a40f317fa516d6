//go:build linux

package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	fresh         *load.Notifyd                    // makes a new token for each publish; only notifyd takes tokens
	durable       bool                             // acknowledges what is stored
	beside        func(addr, nats string) []string // command of a server that uses a nats-server in a process of its own; nil: command
	keep          func(addr string) []string       // more flags where topics are durable; nil: none
	keepEnv       []string                         // environment where topics are durable
	streams       bool                             // has no WebSocket, and sends Server-Sent Events
	tooSlow       string                           // close code of connections that do not read; "": whatever ends them
}

// run starts the server, puts it through one scenario and ends it.
func (c *candidate) run(ctx context.Context, s *scenario, o *options) (map[metric]float64, []load.Result, error) {
	p, err := c.start(s)
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

// busName is the nats-server that others use; besideNATS are they, and a server that is not part of this program.
const busName = "bus"

var besideNATS = []string{"notifyd-nats", "centrifugo", "centrifugo-nats"}

// start runs the server for a scenario, and the nats-server that it uses.
func (c *candidate) start(s *scenario) (*process, error) {
	keep, env := func(string) []string { return nil }, []string{"env"}
	if s.Plan.Kept() {
		env = append(env, c.keepEnv...)
		if c.keep != nil {
			keep = c.keep
		}
	}
	if c.beside == nil {
		return start(func(addr string) []string { return slices.Concat(env, c.command(addr), keep(addr)) })
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	nats, err := start(func(addr string) []string { return []string{self, "serve", busName, "--listen", addr} })
	if err != nil {
		return nil, err
	}
	p, err := start(func(addr string) []string { return slices.Concat(env, c.beside(addr, nats.addr), keep(addr)) })
	if err != nil {
		nats.stop()
		return nil, err
	}
	p.nats = nats
	return p, nil
}

// cannot says why a server cannot do a scenario; "" if it can.
func (c *candidate) cannot(s *scenario) string {
	_, keeps := c.target.(load.Keeper)
	switch {
	case s.Plan.Post > 1 && c.streams:
		return "cannot: takes one event a request"
	case s.Plan.Stored && !c.durable:
		return "cannot: acknowledges no event as stored"
	case s.Plan.Kept() && (!keeps || strings.HasPrefix(c.name, "centrifugo-")):
		return "cannot: keeps no events" // Centrifugo's NATS broker has no history
	}
	return ""
}

func candidates(names []string, o *options, dir string) (all []*candidate, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var c *candidate
		switch {
		case name == "notifyd" || name == "notifyd-nats":
			c, err = newNotifyd(name, o.notifyd, dir)
		case slices.Contains(besideNATS, name):
			c, err = newCentrifugo(name, o.centrifugo, dir)
		default:
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
		return nil, fmt.Errorf("no peer %q; there are notifyd, %s", name, strings.Join(append(hubNames(), besideNATS...), ", "))
	}
	c = &candidate{name: name, version: moduleVersion(s.Module), path: "/", target: hubTarget{}}
	c.command = func(addr string) []string { return []string{self, "serve", name, "--listen", addr} }
	switch name {
	case "nats":
		c.target = natsTarget{}
	case "centrifuge":
		c.target, err = newCentrifugeTarget()
	case "mercure":
		var token string
		token, err = hub.MercureToken()
		c.target, c.streams = mercureTarget{token: token}, true
	}
	return c, err
}

// takesPart says whether a scenario is one for this server.
func (c *candidate) takesPart(s *scenario) bool {
	if s.Plan.Post > 0 {
		_, posts := c.target.(load.Poster)
		return posts
	}
	return !c.streams && (c.fresh != nil || !s.tokens())
}

// newNotifyd makes ready what notifyd needs: the program, unless one is given, a
// key, and a token for every message; and a key of another kind, of which bad
// tokens are made.
func newNotifyd(name, program, dir string) (*candidate, error) {
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
	keys := filepath.Join(dir, name+"-keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return nil, err
	}
	good, file, err := newSigner(keys, "EdDSA")
	if err != nil {
		return nil, err
	}
	bad, badFile, err := newSigner(keys, "ES256")
	if err != nil {
		return nil, err
	}
	version, err := output(program, "version")
	command := func(addr string, more ...string) []string {
		// It is killed, and what it leaves behind goes with dir.
		return append([]string{
			"env", "TMPDIR=" + dir, program, "serve", "--listen", addr, "--admin.listen", "", "--limits.connections-per-ip", "0",
			"--auth.keys", file, "--auth.keys", badFile,
		}, more...)
	}
	c := &candidate{
		name:    name,
		durable: true,
		version: strings.TrimPrefix(version, "notifyd "),
		path:    wire.Path,
		target:  &load.Notifyd{Token: good.Token, Spoil: bad.Token},
		fresh:   good,
		tooSlow: strconv.Itoa(int(wire.CloseSlowConsumer)),
		command: func(addr string) []string { return command(addr) },
	}
	c.keep = func(addr string) []string {
		return []string{load.StreamFlag(), "--data-dir", filepath.Join(dir, "data-"+strings.ReplaceAll(addr, ":", "-"))}
	}
	if name == "notifyd-nats" {
		c.keep = func(string) []string { return []string{load.StreamFlag()} }
		c.beside = func(addr, nats string) []string { return command(addr, "--nats.url", "nats://"+nats) }
	}
	return c, err
}

// newCentrifugo is Centrifugo's own program: with its memory engine, or with its NATS broker. A client's token is checked
// when it connects, and it may subscribe and publish everywhere.
func newCentrifugo(name, program, dir string) (*candidate, error) {
	program, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%s: name Centrifugo's program with --centrifugo: %w", name, err)
	}
	target, err := newCentrifugeTarget()
	if err != nil {
		return nil, err
	}
	c := &candidate{name: name, path: "/connection/websocket", target: centrifugoTarget{target}}
	if built, err := buildinfo.ReadFile(program); err == nil {
		c.version = built.Main.Version // "version" knows only that of a release
	}
	command := func(addr, nats string) []string {
		host, port, _ := strings.Cut(addr, ":")
		env := []string{
			"env", "TMPDIR=" + dir, "CENTRIFUGO_HTTP_SERVER_ADDRESS=" + host, "CENTRIFUGO_HTTP_SERVER_PORT=" + port,
			"CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY=" + hub.TokenKey, "CENTRIFUGO_LOG_LEVEL=error", "CENTRIFUGO_USAGE_STATS_DISABLED=true",
			"CENTRIFUGO_WEBSOCKET_WRITE_TIMEOUT=1m", // of a whole history
			"CENTRIFUGO_CLIENT_ALLOWED_ORIGINS=*", "CENTRIFUGO_CLIENT_QUEUE_MAX_SIZE=67108864", "CENTRIFUGO_CLIENT_CHANNEL_LIMIT=100000",
			"CENTRIFUGO_CLIENT_PING_INTERVAL=1h", "CENTRIFUGO_CLIENT_PONG_TIMEOUT=0s", // the driver answers none
			"CENTRIFUGO_CLIENT_RECOVERY_MAX_PUBLICATION_LIMIT=0", "CENTRIFUGO_CLIENT_HISTORY_MAX_PUBLICATION_LIMIT=0",
			"CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT=true",
			"CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_PUBLISH_FOR_CLIENT=true", "CENTRIFUGO_HTTP_API_KEY=" + apiKey,
		}
		if nats != "" {
			env = append(env, "CENTRIFUGO_BROKER_ENABLED=true", "CENTRIFUGO_BROKER_TYPE=nats", "CENTRIFUGO_BROKER_NATS_URL=nats://"+nats)
		}
		return append(env, program)
	}
	c.command = func(addr string) []string { return command(addr, "") }
	c.keepEnv = []string{
		"CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE=100000", "CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL=1h",
		"CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_FORCE_RECOVERY=true",
	}
	if name == "centrifugo-nats" {
		c.beside = command
	}
	return c, nil
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
