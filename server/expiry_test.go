package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// soon is an expiry between one and two seconds from now, on the second as exp
// claims are, and a token for everything until then.
func (n *node) soon(t testing.TB) (exp time.Time, token string) {
	t.Helper()
	exp = time.Now().Truncate(time.Second).Add(2 * time.Second)
	every := []string{">"}
	return exp, sign(t, n.key, authz.Claims{Expires: exp, Publish: every, Subscribe: every})
}

// A token that is remembered expires in the middle of a stream of publishes:
// the first frame at or after exp is refused, and all that follow.
func TestRememberedTokenExpires(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"HS256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			n := start(t, setup{alg: alg, server: server.Options{AuthFailures: 1000}, fake: new(memBus)})
			p, q := n.dial(t), n.dial(t) // memo and cache
			exp, token := n.soon(t)
			acked, refused := 0, 0
			for refused < 40 {
				for _, x := range []*peer{p, q} {
					sent := time.Now()
					x.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token)
					switch m := x.next(); {
					case m == `{"type":"ack","id":"1"}` && refused == 0 && sent.Before(exp):
						acked++
					case strings.Contains(m, `"token_expired"`) && !time.Now().Before(exp):
						refused++
					default:
						t.Fatalf("%v before exp, after %d acks and %d refusals: %s", exp.Sub(sent), acked, refused, m)
					}
				}
			}
			if acked == 0 {
				t.Error("nothing was acked")
			}
			if s := n.auth.Stats(); s.Verified != 1 {
				t.Errorf("%d signatures verified", s.Verified)
			}
			n.dial(t).publish("a", n.all(t), "1")
		})
	}
}

// A subscription's client is told once that its token expires soon, and when it
// has; before that every event comes, after it none.
func TestSubscriptionExpires(t *testing.T) {
	t.Parallel()
	for _, flooded := range []bool{false, true} { // expiry is seen by the clock, or by the next event
		t.Run(fmt.Sprint("flooded=", flooded), func(t *testing.T) {
			t.Parallel()
			n := start(t, setup{server: server.Options{ExpiryNotice: 10 * time.Second}, alg: "HS256", fake: new(memBus)})
			p, pub := n.dial(t), n.dial(t)
			// So long that on a busy machine, too, a second's tick comes between the notice and the end.
			exp := time.Now().Truncate(time.Second).Add(8 * time.Second)
			token := sign(t, n.key, authz.Claims{Expires: exp, Publish: []string{">"}, Subscribe: []string{">"}})
			p.send(`{"type":"subscribe","id":"s","topic":"a.*","token":%q}`, token)
			p.wantExactly(fmt.Sprintf(`{"type":"ack","id":"s","exp":%d}`, exp.Unix()))
			p.subscribe("stays", n.all(t))
			stop := func() int { return 0 }
			if flooded {
				stop = pub.flood("a.b", n.all(t))
			}
			warned, events := false, 0
			for {
				m := p.next()
				if m == `{"type":"expired","topic":"a.*"}` {
					break
				}
				switch {
				case m == fmt.Sprintf(`{"type":"expiring","topic":"a.*","exp":%d}`, exp.Unix()) && !warned:
					warned = true
				case m == fmt.Sprintf(`{"type":"event","topic":"a.b","pattern":"a.*","data":%d}`, events):
					events++
				default:
					t.Fatal(m)
				}
			}
			if time.Now().Before(exp) || !warned || flooded != (events > 0) {
				t.Errorf("expired %v after exp, warned %v, %d events", time.Since(exp), warned, events)
			}
			p.fence()
			if sent := stop(); sent < events {
				t.Errorf("%d events of %d", events, sent)
			}
			pub.publish("a.b", n.all(t), `"late"`)
			pub.publish("stays", n.all(t), `1`)
			p.wantExactly(`{"type":"event","topic":"stays","data":1}`)
			if m := n.metrics(t); m["notifyd_subscriptions"] != 1 || m["notifyd_topics"] != 1 {
				t.Errorf("%v subscriptions, %v topics", m["notifyd_subscriptions"], m["notifyd_topics"])
			}
			p.subscribe("a.*", n.all(t)) // and again
			pub.publish("a.b", n.all(t), `2`)
			p.wantExactly(`{"type":"event","topic":"a.b","pattern":"a.*","data":2}`)
		})
	}
}

