package server_test

import (
	"testing"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// However many connections there are, a recheck ends all that it must before it returns.
func TestRecheckOfMany(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		other := newKey(t, "HS256")
		with.alg, with.more = "HS256", []authz.Key{other}
		n := start(t, with)
		falls := n.all(t)
		const many = 1300 // more than are looked at in two turns
		var peers []*peer
		for range many {
			p := n.dial(t)
			p.subscribe("a", falls)
			peers = append(peers, p)
		}
		if err := n.auth.SetKeys([]authz.Key{other}); err != nil {
			t.Fatal(err)
		}
		n.Recheck()
		if left := n.metrics(t)["notifyd_subscriptions"]; left != 0 {
			t.Errorf("%v subscriptions are left", left)
		}
		for _, p := range peers {
			p.wantError(wire.TokenInvalid, "")
		}
	})
}
