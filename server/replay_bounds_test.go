package server_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// longHistory starts a node whose stream has so many events of about 1 kB of each of so many topics d.0, d.1, …, and
// remembers none of them.
func longHistory(t *testing.T, with setup, topics, events int) (*node, *memStream) {
	t.Helper()
	n, s := durable(t, with)
	data := fmt.Appendf(nil, "%q", strings.Repeat("x", 1000))
	s.with(func() {
		s.silent, s.window = true, 0
		for range events {
			for i := range topics {
				s.append(wire.ToStore{Topic: fmt.Appendf(nil, "d.%d", i), Data: data})
			}
		}
		s.silent, s.position = false, s.last
	})
	return n, s
}

// Many replays of one connection, which does not read for a while, keep to its bound together.
func TestReplaysOfOneConnection(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.server.Loop.PendingBytes = 128 << 10
		for _, x := range []struct{ topics, events int }{{40, 300}, {300, 30}} {
			n, _ := longHistory(t, with, x.topics, x.events)
			token := n.all(t)
			p := n.dial(t)
			for i := range x.topics {
				p.send(`{"type":"subscribe","topic":"d.%d","since":{"seq":0},"token":%q}`, i, token)
			}
			eventually(t, "the socket is full", func() bool { return n.metrics(t)["notifyd_pending_bytes"] > 0 })
			last := make(map[string]uint64)
			for range x.topics * x.events {
				e := p.events(1)[0]
				if want := last[e.Topic] + uint64(x.topics); last[e.Topic] > 0 && e.Seq != want {
					t.Fatalf("%s: %d, want %d", e.Topic, e.Seq, want)
				}
				last[e.Topic] = e.Seq
			}
			p.fence()
			_ = p.conn.Close()
			n.stop()
		}
	})
}

// Replays that may all go on at the same moment take turns: live events wait for a few of them and not for all.
func TestManyReplaysTakeTurns(t *testing.T) {
	const replays, events = 300, 30
	for name, window := range map[string]int{"read of the stream": 0, "remembered": events} {
		t.Run(name, func(t *testing.T) {
			var most, wrote atomic.Int64
			var with setup
			with.server.Loop = loop.Options{Loops: 1, OnTurn: func(_ *loop.Loop, writes int) {
				most.Store(max(most.Load(), int64(writes)))
				wrote.Add(int64(writes))
			}}
			n, s := longHistory(t, with, 1, events)
			token := n.all(t)
			var peers []*peer
			for range replays {
				peers = append(peers, n.dial(t))
			}
			// All wait: for the one that reads the stream, or for the feed.
			held, release := make(chan struct{}), sync.OnceFunc(func() {})
			s.with(func() {
				s.window = window
				if window == 0 {
					s.gate = func() { <-held }
					release = sync.OnceFunc(func() { close(held) })
					return
				}
				s.doubt, s.atPatience = true, time.Minute
				s.append(wire.ToStore{Topic: []byte("d.other"), Data: []byte("1")})
				release = sync.OnceFunc(func() { s.reconnect(false, 0) })
			})
			defer release()
			for _, p := range peers {
				p.send(`{"type":"subscribe","id":"1","topic":"d.0","since":{"seq":0},"token":%q}`, token)
			}
			for _, p := range peers {
				p.fence()
			}
			eventually(t, "all replays run", func() bool { return n.metrics(t)["notifyd_replay_running"] == replays })
			peers[0].fence()
			before := wrote.Load()
			most.Store(0)
			release()
			for _, p := range peers {
				p.want(fmt.Sprintf(`"recovered":%d,"complete":true`, events))
				p.events(events)
			}
			if all := wrote.Load() - before; all < replays {
				t.Errorf("%d writes for %d replays", all, replays)
			}
			if got := most.Load(); got > replays/2 {
				t.Errorf("%d writes in one turn", got)
			}
		})
	}
}

