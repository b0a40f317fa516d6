package server_test

import (
	"bytes"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// onFake is a server on a bus in memory that holds its answers back.
func onFake(t *testing.T, with setup) (*node, *memBus) {
	t.Helper()
	b := &memBus{hold: true}
	with.fake, with.alg = b, "HS256"
	return start(t, with), b
}

func (b *memBus) awaits(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " subscriptions wait for the bus"), func() bool { return b.waiting() == n })
}

// gone requires that nothing is left of any subscription.
func (n *node) gone(t *testing.T, b *memBus) {
	t.Helper()
	eventually(t, "no subscription is left", func() bool {
		m := n.metrics(t)
		return m["notifyd_subscriptions"] == 0 && m["notifyd_topics"] == 0 && b.patterns() == 0
	})
}

// A subscribe is acked when the bus has confirmed it and not before, also the
// second one that meanwhile asks for the same.
func TestSubscribeWaitsForTheBus(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, b := onFake(t, with)
		token := n.all(t)
		p, q, pub := n.dial(t), n.dial(t), n.dial(t)
		p.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
		p.send(`{"type":"subscribe","id":"2","topic":"a","token":%q}`, token) // a refresh of what is not yet there
		p.fence()
		q.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
		q.send(`{"type":"subscribe","topic":"b","token":%q}`, token) // its confirmation will not be told
		q.fence()
		b.awaits(t, 2)
		pub.publish("a", token, "0") // comes before the ack: not delivered
		p.fence()
		q.fence()
		b.release(wire.OK)
		p.want(`{"type":"ack","id":"1","exp":`)
		p.want(`{"type":"ack","id":"2","exp":`)
		q.want(`{"type":"ack","id":"1","exp":`)
		pub.publish("a", token, "1")
		pub.publish("b", token, "2")
		p.wantExactly(`{"type":"event","topic":"a","data":1}`)
		q.wantExactly(`{"type":"event","topic":"a","data":1}`)
		q.wantExactly(`{"type":"event","topic":"b","data":2}`)
		p.fence()
		if asked := b.questions(); asked != 2 {
			t.Errorf("the bus was asked %d times", asked)
		}
	})
}

// When the bus cannot, everybody that waits gets the error, nothing stays, and the
// next subscribe asks it anew.
func TestSubscribeUnavailable(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, b := onFake(t, with)
		token := n.all(t)
		p, q := n.dial(t), n.dial(t)
		for round := range 3 {
			for _, x := range []*peer{p, q} {
				x.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
				x.send(`{"type":"subscribe","topic":"a","token":%q}`, token)
				x.fence()
			}
			b.awaits(t, 1)
			b.release(wire.Unavailable)
			for _, x := range []*peer{p, q} {
				x.wantError(wire.Unavailable, "1")
				x.wantError(wire.Unavailable, "")
				x.fence()
			}
			n.gone(t, b)
			if asked := b.questions(); asked != round+1 {
				t.Errorf("the bus was asked %d times", asked)
			}
		}
		b.holds(false)
		p.subscribe("a", token)
		q.publish("a", token, "1")
		p.wantExactly(`{"type":"event","topic":"a","data":1}`)
	})
}

// A refused subscription does not take a later one of the same name with it.
func TestSubscribeWhileTheLastOneFails(t *testing.T) {
	n, b := onFake(t, setup{})
	token := n.all(t)
	goes, p, pub := n.dial(t), n.dial(t), n.dial(t)
	goes.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
	b.awaits(t, 1)
	_ = goes.conn.Close()
	eventually(t, "the first topic is gone", func() bool { return n.metrics(t)["notifyd_topics"] == 0 })
	p.send(`{"type":"subscribe","id":"3","topic":"a","token":%q}`, token)
	p.fence()
	b.awaits(t, 2)
	b.mu.Lock() // the first fails, the second does not
	second := b.held[1:]
	b.held = b.held[:1]
	b.mu.Unlock()
	b.release(wire.Unavailable)
	p.fence()
	b.mu.Lock()
	b.held = second
	b.mu.Unlock()
	b.release(wire.OK)
	p.want(`{"type":"ack","id":"3"`)
	pub.publish("a", token, "1")
	p.wantExactly(`{"type":"event","topic":"a","data":1}`)
	p.fence()
	if m := n.metrics(t); m["notifyd_subscriptions"] != 1 || m["notifyd_topics"] != 1 {
		t.Errorf("%v subscriptions, %v topics", m["notifyd_subscriptions"], m["notifyd_topics"])
	}
}

