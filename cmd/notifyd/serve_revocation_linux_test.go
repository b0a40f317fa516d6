package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// metric waits until /metrics has the line.
func (r *running) metric(t *testing.T, line string) {
	t.Helper()
	eventually(t, line, func() bool {
		_, metrics := r.get(t, "/metrics")
		return strings.Contains(metrics, "\n"+line+"\n")
	})
}

// A revocation on one node ends subscriptions and connections on the other, and the use of tokens that are remembered
// there; a node that comes later knows of it.
func TestRevocationOnTwoNodes(t *testing.T) {
	file, key := keyFile(t)
	nats := natsPort(t)
	one := serveHere(t, "--auth.keys", file, "--nats.listen", "u:pw@"+nats, "--auth.not-before-leeway=2s")
	two := serveHere(t, "--auth.keys", file, "--nats.url", "nats://u:pw@"+nats, "--auth.not-before-leeway=2s")
	admin := as(mint(t, key, authz.Claims{Subject: "operator", Admin: true}))
	old := time.Now().Add(-time.Hour)
	token := func(jti, sub string, issued time.Time) map[string]string {
		return as(mint(t, key, authz.Claims{ID: jti, Subject: sub, IssuedAt: issued, Publish: []string{">"}, Subscribe: []string{">"}}))
	}
	revoke := func(r *running, args ...string) {
		t.Helper()
		if got := invoke(t, admin, "", append([]string{"revoke", "--url", r.url}, args...)...); got != (result{}) {
			t.Fatalf("revoke %q: %+v", args, got)
		}
	}
	pub := func(r *running, env map[string]string) result {
		return invoke(t, env, "", "pub", "--url", r.url, "b", "1")
	}
	mustPub := func(r *running, env map[string]string) {
		t.Helper()
		if got := pub(r, env); got != (result{}) {
			t.Fatalf("pub: %+v", got)
		}
	}
	revoked := func(got result) bool { return got.code == exitFailed && strings.Contains(got.stderr, "token_revoked") }

	subscriber, publisher, bystander := token("j1", "eve", old), token("j2", "ann", old), token("j3", "bob", old)
	sub := background(t.Context(), subscriber, "sub", "--url", two.url, "a")
	connection := background(t.Context(), token("j4", "ann", old), "sub", "--url", two.url, "--strategy=header", "a")
	two.subscribed(t, 2)
	mustPub(one, publisher)
	mustPub(two, publisher)

	revoke(one, "--jti", "j1")
	revoke(one, "--jti", "j2")
	if got := pub(one, publisher); !revoked(got) {
		t.Errorf("on the node that was asked: %+v", got)
	}
	eventually(t, "the other node refuses it", func() bool { return revoked(pub(two, publisher)) })
	mustPub(two, bystander)

	ahead := token("j5", "ann", time.Now().Add(time.Second))
	// The later call reaches less far, and must not replace the other in the bucket.
	revoke(two, "--sub", "ann")
	revoke(two, "--sub", "ann", "--before", time.Now().Add(-24*time.Hour).Format(time.RFC3339))
	if got := <-sub; !revoked(got) || !strings.Contains(got.stderr, "subscription to a ended") {
		t.Errorf("sub: %+v", got)
	}
	if got := <-connection; got.code != exitFailed || !strings.Contains(got.stderr, "401") {
		t.Errorf("connection: %+v", got)
	}
	// A token from ahead of the clock falls with the others; those that are issued later count.
	for _, r := range []*running{one, two} {
		eventually(t, "the token from ahead of the clock is refused", func() bool { return revoked(pub(r, ahead)) })
		eventually(t, "a later token counts", func() bool { return pub(r, token("j7", "ann", time.Now())) == (result{}) })
	}
	for _, r := range []*running{one, two} {
		r.metric(t, "notifyd_revocation_seconds_count 4")
		r.metric(t, "notifyd_revocations 3")
	}
	one.metric(t, `notifyd_revocations_total{result="ok"} 2`)

	late := serveHere(t, "--auth.keys", file, "--nats.url", "nats://u:pw@"+nats)
	for name, env := range map[string]map[string]string{"jti": publisher, "sub": token("j6", "ann", old)} {
		if got := pub(late, env); !revoked(got) {
			t.Errorf("by %s, on a node that came later: %+v", name, got)
		}
	}
	mustPub(late, bystander)
	late.metric(t, "notifyd_revocation_seconds_count 0")

	for name, c := range map[string]struct {
		env        map[string]string
		args, want string
	}{
		"not an administrator": {bystander, "--jti x", "forbidden"},
		"too long":             {admin, "--jti " + strings.Repeat("x", 2000), "bad_envelope"},
		"long ago":             {admin, "--sub ann --before 1960-01-01T00:00:00Z", "bad_envelope"},
		"issuer alone":         {admin, "--sub ann --iss nobody", ""},
	} {
		got := invoke(t, c.env, "", append([]string{"revoke", "--url", one.url}, strings.Fields(c.args)...)...)
		if (got.code == exitOK) != (c.want == "") || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
	one.metric(t, `notifyd_revocations_total{result="refused"} 2`)
}

// While nobody knows what was revoked, a closed node refuses tokens that it has not seen before, an open one does not.
func TestRevocationOutage(t *testing.T) {
	t.Parallel()
	file, key := keyFile(t)
	nats := natsPort(t)
	home := serveHere(t, "--auth.keys", file, "--nats.listen", "u:pw@"+nats)
	closed := serveHere(t, "--auth.keys", file, "--nats.url", "nats://u:pw@"+nats, "--auth.revocation-max-age=5s")
	open := serveHere(t, "--auth.keys", file, "--nats.url", "nats://u:pw@"+nats, "--auth.revocation-max-age=5s", "--auth.revocation-outage=open")
	n := 0
	bearer := func() map[string]string {
		n++
		return map[string]string{"Authorization": "Bearer " + mint(t, key, authz.Claims{ID: fmt.Sprint(n), Subscribe: []string{"a"}})}
	}
	remembered := bearer()
	for _, r := range []*running{closed, open} {
		if _, status := r.dial(t, "", remembered); status != http.StatusSwitchingProtocols {
			t.Fatalf("before the outage: %d", status)
		}
	}
	admin := as(mint(t, key, authz.Claims{Subject: "operator", Admin: true}))
	if code := home.stop(); code != exitOK {
		t.Fatal(code)
	}
	if got := invoke(t, admin, "", "revoke", "--url", closed.url, "--jti", "x"); got.code != exitFailed || !strings.Contains(got.stderr, wire.Unavailable.String()) {
		t.Errorf("revoke in an outage: %+v", got)
	}
	closed.metric(t, `notifyd_revocations_total{result="failed"} 1`)
	eventually(t, "new tokens are refused", func() bool {
		conn, status := closed.dial(t, "", bearer())
		if conn != nil {
			_ = conn.CloseNow() // else there would be more than one address may have
		}
		return status == http.StatusServiceUnavailable
	})
	if _, status := closed.dial(t, "", remembered); status != http.StatusSwitchingProtocols {
		t.Errorf("a remembered token: %d", status)
	}
	if _, status := open.dial(t, "", bearer()); status != http.StatusSwitchingProtocols {
		t.Errorf("open: %d", status)
	}
	closed.metric(t, "notifyd_token_stale_total 1")
	open.metric(t, "notifyd_token_stale_total 0")
}

// A NATS without JetStream keeps no revocations: a closed node says so and takes no new token, an open one works.
func TestNATSWithoutJetStream(t *testing.T) {
	t.Parallel()
	nats, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	defer nats.WaitForShutdown()
	defer nats.Shutdown()
	file, key := keyFile(t)
	env := as(mint(t, key, authz.Claims{Publish: []string{"a"}}))
	for _, c := range []struct {
		outage, want string
		code, ready  int
	}{
		{"closed", "unavailable", exitFailed, http.StatusServiceUnavailable},
		{"open", "", exitOK, http.StatusOK},
	} {
		r := serveHere(t, "--auth.keys", file, "--nats.url", nats.ClientURL(), "--auth.revocation-outage", c.outage)
		if !strings.Contains(r.log.String(), "revocations are not loaded yet") {
			t.Errorf("%s: nothing is said:\n%s", c.outage, r.log)
		}
		if status, body := r.get(t, "/readyz"); status != c.ready {
			t.Errorf("%s: /readyz %d %s", c.outage, status, body)
		}
		if got := invoke(t, env, "", "pub", "--url", r.url, "a", "1"); got.code != c.code || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v", c.outage, got)
		}
		r.metric(t, "notifyd_revocations_age_seconds +Inf")
	}
}
