package main

import (
	"fmt"
	"os"
	"time"

	"github.com/notifyd/notifyd/authz"
)

type tokenCmd struct {
	Key       string        `help:"File with the private key: JWK or PEM." placeholder:"FILE" required:""`
	Sub       string        `help:"Who the token is for." placeholder:"NAME"`
	Publish   []string      `help:"Topic or pattern that it may publish to. Repeatable." placeholder:"PATTERN" sep:"none"`
	Subscribe []string      `help:"Topic or pattern that it may subscribe to. Repeatable." placeholder:"PATTERN" sep:"none"`
	TTL       time.Duration `help:"How long it is valid, from now." default:"1h" name:"ttl"`
	Iss       string        `help:"Issuer, as the server's auth.issuer wants it." placeholder:"ISS"`
	Aud       []string      `help:"Audience, as the server's auth.audience wants it. Repeatable." placeholder:"AUD" sep:"none"`
	Jti       string        `help:"Identifier of this token." placeholder:"ID"`
}

// Help is shown by --help.
func (tokenCmd) Help() string {
	return `Patterns are those of NATS: * stands for one part between dots, > for one or more at the end. Quote them, or the shell will take them.

    notifyd token --key key.jwk --sub billing --publish 'invoices.>' --ttl 15m
    export NOTIFYD_TOKEN=$(notifyd token --key key.jwk --sub ann --subscribe 'rooms.*')
    notifyd sub 'rooms.*'`
}

// Run prints the token.
func (c *tokenCmd) Run(p *process) error {
	if len(c.Publish)+len(c.Subscribe) == 0 {
		return usagef("a token without --publish and --subscribe permits nothing")
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
	})
	if err != nil {
		return usageError{err}
	}
	_, err = fmt.Fprintln(p.stdout, token)
	return err
}
