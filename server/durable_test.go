package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/wire"
)

// durable starts a node on a bus in memory with a stream for d.> in it.
func durable(t *testing.T, with setup) (*node, *memStream) {
	t.Helper()
	s := newMemStream("orders", "d.>")
	with.fake = &memBus{kept: memStreams{s}}
	return start(t, with), s
}

// stored is the text of an event as subscribers get it, up to its time.
func stored(topic, pattern, data string, seq, prev uint64) string {
	if pattern != "" {
		pattern = fmt.Sprintf(`"pattern":%q,`, pattern)
	}
	return fmt.Sprintf(`{"type":"event","topic":%q,%s"data":%s,"seq":%d,"prev":%d,`, topic, pattern, data, seq, prev)
}

// The ack of a publish comes when the stream has stored it, with its seq.
func TestDurablePublish(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		p, token := n.dial(t), n.token(t, hour, []string{">"}, nil)
		s.hold(true)
		p.send(`{"type":"publish","id":"1","topic":"d.a","token":%q,"data":1}`, token)
		p.send(`{"type":"publish","topic":"d.a","token":%q,"data":2}`, token)
		p.send(`{"type":"publish","id":"3","topic":"d.b","msg_id":"m","ttl":60,"token":%q,"data":3}`, token)
		p.fence() // nothing but the pong, and the connection is read on
		s.hold(false)
		p.wantExactly(`{"type":"ack","id":"1","seq":1}`)
		p.wantExactly(`{"type":"ack","id":"3","seq":3}`)
		p.send(`{"type":"publish","id":"4","topic":"d.b","msg_id":"m","token":%q,"data":3}`, token)
		p.wantExactly(`{"type":"ack","id":"4","seq":3,"duplicate":true}`)
		p.send(`{"type":"publish","id":"5","topic":"other","msg_id":"m","token":%q,"data":3}`, token)
		p.wantExactly(`{"type":"ack","id":"5"}`)
		p.fence()
		s.with(func() {
			if len(s.stored) != 4 {
				t.Fatalf("%d came", len(s.stored))
			}
			if x := s.stored[2]; string(x.MsgID) != "m" || x.TTL != 60 || x.From != "tester" || string(x.Data) != "3" || string(x.Topic) != "d.b" {
				t.Errorf("stored %+v", x)
			}
			if x := s.stored[0]; x.MsgID != nil || x.TTL != 0 {
				t.Errorf("stored %+v", x)
			}
		})
		if got := n.metrics(t)[`notifyd_publishes_total{result="ok"}`]; got != 5 {
			t.Errorf("%v counted", got)
		}
	})
}

// What a stream refuses, at once or later, is refused with the topic; the connection
// goes on.
func TestDurablePublishRefused(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		p, token := n.dial(t), n.all(t)
		publish := func(id, more string) {
			p.send(`{"type":"publish","id":%q,"topic":"d.a",%s"token":%q,"data":1}`, id, more, token)
		}
		s.with(func() { s.answer = wire.Unavailable })
		publish("1", "")
		p.want(`{"type":"error","id":"1","topic":"d.a","code":"unavailable"`)
		s.with(func() { s.answer, s.refuse = wire.OK, wire.TooLarge })
		publish("2", "")
		p.want(`{"type":"error","id":"2","topic":"d.a","code":"too_large"`)
		s.with(func() { s.refuse, s.ttl = wire.OK, false })
		publish("3", `"ttl":5,`)
		p.want(`{"type":"error","id":"3","topic":"d.a","code":"bad_envelope","message":"ttl `)
		p.send(`{"type":"publish","id":"4","topic":"other","ttl":5,"token":%q,"data":1}`, token)
		p.want(`{"type":"error","id":"4","topic":"other","code":"bad_envelope","message":"ttl `)
		publish("5", "")
		p.wantExactly(`{"type":"ack","id":"5","seq":1}`)

		// A connection that has gone is owed nothing.
		s.hold(true)
		q := n.dial(t)
		for i := range 10 {
			q.send(`{"type":"publish","id":"%d","topic":"d.a","token":%q,"data":1}`, i, token)
		}
		eventually(t, "all are stored", func() bool { return s.lastSeq() == 11 })
		_ = q.conn.Close()
		s.hold(false)
		publish("6", "")
		p.wantExactly(`{"type":"ack","id":"6","seq":12}`)
	})
}

// A stream that does not keep up makes its publishers wait, and no others.
func TestDurablePublishWaitsForRoom(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		token := n.all(t)
		p, q := n.dial(t), n.dial(t)
		s.with(func() { s.full = true })
		for i := range 3 {
			p.send(`{"type":"publish","id":"%d","topic":"d.a","token":%q,"data":%d}`, i, token, i)
		}
		q.publish("other", token, "1")
		n.Room() // another's
		q.publish("other", token, "2")
		if s.lastSeq() != 0 {
			t.Fatal("stored without room")
		}
		s.with(func() { s.full = false })
		n.Room()
		for i := range 3 {
			p.wantExactly(fmt.Sprintf(`{"type":"ack","id":"%d","seq":%d}`, i, i+1))
		}
	})
}