// Subscribing again with a fresh token is how a subscription outlives its first
// one: under a stream of events none is lost and none comes twice.
func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"HS256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			n := start(t, setup{server: server.Options{ExpiryNotice: time.Hour}, alg: alg})
			p := n.dial(t)
			var exps []int64
			renew := func() {
				exp, token := n.soon(t)
				if len(exps) > 0 {
					exp = exp.Add(time.Minute + time.Duration(len(exps))*time.Second)
					token = sign(t, n.key, authz.Claims{Expires: exp, Subscribe: []string{"*"}})
				}
				exps = append(exps, exp.Unix())
				p.send(`{"type":"subscribe","id":"r","topic":"a","token":%q}`, token)
			}
			renew()
			p.want(`{"type":"ack","id":"r"`)
			stop := n.dial(t).flood("a", n.all(t))
			events, acks, expiring := 0, 1, make(map[int64]int)
			for end := time.Unix(exps[0], 0).Add(1500 * time.Millisecond); time.Now().Before(end) || acks < len(exps); {
				if events%50 == 0 && acks == len(exps) {
					renew()
				}
				m := p.next()
				var x struct {
					Type string
					Exp  int64
				}
				if err := json.Unmarshal([]byte(m), &x); err != nil {
					t.Fatal(err)
				}
				switch {
				case x.Type == "ack" && x.Exp == exps[acks]:
					acks++
				case x.Type == "expiring" && x.Exp == exps[acks-1]:
					expiring[int64(acks)]++
				case m == fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, events):
					events++
				default:
					t.Fatalf("after %d events, %d acks: %s", events, acks, m)
				}
			}
			for sent := stop(); events < sent; {
				if m := p.next(); strings.Contains(m, `"event"`) {
					if m != fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, events) {
						t.Fatal(m)
					}
					events++
				}
			}
			for token, times := range expiring {
				if times != 1 {
					t.Errorf("told %d times that token %d expires", times, token)
				}
			}
			if acks < 5 || len(expiring) == 0 {
				t.Errorf("%d refreshes, %d notices", acks, len(expiring))
			}
		})
	}
}

// A key that was withdrawn takes its tokens with it: those that are remembered,
// and after Recheck the subscriptions that rely on them.
func TestWithdrawnKey(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.fake = new(memBus)
		other := newKey(t, "ES256")
		with.more = []authz.Key{other}
		n := start(t, with)
		every := []string{">"}
		stays := sign(t, other, authz.Claims{Expires: time.Now().Add(hour), Publish: every, Subscribe: every})
		falls := n.all(t)
		var peers [4]*peer
		for i := range peers {
			peers[i] = n.dial(t)
			for _, topic := range []string{"a", "b.*", "c"} {
				peers[i].subscribe(topic, falls)
			}
			peers[i].subscribe("d", stays)
			for j := range i * 10 { // so that one has many
				peers[i].subscribe(fmt.Sprint("x.", j), falls)
			}
			peers[i].send(`{"type":"publish","topic":"z","token":%q,"data":1}`, falls)
			peers[i].fence()
		}
		if err := n.auth.SetKeys([]authz.Key{other}); err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, falls)
			p.wantError(wire.TokenInvalid, "1")
			p.send(`{"type":"subscribe","id":"2","topic":"e","token":%q}`, falls)
			p.wantError(wire.TokenInvalid, "2")
		}
		n.Recheck()
		for i, p := range peers {
			ended := make(map[string]bool)
			for range 3 + 10*i {
				var e struct{ Type, Topic, Code, ID string }
				if err := json.Unmarshal([]byte(p.next()), &e); err != nil || e.Code != "token_invalid" || e.ID != "" || ended[e.Topic] {
					t.Fatal(e, err)
				}
				ended[e.Topic] = true
			}
			if !ended["a"] || !ended["b.*"] || !ended["c"] {
				t.Errorf("ended %v", ended)
			}
			p.fence()
		}
		peers[0].send(`{"type":"publish","topic":"a","token":%q,"data":1}`, stays)
		peers[0].send(`{"type":"publish","topic":"d","token":%q,"data":2}`, stays)
		for _, p := range peers {
			p.wantExactly(`{"type":"event","topic":"d","data":2}`)
		}
		n.Recheck() // finds nothing more
		for _, p := range peers {
			p.fence()
		}
		if m := n.metrics(t); m["notifyd_subscriptions"] != 4 || m["notifyd_topics"] != 1 {
			t.Errorf("%v subscriptions, %v topics", m["notifyd_subscriptions"], m["notifyd_topics"])
		}
	})
}

// A key falls between the moment that its signature is found good and the one
// at which the envelope goes on.
func TestKeyFallsWhileVerifying(t *testing.T) {
	verified, gate := make(chan bool), make(chan bool)
	n := start(t, setup{fake: new(memBus), gate: func(int) { verified <- true; <-gate }})
	p := n.dial(t)
	p.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, n.all(t))
	<-verified
	if err := n.auth.SetKeys([]authz.Key{newKey(t, "EdDSA")}); err != nil {
		t.Fatal(err)
	}
	gate <- true
	p.wantError(wire.TokenInvalid, "1")
	p.fence()
}
