package server_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// Pages of other origins than those of the list neither connect nor call. The
// answers to pages of the list say so, to them alone, and never allow cookies.
func TestOrigins(t *testing.T) {
	list := []string{"https://app.example.com:8443", "plain.example", "*.wild.example", "http://*.dev.example", "HTTPS://Case.Example", "capacitor://localhost"}
	n := start(t, setup{alg: "HS256", server: server.Options{Origins: list}})
	anyone := start(t, setup{alg: "HS256", server: server.Options{Origins: []string{"*"}}})
	token := n.all(t)
	for _, x := range []struct {
		origin  string
		allowed bool
	}{
		{"https://app.example.com:8443", true},
		{"https://APP.example.com:8443", true},
		{"https://app.example.com", false},
		{"https://app.example.com:443", false},
		{"http://app.example.com:8443", false},
		{"http://plain.example", true},
		{"https://plain.example", true},
		{"https://plain.example:8443", false},
		{"https://plain.example.evil.example", false},
		{"https://notplain.example", false},
		{"https://a.plain.example", false},
		{"https://a.wild.example", true},
		{"http://a.b.wild.example", true},
		{"https://wild.example", false},
		{"https://.wild.example", false},
		{"https://evilwild.example", false},
		{"https://a.wild.example.evil.example", false},
		{"https://evil.example/.wild.example", false},
		{"https://user@.wild.example", false},
		{"https://evil.example#.wild.example", false},
		{"https://evil.example?.wild.example", false},
		{`https://evil.example\.wild.example`, false},
		{"https://evil.example%23.wild.example", false},
		{"https://evil.example;.wild.example", false},
		{"capacitor://localhost", true},
		{"ionic://localhost", false},
		{"capacitor://localhost.evil.example", false},
		{"https://evil.example, https://a.wild.example", false},
		{"http://a.dev.example", true},
		{"https://a.dev.example", false},
		{"https://case.example", true},
		{"null", false},
		{"https://", false},
		{"a.wild.example", false},
		{"*", false},
	} {
		t.Run(x.origin, func(t *testing.T) {
			origin := "Origin: " + x.origin
			shake, post, preflight := 403, 403, 403
			if x.allowed {
				shake, post, preflight = 101, 201, 204
			}
			for _, h := range []string{head("", origin), head("", origin, "Authorization: Bearer "+token)} {
				_ = n.ask(t, h).wantStatus(shake).conn.Close()
			}
			r := n.ask(t, request("POST", "/v1/tickets", "", origin, "Authorization: Bearer "+token)).wantStatus(post)
			flight := n.ask(t, request("OPTIONS", "/v1/tickets", "", origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")).wantStatus(preflight)
			for _, h := range []http.Header{r.header, flight.header} {
				want := ""
				if x.allowed {
					want = x.origin
				}
				if h.Get("Access-Control-Allow-Origin") != want || h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
					t.Error(h)
				}
			}
			if h := flight.header; x.allowed && (h.Get("Access-Control-Allow-Methods") != "GET, POST" || h.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type, Idempotency-Key, Last-Event-ID") {
				t.Error(h)
			}
			_ = anyone.ask(t, head("", origin)).wantStatus(101).conn.Close()
		})
	}
	_ = n.ask(t, head("", "Origin: https://a.wild.example", "Origin: https://b.wild.example")).wantStatus(403)
	_ = n.ask(t, request("POST", "/v1/tickets", "", "Origin: https://a.wild.example", "Origin: https://evil.example", "Authorization: Bearer "+token)).wantStatus(403)
	// A client that sends none is no browser.
	_ = n.ask(t, head("")).wantStatus(101).conn.Close()
	r := n.ask(t, request("POST", "/v1/tickets", "", "Authorization: Bearer "+token)).wantStatus(201)
	if r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error(r.header)
	}
	// A page must be able to read why its call was refused.
	r = n.ask(t, request("POST", "/v1/tickets", "", "Origin: https://plain.example")).wantStatus(401)
	if r.header.Get("Access-Control-Allow-Origin") != "https://plain.example" {
		t.Error(r.header)
	}
	// OPTIONS that is no preflight is just a method that is not there.
	n.ask(t, request("OPTIONS", "/v1/tickets", "", "Origin: https://plain.example")).wantStatus(405)
}

// A page of any origin may read a refused upgrade that says nothing about a token, as it may over HTTP.
func TestPagesMayReadRefusedUpgrades(t *testing.T) {
	n := start(t, setup{server: server.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Loop: loop.Options{ConnectionsPerIP: 1}}})
	const page, client = "Origin: https://elsewhere.example", "X-Forwarded-For: 192.0.2.1"
	_ = n.ask(t, head("", client)).wantStatus(101)
	for status, text := range map[int]string{
		429: head("", page, client),
		404: strings.Replace(head("", page), "/v1/ws", "/ws", 1),
		426: strings.Replace(head("", page), "Version: 13", "Version: 8", 1),
		400: strings.Replace(head("", page), "Sec-WebSocket-Version: 13\r\n", "", 1),
	} {
		if r := n.ask(t, text).wantStatus(status); r.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%d: %v", status, r.header)
		}
	}
	if r := n.ask(t, head("", page)).wantStatus(403); r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a foreign page: %v", r.header)
	}
}

// Without a list, pages of the host that the request is for connect and call, and no others.
func TestOriginOfTheHost(t *testing.T) {
	n := start(t, setup{alg: "HS256"})
	token := n.all(t)
	for origin, allowed := range map[string]bool{ // "Host: notifyd" stands in the requests
		"http://notifyd": true, "https://notifyd": true, "HTTPS://Notifyd": true,
		"http://notifyd:8080": false, "http://notifyd.evil.example": false, "http://evil.example": false, "http://a.notifyd": false,
		"null": false, "notifyd": false, "http://notifyd/": false, "http://user@notifyd": false, "http://notifyd, http://evil.example": false,
	} {
		shake, post := 403, 403
		if allowed {
			shake, post = 101, 201
		}
		_ = n.ask(t, head("", "Origin: "+origin)).wantStatus(shake).conn.Close()
		n.ask(t, request("POST", "/v1/tickets", "", "Origin: "+origin, "Authorization: Bearer "+token)).wantStatus(post)
	}
	_ = n.ask(t, head("")).wantStatus(101).conn.Close() // no browser
}
