package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// one is a server with one thing configured, on a bus in memory.
func one(t *testing.T, o server.Options) *node {
	t.Helper()
	return start(t, setup{server: o, alg: "HS256", fake: new(memBus)})
}

func TestWelcome(t *testing.T) {
	for _, x := range []struct {
		name       string
		o          loop.Options
		ping, size int
	}{
		{"default", loop.Options{}, 25, 64 << 10},
		{"chosen", loop.Options{PingInterval: 7 * time.Second, MessageBytes: 1000}, 7, 1000},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := one(t, server.Options{Loop: x.o})
			var conns [2]string
			for i := range conns {
				var w struct {
					Type, Conn, Node string
					Time             time.Time
					PingInterval     int `json:"ping_interval"`
					MaxMessageBytes  int `json:"max_message_bytes"`
				}
				if err := json.Unmarshal([]byte(n.dialWith(t, nil).next()), &w); err != nil {
					t.Fatal(err)
				}
				if w.Type != "welcome" || w.Node != "test" || w.Time.IsZero() || w.PingInterval != x.ping || w.MaxMessageBytes != x.size {
					t.Errorf("%+v", w)
				}
				conns[i] = w.Conn
			}
			if conns[0] == conns[1] || conns[0] == "" {
				t.Errorf("connections are called %q", conns)
			}
		})
	}
}

func TestBadEnvelopesInARow(t *testing.T) {
	for _, limit := range []int{0, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			n := one(t, server.Options{BadEnvelopes: limit})
			if limit == 0 {
				limit = 10
			}
			p := n.dial(t)
			for range 2 { // a good one begins the count anew
				for i := range limit - 1 {
					if i%2 == 0 {
						p.send("nonsense")
					} else {
						p.raw(ws.OpBinary, []byte(`{"type":"ping"}`))
					}
					p.wantError(wire.BadEnvelope, "")
				}
				p.fence()
			}
			for range limit {
				p.send("nonsense")
				p.wantError(wire.BadEnvelope, "")
			}
			p.wantEnd(wire.CloseBadEnvelopes)
		})
	}
}

func TestAuthFailuresInARow(t *testing.T) {
	for _, alg := range []string{"HS256", "ES256"} { // verified on the loop, and off it
		for _, limit := range []int{0, 3} {
			t.Run(fmt.Sprint(alg, limit), func(t *testing.T) {
				n := start(t, setup{server: server.Options{AuthFailures: limit}, alg: alg, fake: new(memBus)})
				if limit == 0 {
					limit = 10
				}
				good := n.all(t)
				bad := good[:len(good)-10] + "AAAAAAAAAA"
				p := n.dial(t)
				fail := func(i int) {
					switch i % 3 {
					case 0:
						p.send(`{"type":"publish","id":"x","topic":"a","token":%q,"data":1}`, bad)
						p.wantError(wire.TokenInvalid, "x")
					case 1:
						p.send(`{"type":"subscribe","id":"x","topic":"a","token":"x"}`)
						p.wantError(wire.TokenMalformed, "x")
					case 2:
						p.send(`{"type":"subscribe","id":"x","topic":"a"}`)
						p.wantError(wire.TokenMissing, "x")
					}
				}
				for i := range limit - 1 {
					fail(i)
				}
				p.publish("a", good, "1") // begins the count anew
				for i := range limit - 1 {
					fail(i)
				}
				p.subscribe("b", good) // so does this
				for i := range limit - 1 {
					fail(i)
				}
				p.send(`{"type":"publish","id":"f","topic":"$","token":%q,"data":1}`, good) // this counts neither way
				p.wantError(wire.BadTopic, "f")
				fail(limit - 1)
				p.wantEnd(wire.CloseUnauthenticated)
			})
		}
	}
}

func TestSubscriptionsLimit(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.fake, with.alg = new(memBus), "HS256"
		with.server.Subscriptions = 40
		n := start(t, with)
		p, other, token := n.dial(t), n.dial(t), n.all(t)
		for i := range 40 {
			p.subscribe(fmt.Sprint("t.", i), token)
		}
		p.send(`{"type":"subscribe","id":"x","topic":"t.40","token":%q}`, token)
		p.wantError(wire.TooManySubscriptions, "x")
		p.subscribe("t.7", token) // a refresh is none more
		p.send(`{"type":"subscribe","id":"x","topic":"t.40","token":%q}`, token)
		p.wantError(wire.TooManySubscriptions, "x")
		p.send(`{"type":"unsubscribe","id":"u","topic":"t.7"}`)
		p.wantExactly(`{"type":"ack","id":"u"}`)
		p.subscribe("t.40", token)
		other.subscribe("t.1", token)
		other.publish("t.40", token, "1")
		p.wantExactly(`{"type":"event","topic":"t.40","data":1}`)
	})
}

