//go:build !race

// The race detector makes sync.Pool forget, so these tests run without it.

package server

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// none requires that f, called on the loop, allocates nothing.
func (x *stage) none(what string, f func(*loop.Conn)) {
	x.t.Helper()
	x.with(func(c *loop.Conn) {
		if n := testing.AllocsPerRun(500, func() { f(c) }); n != 0 {
			x.t.Errorf("%s: %v allocations", what, n)
		}
	})
}

// A message with a token that the node knows costs no allocation on its way to
// the bus, nor does an event on its way to the subscribers.
func TestPathAllocatesNothing(t *testing.T) {
	x := newStage(t, Options{Rate: 1 << 20})
	frame := func(id string, token int) []byte {
		return fmt.Appendf(nil, `{"type":"publish",%s"topic":"rooms.42","token":%q,"data":{"any":"JSON"}}`, id, x.tokens[token])
	}
	silent, asked, other := frame("", 0), frame(`"id":"7",`, 0), frame("", 1)
	published := func() uint64 { return x.sum().published[wire.OK] }

	x.none("publish, memo", func(c *loop.Conn) { x.Message(c, ws.OpText, silent) })
	x.none("publish with ack, memo", func(c *loop.Conn) { x.Message(c, ws.OpText, asked) })
	x.none("publish, cache", func(c *loop.Conn) {
		x.Message(c, ws.OpText, silent)
		x.Message(c, ws.OpText, other)
	})
	if n := published(); n != 501*4 {
		t.Errorf("%d published", n)
	}
	var envs [2]wire.Envelope
	for i, f := range [][]byte{silent, other} {
		if err := wire.Parse(f, &envs[i]); err != nil {
			t.Fatal(err)
		}
	}
	for what, order := range map[string][2]int{"memo": {0, 0}, "cache": {0, 1}} {
		hits := x.sum().memoHits
		x.none("authorize by "+what, func(c *loop.Conn) {
			for _, i := range order {
				r := x.request(c)
				r.env = envs[i]
				if !r.authorize() {
					t.Error("refused")
				}
			}
		})
		if hits = x.sum().memoHits - hits; (hits > 1000) != (what == "memo") {
			t.Errorf("%s: %d hits of the memo", what, hits)
		}
	}
	ping, bad := []byte(`{"type":"ping","id":"1"}`), []byte(`{"id":"1","type":"x"}`)
	x.none("ping", func(c *loop.Conn) { x.Message(c, ws.OpText, ping) })
	x.none("refusal", func(c *loop.Conn) {
		x.Message(c, ws.OpText, bad)
		sessionOf(c).badEnvelopes = 0
	})
}

