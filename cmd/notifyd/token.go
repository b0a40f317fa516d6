package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

type tokenCmd struct {
	Key       string        `help:"File with the private key: JWK or PEM." placeholder:"FILE" required:""`
	Sub       string        `help:"Who the token is for." placeholder:"NAME"`
	Publish   []string      `help:"Topic or pattern that it may publish to. Repeatable." placeholder:"PATTERN" sep:"none"`
	Subscribe []string      `help:"Topic or pattern that it may subscribe to. Repeatable." placeholder:"PATTERN" sep:"none"`
	TTL       time.Duration `help:"How long it is valid, from now." default:"1h" name:"ttl"`
	Iss       string        `help:"Issuer, as the server's auth.issuer wants it." placeholder:"ISS"`
	Aud       []string      `help:"Audience, as the server's auth.audience wants it. Repeatable." placeholder:"AUD" sep:"none"`
	Jti       string        `help:"Identifier of this token, by which it can be revoked." placeholder:"ID"`
	Admin     bool          `help:"It may revoke tokens."`
	Once      bool          `help:"It is good for one message alone. Without --jti it gets a random one."`
	DigestOf  *message      `help:"It is good for this message alone, and for as often as it is sent unless --once. Without --publish it grants TOPIC." placeholder:"TOPIC DATA"`
}

// message is a flag that takes two arguments.
type message struct {
	topic string
	data  []byte
}

// Decode takes TOPIC and DATA off the command line.
func (m *message) Decode(ctx *kong.DecodeContext) error {
	topic, err := ctx.Scan.PopValue("TOPIC")
	if err != nil {
		return err
	}
	data, err := ctx.Scan.PopValue("DATA")
	if err != nil {
		return err
	}
	m.topic, m.data = topic.String(), []byte(data.String())
	if !wire.ValidTopic(m.topic) {
		return fmt.Errorf("%s: %w", m.topic, &wire.Error{Code: wire.BadTopic})
	}
	if !wire.ValidJSON(m.data) {
		return errors.New(`DATA is not JSON. Give it byte for byte as it will be published, quoted for the shell: '{"text":"hello"}'`)
	}
	return nil
}

// Help is shown by --help.
func (tokenCmd) Help() string {
	return `Patterns are those of NATS: * stands for one part between dots, > for one or more at the end. Quote them, or the shell will take them.

    notifyd token --key key.jwk --sub billing --publish 'invoices.>' --ttl 15m
    export NOTIFYD_TOKEN=$(notifyd token --key key.jwk --sub ann --subscribe 'rooms.*')
    notifyd sub 'rooms.*'

A token for one message, which is worth nothing to a thief:

    notifyd token --key key.jwk --sub billing --ttl 1m --once --digest-of invoices.7 '{"paid":true}'`
}

// Run prints the token.
func (c *tokenCmd) Run(p *process) error {
	digest := ""
	if m := c.DigestOf; m != nil {
		digest = authz.DigestOf(m.topic, m.data)
		if len(c.Publish) == 0 {
			c.Publish = []string{m.topic}
		}
	}
	if len(c.Publish)+len(c.Subscribe) == 0 && !c.Admin {
		return usagef("a token without --publish, --subscribe and --admin permits nothing")
	}
	for flag, patterns := range map[string][]string{"--publish": c.Publish, "--subscribe": c.Subscribe} {
		for _, pattern := range patterns {
			if c.Sub == "" && strings.Contains(pattern, "{sub}") {
				return usagef("%s %q: {sub} stands for the token's subject; give --sub", flag, pattern)
			}
		}
	}
	if c.Once && c.Jti == "" {
		c.Jti = rand.Text()
	}
	if c.TTL < time.Second {
		return usagef("--ttl: %v is too short; use a second or more", c.TTL)
	}
	text, err := os.ReadFile(c.Key)
	if err != nil {
		return usagef("--key: %w", err)
	}
	key, err := authz.ParseKey(text)
	if err != nil {
		return usagef("--key: %s: %w", c.Key, err)
	}
	now := time.Now()
	token, err := authz.Sign(key, authz.Claims{
		Issuer: c.Iss, Subject: c.Sub, Audience: c.Aud, ID: c.Jti,
		IssuedAt: now, Expires: now.Add(c.TTL),
		Publish: c.Publish, Subscribe: c.Subscribe,
		Admin: c.Admin, Once: c.Once, Digest: digest,
	})
	if err != nil {
		return usageError{err}
	}
	_, err = fmt.Fprintln(p.stdout, token)
	return err
}
