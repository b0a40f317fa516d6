package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// resumed is the ack of a subscribe to a durable topic.
type resumed struct {
	Type, ID, Stream, Epoch, Code string
	Seq, Recovered, First         uint64
	Complete                      *bool
	Exp                           int64
}

// resume subscribes and returns the ack, which must be the next that comes.
func (p *peer) resume(pattern, token, since string) (r resumed) {
	p.t.Helper()
	p.ids++
	id := fmt.Sprint("r", p.ids)
	if since != "" {
		since = `"since":` + since + ","
	}
	p.send(`{"type":"subscribe","id":%q,"topic":%q,%s"token":%q}`, id, pattern, since, token)
	m := p.next()
	if err := json.Unmarshal([]byte(m), &r); err != nil || r.Type != "ack" || r.ID != id || r.Complete == nil || r.Stream != "orders" || r.Exp == 0 {
		p.t.Fatalf("%s since %s: got %.300s", pattern, since, m)
	}
	return r
}

// got is an event or a gap.
type got struct {
	Type, Topic, Pattern, Epoch string
	Seq, After, First           uint64
	Prev                        *uint64
	Data                        json.RawMessage
}

// events reads n events of a subscription.
func (p *peer) events(n int) (all []got) {
	p.t.Helper()
	for range n {
		var e got
		m := p.next()
		if err := json.Unmarshal([]byte(m), &e); err != nil || e.Type != "event" || e.Seq == 0 {
			p.t.Fatalf("got %.300s, event %d of %d", m, len(all), n)
		}
		all = append(all, e)
	}
	return all
}

// seqs are those of events.
func seqs(all []got) (s []uint64) {
	for _, e := range all {
		s = append(s, e.Seq)
	}
	return s
}

// What since asks for comes behind the ack, and live events behind that.
func TestResume(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		token := n.all(t)
		s.fill("d.a", 1, 3)
		s.fill("d.b", 4, 5)
		s.fill("d.a", 6, 8)
		s.with(func() { s.position = 0 })
		middle := time.Now()
		s.with(func() {
			for i := range s.kept {
				s.kept[i].Time = middle.Add(time.Duration(i-3) * time.Minute).UnixNano() // 5 is a minute later than middle
			}
		})
		for _, window := range []int{0, 1, 3, 64} {
			s.with(func() { s.window = window })
			for _, x := range []struct {
				pattern, since string
				want           []uint64
				complete       bool
			}{
				{"d.a", ``, nil, true},
				{"d.a", `{"seq":0}`, []uint64{1, 2, 3, 6, 7, 8}, true},
				{"d.*", `{"seq":0}`, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, true},
				{"d.>", `{"seq":4,"epoch":"e1"}`, []uint64{5, 6, 7, 8}, true},
				{"d.b", `{"seq":5}`, nil, true},
				{"d.a", `{"seq":8}`, nil, true},
				{"d.a", `{"seq":9}`, []uint64{1, 2, 3, 6, 7, 8}, false},
				{"d.b", `{"seq":18446744073709551615}`, []uint64{4, 5}, false},
				{"d.b", `{"seq":8,"epoch":"other"}`, []uint64{4, 5}, false},
				{"d.a", `{"last":2}`, []uint64{7, 8}, true},
				{"d.a", `{"last":100}`, []uint64{1, 2, 3, 6, 7, 8}, true},
				{"d.a", `{"last":0}`, nil, true},
				{"d.*", `{"last":1}`, []uint64{5, 8}, true},
				{"d.c", `{"last":1}`, nil, true},
				{"d.c", `{"seq":0}`, nil, true},
				{"d.*", `{"time":"` + middle.Format(time.RFC3339Nano) + `"}`, []uint64{4, 5, 6, 7, 8}, true},
				{"d.*", `{"time":"` + middle.Add(time.Hour).Format(time.RFC3339Nano) + `"}`, nil, true},
				{"d.*", `{"time":"2001-01-01T00:00:00Z"}`, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, true},
			} {
				if strings.Contains(x.since, "time") {
					x.since = strings.Replace(x.since, "+00:00", "Z", 1)
				}
				p := n.dial(t)
				r := p.resume(x.pattern, token, x.since)
				if r.Seq != 8 || r.Recovered != uint64(len(x.want)) || *r.Complete != x.complete || r.Epoch != "e1" || (r.First != 0) == x.complete {
					t.Errorf("%s since %s, window %d: %+v, complete %v", x.pattern, x.since, window, r, *r.Complete)
				}
				all := p.events(len(x.want))
				if fmt.Sprint(seqs(all)) != fmt.Sprint(x.want) {
					t.Errorf("%s since %s, window %d: got %v, want %v", x.pattern, x.since, window, seqs(all), x.want)
				}
				for _, e := range all {
					wild := ""
					if strings.Contains(x.pattern, "*") || strings.Contains(x.pattern, ">") {
						wild = x.pattern
					}
					if e.Pattern != wild || string(e.Data) != fmt.Sprint(e.Seq) {
						t.Errorf("%s since %s: %+v", x.pattern, x.since, e)
					}
				}
				p.fence()
				_ = p.conn.Close()
			}
		}
		// Live events follow.
		p := n.dial(t)
		p.resume("d.*", token, `{"seq":6}`)
		s.fill("d.b", 9, 9)
		if all := p.events(3); fmt.Sprint(seqs(all)) != "[7 8 9]" || *all[2].Prev != 5 {
			t.Errorf("%+v", all)
		}
	})
}

