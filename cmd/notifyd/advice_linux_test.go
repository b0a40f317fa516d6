package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
)

// What a command says of a failure ends with what to do, whatever the failure is.
func TestFailuresEndWithWhatToDo(t *testing.T) {
	t.Parallel()
	keys, key := keyFile(t)
	_, stranger := keyFile(t)
	r := serveHere(t, "--auth.keys="+keys, "--limits.message-bytes=1KiB", "--auth.token-bytes=900")
	sign := func(k authz.Key, lives time.Duration) string {
		token, err := authz.Sign(k, authz.Claims{Subject: "ann", IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(lives), Publish: []string{"a"}, Subscribe: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good, expired, forged := sign(key, time.Hour), sign(key, -time.Hour), sign(stranger, time.Hour)
	admin := strings.TrimPrefix(r.admin, "http://")
	closed := "ws://127.0.0.1:1/v1/ws"
	for _, c := range []struct {
		args, token, url string
		code             int
		last             string
	}{
		{"", "", "", exitUsage, "Run 'notifyd --help'"},
		{"pub", "", "", exitUsage, "Run 'notifyd pub --help'"},
		{"pub a 1", "", r.url, exitUsage, "Run 'notifyd pub --help'"},
		{"pub a x", good, r.url, exitUsage, "Run 'notifyd pub --help'"},
		{"pub a 1", good, closed, exitFailed, "Run 'notifyd doctor URL'"},
		{"pub a 1", good, "http://" + admin, exitFailed, "Run 'notifyd doctor URL'"},
		{"pub --http a 1", good, "http://" + admin, exitFailed, "Run 'notifyd doctor URL'"},
		{"pub --http a 1", good, closed, exitFailed, "Run 'notifyd doctor URL'"},
		{"pub b 1", good, r.url, exitFailed, "Run 'notifyd inspect' to see what the token grants"},
		{"pub --http b 1", good, r.url, exitFailed, "Run 'notifyd inspect' to see what the token grants"},
		{"pub a 1", expired, r.url, exitFailed, "Get a new token"},
		{"pub a 1", forged, r.url, exitFailed, "Run 'notifyd inspect --keys FILE'"},
		{"pub --strategy header a 1", forged, r.url, exitFailed, "Run 'notifyd inspect --keys FILE'"},
		{"pub a \"" + strings.Repeat("x", 2000) + "\"", good, r.url, exitFailed, "Send less in one message"},
		{"sub a.", good, r.url, exitUsage, "Run 'notifyd sub --help'"},
		{"sub a", good, closed, exitFailed, "Run 'notifyd doctor URL'"},
		{"sub b", good, r.url, exitFailed, "Run 'notifyd inspect' to see what the token grants"},
		{"sub --since 0 a", good, r.url, exitFailed, "Leave --since and --last out"},
		{"sub --strategy ticket a", expired, r.url, exitFailed, "Get a new token"},
		{"revoke", good, r.url, exitUsage, "Run 'notifyd revoke --help'"},
		{"revoke --sub a", good, r.url, exitFailed, "Use a token of an administrator"},
		{"revoke --sub a", forged, r.url, exitFailed, "Run 'notifyd inspect --keys FILE'"},
		{"revoke --sub a", good, closed, exitFailed, "Run 'notifyd doctor URL'"},
		{"inspect", "", "", exitUsage, "Run 'notifyd inspect --help'"},
		{"inspect nothing", "", "", exitFailed, "Make a new token"},
		{"inspect --keys " + keys, expired, "", exitFailed, "Make a new token"},
		{"inspect --audience b", good, "", exitFailed, "Make a new token"},
		{"token --key " + keys, "", "", exitUsage, "Run 'notifyd token --help'"},
		{"token --publish a --key " + keys, "", "", exitUsage, "Run 'notifyd token --help'"},
		{"keys public", "", "", exitUsage, "Run 'notifyd keys public --help'"},
		{"streams --admin http://127.0.0.1:1", "", "", exitFailed, "Run it on the node's machine"},
		{"streams --admin http" + strings.TrimPrefix(r.url, "ws"), "", "", exitFailed, "Run it on the node's machine"},
		{"doctor push", "", "", exitUsage, "Run 'notifyd doctor --help'"},
		{"doctor " + closed, "", "", exitFailed, ""}, // on standard output
		{"check --health http://127.0.0.1:1/readyz", "", "", exitFailed, "notifyd: health: .*; start the node"},
		{"check --health " + r.admin + "/nothing", "", "", exitFailed, "notifyd: health: .* 404 .*; docs/operations.md"},
		{"check", "", "", exitUsage, "notifyd: auth.keys: .*"},
		{"serve --listen nowhere --auth.keys " + keys, "", "", exitUsage, "notifyd: listen: "},
		{"version x", "", "", exitUsage, "Run 'notifyd version --help'"},
		{"completion x", "", "", exitUsage, "Run 'notifyd completion --help'"},
		{"bench fanout --size 0 --token x", "", "", exitUsage, "Run 'notifyd bench fanout --help'"},
	} {
		got := invoke(t, map[string]string{"NOTIFYD_TOKEN": c.token, "NOTIFYD_URL": c.url}, "", strings.Fields(c.args)...)
		lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
		if last := lines[len(lines)-1]; got.code != c.code || !regexp.MustCompile("^"+c.last).MatchString(last) {
			t.Errorf("%.80s: exit code %d, want %d\n%s\nwant at the end: %s", c.args, got.code, c.code, got.stderr, c.last)
		}
		if strings.Contains(got.stderr, "eyJ") {
			t.Errorf("%s: %s", c.args, got.stderr)
		}
	}
}
