package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// bound mints a token for one message.
func (n *node) bound(t testing.TB, topic, data string, once bool) string {
	t.Helper()
	c := authz.Claims{ID: fmt.Sprint(serial.Add(1)), Expires: time.Now().Add(hour), Publish: []string{">"}, Subscribe: []string{">"}, Once: once}
	if topic != "" {
		c.Digest = authz.DigestOf(topic, []byte(data))
	}
	return sign(t, n.key, c)
}

// A token with a digest publishes these very bytes to this topic, and nothing
// that differs by a single one.
func TestDigest(t *testing.T) {
	for _, alg := range []string{"HS256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			n := start(t, setup{alg: alg, fake: new(memBus), server: server.Options{AuthFailures: 1000}})
			sub, p := n.dial(t), n.dial(t)
			sub.subscribe(">", n.all(t))
			for _, x := range []struct {
				name, signed, topic, data string
				ok                        bool
			}{
				{"the same", `{"n":1}`, "a.b", `{"n":1}`, true},
				{"one byte", `{"n":1}`, "a.b", `{"n":2}`, false},
				{"one bit of a string", `"a"`, "a.b", `"c"`, false},
				{"white space inside", `{"n":1}`, "a.b", `{"n": 1}`, false},
				{"white space that was signed", `{"n": 1}`, "a.b", `{"n": 1}`, true},
				{"white space left out", `{"n": 1}`, "a.b", `{"n":1}`, false},
				{"another spelling of a number", `1`, "a.b", `1.0`, false},
				{"another spelling of a string", `"a"`, "a.b", `"\u0061"`, false},
				{"the order of members", `{"a":1,"b":2}`, "a.b", `{"b":2,"a":1}`, false},
				{"a longer number", `1`, "a.b", `10`, false},
				{"another topic", `1`, "a.c", `1`, false},
				{"a topic in another case", `1`, "A.b", `1`, false},
				{"a longer topic", `1`, "a.b.c", `1`, false},
				{"empty string", `""`, "a.b", `""`, true},
				{"UTF-8", `"ä"`, "a.b", `"ä"`, true},
			} {
				t.Run(x.name, func(t *testing.T) {
					token := n.bound(t, "a.b", x.signed, false)
					for range 3 { // without once it may be repeated
						p.send(`{"type":"publish","id":"1","topic":%q,"token":%q,"data":%s}`, x.topic, token, x.data)
						if !x.ok {
							p.wantError(wire.DigestMismatch, "1")
							continue
						}
						p.wantExactly(`{"type":"ack","id":"1"}`)
						sub.wantExactly(fmt.Sprintf(`{"type":"event","topic":%q,"pattern":">","data":%s}`, x.topic, x.data))
					}
					sub.fence()
				})
			}
			// The envelope's own white space and escapes are not part of the data.
			p.send(`{ "data" : {"n":1} , "topic" : "a\u002eb" , "token" : %q , "id" : "2" , "type" : "publish" }`, n.bound(t, "a.b", `{"n":1}`, false))
			p.wantExactly(`{"type":"ack","id":"2"}`)
		})
	}
}

// A token for one message is neither a credential nor good for a subscription,
// and counts for what it grants and no more.
func TestBoundElsewhere(t *testing.T) {
	n := start(t, setup{server: server.Options{Strategies: server.DefaultStrategies | server.StrategyQuery}})
	for name, token := range map[string]string{"once": n.bound(t, "", "", true), "digest": n.bound(t, "a", "1", false), "both": n.bound(t, "a", "1", true)} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // fresh, and remembered
				for _, w := range ways {
					n.ask(t, w.head(token)).wantStatus(401)
				}
				p := n.dial(t)
				p.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
				p.wantError(wire.Forbidden, "1")
				p.send(`{"type":"auth","id":"2","token":%q}`, token)
				p.wantError(wire.Forbidden, "2")
				p.send(`{"type":"subscribe","id":"3","topic":"a"}`)
				p.wantError(wire.TokenMissing, "3")
			}
			n.dial(t).publish("a", token, "1") // none of that has used it
		})
	}
	p := n.dial(t)
	narrow := sign(t, n.key, authz.Claims{ID: "n", Once: true, Expires: time.Now().Add(hour), Publish: []string{"a"}})
	p.send(`{"type":"publish","id":"1","topic":"b","token":%q,"data":1}`, narrow)
	p.wantError(wire.Forbidden, "1")
	p.send(`{"type":"publish","id":"1","topic":"$","token":%q,"data":1}`, narrow)
	p.wantError(wire.BadTopic, "1")
	p.publish("a", narrow, "1") // not used up by what was refused
	wrong := n.bound(t, "a", "1", true)
	p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":2}`, wrong)
	p.wantError(wire.DigestMismatch, "1")
	p.publish("a", wrong, "1")
}

