package server_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/server/loop"
)

// overlapping gives n patterns that all match a.a.a.a.a.a.a.a.a.a; n is at most 1,023.
func overlapping(n int) []string {
	list := make([]string, n)
	for i := range list {
		p := make([]string, 10)
		for j := range p {
			if p[j] = "a"; i>>j&1 == 0 {
				p[j] = "*"
			}
		}
		list[i] = strings.Join(p, ".")
	}
	return list
}

const tenTimesA = "a.a.a.a.a.a.a.a.a.a"

// hold subscribes to all patterns at once.
func (p *peer) hold(token string, patterns []string) {
	p.t.Helper()
	for _, x := range patterns {
		p.send(`{"type":"subscribe","topic":%q,"token":%q,"id":"s"}`, x, token)
	}
	for range patterns {
		p.want(`"type":"ack"`, `"id":"s"`)
	}
}

// Events that a few and that very many patterns match come to each subscription
// once and in order.
func TestOrderAcrossManyPatterns(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		token := n.all(t)
		many, few, pub := n.dial(t), n.dial(t), n.dial(t)
		patterns := overlapping(200)
		many.hold(token, append(patterns, ">"))
		few.hold(token, []string{">", tenTimesA})
		const events = 60
		var sent []string
		for i := range events {
			topic := tenTimesA
			if i%3 == 0 {
				topic = "b" // > alone
			}
			sent = append(sent, fmt.Sprintf(`{"type":"publish","topic":%q,"token":%q,"data":%d}`, topic, token, i))
		}
		pub.pipeline(sent)
		check := func(p *peer, patterns []string, perEvent func(i int) int) {
			next := make(map[string]int) // event by pattern
			for i := range events {
				for range perEvent(i) {
					m := p.next()
					_, after, _ := strings.Cut(m, `"pattern":"`)
					pattern, _, _ := strings.Cut(after, `"`)
					var data int
					_, after, _ = strings.Cut(m, `"data":`)
					if _, err := fmt.Sscanf(after, "%d}", &data); err != nil {
						t.Fatalf("%s: %v", m, err)
					}
					for pattern != ">" && next[pattern]%3 == 0 {
						next[pattern]++ // not for that one
					}
					if data != next[pattern] {
						t.Fatalf("pattern %q got %d, want %d", pattern, data, next[pattern])
					}
					next[pattern]++
				}
			}
			if len(next) != len(patterns) {
				t.Errorf("%d subscriptions got events, want %d", len(next), len(patterns))
			}
			p.fence()
		}
		check(few, []string{">", tenTimesA}, func(i int) int { return 1 + min(1, i%3) })
		check(many, append(patterns, ">"), func(i int) int { return 1 + 200*min(1, i%3) })
	})
}

// Clients whose patterns make a thousand copies of a large event are closed as slow
// ones, whether they read or not. Nobody else loses anything, and NATS sends the
// event once.
func TestManyPatternsOfALargeEvent(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		token := n.all(t)
		var holders []*peer
		for range 4 {
			p := n.dial(t)
			p.hold(token, overlapping(1000))
			holders = append(holders, p)
		}
		honest, pub := n.dial(t), n.dial(t)
		honest.hold(token, []string{"a.>", "honest"})
		before := n.bus.Stats()
		var memory, later runtime.MemStats
		runtime.ReadMemStats(&memory)
		large := `"` + strings.Repeat("x", 60_000) + `"`
		for i := range 5 {
			pub.publish(tenTimesA, token, large)
			honest.wantExactly(fmt.Sprintf(`{"type":"event","topic":%q,"pattern":"a.>","data":%s}`, tenTimesA, large))
			pub.publish("honest", token, fmt.Sprint(i))
			honest.wantExactly(fmt.Sprintf(`{"type":"event","topic":"honest","data":%d}`, i))
		}
		runtime.ReadMemStats(&later)
		if size := later.TotalAlloc - memory.TotalAlloc; size > 40<<20 {
			t.Errorf("%d bytes were allocated; all copies of one event are 60 MB", size)
		}
		after := n.bus.Stats()
		if got := after.ReceivedBytes - before.ReceivedBytes; got > 5*60_100 {
			t.Errorf("NATS sent %d bytes for five events of 60 kB", got)
		}
		if after.Reconnects != before.Reconnects {
			t.Error("NATS has hung up")
		}
		for _, p := range holders {
			size := 0
			for {
				m := p.next()
				if m == "close 4410" {
					break
				}
				size += len(m)
			}
			if size > 5<<20 {
				t.Errorf("%d bytes were sent to one connection", size)
			}
		}
		if slow := n.metrics(t)["notifyd_slow_closes_total"]; slow != 4 {
			t.Errorf("%v slow ones, want 4", slow)
		}
	})
}

// An event from NATS that is larger than what may wait for a reader reaches every
// reader, also one that something waits for.
func TestEventLargerThanPendingBytes(t *testing.T) {
	nats := startNATS(t)
	loops(t, func(t *testing.T, with setup) {
		with.bus.URL = nats.ClientURL()
		with.server.Loop = loop.Options{Loops: with.server.Loop.Loops, PendingBytes: 64 << 10}
		n := start(t, with)
		token := n.all(t)
		p := n.dial(t)
		p.subscribe("a", token)
		spy := newSpy(t, nats)
		large := `"` + strings.Repeat("x", 3<<20) + `"`
		for i := range 3 {
			for _, data := range []string{fmt.Sprint(i), large, fmt.Sprint(i)} {
				if err := spy.conn.Publish("notify.ev.a", []byte(data)); err != nil {
					t.Fatal(err)
				}
			}
			for _, data := range []string{fmt.Sprint(i), large, fmt.Sprint(i)} {
				p.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a","data":%s}`, data))
			}
		}
		if n.metrics(t)["notifyd_slow_closes_total"] != 0 {
			t.Error("a reader was closed as slow")
		}
	})
}
