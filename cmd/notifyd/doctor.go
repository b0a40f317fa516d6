package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

type doctorCmd struct {
	URL       string        `arg:"" optional:"" name:"url" help:"The server's WebSocket endpoint. Without a path: /v1/ws. Default: NOTIFYD_URL, else ws://127.0.0.1:8080/v1/ws."`
	Token     string        `help:"Token to try; best given as NOTIFYD_TOKEN, out of the shell's history. Without one, what needs it is skipped." placeholder:"JWT"`
	TokenFile string        `help:"File with the token, or - for standard input; instead of --token." placeholder:"FILE"`
	Strategy  []string      `help:"Way to present the token to try: ${enum}. Repeatable." enum:"message,first-message,header,subprotocol,ticket,query" default:"message"`
	Topic     string        `help:"Topic to subscribe to, and to publish one event to. Default: one that nobody else uses, inside the token's patterns." placeholder:"TOPIC"`
	Origin    string        `help:"Also connect as a page of this origin: https://app.example.com." placeholder:"ORIGIN"`
	Keys      []string      `help:"The server's keys, as for inspect: they say which check a token fails that the server refuses. Repeatable." placeholder:"FILE|URL"`
	Issuer    string        `help:"The server's auth.issuer, for the same." placeholder:"ISS"`
	Audience  []string      `help:"The server's auth.audience, for the same. Repeatable." placeholder:"AUD" sep:"none"`
	Admin     string        `help:"Also ask /readyz of the node's admin listener: http://127.0.0.1:9090." placeholder:"URL"`
	Idle      time.Duration `help:"Also keep a connection without events for so long, to see whether a proxy ends it." default:"0s"`
	Timeout   time.Duration `help:"Time for each step." default:"5s"`
	JSON      bool          `help:"Print the findings as one JSON object." name:"json"`
}

// Help is shown by --help.
func (doctorCmd) Help() string {
	return `Goes the way of a client step by step, and says of each step whether it is ok, has FAILED or was skipped; at the end the cause and the remedy. Exit code 1: something has failed. The token is never printed, and goes to no server that has no valid certificate.

    notifyd doctor wss://push.example.com
    notifyd doctor --strategy ticket --strategy header --origin https://app.example.com wss://push.example.com
    notifyd doctor --keys keys.json --audience push --json

It publishes one event, if the token permits that on a topic that nobody else uses; with --topic on that one.`
}

const defaultURL = "ws://127.0.0.1:8080" + wire.Path

// Run makes the examination.
func (c *doctorCmd) Run(p *process) error {
	log.SetOutput(io.Discard) // net/http tells there what spoke before it was asked: a step says so
	x, err := c.prepare(p)
	if err != nil {
		return err
	}
	defer x.end()
	out := &chart{to: p.stdout, names: x.names()}
	if !c.JSON {
		out.heading(x.shown())
	}
	report := x.examine(func(s *finding) {
		if !c.JSON {
			out.line(s)
		}
	})
	if c.JSON {
		text, err := json.Marshal(report)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(p.stdout, "%s\n", text); err != nil {
			return err
		}
	} else {
		out.end(report)
	}
	if out.err != nil {
		return out.err
	}
	if !report.OK {
		return errTold
	}
	return p.ctx.Err()
}

// prepare checks what was asked for.
func (c *doctorCmd) prepare(p *process) (*examination, error) {
	u, err := url.Parse(cmp.Or(c.URL, p.env[envName("url")], defaultURL))
	switch {
	case err != nil:
		return nil, usagef("the URL does not parse")
	case u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "http" && u.Scheme != "https":
		return nil, usagef("the URL has to begin with ws:// or wss:// and a host, such as wss://push.example.com%s", wire.Path)
	case c.Topic != "" && !wire.ValidTopic(c.Topic):
		return nil, usagef("--topic: %w", &wire.Error{Code: wire.BadTopic})
	case c.Idle < 0 || c.Timeout <= 0:
		return nil, usagef("--idle and --timeout are times above 0, such as 90s")
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	if u.Path == "" || u.Path == "/" {
		u.Path = wire.Path
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	x := &examination{doctorCmd: c, ctx: p.ctx, url: u, now: time.Now, wantsCertificate: new(atomic.Bool)}
	if x.token, err = c.readToken(p); err != nil {
		return nil, err
	}
	if len(c.Keys) > 0 {
		if x.verifier, err = authz.New(authz.Options{
			Keys: c.Keys, Issuer: c.Issuer, Audience: audienceList(c.Audience), CacheEntries: 1, MaxTokenBytes: maxToken,
			OnRefused: func(r *authz.Refusal, _ netip.Addr) { x.refusal = r },
		}); err != nil {
			return nil, usageError{err}
		}
	}
	return x, nil
}

func (c *doctorCmd) readToken(p *process) (string, error) {
	if c.TokenFile == "" {
		return strings.TrimSpace(c.Token), nil
	}
	from := p.stdin
	if c.TokenFile != "-" {
		f, err := os.Open(c.TokenFile)
		if err != nil {
			return "", usagef("--token-file: %w", err)
		}
		defer func() { _ = f.Close() }() // only read
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxToken))
	if err == nil && len(bytes.TrimSpace(text)) == 0 {
		err = errors.New("no token is in it")
	}
	if err != nil {
		return "", usagef("--token-file: %w", err)
	}
	return string(bytes.TrimSpace(text)), nil
}

// chart prints findings, one a line.
type chart struct {
	to    io.Writer
	names int // how wide the longest name of a step is
	err   error
}

func (o *chart) print(format string, args ...any) {
	if o.err == nil {
		_, o.err = fmt.Fprintf(o.to, format, args...)
	}
}

func (o *chart) heading(url string) { o.print("%s\n\n", url) }

func (o *chart) line(s *finding) {
	state := s.State
	if state == stateFailed {
		state = strings.ToUpper(state)
	}
	o.print("%-7s  %-*s  %s\n", state, o.names, s.Step, s.Detail)
}

func (o *chart) end(r *diagnosis) {
	if r.OK {
		o.print("\nNothing is wrong here.\n")
		return
	}
	o.print("\ncause:  %s\nremedy: %s\n", r.Cause, r.Remedy)
}