// Nor does a request on a connection that is kept, from the socket to its answer.
func TestPostAllocatesNothing(t *testing.T) {
	x := newStage(t, Options{Rate: 1 << 20, Shards: 2})
	x.streams = keeper{}
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(x.url, "ws://"), wire.Path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	buf := make([]byte, 4096)
	for name, row := range map[string]struct{ topic, answer string }{
		"publish": {"other", "{}\n"},
		"stored":  {"rooms.42", `{"ok":true,"id":"7","seq":1}` + "\n"},
	} {
		id := ""
		if name == "stored" {
			id = `"id":"7",`
		}
		body := fmt.Sprintf(`{%s"topic":%q,"data":{"any":"JSON"}}`, id, row.topic)
		post := fmt.Appendf(nil, "POST /v1/publish HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\nContent-Type: application/json\r\n"+
			"Authorization: Bearer %s\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s", x.tokens[0], len(body), body)
		if n := testing.AllocsPerRun(500, func() {
			if _, err := conn.Write(post); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buf)
			if err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200 OK\r\n")) || !bytes.HasSuffix(buf[:n], []byte(row.answer)) {
				t.Fatalf("%q, %v", buf[:n], err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := x.sum().published[wire.OK]; n != 2*501 {
		t.Errorf("%d published", n)
	}
}

func TestFanOutAllocatesNothing(t *testing.T) {
	x := newStage(t, Options{})
	for _, pattern := range []string{"rooms.42", "rooms.*"} {
		x.with(func(c *loop.Conn) {
			x.Message(c, ws.OpText, fmt.Appendf(nil, `{"type":"subscribe","topic":%q,"token":%q}`, pattern, x.tokens[0]))
		})
	}
	var handles []uint32
	for live := 0; live < 2; { // the bus confirms from a goroutine
		handles, live = nil, 0
		x.topics.mu.Lock()
		for _, tp := range x.topics.byName {
			handles = append(handles, tp.handle)
			if tp.groups[0].Load() != nil {
				live++
			}
		}
		x.topics.mu.Unlock()
	}
	data := []byte(`{"any":"JSON"}`)
	if n := testing.AllocsPerRun(500, func() {
		for range 16 {
			for i := range handles {
				x.Event(0, handles[i:i+1], "rooms.42", data)
			}
		}
		x.Flush(0)
		x.engine.Do(nop) // until the loop has written it
	}); n > doAllocs(x) {
		t.Errorf("%v allocations", n)
	}
	if n := x.engine.Stats().Deliveries; n != 501*32 {
		t.Errorf("%d deliveries", n)
	}
}

// keeper is a stream that keeps nothing and answers at once.
type keeper struct{ Stream }

func (keeper) StreamOf(topic []byte) Stream {
	if len(topic) > 2 && topic[0] == 'r' {
		return keeper{}
	}
	return nil
}

func (keeper) StreamAround([]byte) (Stream, string) { return nil, "" }

func (keeper) HasRoom() bool { return true }

func (keeper) AnswersSoon() bool { return true }

func (keeper) Store(_ *wire.ToStore, receipt wire.Receipt) wire.Code {
	receipt.Stored(1, false, wire.OK)
	return wire.OK
}

// Nor does a message to a durable topic on its way to its stream, its ack, or an event on
// its way from there.
func TestDurablePathAllocatesNothing(t *testing.T) {
	x := newStage(t, Options{Rate: 1 << 20, Shards: 2})
	x.streams = keeper{}
	x.topics.shards, x.topics.homeOf = 2, func([]byte) (*home, string) { return nil, "" } // as ">" has none
	asked := fmt.Appendf(nil, `{"type":"publish","id":"7","topic":"rooms.42","token":%q,"data":{"any":"JSON"}}`, x.tokens[0])
	x.none("publish, ack", func(c *loop.Conn) {
		x.Message(c, ws.OpText, asked)
		x.takeReceipts(c.Loop())
	})
	if n := x.sum().published[wire.OK]; n != 501 {
		t.Errorf("%d published", n)
	}
	x.with(func(c *loop.Conn) {
		x.Message(c, ws.OpText, fmt.Appendf(nil, `{"type":"subscribe","topic":"rooms.*","token":%q}`, x.tokens[0]))
	})
	var handles []uint32
	for len(handles) == 0 { // the bus confirms from a goroutine
		x.topics.mu.Lock()
		for _, tp := range x.topics.byName {
			if tp.groups[0].Load() != nil {
				handles = append(handles, tp.handle)
			}
		}
		x.topics.mu.Unlock()
	}
	e := &wire.StoredEvent{Topic: "rooms.42", Data: []byte(`{"any":"JSON"}`), Seq: 7, Prev: 3, Time: 1, From: "tester"}
	if n := testing.AllocsPerRun(500, func() {
		for range 16 {
			x.Stored(1, handles, e)
		}
		x.Flush(1)
		x.engine.Do(nop) // until the loop has written it
	}); n > doAllocs(x) {
		t.Errorf("%v allocations", n)
	}
	if n := x.engine.Stats().Deliveries; n != 501*16 {
		t.Errorf("%d deliveries", n)
	}
}

// doAllocs is what waiting for the loop costs.
func doAllocs(x *stage) float64 { return testing.AllocsPerRun(500, func() { x.engine.Do(nop) }) }