// Live events have seq, prev and time, and who published them where that is told.
func TestDurableLive(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		for _, from := range []bool{false, true} {
			with.server.EventsFrom = from
			n, s := durable(t, with)
			token := n.all(t)
			wild, pub := n.dial(t), n.dial(t)
			wild.subscribe(">", token)
			s.with(func() { s.window = 0 })
			pub.publish("other", token, "0")
			wild.wantExactly(`{"type":"event","topic":"other","pattern":">","data":0}`)
			s.fill("d.a", 1, 2)
			s.fill("d.b", 3, 3)
			s.fill("d.a", 4, 4)
			for i, prev := range []uint64{0, 1, 0, 2} {
				topic := "d.a"
				if i == 2 {
					topic = "d.b"
				}
				m := wild.next()
				if !strings.HasPrefix(m, stored(topic, ">", fmt.Sprint(i+1), uint64(i+1), prev)+`"time":"20`) {
					t.Fatalf("got %s", m)
				}
				if strings.Contains(m, `"from":"tester"`) != from {
					t.Fatalf("got %s", m)
				}
			}
			// History that is gone before it could be passed on.
			s.with(func() { s.silent = true })
			s.fill("d.a", 5, 7)
			s.discard(6)
			s.repeat(7)
			wild.wantExactly(`{"type":"gap","topic":">","after":4,"first":7}`)
			wild.want(stored("d.a", ">", "7", 7, 6))
			s.with(func() { s.kept[0].Data = []byte(`1},{"type":"x"`); s.position = 6 })
			s.repeat(7)
			wild.wantExactly(`{"type":"gap","topic":">","after":6,"first":8}`)
			s.remake()
			wild.wantExactly(`{"type":"gap","topic":">","epoch":"e2","after":0,"first":1}`)
			wild.fence()
			n.stop()
		}
	})
}

// A publish by HTTP is answered when the stream has stored it, many in the order of their
// lines.
func TestDurablePublishByHTTP(t *testing.T) {
	n, s := durable(t, setup{})
	bearer := "Authorization: Bearer " + n.all(t)
	post := func(body string, headers ...string) (status int, answer string) {
		r := n.ask(t, request("POST", postPublish, body, headers...))
		return r.status, r.body
	}
	for _, x := range []struct {
		body, header string
		status       int
		answer       string
	}{
		{`{"topic":"d.a","data":1}`, "", 200, `{"ok":true,"seq":1}`},
		{`{"topic":"d.a","data":2,"id":"7","msg_id":"m"}`, "", 200, `{"ok":true,"id":"7","seq":2}`},
		{`{"topic":"d.a","data":2}`, "Idempotency-Key: m", 200, `{"ok":true,"seq":2,"duplicate":true}`},
		{`{"topic":"d.a","data":2}`, `Idempotency-Key: "m"`, 200, `{"ok":true,"seq":2,"duplicate":true}`},
		{`{"topic":"other","data":2}`, "Idempotency-Key: m", 200, `{}`},
		{`{"topic":"d.a","data":2,"msg_id":"m"}`, "Idempotency-Key: m", 400, `"code":"bad_envelope"`},
		{`{"topic":"d.a","data":2}`, "Idempotency-Key: ", 400, `"code":"bad_envelope"`},
		{`{"topic":"d.a","data":2}`, "Idempotency-Key: " + strings.Repeat("k", wire.MaxMsgIDBytes+1), 400, `"code":"bad_envelope"`},
		{`{"topic":"d.a","data":2}`, "Idempotency-Key: a\r\nIdempotency-Key: b", 400, `"code":"bad_envelope"`},
		{`{"topic":"other","data":2,"ttl":1}`, "", 400, `"message":"ttl `},
	} {
		headers := []string{"Content-Type: application/json", bearer}
		if x.header != "" {
			headers = append(headers, strings.Split(x.header, "\r\n")...)
		}
		status, answer := post(x.body, headers...)
		if status != x.status || !strings.Contains(answer, x.answer) {
			t.Errorf("%s %s: %d %s, want %d %s", x.body, x.header, status, answer, x.status, x.answer)
		}
	}
	status, answer := post("{}", "Content-Type: application/x-ndjson", bearer, "Idempotency-Key: m")
	if status != 400 || !strings.Contains(answer, "bad_envelope") {
		t.Errorf("%d %s", status, answer)
	}
	s.with(func() { s.answer = wire.Unavailable })
	if status, answer := post(`{"topic":"d.a","data":1}`, "Content-Type: application/json", bearer); status != 503 {
		t.Errorf("%d %s", status, answer)
	}
	s.with(func() { s.answer = wire.OK })

	var lines, want strings.Builder
	seq := s.lastSeq()
	for i := range 3000 {
		switch i % 3 {
		case 0:
			seq++
			fmt.Fprintf(&lines, `{"id":"%d","topic":"d.a","data":%d}`+"\n", i, i)
			fmt.Fprintf(&want, `{"ok":true,"id":"%d","seq":%d}`+"\n", i, seq)
		case 1:
			fmt.Fprintf(&lines, `{"id":"%d","topic":"other","data":%d}`+"\n", i, i)
			fmt.Fprintf(&want, `{"ok":true,"id":"%d"}`+"\n", i)
		default:
			fmt.Fprintf(&lines, `{"id":"%d","topic":"other","data":%d,"ttl":1}`+"\n", i, i)
			fmt.Fprintf(&want, `{"ok":false,"id":"%d","code":"bad_envelope","message":"ttl is for durable topics whose stream has ttl: true"}`+"\n", i)
		}
	}
	if status, answer := post(lines.String(), "Content-Type: application/x-ndjson", bearer); status != 200 || answer != want.String() {
		t.Errorf("%d, %d bytes, want %d", status, len(answer), want.Len())
	}
}