// What cannot be read is refused with the reason.
func TestResumeRefused(t *testing.T) {
	n, s := durable(t, setup{})
	token := n.all(t)
	p := n.dial(t)
	refused := func(code wire.Code, part string) {
		t.Helper()
		p.want(`"type":"error","id":"1"`, `"code":"`+code.String()+`"`, part)
		p.fence()
	}
	for _, x := range []struct {
		topic, since string
		code         wire.Code
		part         string
	}{
		{">", `{"seq":0}`, wire.HistoryUnavailable, "no stream keeps all of >"},
		{"other", `{"seq":0}`, wire.HistoryUnavailable, "no stream keeps all of other"},
		{"d.*", `{"last":2}`, wire.BadEnvelope, `{\"last\":1}`},
	} {
		p.send(`{"type":"subscribe","id":"1","topic":%q,"since":%s,"token":%q}`, x.topic, x.since, token)
		refused(x.code, x.part)
	}
	none := sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), Subscribe: []string{">"}, History: "none"})
	p.send(`{"type":"subscribe","id":"1","topic":"d.a","since":{"seq":0},"token":%q}`, none)
	refused(wire.HistoryUnavailable, "notify.history")
	p.resume("d.a", none, "")
	s.with(func() { s.away = true })
	p.send(`{"type":"subscribe","id":"1","topic":"d.b","since":{"seq":0},"token":%q}`, token)
	refused(wire.Unavailable, "does not answer")
	s.with(func() { s.away = false })
	p.resume("d.b", token, `{"seq":0}`)
	s.fill("d.b", 1, 1)
	p.events(1)
	if got := n.metrics(t)["notifyd_subscriptions"]; got != 2 {
		t.Errorf("%v subscriptions", got)
	}
}

// While events go on, a reader sees each once, whether anybody else reads the topic or not,
// from memory or from the stream.
func TestResumeWhileEventsGoOn(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		token := n.all(t)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				s.fill("d.a", i, i)
				if i%5 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		defer func() {
			close(stop)
			<-stopped
		}()
		for round := range 60 {
			s.with(func() { s.window = []int{0, 3, 200}[round%3]; s.pageMax = []int{0, 7}[round%2] })
			p := n.dial(t)
			head := s.lastSeq()
			from := head - min(head, uint64(round*3))
			since := fmt.Sprintf(`{"seq":%d}`, from)
			if round%4 == 3 {
				since = ""
			}
			r := p.resume("d.*", token, since)
			if since == "" {
				from = r.Seq
			}
			if from == 0 { // everything there is
				from = p.events(1)[0].Seq
			}
			for i, seq := range seqs(p.events(100 + round*3)) {
				if seq != from+uint64(i)+1 {
					t.Fatalf("round %d since %q: %d is event %d behind %d", round, since, seq, i, from)
				}
			}
			_ = p.conn.Close()
		}
	})
}

