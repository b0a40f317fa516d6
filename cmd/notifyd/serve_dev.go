package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// devTTL is how long the tokens of --dev last.
const devTTL = 24 * time.Hour

// greet prints what --dev promises: two lines to paste. The tokens go to standard output, and never to the log.
func (c *serveCmd) greet(p *process, key authz.Key, addr net.Addr) error {
	publisher, err := c.devToken(key, authz.Claims{Subject: "dev-publisher", Publish: []string{">"}})
	if err != nil {
		return err
	}
	subscriber, err := c.devToken(key, authz.Claims{Subject: "dev-subscriber", Subscribe: []string{">"}})
	if err != nil {
		return err
	}
	url, program := "ws://"+reachable(addr)+c.PathPrefix+wire.Path, invocation(os.Args[0])
	_, err = fmt.Fprintf(p.stdout, `notifyd is listening on %s

Subscribe, in a second terminal:

  %s sub --url %s --token %s 'demo.>'

Publish, in a third:

  %s pub --url %s --token %s demo.hello '{"text":"hello"}'

The tokens are good for every topic and for %d hours, as long as this process runs: its key is nowhere else.
`, url, program, url, subscriber, program, url, publisher, devTTL/time.Hour)
	return err
}

func (c *serveCmd) devToken(key authz.Key, claims authz.Claims) (string, error) {
	now := time.Now()
	claims.IssuedAt, claims.Expires = now, now.Add(devTTL)
	claims.Issuer = c.Auth.Issuer
	if all := audienceList(c.Auth.Audience); len(all) > 0 {
		claims.Audience = all[:1]
	}
	return authz.Sign(key, claims)
}

// reachable is the address to dial: a listener on every interface is reached on this machine's own.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
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
