package server_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// When the keys of a URL have become too old, everything that relies on them ends in
// a way that tells clients to come back, and they can as soon as a fetch succeeds.
func TestKeysThatAreTooOld(t *testing.T) {
	key := newKey(t, "ES256")
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(public) }))
	defer idp.Close()
	var ago atomic.Int64 // how long ago the next fetch is to have been
	n := start(t, setup{fake: new(memBus), auth: authz.Options{
		Keys: []string{idp.URL}, Now: func() time.Time { return time.Now().Add(-time.Duration(ago.Load())) },
	}})
	fetched := func(before time.Duration) {
		t.Helper()
		ago.Store(int64(before))
		loads := n.auth.Stats().KeyLoads
		if err := n.auth.Reload(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the keys are fetched", func() bool { return n.auth.Stats().KeyLoads > loads })
		ago.Store(0)
		n.Recheck()
	}
	every := []string{">"}
	token := func(by authz.Key) string {
		return sign(t, by, authz.Claims{Expires: time.Now().Add(hour), Publish: every, Subscribe: every})
	}
	falls, stays := token(key), token(n.key)
	p, bound := n.dial(t), n.ask(t, bearer(falls)).opened()
	p.subscribe("a", falls)
	p.subscribe("b", stays)

	fetched(authz.DefaultJWKSMaxAge)
	p.want(`"type":"error"`, `"topic":"a"`, `"code":"unavailable"`)
	bound.wantEnd(wire.CloseTryLater)
	for range 20 { // it heals, so that it counts as no failure
		p.send(`{"type":"publish","id":"1","topic":"b","token":%q,"data":1}`, falls)
		p.wantError(wire.Unavailable, "1")
	}
	n.ask(t, bearer(falls)).wantStatus(503)
	n.ask(t, bearer(token(key))).wantStatus(503)
	n.ask(t, request("POST", postTickets, "", "Authorization: Bearer "+falls)).wantStatus(503)
	p.publish("b", stays, "1")
	p.want(`"type":"event"`, `"topic":"b"`)

	fetched(0)
	p.subscribe("a", falls)
	p.publish("a", falls, "2")
	p.want(`"type":"event"`, `"topic":"a"`)
	n.ask(t, bearer(falls)).opened()
}