// A replay goes at the pace of its reader, and holds up nobody else.
func TestReplayAtTheReadersPace(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.server.Loop.PendingBytes = 128 << 10
		n, s := durable(t, with)
		token := n.all(t)
		text := strings.Repeat("x", 1000)
		const events = 20_000
		s.with(func() {
			s.silent = true
			s.window = 0
			for range events {
				s.append(wire.ToStore{Topic: []byte("d.a"), Data: fmt.Appendf(nil, "%q", text)})
			}
			s.silent, s.position = false, events
		})
		slow, live, pub := n.dial(t), n.dial(t), n.dial(t)
		r := slow.resume("d.a", token, `{"seq":0}`)
		if r.Recovered != events {
			t.Errorf("%+v", r)
		}
		live.resume("d.b", token, "")
		for i := range 50 {
			pub.send(`{"type":"publish","topic":"d.b","token":%q,"data":%d}`, token, i)
			live.want(fmt.Sprintf(`"data":%d,"seq":%d`, i, events+1+i))
		}
		stats := n.metrics(t)
		if got := stats["notifyd_pending_bytes"]; got > 128<<10 {
			t.Errorf("%v bytes wait for the reader", got)
		}
		for i, e := range slow.events(events) {
			if e.Seq != uint64(i+1) {
				t.Fatalf("%d is event %d", e.Seq, i)
			}
		}
		s.fill("d.a", 0, 0)
		slow.events(1)
		slow.fence()
	})
}

// Readers that are at the same position share what is read and encoded.
func TestReplaysShareReads(t *testing.T) {
	n, s := durable(t, setup{})
	token := n.all(t)
	s.with(func() { s.window = 0 })
	s.fill("d.a", 1, 2000)
	eventually(t, "all is passed on", func() bool { p := uint64(0); s.with(func() { p = s.position }); return p == 2000 })
	const readers = 50
	var peers []*peer
	for range readers {
		p := n.dial(t)
		p.send(`{"type":"subscribe","id":"1","topic":"d.a","since":{"seq":0},"token":%q}`, token)
		peers = append(peers, p)
	}
	for _, p := range peers {
		p.want(`"recovered":2000,"complete":true`)
		for i, e := range p.events(2000) {
			if e.Seq != uint64(i+1) {
				t.Fatalf("%d is event %d", e.Seq, i)
			}
		}
	}
	// A chunk lives for 2 s, and a machine may be busy.
	s.with(func() {
		if s.reads > readers {
			t.Errorf("%d reads for %d readers", s.reads, readers)
		}
	})
}

// Readers share what is read of a stream although events go on between them: this node remembers those.
func TestReplaysShareReadsWhileEventsGoOn(t *testing.T) {
	const readers = 40
	for _, events := range []int{100, 400} { // a chunk, and a page of some
		n, s := durable(t, setup{})
		token := n.all(t)
		s.with(func() { s.window = 2 * readers })
		s.fill("d.a", 1, events)
		eventually(t, "all is passed on", func() bool { p := uint64(0); s.with(func() { p = s.position }); return p == uint64(events) })
		began := 0
		for i := range readers {
			s.fill("d.b", 1, 1)
			if i%2 == 0 {
				s.fill("d.a", 1, 1)
			}
			p := n.dial(t)
			r := p.resume("d.a", token, `{"seq":0}`)
			if want := uint64(events + i/2 + 1); r.Recovered != want || r.Seq != s.lastSeq() {
				t.Errorf("%d events, reader %d: recovered %d, want %d; seq %d of %d", events, i, r.Recovered, want, r.Seq, s.lastSeq())
			}
			all := p.events(int(r.Recovered))
			if last := all[len(all)-1].Seq; i%2 == 0 && last != r.Seq || i%2 == 1 && last != r.Seq-1 {
				t.Errorf("%d events, reader %d: the last is %d, at %d", events, i, last, r.Seq)
			}
			for k, seq := range seqs(all[:events]) {
				if seq != uint64(k+1) {
					t.Fatalf("%d events, reader %d: %d is event %d", events, i, seq, k)
				}
			}
			_ = p.conn.Close()
			if i == 0 {
				s.with(func() { began = s.reads })
			}
		}
		// A chunk lives for 2 s, and a machine may be busy.
		s.with(func() {
			if s.reads > began*readers/4 {
				t.Errorf("%d events: %d reads for %d readers, %d for the first", events, s.reads, readers, began)
			}
		})
		n.stop()
	}
}

