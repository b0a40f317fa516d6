package bus_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// What NATS sends a node for one event does not depend on how many of the node's patterns match it.
func TestEventComesOnceForAllPatterns(t *testing.T) {
	c := testkit.StartNATS(t)
	for name, o := range map[string]bus.Options{"embedded": {}, "external": {URL: c.URL(), Shards: 3}} {
		t.Run(name, func(t *testing.T) {
			sink := bustest.NewRecorder()
			b := open(t, o, sink)
			testkit.Eventually(t, "connected", b.Connected)
			const n = 1000
			var list []string
			for i := range n { // "a" or "*" in each of ten places
				p := make([]string, 10)
				for j := range p {
					if p[j] = "a"; i>>j&1 == 0 {
						p[j] = "*"
					}
				}
				list = append(list, strings.Join(p, "."))
			}
			for i, p := range list[1:] {
				b.Subscribe(uint32(i+2), p, func(wire.Code) {})
			}
			bustest.Subscribe(t, b, 1, list[0])
			bustest.Subscribe(t, b, n+1, "a.a.a.a.a.a.a.a.a.a")

			before := b.Stats().ReceivedBytes
			data := bytes.Repeat([]byte("x"), 60_000)
			bustest.Publish(t, b, "a.a.a.a.a.a.a.a.a.a", string(data))
			got := sink.Wait(t, "an event for each pattern", func(got []bustest.Event) bool { return len(got) == n+1 })
			seen := make(map[uint32]bool)
			for _, e := range got {
				seen[e.Handle] = true
			}
			if len(seen) != n+1 {
				t.Errorf("%d subscriptions got the event, want %d", len(seen), n+1)
			}
			if size := b.Stats().ReceivedBytes - before; size < 120_000 || size > 125_000 {
				t.Errorf("NATS sent %d bytes, want the payload once for the topic and once for all patterns", size)
			}
		})
	}
}

// An event that comes by a pattern whose last subscriber has just gone reaches the other patterns.
func TestNoEventIsLostWhilePatternsGo(t *testing.T) {
	c := testkit.StartNATS(t)
	for name, o := range map[string]bus.Options{"embedded": {Linger: -1}, "external": {URL: c.URL(), Linger: -1}} {
		t.Run(name, func(t *testing.T) {
			sink := bustest.NewRecorder()
			b := open(t, o, sink)
			testkit.Eventually(t, "connected", b.Connected)
			bustest.Subscribe(t, b, 1, "a.*")
			const n = 3000
			for i := range uint32(n) {
				h := 2 + i
				b.Subscribe(h, "a.>", func(wire.Code) {})
				if code := b.Publish([]byte("a.b"), fmt.Append(nil, i)); code != wire.OK {
					t.Fatal(code)
				}
				b.Unsubscribe(h)
				if i%50 == 0 {
					bustest.Subscribe(t, b, 1<<30+i, fmt.Sprintf("pause.%d", i))
				}
			}
			b.Flush()
			sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "a.b", Data: fmt.Sprint(n - 1)})
			next := 0
			for _, e := range sink.Events() {
				if e.Handle != 1 {
					continue
				}
				if e.Data != fmt.Sprint(next) {
					t.Fatalf("event %s came where %d was due", e.Data, next)
				}
				next++
			}
			if next != n {
				t.Errorf("%d events, want %d", next, n)
			}
		})
	}
}

// Three nodes of one cluster: each gets an event once, whichever of its patterns match and wherever it was published.
func TestPatternsOfOtherNodes(t *testing.T) {
	c := testkit.StartNATS(t)
	var nodes []*bus.Bus
	var sinks []*bustest.Recorder
	for range 3 {
		sink := bustest.NewRecorder()
		b := open(t, bus.Options{URL: c.URL()}, sink)
		testkit.Eventually(t, "connected", b.Connected)
		bustest.Subscribe(t, b, 1, "a.*")
		bustest.Subscribe(t, b, 2, "a.>")
		nodes, sinks = append(nodes, b), append(sinks, sink)
	}
	for i := range 100 {
		bustest.Publish(t, nodes[i%3], "a.b", fmt.Sprint(i))
	}
	for _, sink := range sinks {
		got := sink.Wait(t, "all events for both patterns", func(got []bustest.Event) bool { return len(got) >= 200 })
		count := make(map[bustest.Event]int)
		for _, e := range got {
			if count[e]++; count[e] > 1 {
				t.Errorf("%v came twice", e)
			}
		}
	}
}

// Topics that are subscribed to and left at once do not pile up at NATS, however long they may linger.
func TestLingeringIsBounded(t *testing.T) {
	b := open(t, bus.Options{Linger: time.Hour}, bustest.NewRecorder())
	const limit = 4096
	for i := range uint32(3 * limit) {
		b.Subscribe(1+i, fmt.Sprintf("t.%d", i), func(wire.Code) {})
		b.Unsubscribe(1 + i)
	}
	testkit.Eventually(t, "few subscriptions", func() bool { return b.Stats().Subscriptions <= limit })
	if n := b.Stats().Subscriptions; n < limit/2 {
		t.Errorf("only %d linger", n)
	}
}
