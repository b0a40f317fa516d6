package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
)

// An issuer grants what the operator lets it, and no more.
func TestIssuers(t *testing.T) {
	t.Parallel()
	file, key := keyFile(t)
	other, otherKey := keyFile(t)
	config := writeFile(t, fmt.Sprintf(`
auth:
  issuers:
    - {name: id, keys: [%q], audience: notifyd, publish: [a.*], max_lifetime: 1h, type: at+jwt}
    - name: ops
      keys: [%q]
      admin: true
`, file, other))
	r := serveHere(t, "--config", config)
	now := time.Now()
	claims := func(change func(*authz.Claims)) string {
		c := authz.Claims{
			Issuer: "id", Audience: []string{"notifyd"}, Type: "at+jwt", Publish: []string{"a.b"},
			IssuedAt: now, Expires: now.Add(time.Hour),
		}
		change(&c)
		return mint(t, key, c)
	}
	for name, c := range map[string]struct {
		token, want string
	}{
		"permitted":      {claims(func(*authz.Claims) {}), ""},
		"other topic":    {claims(func(c *authz.Claims) { c.Publish = []string{"a.b", "b"} }), "token_invalid"},
		"subscribe":      {claims(func(c *authz.Claims) { c.Subscribe = []string{"a.b"} }), "token_invalid"},
		"admin":          {claims(func(c *authz.Claims) { c.Admin = true }), "token_invalid"},
		"too long":       {claims(func(c *authz.Claims) { c.Expires = now.Add(61 * time.Minute) }), "token_invalid"},
		"no audience":    {claims(func(c *authz.Claims) { c.Audience = nil }), "token_invalid"},
		"type":           {claims(func(c *authz.Claims) { c.Type = "" }), "token_invalid"},
		"other's key":    {claims(func(c *authz.Claims) { c.Issuer = "ops" }), "token_invalid"},
		"ops may not":    {mint(t, otherKey, authz.Claims{Issuer: "ops", Publish: []string{"a.b"}}), "token_invalid"},
		"ops is not one": {mint(t, otherKey, authz.Claims{Issuer: "ops", Admin: true}), "forbidden"},
	} {
		got := invoke(t, as(c.token), "", "pub", "--url", r.url, "a.b", "1")
		if (got.code == exitOK) != (c.want == "") || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
	ops := mint(t, otherKey, authz.Claims{Issuer: "ops", Admin: true})
	if got := invoke(t, as(ops), "", "revoke", "--url", r.url, "--jti", "x"); got != (result{}) {
		t.Errorf("revoke: %+v", got)
	}
}

// A key that appears at the URL counts at once, one that is gone no more after the next fetch.
func TestJWKSRotation(t *testing.T) {
	_, first := keyFile(t)
	_, second := keyFile(t)
	var set atomic.Value
	serving := func(keys ...authz.Key) {
		type jwks struct {
			Keys []json.RawMessage `json:"keys"`
		}
		var all jwks
		for _, key := range keys {
			public, err := key.Public()
			if err != nil {
				t.Fatal(err)
			}
			var one jwks
			if err := json.Unmarshal(public, &one); err != nil {
				t.Fatal(err)
			}
			all.Keys = append(all.Keys, one.Keys...)
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		set.Store(text)
	}
	serving(first)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text := set.Load().([]byte)
		if text == nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write(text)
	}))
	defer idp.Close()
	r := serveHere(t, "--auth.keys", idp.URL, "--auth.jwks-refresh=1h", "--auth.jwks-cooldown=1s", "--auth.jwks-timeout=20s")
	pub := func(key authz.Key) result {
		return invoke(t, as(mint(t, key, authz.Claims{Publish: []string{"a"}})), "", "pub", "--url", r.url, "a", "1")
	}
	if got := pub(first); got != (result{}) {
		t.Fatalf("first key: %+v", got)
	}
	if got := pub(second); got.code != exitFailed || !strings.Contains(got.stderr, "token_invalid") {
		t.Errorf("second key, unknown yet: %+v", got)
	}
	serving(first, second)
	eventually(t, "the second key counts", func() bool { return pub(second) == (result{}) })
	if got := pub(first); got != (result{}) {
		t.Errorf("first key beside the second: %+v", got)
	}

	hup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	set.Store([]byte(nil)) // the last good set survives an outage
	hup()
	eventually(t, "the failure is told", func() bool { return strings.Contains(r.log.String(), "status 500") })
	if got := pub(first); got != (result{}) {
		t.Errorf("first key in an outage: %+v", got)
	}
	serving(second)
	hup()
	eventually(t, "the first key is gone", func() bool { return strings.Contains(pub(first).stderr, "token_invalid") })
	if got := pub(second); got != (result{}) {
		t.Errorf("second key: %+v", got)
	}
	if _, metrics := r.get(t, "/metrics"); !strings.Contains(metrics, `notifyd_key_loads_total{result="failed"} 1`) {
		t.Error("the failure is not counted")
	}
	idp.Close()
	if got := invoke(t, nil, "", "serve", "--listen=127.0.0.1:0", "--admin.listen=", "--auth.keys", idp.URL); got.code != exitFailed || !strings.Contains(got.stderr, "JWK Set "+idp.URL) {
		t.Errorf("start without the keys: %+v", got)
	}
}