// After a revocation was answered, nothing more of a replay is sent. Nor after the token's
// end, or a new one that reads less.
func TestReplayUnderTheTokenOfNow(t *testing.T) {
	const events = 50_000
	begin := func(t *testing.T, with setup, ttl time.Duration, claims authz.Claims) (*node, *memStream, *peer) {
		with.server.ExpiryNotice = time.Nanosecond
		n, s := durable(t, with)
		s.with(func() {
			s.silent, s.window = true, 0
			for range events {
				s.append(wire.ToStore{Topic: []byte("d.a"), Data: []byte(`"` + strings.Repeat("x", 300) + `"`)})
			}
			s.silent, s.position = false, events
		})
		claims.Subscribe, claims.Expires = []string{"d.>"}, time.Now().Add(ttl)
		p := n.dial(t)
		r := p.resume("d.a", sign(t, n.key, claims), `{"seq":0}`)
		if r.Recovered != events {
			t.Fatalf("%+v", r)
		}
		return n, s, p
	}
	// rest counts the events that come before the message that contains end.
	rest := func(t *testing.T, p *peer, end string) (count int) {
		t.Helper()
		for {
			m := p.next()
			if strings.Contains(m, end) {
				return count
			}
			if !strings.HasPrefix(m, `{"type":"event"`) {
				t.Fatalf("got %s", m)
			}
			count++
		}
	}
	loops(t, func(t *testing.T, with setup) {
		t.Run("revoked", func(t *testing.T) {
			n, _, p := begin(t, with, hour, authz.Claims{ID: "x"})
			p.events(100)
			full, err := n.auth.Complete(authz.Revocation{JTI: "x"})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.auth.Revoke(full); err != nil {
				t.Fatal(err)
			}
			n.Recheck()
			sent := n.metrics(t)["notifyd_deliveries_total"]
			if count := rest(t, p, `"code":"token_revoked"`); count > events/2 {
				t.Errorf("%d events were sent first", count)
			}
			p.fence()
			if again := n.metrics(t)["notifyd_deliveries_total"]; again != sent {
				t.Errorf("%v events sent, %v when the revocation was in force", again, sent)
			}
		})
		t.Run("expired", func(t *testing.T) {
			_, _, p := begin(t, with, 3*time.Second, authz.Claims{})
			time.Sleep(3500 * time.Millisecond)
			if count := rest(t, p, `"type":"expired"`); count > events/2 {
				t.Errorf("%d events were sent", count)
			}
			p.fence()
		})
		t.Run("renewed with less", func(t *testing.T) {
			n, _, p := begin(t, with, hour, authz.Claims{})
			less := sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), Subscribe: []string{"d.a"}, History: "none"})
			p.send(`{"type":"subscribe","id":"n","topic":"d.a","token":%q}`, less)
			rest(t, p, `{"type":"ack","id":"n","exp":`)
			if count := rest(t, p, `"code":"history_unavailable"`); count > events/2 {
				t.Errorf("%d events were sent", count)
			}
			p.fence()
		})
		t.Run("unsubscribed", func(t *testing.T) {
			_, s, p := begin(t, with, hour, authz.Claims{})
			p.send(`{"type":"unsubscribe","id":"u","topic":"d.a"}`)
			if count := rest(t, p, `{"type":"ack","id":"u"}`); count > events/2 {
				t.Errorf("%d events were sent", count)
			}
			s.fill("d.a", 0, 0)
			p.fence()
		})
	})
}

// A token's bound of history cuts what since asks for, and says so; so does its issuer's.
func TestHistoryBound(t *testing.T) {
	key := newKey(t, "EdDSA")
	for name, issuer := range map[string]time.Duration{"token": 0, "issuer": time.Hour} {
		t.Run(name, func(t *testing.T) {
			var with setup
			with.auth.Issuers = []authz.Issuer{{Name: "i", Trusted: []authz.Key{key}, Subscribe: []string{">"}, History: issuer}}
			with.auth.Issuer = "other"
			n, s := durable(t, with)
			s.fill("d.a", 1, 4)
			s.with(func() {
				for i := range s.kept {
					s.kept[i].Time = time.Now().Add(time.Duration(2*i-5) * time.Hour / 2).UnixNano() // 3 is half an hour old
				}
			})
			claims := authz.Claims{Issuer: "i", Expires: time.Now().Add(hour), Subscribe: []string{">"}, History: "1h"}
			if issuer > 0 {
				claims.History = "1000h"
			}
			token := sign(t, key, claims)
			for since, want := range map[string]struct {
				seqs     string
				complete bool
			}{
				`{"seq":0}`: {"[3 4]", false}, `{"seq":1}`: {"[3 4]", false}, `{"seq":2}`: {"[3 4]", true}, `{"seq":3}`: {"[4]", true},
				`{"last":3}`: {"[3 4]", false}, `{"last":2}`: {"[3 4]", true}, `{"time":"2001-01-01T00:00:00Z"}`: {"[3 4]", false},
			} {
				p := n.dial(t)
				r := p.resume("d.a", token, since)
				if got := fmt.Sprint(seqs(p.events(int(r.Recovered)))); got != want.seqs || *r.Complete != want.complete || !*r.Complete && r.First != 3 {
					t.Errorf("since %s: %s, %+v, complete %v", since, got, r, *r.Complete)
				}
				p.fence()
			}
		})
	}
}