// A one-use token is good once in the cluster: not again on this connection, on
// another, on another node, nor for one of many who try at the same time.
func TestOnce(t *testing.T) {
	nats := startNATS(t)
	a := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}, server: server.Options{AuthFailures: 1000}})
	b := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}, key: a.key, server: server.Options{AuthFailures: 1000}})
	p, q, r, sub := a.dial(t), a.dial(t), b.dial(t), b.dial(t)
	sub.subscribe(">", a.all(t))
	token := a.bound(t, "", "", true)
	p.publish("a", token, "1")
	sub.wantExactly(`{"type":"event","topic":"a","pattern":">","data":1}`)
	for _, x := range []*peer{p, q, r} {
		x.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token)
		x.wantError(wire.TokenReplayed, "1")
	}
	// Another token with the same jti is the same use; another jti is not.
	again := sign(t, a.key, authz.Claims{ID: fmt.Sprint(serial.Load()), Once: true, Expires: time.Now().Add(2 * hour), Publish: []string{">"}})
	r.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, again)
	r.wantError(wire.TokenReplayed, "1")
	r.publish("a", a.bound(t, "a", "2", true), "2")
	sub.wantExactly(`{"type":"event","topic":"a","pattern":">","data":2}`)

	const racers = 50
	var peers []*peer
	for i := range racers {
		peers = append(peers, []*node{a, b}[i%2].dial(t))
	}
	for round := range 3 {
		token := a.bound(t, "", "", true)
		var done sync.WaitGroup
		results := make(chan string, racers)
		for i, x := range peers {
			done.Go(func() {
				x.send(`{"type":"publish","id":"1","topic":"race","token":%q,"data":[%d,%d]}`, token, round, i)
				m, err := x.read()
				if err != nil {
					m = err.Error()
				}
				results <- m
			})
		}
		done.Wait()
		close(results)
		acks, replays := 0, 0
		for m := range results {
			switch {
			case m == `{"type":"ack","id":"1"}`:
				acks++
			case strings.Contains(m, `"token_replayed"`):
				replays++
			}
		}
		if acks != 1 || replays != racers-1 {
			t.Errorf("%d acks, %d replays", acks, replays)
		}
		sub.want(`"topic":"race"`, fmt.Sprintf(`[%d,`, round))
		sub.fence()
	}
}

// What waits for the store keeps its place in its connection, and is refused
// when its token ends meanwhile.
func TestOnceKeepsOrder(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		sub, p, token := n.dial(t), n.dial(t), n.all(t)
		sub.subscribe("a", token)
		const events = 60
		var frames []string
		for i := range events {
			use := token
			if i%3 > 0 {
				use = n.bound(t, "", "", true)
			}
			frames = append(frames, fmt.Sprintf(`{"type":"publish","id":"%d","topic":"a","token":%q,"data":%d}`, i, use, i), `{"type":"ping","id":"x"}`)
		}
		p.pipeline(frames)
		for i := range events {
			p.wantExactly(fmt.Sprintf(`{"type":"ack","id":"%d"}`, i))
			p.wantExactly(`{"type":"pong","id":"x"}`)
			sub.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, i))
		}
	})
}

// While the store cannot be asked, no one-use token counts; everything else does.
func TestOnceFailsClosed(t *testing.T) {
	store := &slowStore{entered: make(chan bool), answer: make(chan error)}
	n := start(t, setup{fake: new(memBus), store: store})
	p, sub := n.dial(t), n.dial(t)
	sub.subscribe("a", n.all(t))
	use := func(token string) {
		p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token)
		<-store.entered
	}
	use(n.bound(t, "", "", true))
	store.answer <- fmt.Errorf("away")
	p.wantError(wire.Unavailable, "1")
	sub.fence()

	exp := time.Now().Truncate(time.Second).Add(2 * time.Second)
	use(sign(t, n.key, authz.Claims{ID: "e", Once: true, Expires: exp, Publish: []string{">"}}))
	time.Sleep(time.Until(exp))
	store.answer <- nil
	p.wantError(wire.TokenExpired, "1")

	use(sign(t, n.key, authz.Claims{ID: "r", Once: true, Expires: time.Now().Add(hour), Publish: []string{">"}}))
	if err := n.auth.Revoke(authz.Revocation{JTI: "r"}); err != nil {
		t.Fatal(err)
	}
	store.answer <- nil
	p.wantError(wire.TokenRevoked, "1")
	p.publish("a", n.all(t), "2") // needs no store
	use(n.bound(t, "", "", true))
	store.answer <- nil
	p.wantExactly(`{"type":"ack","id":"1"}`)
	sub.wantExactly(`{"type":"event","topic":"a","data":2}`)
	sub.wantExactly(`{"type":"event","topic":"a","data":1}`)
}

func TestOnceWithoutNATS(t *testing.T) {
	nats := startNATS(t)
	n := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}})
	p := n.dial(t)
	token := n.bound(t, "", "", true)
	nats.Shutdown()
	eventually(t, "NATS is away", func() bool { return !n.bus.Connected() })
	for range 3 {
		p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token)
		p.wantError(wire.Unavailable, "1")
	}
}
