package main

import (
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// devTTL is how long the tokens of --dev last.
const devTTL = 24 * time.Hour

// greet prints what --dev promises: an address to open and two lines to paste. The tokens, and the secret with which the
// page has others made, go to standard output, and never to the log.
func (c *serveCmd) greet(p *process, key authz.Key, addr, mintSecret string) error {
	publisher, err := c.devToken(key, authz.Claims{Subject: "dev-publisher", Publish: []string{">"}})
	if err != nil {
		return err
	}
	subscriber, err := c.devToken(key, authz.Claims{Subject: "dev-subscriber", Subscribe: []string{">"}})
	if err != nil {
		return err
	}
	url, program := "ws://"+addr+c.PathPrefix+wire.Path, invocation(os.Args[0])
	_, err = fmt.Fprintf(p.stdout, `notifyd is listening on %s

See it work, in a browser:

  http://%s%s/console/#mint=%s

Subscribe, in a second terminal:

  %s sub --url %s --token %s 'demo.>'

Publish, in a third:

  %s pub --url %s --token %s demo.hello '{"text":"hello"}'

The tokens are good for every topic and for %d hours, as long as this process runs: its key is nowhere else.
`, url, addr, c.PathPrefix, mintSecret, program, url, subscriber, program, url, publisher, devTTL/time.Hour)
	return err
}

// mint signs tokens for the console with the key of --dev; nil without one, and nothing else in the program is like it.
func (c *serveCmd) mint(dev []authz.Key) func(authz.Claims) (string, error) {
	if len(dev) == 0 {
		return nil
	}
	return func(claims authz.Claims) (string, error) { return c.devToken(dev[0], claims) }
}

func (c *serveCmd) devToken(key authz.Key, claims authz.Claims) (string, error) {
	if claims.Expires.IsZero() {
		claims.IssuedAt = time.Now()
		claims.Expires = claims.IssuedAt.Add(devTTL)
	}
	claims.Issuer = c.Auth.Issuer
	if all := audienceList(c.Auth.Audience); len(all) > 0 {
		claims.Audience = all[:1]
	}
	return authz.Sign(key, claims)
}

// ran matches the path of a program that 'go run' has built: in a temporary folder, or in its cache.
var ran = regexp.MustCompile(`/go-build\d+/|/[0-9a-f]{64}-d/[^/]+$`)

// invocation is how to call this program again.
func invocation(arg0 string) string {
	if ran.MatchString(arg0) {
		return "go run ./cmd/notifyd"
	}
	return arg0
}
