package server_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
)

// The fetches that strangers cause are counted by their address, whatever way they
// come in, so that a new key counts at once for others.
func TestStrangersUseUpTheirOwnFetches(t *testing.T) {
	for name, present := range map[string]func(n *node, t *testing.T, from, token string) string{
		"handshake": func(n *node, t *testing.T, from, token string) string {
			return http.StatusText(n.askFrom(t, from, bearer(token)).status)
		},
		"ticket": func(n *node, t *testing.T, from, token string) string {
			return http.StatusText(n.askFrom(t, from, request("POST", postTickets, "", "Authorization: Bearer "+token)).status)
		},
		"message": func(n *node, t *testing.T, from, token string) string {
			p := n.askFrom(t, from, head("")).opened()
			p.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
			return p.next()
		},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := newKey(t, "ES256"), newKey(t, "ES256")
			var key, ahead atomic.Value // what is published; how far the clock has been turned
			key.Store(first)
			ahead.Store(time.Duration(0))
			idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				public, _ := key.Load().(authz.Key).Public()
				_, _ = w.Write(public)
			}))
			defer idp.Close()
			n := start(t, setup{auth: authz.Options{
				Keys: []string{idp.URL}, JWKSCooldown: time.Hour, Now: func() time.Time { return time.Now().Add(ahead.Load().(time.Duration)) },
			}})
			token := func(by authz.Key) string {
				return sign(t, by, authz.Claims{Expires: time.Now().Add(24 * time.Hour), Subscribe: []string{">"}})
			}
			const stranger, client = "127.0.0.2", "127.0.0.1"
			refused := present(n, t, stranger, token(newKey(t, "ES256")))
			key.Store(second)
			ahead.Store(30 * time.Minute) // the stranger's budget is for an hour
			later := present(n, t, stranger, token(newKey(t, "ES256")))
			good := present(n, t, client, token(second))
			if refused == later || later == good || refused == good {
				t.Errorf("the stranger: %s, then %s; the client: %s", refused, later, good)
			}
		})
	}
}