// What a connection sends takes effect in the order in which it was sent: a
// publish, and an unsubscribe, wait for the subscribes before them.
func TestOrderBehindSubscribe(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, b := onFake(t, with)
		token := n.all(t)
		p, watch := n.dial(t), n.dial(t)
		p.pipeline([]string{
			fmt.Sprintf(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token),
			fmt.Sprintf(`{"type":"subscribe","id":"2","topic":"b","token":%q}`, token),
			fmt.Sprintf(`{"type":"subscribe","id":"3","topic":"*","token":%q}`, token),
			fmt.Sprintf(`{"type":"publish","id":"4","topic":"a","token":%q,"data":1}`, token),
			`{"type":"unsubscribe","id":"5","topic":"b"}`,
			fmt.Sprintf(`{"type":"publish","id":"6","topic":"b","token":%q,"data":2}`, token),
			fmt.Sprintf(`{"type":"subscribe","id":"7","topic":"c","token":%q}`, token),
			`{"type":"unsubscribe","id":"8","topic":"c"}`,
			fmt.Sprintf(`{"type":"publish","id":"9","topic":"c","token":%q,"data":3}`, token),
			`{"type":"ping","id":"10"}`,
		})
		b.awaits(t, 3) // subscribes do not wait for each other
		watch.publish("x", token, "0")
		b.release(wire.OK)
		b.awaits(t, 1)
		b.release(wire.OK)
		var answers, events []string
		for range 14 {
			if m := p.next(); strings.Contains(m, `"event"`) {
				events = append(events, m)
			} else {
				answers = append(answers, strings.SplitAfter(m, ",")[1])
			}
		}
		// The answers of the bus to the first three have no order of their own.
		if got, want := strings.Join(answers[3:], ""), `"id":"4"}"id":"5"}"id":"6"}"id":"7","id":"8"}"id":"9"}"id":"10"}`; got != want {
			t.Errorf("answers %s\n   want %s", got, want)
		}
		slices.Sort(events)
		if got, want := strings.Join(events, "\n"), `{"type":"event","topic":"a","data":1}
{"type":"event","topic":"a","pattern":"*","data":1}
{"type":"event","topic":"b","pattern":"*","data":2}
{"type":"event","topic":"c","pattern":"*","data":3}`; got != want {
			t.Errorf("events %s\n  want %s", got, want)
		}
	})
}

// A publish behind a subscribe that the bus refuses goes on all the same.
func TestPublishBehindRefusedSubscribe(t *testing.T) {
	n, b := onFake(t, setup{})
	token := n.all(t)
	p := n.dial(t)
	p.pipeline([]string{
		fmt.Sprintf(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token),
		fmt.Sprintf(`{"type":"publish","id":"2","topic":"a","token":%q,"data":1}`, token),
	})
	b.awaits(t, 1)
	b.release(wire.Unavailable)
	p.wantError(wire.Unavailable, "1")
	p.wantExactly(`{"type":"ack","id":"2"}`)
}