func TestRate(t *testing.T) {
	// A rate so low that nothing is refilled while the test runs.
	n := one(t, server.Options{Rate: 1, Burst: 50})
	p, other, token := n.dial(t), n.dial(t), n.all(t)
	refused, frames := 0, 0
	for ; ; frames++ {
		if frames > 10_000 {
			t.Fatal("never closed")
		}
		switch frames % 4 { // all kinds are counted
		case 0:
			p.send(`{"type":"publish","id":"x","topic":"a","token":%q,"data":1}`, token)
		case 1:
			p.send(`{"type":"ping","id":"x"}`)
		case 2:
			p.send(`{"type":"unsubscribe","id":"x","topic":"a"}`)
		case 3:
			p.send(`{"type":"nonsense","id":"x"}`)
		}
		m := p.next()
		if strings.Contains(m, `"rate_limited"`) {
			refused++
			if !strings.Contains(m, `"id":"x"`) {
				t.Fatal(m)
			}
		}
		if frames < 50 && refused > 0 {
			t.Fatalf("frame %d of a burst of 50 was refused", frames)
		}
		// Below zero by a whole burst, and some for the time that passes.
		if refused > 0 && frames > 100 {
			break
		}
		if refused == 51 {
			break
		}
	}
	if refused < 45 {
		t.Errorf("%d frames refused", refused)
	}
	for {
		m, err := p.read()
		if err != nil {
			t.Fatal("no close frame:", err)
		}
		if m == "close 4429" {
			break
		}
		if !strings.Contains(m, `"rate_limited"`) {
			t.Fatal(m)
		}
	}
	other.publish("a", token, "1")
}

// A client that keeps to its rate is never refused, however long.
func TestRateRefills(t *testing.T) {
	n := one(t, server.Options{Rate: 200, Burst: 2})
	p := n.dial(t)
	for range 60 {
		time.Sleep(10 * time.Millisecond) // two frames' worth
		p.fence()
	}
}

func TestMessageBytes(t *testing.T) {
	n := one(t, server.Options{Loop: loop.Options{MessageBytes: 1000}})
	p := n.dial(t)
	frame := func(size int) string {
		s := `{"type":"ping","id":"1","x":""}`
		return s[:len(s)-2] + strings.Repeat("x", size-len(s)) + s[len(s)-2:]
	}
	p.send("%s", frame(1000))
	p.wantExactly(`{"type":"pong","id":"1"}`)
	p.send("%s", frame(1001))
	p.wantError(wire.TooLarge, "")
	p.wantEnd(wire.CloseTooBig)
}

func TestNotUTF8(t *testing.T) {
	n := one(t, server.Options{})
	p := n.dial(t)
	p.raw(ws.OpText, []byte("{\"type\":\"ping\",\"x\":\"\xc3\"}"))
	p.wantError(wire.BadEnvelope, "")
	p.wantEnd(wire.CloseBadUTF8)
}

// A subscriber that never reads is closed with 4410. Nobody else misses
// anything, and what it is owed stays within the bound.
func TestSlowConsumer(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.fake, with.alg = new(memBus), "HS256"
		with.server.Loop.PendingBytes = 256 << 10
		n := start(t, with)
		token := n.all(t)
		slow := n.dialWith(t, func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil {
				err = conn.(*net.TCPConn).SetReadBuffer(4096)
			}
			return conn, err
		})
		slow.want("welcome")
		slow.subscribe("a", token)
		fast, pub := n.dial(t), n.dial(t)
		fast.subscribe("a", token)
		pad := strings.Repeat("x", 30_000)
		sent := 0
		for n.metrics(t)["notifyd_slow_closes_total"] == 0 {
			if sent++; sent > 5_000 {
				t.Fatal("never closed")
			}
			pub.publish("a", token, fmt.Sprintf(`[%d,%q]`, sent, pad))
			fast.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a","data":[%d,%q]}`, sent, pad))
			if owed := n.metrics(t)["notifyd_pending_bytes"]; owed > 256<<10 {
				t.Fatalf("%v bytes are owed", owed)
			}
		}
		// It reads at last: whole events in order, none that is half, the reason.
		for i := 1; ; i++ {
			m := slow.next()
			if m == "close 4410" {
				break
			}
			if m != fmt.Sprintf(`{"type":"event","topic":"a","data":[%d,%q]}`, i, pad) {
				t.Fatalf("event %d is %.80s…", i, m)
			}
		}
		pub.publish("a", token, "1")
		fast.wantExactly(`{"type":"event","topic":"a","data":1}`)
		if m := n.metrics(t); m["notifyd_subscriptions"] != 1 || m["notifyd_pending_bytes"] != 0 {
			t.Errorf("subscriptions %v, pending %v", m["notifyd_subscriptions"], m["notifyd_pending_bytes"])
		}
	})
}
