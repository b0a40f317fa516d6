package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

type inspectCmd struct {
	TokenText string   `arg:"" optional:"" name:"token" help:"The token, or - for standard input. Default: NOTIFYD_TOKEN."`
	Keys      []string `help:"Verify it with the keys in this file (JWK, JWK Set, PEM), or at the URL of a JWK Set. Repeatable." placeholder:"FILE|URL"`
	Issuer    string   `help:"With --keys: required 'iss'." placeholder:"ISS"`
	Audience  []string `help:"With --keys: required in 'aud'. Repeatable: one of them is enough." placeholder:"AUD" sep:"none"`
}

// Help is shown by --help.
func (inspectCmd) Help() string {
	return `Prints the header and the claims, what is granted, and how long it lasts. Without --keys the signature is not looked at; with it the token is verified as the server would, and an invalid one makes the exit code 1.

    notifyd inspect "$TOKEN"
    notifyd token --key key.jwk --publish a | notifyd inspect --keys keys.json -`
}

// Run prints what the token says and whether that is to be believed.
func (c *inspectCmd) Run(p *process) error {
	token := c.TokenText
	switch token {
	case "":
		token = p.env[envName("token")]
	case "-":
		text, err := io.ReadAll(io.LimitReader(p.stdin, maxToken))
		if err != nil {
			return err
		}
		token = string(text)
	}
	if token = strings.TrimSpace(token); token == "" {
		return usagef("no token: give one, or - and one on standard input, or set NOTIFYD_TOKEN")
	}
	var verifier *authz.Verifier
	if len(c.Keys) > 0 {
		var err error
		if verifier, err = authz.New(authz.Options{
			Keys: c.Keys, Issuer: c.Issuer, Audience: c.Audience, CacheEntries: 1, MaxTokenBytes: maxToken,
		}); err != nil {
			return usageError{err}
		}
	}
	seen, err := authz.Inspect(token)
	if err != nil {
		return fmt.Errorf("not a token: %w", err)
	}
	show := func(format string, args ...any) { _, _ = fmt.Fprintf(p.stdout, format+"\n", args...) }
	show("header    %s", seen.Header)
	show("claims    %s", seen.Claims)
	show("publish   %s", grants(seen.Publish))
	show("subscribe %s", grants(seen.Subscribe))
	for _, line := range special(seen.Claims) {
		show("%s", line)
	}
	if !seen.GrantsValid {
		show("grants    malformed: a server refuses the token")
	}
	for _, claim := range seen.TooLong {
		show("%-10sis longer than 1,024 bytes, so that nobody could revoke the token: a server refuses it", claim)
	}
	for _, date := range []struct {
		name string
		at   time.Time
	}{{"issued", seen.IssuedAt}, {"not before", seen.NotBefore}, {"expires", seen.Expires}} {
		if !date.at.IsZero() {
			show("%-10s%s (%s)", date.name, date.at.Format(time.RFC3339), relative(time.Until(date.at)))
		}
	}
	if verifier == nil {
		show("signature not checked: --keys FILE checks it")
		return nil
	}
	if _, code := verifier.Verify([]byte(token)); code != wire.OK {
		return &wire.Error{Code: code}
	}
	show("valid     signature and claims were verified")
	return nil
}

// special says what the notify claim holds besides patterns.
func special(claims []byte) (lines []string) {
	var c struct {
		Notify struct {
			Admin, Once bool
			Digest      string
		} `json:"notify"`
	}
	_ = json.Unmarshal(claims, &c) // what has the wrong type is told as a malformed grant
	if c.Notify.Admin {
		lines = append(lines, "admin     may revoke tokens")
	}
	if c.Notify.Digest != "" {
		lines = append(lines, "digest    good for one topic and data alone")
	}
	if c.Notify.Once {
		lines = append(lines, "once      good for one message alone")
	}
	return lines
}

// maxToken bounds what is taken for a token, in bytes.
const maxToken = 1 << 20

func grants(patterns []string) string {
	if len(patterns) == 0 {
		return "nothing"
	}
	return strings.Join(patterns, " ")
}

func relative(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Second).String() + " ago"
	}
	return "in " + d.Round(time.Second).String()
}