// Whatever an envelope waits for, its token is checked again when it goes on: an
// event is not published after the token's end.
func TestTokenEndsWhilePublishWaits(t *testing.T) {
	for name, waitFor := range map[string]func(t *testing.T, n *node, b *memBus, p *peer, publish string) (release func()){
		"room": func(_ *testing.T, _ *node, b *memBus, p *peer, publish string) func() {
			b.fill(true)
			p.send("%s", publish)
			return func() { b.fill(false) }
		},
		"subscribes": func(t *testing.T, n *node, b *memBus, p *peer, publish string) func() {
			b.holds(true)
			p.pipeline([]string{fmt.Sprintf(`{"type":"subscribe","topic":"z","token":%q}`, n.all(t)), publish})
			b.awaits(t, 1)
			return func() { b.release(wire.OK) }
		},
	} {
		for _, end := range []struct {
			code wire.Code
			do   func(t *testing.T, n *node, exp time.Time)
		}{
			{wire.TokenExpired, func(_ *testing.T, _ *node, exp time.Time) { time.Sleep(time.Until(exp)) }},
			{wire.TokenRevoked, func(t *testing.T, n *node, _ time.Time) {
				if err := n.auth.Revoke(authz.Revocation{JTI: "ends"}); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			t.Run(name+"/"+end.code.String(), func(t *testing.T) {
				b := new(memBus)
				n := start(t, setup{fake: b})
				p, sub := n.dial(t), n.dial(t)
				sub.subscribe("a", n.all(t))
				exp := time.Now().Truncate(time.Second).Add(2 * time.Second)
				if end.code == wire.TokenRevoked {
					exp = exp.Add(hour)
				}
				token := sign(t, n.key, authz.Claims{ID: "ends", Expires: exp, Publish: []string{">"}})
				release := waitFor(t, n, b, p, fmt.Sprintf(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token))
				sub.fence()
				end.do(t, n, exp)
				release()
				p.wantError(end.code, "1")
				sub.fence()
			})
		}
	}
}

// A connection that closes while its publish waits for room is forgotten, and
// those that wait with it go on.
func TestCloseWhileWaitingForRoom(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		b := new(memBus)
		with.fake = b
		n := start(t, with)
		token := n.all(t)
		sub := n.dial(t)
		sub.subscribe("a", token)
		b.fill(true)
		var all []*peer
		for i := range 6 {
			p := n.dial(t)
			p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":%d}`, token, i)
			all = append(all, p)
		}
		for _, i := range []int{0, 3, 5} {
			_ = all[i].conn.(*net.TCPConn).SetLinger(0)
			_ = all[i].conn.Close()
		}
		eventually(t, "they are gone", func() bool { return n.metrics(t)["notifyd_connections"] == 4 })
		b.fill(false)
		for _, i := range []int{1, 2, 4} {
			all[i].wantExactly(`{"type":"ack","id":"1"}`)
		}
		for range 3 {
			sub.want(`{"type":"event","topic":"a","data":`)
		}
		sub.fence()
	})
}

// A connection that ends while its subscribe waits leaves nothing, and those
// that wait with it get theirs.
func TestCloseWhileWaiting(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		for _, code := range []wire.Code{wire.OK, wire.Unavailable} {
			t.Run(code.String(), func(t *testing.T) {
				n, b := onFake(t, with)
				token := n.all(t)
				stays := n.dial(t)
				for _, topic := range []string{"a", "b"} {
					p := n.dial(t)
					p.send(`{"type":"subscribe","id":"1","topic":%q,"token":%q}`, topic, token)
					p.fence()
					if topic == "b" {
						stays.send(`{"type":"subscribe","id":"1","topic":"b","token":%q}`, token)
						stays.fence()
					}
					_ = p.conn.Close()
				}
				eventually(t, "the server has noticed", func() bool { return n.metrics(t)["notifyd_connections"] == 1 })
				b.release(code)
				told := 0.0 // the one that is there, when it fails
				if code == wire.OK {
					stays.want(`{"type":"ack","id":"1"`)
					stays.publish("a", token, "1")
					stays.send(`{"type":"publish","topic":"b","token":%q,"data":2}`, token)
					stays.wantExactly(`{"type":"event","topic":"b","data":2}`)
					_ = stays.conn.Close()
				} else {
					stays.wantError(wire.Unavailable, "1")
					told = 1
				}
				n.gone(t, b)
				if got := n.metrics(t)[`notifyd_errors_total{code="unavailable"}`]; got != told {
					t.Errorf("%v were told of an error, want %v", got, told)
				}
			})
		}
	})
}