// A stream that was made anew is told to those that resume, replay and listen.
func TestStreamMadeAnew(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		token := n.all(t)
		s.fill("d.a", 1, 50)
		live, reads := n.dial(t), n.dial(t)
		live.resume("d.a", token, "")
		arrived, goOn := make(chan struct{}), make(chan struct{})
		s.with(func() {
			s.window, s.pageMax = 0, 10
			s.gate = sync.OnceFunc(func() {
				close(arrived)
				<-goOn
			})
		})
		reads.send(`{"type":"subscribe","id":"1","topic":"d.*","since":{"seq":0},"token":%q}`, token)
		<-arrived
		s.remake()
		live.wantExactly(`{"type":"gap","topic":"d.a","epoch":"e2","after":0,"first":1}`)
		s.fill("d.a", 51, 53)
		close(goOn)
		if got := fmt.Sprint(seqs(live.events(3))); got != "[1 2 3]" {
			t.Errorf("live: %s", got)
		}
		m := reads.next()
		if !strings.HasPrefix(m, `{"type":"ack","id":"1"`) {
			t.Fatalf("got %s", m)
		}
		for last := uint64(0); last < 3; { // some may come under the old life first
			m = reads.next()
			if strings.HasPrefix(m, `{"type":"gap"`) {
				if m != `{"type":"gap","topic":"d.*","epoch":"e2","after":0,"first":1}` {
					t.Fatalf("got %s", m)
				}
				continue
			}
			var e got
			if err := json.Unmarshal([]byte(m), &e); err != nil || e.Type != "event" {
				t.Fatalf("got %s", m)
			}
			last = e.Seq
		}
		p := n.dial(t)
		if r := p.resume("d.a", token, `{"seq":2,"epoch":"e1"}`); r.Epoch != "e2" || *r.Complete || r.Recovered != 3 || r.First != 1 {
			t.Errorf("%+v", r)
		}
		p.events(3)
		p.fence()
	})
}

// What is discarded while a replay is on its way is told.
func TestDiscardedInAReplay(t *testing.T) {
	n, s := durable(t, setup{})
	s.fill("d.a", 1, 100)
	reads := 0
	s.with(func() {
		s.window, s.pageMax = 0, 10
		s.gate = func() {
			if reads++; reads == 3 {
				s.discard(60)
			}
		}
	})
	p := n.dial(t)
	p.resume("d.a", n.all(t), `{"seq":0}`)
	p.events(20)
	p.wantExactly(`{"type":"gap","topic":"d.a","after":20,"first":61}`)
	if got := seqs(p.events(40)); got[0] != 61 || got[39] != 100 {
		t.Errorf("%v", got)
	}
	p.fence()
}

