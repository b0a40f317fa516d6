package client

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Each script is what the old connection and the new ones bring, and when. "old A" is an event over the old connection,
// "new A" one over the new connection, "wait 500ms" a pause, "begin" a further new connection, "end" the end of the old one.
func TestOverlap(t *testing.T) {
	size := (&Event{Topic: "t", Data: []byte("A")}).size()
	for _, c := range []struct {
		name, script string
		limit        int    // events that may be held; 0: many
		want         string // what comes to the handler
		dropped      uint64
	}{
		{"both bring it", "old A, new A, end", 0, "A", 0},
		{"only the new one", "old A, new B, end", 0, "A B", 0},
		{"held back until the end", "new A, old A", 0, "A", 0},
		{"behind the end", "old A, end, new A, new A", 0, "A A", 0},
		{"what the old one brings behind the end", "end, old A, new B", 0, "B", 0},
		{"twice on both", "old A, old A, new A, new A, new A, end", 0, "A A A", 0},
		{"each counts once", "old A, wait 400ms, old A, wait 110ms, new A, new A, end", 0, "A A A", 0},
		{"late by as much as may be", "old A, wait 500ms, new A, end", 0, "A", 0},
		{"later than that", "old A, wait 501ms, new A, end", 0, "A A", 0},
		{"early by as much as may be", "new A, wait 500ms, old A, end", 0, "A", 0},
		{"earlier than that", "new A, wait 501ms, old A, end", 0, "A A", 0},
		{"remembered as long as it may come", "old A, wait 500ms, old B, new A, new B, end", 0, "A B", 0},
		{"remembered for what is held", "old A, new B, wait 500ms, old B, wait 500ms, old C, new A, end", 0, "A B C A", 0},
		{"one event is not taken for another", "old A, wait 100ms, old B, new B, end, wait 450ms, new A", 0, "A B A", 0},
		{"a new connection that came to nothing", "old A, new A, begin, new A, end", 0, "A", 0},
		{"its events leave their room", "new A, begin, new B, end", 1, "B", 0},
		{"its events stay behind the end", "new A, end, begin", 0, "A", 0},
		{"no room", "new A, new B, new C, end", 2, "A B", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, next := &session{}, &session{}
				o, q := newOverlap(old), newQueue(1<<20)
				if c.limit > 0 {
					q.limit = c.limit * size
				}
				for step := range strings.SplitSeq(c.script, ", ") {
					what, of, _ := strings.Cut(step, " ")
					e := Event{Topic: "t", Data: []byte(of)}
					switch what {
					case "old":
						o.push(old, e, q)
					case "new":
						o.push(next, e, q)
					case "begin":
						o.begin()
					case "end":
						o.end(q)
					case "wait":
						d, err := time.ParseDuration(of)
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(d)
					default:
						t.Fatal(step)
					}
				}
				var got []string
				for _, e := range q.items {
					got = append(got, string(e.event.Data))
				}
				if fmt.Sprint(got) != fmt.Sprint(strings.Fields(c.want)) || q.dropped != c.dropped {
					t.Errorf("%v, %d dropped, want %s, %d dropped", got, q.dropped, c.want, c.dropped)
				}
			})
		})
	}
}

// A node may say that it restarts at once.
func TestRestartAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.node("one")
		c := f.dial(t, Options{})
		one := f.peer(t)
		f.node("two")
		if err := one.send(wire.AppendRestart(nil, 0)); err != nil {
			t.Fatal(err)
		}
		two := f.peer(t)
		one.closes(t)
		published(t, c, two)
		c.Close()
	})
}
