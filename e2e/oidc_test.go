//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// provider is npm oidc-provider in a process of its own.
type provider struct {
	script
	issuer         string
	jwksURL, token string // as its metadata has them (OpenID Connect Discovery 1.0 §3)
}

// startProvider starts the provider, with one key, "first". Its tokens are for that audience and have these claims too.
func startProvider(t *testing.T, alg, audience, claims string) *provider {
	t.Helper()
	p := &provider{script: startScript(t, "oidc.mjs", alg, audience, claims)}
	var said struct{ Issuer string }
	p.hear(t, 0, &said)
	p.issuer = said.Issuer
	resp, err := http.Get(p.issuer + "/.well-known/openid-configuration")
	var metadata struct {
		JWKS  string `json:"jwks_uri"`
		Token string `json:"token_endpoint"`
	}
	decodeBody(t, resp, err, &metadata)
	p.jwksURL, p.token = metadata.JWKS, metadata.Token
	return p
}

// publish has the provider publish these keys and sign with the first. It returns how much the provider had said when
// that was so.
func (p *provider) publish(t *testing.T, keys ...string) (seen int) {
	t.Helper()
	seen = p.says.len()
	p.tell(t, map[string][]string{"keys": keys})
	p.says.await(t, "the new keys", seen, func(line string) bool {
		seen++
		return strings.HasPrefix(line, `{"keys":`)
	})
	return seen
}

// grant asks for a token, as a backend does.
func (p *provider) grant(t *testing.T) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, p.token, strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("backend", url.QueryEscape("loopback only")) // RFC 6749 §2.3.1
	resp, err := http.DefaultClient.Do(r)
	var answer struct {
		Token string `json:"access_token"`
	}
	decodeBody(t, resp, err, &answer)
	return answer.Token
}

func decodeBody(t *testing.T, resp *http.Response, err error, to any) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, to)
	}
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("status %d, %v: %s", resp.StatusCode, err, body)
	}
}

// TestKeyRotation publishes all through a provider's rotation: a second key appears and signs from then on, later the
// first is withdrawn. A valid token is never refused, and works at once with the new key; with the retired key
// everything is refused from the moment that the server has the set without it.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	const topic, audience = "oidc.rotation", "urn:example:notifyd"
	idp := startProvider(t, "ES256", audience, `{"notify":{"publish":["oidc.>"],"subscribe":["oidc.>"]}}`)
	node := serve(t, "notifyd", nil, "--auth.keys="+idp.jwksURL, "--auth.issuer="+idp.issuer, "--auth.audience="+audience,
		"--auth.jwks-refresh=2s", "--limits.auth-failures=1000000")
	// Each on a connection of its own, so that one remembers its token and the other does not.
	one, two := dialCoder(t, "publisher", node.url), dialNPM(t, "another publisher", node.url)
	subscriber := dialCoder(t, "subscriber", node.url)

	sent := 0
	must := func(p *peer, token string) {
		t.Helper()
		sent++
		if m := p.publish(t, topic, token, fmt.Sprint(sent)); m.Type != "ack" {
			t.Fatalf("%s: event %d: %s %s: %s", p.name, sent, m.Type, m.Code, m.Message)
		}
	}
	old := idp.grant(t)
	subscriber.subscribe(t, topic, old)
	for range 20 {
		must(one, old)
	}

	// The new key signs before the server has heard of it.
	idp.publish(t, "second", "first")
	fresh := idp.grant(t)
	must(two, fresh)
	for range 200 {
		must(one, old)
		must(two, fresh)
		must(two, old)
		must(one, fresh)
	}
	subscriber.awaitEvents(t, sent)
	lasting := dialCoder(t, "subscriber with the new key", node.url)
	lasting.subscribe(t, topic, fresh)

	// The server asks for the keys again when it has taken into use what it got the time before.
	retired := idp.publish(t, "second")
	asked := func() (times int) {
		for _, line := range idp.says.all()[retired:] {
			if line == `{"asked":["second"]}` {
				times++
			}
		}
		return times
	}
	refused, before := 0, sent
	for refused < 50 {
		must(two, fresh)
		installed := asked() >= 2
		m := one.publish(t, topic, old, `"with the retired key"`)
		switch {
		case m.Type == "ack" && !installed && refused == 0:
		case m.Type == "error" && m.Code == "token_invalid":
			refused++
		default:
			t.Fatalf("after %d refusals, new keys installed: %v: %s %q", refused, installed, m.Type, m.Code)
		}
	}
	if m := dialCoder(t, "a publisher that never was here", node.url).publish(t, topic, old, "0"); m.Code != "token_invalid" {
		t.Errorf("the retired key on a new connection: %s %q, want token_invalid", m.Type, m.Code)
	}
	ended := subscriber.got.await(t, "the end of the subscription", 0, func(frame string) bool { return decode(t, frame).Type == "error" })
	if m := decode(t, ended); m.ID != "" || m.Topic != topic || m.Code != "token_invalid" {
		t.Errorf("the subscription under the retired key ended with %s", ended)
	}
	lasting.got.await(t, "the last event", 0, func(frame string) bool { return string(decode(t, frame).Data) == fmt.Sprint(sent) })
	if sent == before {
		t.Error("nothing was published after the first key was withdrawn")
	}
}