// The metrics say what replays were sent, and where it came from.
func TestReplayMetrics(t *testing.T) {
	n, s := durable(t, setup{})
	token := n.all(t)
	s.with(func() { s.window = 10 })
	s.fill("d.a", 1, 1500)
	eventually(t, "all is passed on", func() bool { p := uint64(0); s.with(func() { p = s.position }); return p == 1500 })
	values := func() map[string]float64 {
		m := n.metrics(t)
		for name := range m {
			if !strings.HasPrefix(name, "notifyd_replay_") {
				delete(m, name)
			}
		}
		return m
	}
	one, two, three, four := n.dial(t), n.dial(t), n.dial(t), n.dial(t)
	one.resume("d.a", token, `{"seq":0}`)
	one.events(1500)
	one.fence()
	first := values()
	s.with(func() {
		if first["notifyd_replay_pages_total"] != float64(s.reads) {
			t.Errorf("%v pages, %d reads", first["notifyd_replay_pages_total"], s.reads)
		}
	})
	chunks := first[`notifyd_replay_chunks_total{source="stream"}`]
	if first["notifyd_replay_events_total"] != 1500 || chunks < 3 || first["notifyd_replay_bytes"] < 1500*50 || first["notifyd_replay_seconds_count"] != 1 ||
		first["notifyd_replay_running"] != 0 || first[`notifyd_replay_chunks_total{source="shared"}`] != 0 {
		t.Errorf("%v", first)
	}
	two.resume("d.a", token, `{"seq":0}`)
	two.events(1500)
	three.resume("d.a", token, `{"seq":1495}`)
	three.events(5)
	four.resume("d.a", token, "") // no replay
	four.fence()
	m := values()
	if got := m[`notifyd_replay_chunks_total{source="stream"}`] + m[`notifyd_replay_chunks_total{source="shared"}`]; got < 2*chunks {
		t.Errorf("%v chunks; before %v", m, first)
	}
	if m["notifyd_replay_events_total"] != 3005 || m[`notifyd_replay_chunks_total{source="memory"}`] < 1 || m["notifyd_replay_seconds_count"] != 3 {
		t.Errorf("%v", m)
	}
}

// Readers that do not read, each at a position of its own, hold no more than the node has for all of them, and after a
// while nothing; nothing more is read for them.
func TestReplaysThatAreHeldUp(t *testing.T) {
	var with setup
	with.server.Loop.Loops = 2
	const readers, events = 60, 12_000
	n, s := longHistory(t, with, 1, events)
	token := n.all(t)
	small := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(16 << 10)
		}
		return c, err
	}
	var peers []*peer
	for i := range readers {
		p := n.dialWith(t, small)
		p.want(`"type":"welcome"`)
		p.send(`{"type":"subscribe","topic":"d.0","since":{"seq":%d},"token":%q}`, i*7, token)
		peers = append(peers, p)
	}
	most, reads, same := 0.0, 0, 0
	eventually(t, "all are held up", func() bool {
		most = max(most, n.metrics(t)["notifyd_replay_bytes"])
		before := reads
		s.with(func() { reads = s.reads })
		if same++; reads != before || reads < readers {
			same = 0
		}
		return same > 100
	})
	if m := n.metrics(t); m["notifyd_replay_running"] != readers || m["notifyd_replay_pages_total"] != float64(reads) {
		t.Errorf("%v replays run, %v pages, %d reads", m["notifyd_replay_running"], m["notifyd_replay_pages_total"], reads)
	}
	if most < 64<<10 || most > 40<<20 {
		t.Errorf("%.0f bytes", most)
	}
	eventually(t, "they hold nothing", func() bool { return n.metrics(t)["notifyd_replay_bytes"] == 0 })
	s.with(func() {
		if s.reads != reads {
			t.Errorf("%d more reads", s.reads-reads)
		}
	})
	for i, seq := range seqs(peers[3].events(events - 3*7)) {
		if seq != uint64(3*7+1+i) {
			t.Fatalf("%d is event %d", seq, i)
		}
	}
}

// What a reader waits for is not read when it has gone.
func TestNothingIsReadForAReaderThatIsGone(t *testing.T) {
	n, s := longHistory(t, setup{}, 1, 200)
	token := n.all(t)
	goOn := make(chan struct{})
	s.with(func() { s.gate = func() { <-goOn } })
	var peers []*peer
	for i := range 30 {
		p := n.dial(t)
		p.send(`{"type":"subscribe","topic":"d.0","since":{"seq":%d},"token":%q}`, i, token)
		peers = append(peers, p)
	}
	eventually(t, "all run", func() bool { return n.metrics(t)["notifyd_replay_running"] == 30 })
	stays := peers[29]
	for _, p := range peers[:29] {
		_ = p.conn.Close()
	}
	eventually(t, "they have gone", func() bool { return n.metrics(t)["notifyd_replay_running"] == 1 })
	close(goOn)
	if got := seqs(stays.events(171)); got[0] != 30 {
		t.Error(got)
	}
	stays.fence()
	s.with(func() {
		if s.reads > server.ReplayWorkers+3 {
			t.Errorf("%d reads", s.reads)
		}
	})
}
