package server_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/notifyd/notifyd/wire"
)

// reader is a subscriber that comes back from where it was.
type reader struct {
	pattern string
	epoch   string
	p       *peer
	begins  uint64 // its first position
	at      uint64 // the last seq that it has seen, or where it began
	chain   map[string]uint64
	seen    []uint64
	missing [][2]uint64 // told: behind the first and before the second
}

// connect resumes where the reader was.
func (x *reader) connect(n *node, token string) {
	x.p = n.dial(x.p.t)
	r := x.p.resume(x.pattern, token, fmt.Sprintf(`{"seq":%d,"epoch":%q}`, x.at, x.epoch))
	if !*r.Complete {
		x.missing = append(x.missing, [2]uint64{x.at, r.First})
	}
}

// take takes what comes, until the message is the one that ends it.
func (x *reader) take(until func(m string, e *got) bool) error {
	for {
		m := x.p.next()
		var e got
		if err := json.Unmarshal([]byte(m), &e); err != nil {
			return err
		}
		switch e.Type {
		case "event":
			switch last, known := x.chain[e.Topic]; {
			case e.Seq <= x.at:
				return fmt.Errorf("%d came after %d", e.Seq, x.at)
			case e.Prev != nil && known && *e.Prev > last && !x.told(*e.Prev): // it may be less: discarded
				return fmt.Errorf("%s: %d follows %d, and prev is %d", e.Topic, e.Seq, last, *e.Prev)
			}
			x.at, x.chain[e.Topic] = e.Seq, e.Seq
			x.seen = append(x.seen, e.Seq)
		case "gap":
			x.missing = append(x.missing, [2]uint64{e.After, e.First})
		case "pong":
		default:
			return fmt.Errorf("got %s", m)
		}
		if until(m, &e) {
			return nil
		}
	}
}

// told says whether a seq was told to be gone.
func (x *reader) told(seq uint64) bool {
	for _, gap := range x.missing {
		if gap[0] < seq && seq < gap[1] {
			return true
		}
	}
	return false
}

// Whatever a stream passes on, loses on the way, passes on twice or late, whenever
// readers go and come back, and however much the node remembers: each reader sees each
// seq once, in order, with its chain whole; what is discarded is told.
func TestJointOfReplayAndLive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var with setup
		with.server.Loop.Loops = rapid.IntRange(1, 2).Draw(rt, "loops")
		n, s := durable(t, with)
		defer n.stop()
		token := n.all(t)
		s.with(func() {
			s.window = rapid.IntRange(0, 20).Draw(rt, "window")
			s.pageMax = rapid.IntRange(1, 10).Draw(rt, "page")
		})
		topics := []string{"d.a", "d.b", "d.c.d"}
		// What is stored while a reader's replay asks the stream, reads it or waits for its feed.
		between := rapid.SliceOfN(rapid.IntRange(0, 8), 200, 200).Draw(rt, "between")
		var storing sync.Mutex // guards between
		s.with(func() {
			s.between = func() {
				storing.Lock()
				defer storing.Unlock()
				next := 0
				if len(between) > 0 {
					next, between = between[0], between[1:]
				}
				for i := range next - 4 { // often none
					s.fill(topics[i%len(topics)], 0, 0)
				}
			}
		})
		discarded := uint64(0)
		var readers []*reader
		store := func() {
			s.fill(rapid.SampledFrom(topics).Draw(rt, "topic"), 0, 0)
		}
		for range rapid.IntRange(0, 40).Draw(rt, "before") {
			store()
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 12).Draw(rt, "what") {
			case 0, 1, 2, 3:
				for range rapid.IntRange(1, 5).Draw(rt, "events") {
					store()
				}
			case 4: // stored, and not passed on
				s.with(func() { s.silent = true })
				store()
				s.with(func() { s.silent = false })
			case 5:
				s.repeat(rapid.Uint64Range(0, s.lastSeq()).Draw(rt, "again"))
			case 6:
				s.heal()
			case 7, 8:
				if len(readers) < 6 {
					from := rapid.Uint64Range(0, s.lastSeq()).Draw(rt, "since")
					x := &reader{
						pattern: rapid.SampledFrom([]string{"d.>", "d.*", "d.a", "d.c.d"}).Draw(rt, "pattern"),
						epoch:   "e1", p: &peer{t: t}, begins: from, at: from, chain: make(map[string]uint64),
					}
					if from+1 < discarded+1 && from > 0 {
						x.missing = append(x.missing, [2]uint64{from, discarded + 1})
					}
					readers = append(readers, x)
					x.connect(n, token)
				}
			case 9: // a reader reads some, goes, and comes back
				if len(readers) > 0 {
					x := rapid.SampledFrom(readers).Draw(rt, "reader")
					x.p.send(`{"type":"ping","id":"p"}`)
					if err := x.take(func(_ string, e *got) bool { return e.Type == "pong" }); err != nil {
						rt.Fatal(err)
					}
					_ = x.p.conn.Close()
					x.connect(n, token)
				}
			case 10:
				s.with(func() { s.window = rapid.IntRange(0, 20).Draw(rt, "window") })
			case 12:
				s.reconnect(rapid.Bool().Draw(rt, "forgets"), time.Duration(rapid.IntRange(0, 3).Draw(rt, "after"))*time.Millisecond)
			case 11:
				if rapid.IntRange(0, 3).Draw(rt, "discards") == 0 {
					discarded = rapid.Uint64Range(discarded, s.lastSeq()).Draw(rt, "up to")
					s.discard(discarded)
				}
			}
		}
		storing.Lock()
		between = nil // also for a replay that has yet to call it
		storing.Unlock()
		store() // so that each reader ends with an event of its own
		for _, topic := range topics {
			s.fill(topic, 0, 0)
		}
		s.heal()
		keptBy := make(map[uint64]string) // topic by seq
		s.with(func() {
			for i, topic := range s.log {
				keptBy[uint64(i+1)] = topic
			}
		})
		for i, x := range readers {
			last := uint64(0)
			for seq, topic := range keptBy {
				if wire.Covers(x.pattern, topic) {
					last = max(last, seq)
				}
			}
			for x.at < last {
				if err := x.take(func(string, *got) bool { return true }); err != nil {
					rt.Fatalf("reader %d of %s since %d: %v", i, x.pattern, x.begins, err)
				}
			}
			x.p.fence()
			seen := make(map[uint64]bool)
			for _, seq := range x.seen {
				seen[seq] = true
			}
			for seq, topic := range keptBy {
				should := seq > x.begins && wire.Covers(x.pattern, topic)
				switch {
				case seen[seq] && !should:
					rt.Fatalf("reader %d of %s since %d: got %d", i, x.pattern, x.begins, seq)
				case should && !seen[seq] && !x.told(seq) && (seq > discarded || x.begins > 0):
					rt.Fatalf("reader %d of %s since %d: %d is missing; told %v, discarded %d", i, x.pattern, x.begins, seq, x.missing, discarded)
				}
			}
			_ = x.p.conn.Close()
		}
	})
}
