package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

type inspectCmd struct {
	TokenText string   `arg:"" optional:"" name:"token" help:"The token, or - for standard input. Default: NOTIFYD_TOKEN."`
	Keys      []string `help:"Verify it with the keys in this file (JWK, JWK Set, PEM), or at the URL of a JWK Set. Repeatable." placeholder:"FILE|URL"`
	Issuer    string   `help:"Required 'iss'." placeholder:"ISS"`
	Audience  []string `help:"Required in 'aud'. Repeatable: one of them is enough." placeholder:"AUD" sep:"none"`
}

// Help is shown by --help.
func (inspectCmd) Help() string {
	return `Prints the header and the claims, what is granted, and how long it lasts. With --keys the token is verified as the server would. Without it the signature is not looked at, but --issuer and --audience are. When a check fails, the error names it, with what the token says and what was wanted, and the exit code is 1.

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
	var refusal *authz.Refusal
	var verifier *authz.Verifier
	if len(c.Keys) > 0 {
		var err error
		if verifier, err = authz.New(authz.Options{
			Keys: c.Keys, Issuer: c.Issuer, Audience: audienceList(c.Audience), CacheEntries: 1, MaxTokenBytes: maxToken,
			OnRefused: func(r *authz.Refusal, _ netip.Addr) { refusal = r },
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
		show("grants    malformed, a server refuses the token: %s", seen.GrantFault)
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
		return c.compare(seen)
	}
	if _, code := verifier.Verify([]byte(token)); code != wire.OK {
		return fmt.Errorf("%s: %w", code.String(), refusal)
	}
	show("valid     signature and claims were verified")
	return nil
}

// compare looks at iss and aud of a token whose signature is not checked.
func (c *inspectCmd) compare(seen authz.Inspection) error {
	if c.Issuer != "" && seen.Issuer != c.Issuer {
		return fmt.Errorf("%s: iss is %q, wanted %q", wire.TokenInvalid.String(), seen.Issuer, c.Issuer)
	}
	if want := audienceList(c.Audience); len(want) > 0 && !slices.ContainsFunc(seen.Audience, func(aud string) bool { return slices.Contains(want, aud) }) {
		return fmt.Errorf("%s: aud is %q, wanted one of %q", wire.TokenInvalid.String(), seen.Audience, want)
	}
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