// The event that the bus refused is not acked.
func TestPublishUnavailable(t *testing.T) {
	n, b := onFake(t, setup{})
	p, token := n.dial(t), n.all(t)
	for _, code := range []wire.Code{wire.Unavailable, wire.TooLarge} {
		b.answers(code)
		p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token)
		p.wantError(code, "1")
		p.send(`{"type":"publish","topic":"a","token":%q,"data":1}`, token)
		p.wantError(code, "")
	}
	b.answers(wire.OK)
	p.publish("a", token, "1")
}

// The same pattern on many connections is one interest; a thousand patterns on
// one connection go with it.
func TestTopicsComeAndGo(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.fake, with.alg = new(memBus), "HS256"
		n := start(t, with)
		token := n.all(t)
		p, q := n.dial(t), n.dial(t)
		for round := range 3 { // handles are used again
			for i := range 1000 {
				p.send(`{"type":"subscribe","topic":"t.%d","token":%q}`, i, token)
			}
			p.send(`{"type":"subscribe","id":"x","topic":"one.more","token":%q}`, token)
			p.wantError(wire.TooManySubscriptions, "x")
			q.subscribe("t.7", token)
			q.subscribe("t.*", token)
			if m := n.metrics(t); m["notifyd_topics"] != 1001 || m["notifyd_subscriptions"] != 1002 {
				t.Errorf("%v topics, %v subscriptions", m["notifyd_topics"], m["notifyd_subscriptions"])
			}
			q.send(`{"type":"publish","topic":"t.999","token":%q,"data":%d}`, token, round)
			p.wantExactly(fmt.Sprintf(`{"type":"event","topic":"t.999","data":%d}`, round))
			q.wantExactly(fmt.Sprintf(`{"type":"event","topic":"t.999","pattern":"t.*","data":%d}`, round))
			_ = p.conn.Close()
			q.send(`{"type":"unsubscribe","topic":"t.*"}`)
			eventually(t, "they went with the connection", func() bool { return n.metrics(t)["notifyd_topics"] == 1 })
			q.send(`{"type":"publish","topic":"t.7","token":%q,"data":%d}`, token, round)
			q.wantExactly(fmt.Sprintf(`{"type":"event","topic":"t.7","data":%d}`, round))
			q.send(`{"type":"unsubscribe","topic":"t.7"}`)
			n.gone(t, with.fake)
			p = n.dial(t)
		}
	})
}

// A connection that ends while its token is being verified; and one that sends
// more meanwhile, which waits its turn.
func TestWhileVerifying(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		gate := make(chan bool)
		with.gate = func(nth int) {
			if nth > 1 {
				<-gate
			}
		}
		with.fake = new(memBus)
		with.server.VerifyWorkers = 1
		n := start(t, with)
		goners, p, watch := [2]*peer{n.dial(t), n.dial(t)}, n.dial(t), n.dial(t)
		token := n.all(t)
		p.subscribe("a", token)
		goners[0].send(`{"type":"subscribe","id":"1","topic":"b","token":%q}`, n.all(t))
		goners[1].send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":"late"}`, n.all(t))
		p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, n.all(t))
		eventually(t, "one is verified, two wait", func() bool { return n.metrics(t)["notifyd_verify_queue"] == 2 })
		p.pipeline([]string{
			`{"type":"ping","id":"2"}`,
			fmt.Sprintf(`{"type":"publish","id":"3","topic":"a","token":%q,"data":3}`, token),
			fmt.Sprintf(`{"type":"publish","id":"4","topic":"a","token":%q,"data":4}`, n.all(t)),
			`{"type":"ping","id":"5"}`,
		})
		watch.fence() // others go on
		for _, x := range goners {
			_ = x.conn.(*net.TCPConn).SetLinger(0) // RST: FIN would not be read meanwhile
			_ = x.conn.Close()
		}
		eventually(t, "they are gone", func() bool { return n.metrics(t)["notifyd_connections"] == 2 })
		close(gate)
		var answers, events []string
		for range 8 {
			if m := p.next(); strings.Contains(m, `"event"`) {
				events = append(events, m)
			} else {
				answers = append(answers, m)
			}
		}
		if got, want := strings.Join(answers, ""), `{"type":"ack","id":"1"}{"type":"pong","id":"2"}{"type":"ack","id":"3"}{"type":"ack","id":"4"}{"type":"pong","id":"5"}`; got != want {
			t.Errorf("answers %s", got)
		}
		if got, want := strings.Join(events, ""), `{"type":"event","topic":"a","data":1}{"type":"event","topic":"a","data":3}{"type":"event","topic":"a","data":4}`; got != want {
			t.Errorf("events %s", got)
		}
		p.fence()
		if m := n.metrics(t); m["notifyd_subscriptions"] != 1 || m["notifyd_topics"] != 1 {
			t.Errorf("%v subscriptions, %v topics", m["notifyd_subscriptions"], m["notifyd_topics"])
		}
	})
}