// A subscribe with since to what is subscribed begins there anew; one without is a renewal.
func TestResumeAgain(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, with)
		token := n.all(t)
		s.fill("d.a", 1, 3)
		p := n.dial(t)
		p.resume("d.a", token, `{"seq":1}`)
		p.events(2)
		p.send(`{"type":"subscribe","id":"again","topic":"d.a","token":%q}`, n.all(t))
		p.want(`{"type":"ack","id":"again","exp":`)
		s.fill("d.a", 4, 4)
		p.events(1)
		if r := p.resume("d.a", token, `{"seq":2}`); r.Recovered != 2 {
			t.Errorf("%+v", r)
		}
		p.events(2)
		s.fill("d.a", 5, 5)
		if got := fmt.Sprint(seqs(p.events(1))); got != "[5]" {
			t.Error(got)
		}
		p.fence()
		// Another subscribe that comes before the first is answered replaces it.
		q := n.dial(t)
		s.with(func() { s.window = 0 })
		for i := range 20 {
			q.send(`{"type":"subscribe","id":"%d","topic":"d.a","since":{"seq":0},"token":%q}`, i, token)
		}
		var seen []uint64
		acked := 0
		for answers := 0; answers < 20; {
			m := q.next()
			var e got
			_ = json.Unmarshal([]byte(m), &e)
			switch {
			case strings.HasPrefix(m, `{"type":"ack"`):
				answers++
				acked++
				seen = nil
			case strings.Contains(m, `"code":"unavailable"`):
				answers++
			case e.Type == "event":
				seen = append(seen, e.Seq)
			default:
				t.Fatalf("got %s", m)
			}
		}
		for _, e := range q.events(5 - len(seen)) {
			seen = append(seen, e.Seq)
		}
		if fmt.Sprint(seen) != "[1 2 3 4 5]" || acked == 0 {
			t.Errorf("%v, %d acks", seen, acked)
		}
		q.fence()
	})
}

// A subscribe with since ends the replay of the one before it: before that is answered, which is refused then, and in its
// middle.
func TestResumeInPlaceOfAnother(t *testing.T) {
	for name, free := range map[string]int{"not answered": 0, "in its middle": 1} {
		t.Run(name, func(t *testing.T) {
			n, s := durable(t, setup{})
			token := n.all(t)
			s.fill("d.a", 1, 9)
			goOn := make(chan struct{})
			reads := 0
			s.with(func() {
				s.window, s.pageMax = 0, 3
				s.gate = func() {
					number := 0
					s.with(func() { reads++; number = reads })
					if number == free+1 {
						<-goOn
					}
				}
			})
			p := n.dial(t)
			p.send(`{"type":"subscribe","id":"1","topic":"d.a","since":{"seq":0},"token":%q}`, token)
			if free > 0 {
				p.want(`{"type":"ack","id":"1"`)
				p.events(3)
			}
			eventually(t, "a read is under way", func() (held bool) { s.with(func() { held = reads > free }); return held })
			p.send(`{"type":"subscribe","id":"2","topic":"d.a","since":{"seq":0},"token":%q}`, token)
			if free == 0 {
				p.want(`{"type":"error","id":"1","topic":"d.a","code":"unavailable"`)
			} else {
				p.want(`{"type":"ack","id":"2"`) // its first chunk is there
				p.events(3)
			}
			close(goOn)
			rest := 6
			if free == 0 {
				p.want(`{"type":"ack","id":"2"`)
				rest = 9
			}
			if got := seqs(p.events(rest)); got[0] != uint64(10-rest) || got[rest-1] != 9 {
				t.Errorf("%v", got)
			}
			s.fill("d.a", 10, 10)
			p.events(1)
			p.fence()
		})
	}
}

// A reader may find what another had read some moments ago. How many events follow is counted anew, although the node does
// not remember all of them, or more of them than are sent at once.
func TestRecoveredIsCountedAnew(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		for _, x := range []struct {
			name        string
			window, big int
		}{
			{"memory does not reach back", 4, 1},
			{"there is too much", 64, 30_000},
		} {
			s := newMemStream("orders", "d.>")
			with.fake = &memBus{kept: memStreams{s}}
			n := start(t, with)
			s.with(func() { s.window = x.window })
			token := n.all(t)
			s.fill("d.a", 1, 3)
			first := n.dial(t)
			if r := first.resume("d.a", token, `{"seq":0}`); r.Recovered != 3 || r.Seq != 3 {
				t.Errorf("%s: %+v", x.name, r)
			}
			first.events(3)
			for range 10 {
				s.with(func() {
					s.append(wire.ToStore{Topic: []byte("d.a"), Data: []byte(`"` + strings.Repeat("x", x.big) + `"`)})
				})
			}
			second := n.dial(t)
			if r := second.resume("d.a", token, `{"seq":0}`); r.Recovered != 13 || r.Seq != 13 || !*r.Complete {
				t.Errorf("%s: %+v", x.name, r)
			}
			for i, e := range second.events(13) {
				if e.Seq != uint64(i+1) {
					t.Fatalf("%s: event %d is %d", x.name, i+1, e.Seq)
				}
			}
			second.fence()
		}
	})
}