// A loop checks brief signatures itself, two in a turn, and none for a while
// after a bad one: the rest is for workers.
func TestLoopsVerifyFewSignatures(t *testing.T) {
	for _, brief := range []bool{true, false} {
		t.Run(fmt.Sprint("brief=", brief), func(t *testing.T) {
			where := make(chan string, 10)
			n := start(t, setup{fake: new(memBus), brief: brief, gate: func(int) {
				if strings.Contains(string(debug.Stack()), "(*pool).work") {
					where <- "worker"
				} else {
					where <- "loop"
				}
			}})
			fresh := func() string { return n.all(t) }
			forged := func() string {
				token := fresh()
				return token[:len(token)-20] + strings.Repeat("A", 20)
			}
			for _, row := range []struct {
				tokens []func() string
				want   []string
			}{
				{[]func() string{fresh}, []string{"loop"}},
				{[]func() string{fresh, fresh, fresh}, []string{"loop", "loop", "worker"}},
				{[]func() string{forged, fresh}, []string{"loop", "worker"}},
			} {
				p := n.dial(t)
				var turn bytes.Buffer // in one segment
				for _, token := range row.tokens {
					_ = wsutil.WriteClientText(&turn, fmt.Appendf(nil, `{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token()))
				}
				if _, err := p.conn.Write(turn.Bytes()); err != nil {
					t.Fatal(err)
				}
				for i, want := range row.want {
					if !brief {
						want = "worker"
					}
					if got := <-where; got != want {
						t.Errorf("%d of %d: on a %s", i+1, len(row.want), got)
					}
					p.next()
				}
			}
		})
	}
}

// Options.VerifyWorkers is how many signatures are verified at a time.
func TestVerifyWorkers(t *testing.T) {
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			verified, gate := make(chan bool), make(chan bool)
			n := start(t, setup{server: server.Options{VerifyWorkers: workers}, fake: new(memBus), gate: func(int) { verified <- true; <-gate }})
			var peers [5]*peer
			for i := range peers {
				peers[i] = n.dial(t)
				peers[i].send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, n.all(t))
			}
			for range workers {
				<-verified
			}
			eventually(t, "the others wait", func() bool { return n.metrics(t)["notifyd_verify_queue"] == float64(len(peers)-workers) })
			go func() {
				for range len(peers) - workers {
					<-verified
				}
			}()
			close(gate)
			for _, p := range peers {
				p.wantExactly(`{"type":"ack","id":"1"}`)
			}
		})
	}
}

// A server that stops while tokens are being verified and subscriptions wait.
func TestShutdownWhileWaiting(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		b := &memBus{hold: true}
		with.fake = b
		with.server = server.Options{VerifyWorkers: 1, Loop: with.server.Loop}
		n := start(t, with)
		token := n.all(t)
		waiting := n.dial(t)
		waiting.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, token)
		waiting.fence()
		b.awaits(t, 1)
		p := n.dial(t)
		for range 100 {
			p.send(`{"type":"publish","topic":"a","token":%q,"data":1}`, n.all(t))
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			n.stop()
		}()
		waiting.wantEnd(wire.CloseRestart)
		p.wantEnd(wire.CloseRestart)
		<-done
		b.release(wire.OK)
		if m := n.metrics(t); m["notifyd_topics"] != 0 {
			t.Errorf("%v topics", m["notifyd_topics"])
		}
	})
}
