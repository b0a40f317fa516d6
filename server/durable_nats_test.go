package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/bus"
)

// With a stream in NATS: every event that was acked is there, for those that listen, those
// that come while events go on, and those that come later, from the stream or from memory.
func TestDurableOnNATS(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.bus.Streams = []bus.StreamOptions{{Name: "orders", Topics: []string{"d.>"}, MaxBytes: 64 << 20, TTL: true}}
		n := start(t, with)
		token := n.all(t)
		live, pub := n.dial(t), n.dial(t)
		if r := live.resume("d.>", token, ""); r.Seq != 0 || !*r.Complete {
			t.Errorf("%+v", r)
		}
		const events = 6000 // more than the node remembers
		frames := make([]string, events)
		for i := range frames {
			frames[i] = fmt.Sprintf(`{"type":"publish","id":"%d","topic":"d.%d","msg_id":"%d","token":%q,"data":%d}`, i, i%3, i, token, i)
		}
		published := make(chan struct{})
		go func() {
			defer close(published)
			pub.pipeline(frames)
		}()
		// check reads n events of a pattern that begin behind a position.
		check := func(p *peer, after uint64, count int, step uint64) {
			t.Helper()
			chain := make(map[string]uint64)
			for _, e := range p.events(count) {
				if e.Seq != after+step || fmt.Sprint(e.Seq-1) != string(e.Data) {
					t.Fatalf("%d (%s) came behind %d", e.Seq, e.Data, after)
				}
				if last, known := chain[e.Topic]; known && (e.Prev == nil || *e.Prev != last) {
					t.Fatalf("%d has prev %v, want %d", e.Seq, e.Prev, last)
				}
				after, chain[e.Topic] = e.Seq, e.Seq
			}
		}
		var joined []*peer
		for range 10 {
			p := n.dial(t)
			p.resume("d.*", token, `{"seq":0}`)
			joined = append(joined, p)
		}
		for i := range events {
			pub.wantExactly(fmt.Sprintf(`{"type":"ack","id":"%d","seq":%d}`, i, i+1))
		}
		<-published
		check(live, 0, events, 1)
		for _, p := range joined {
			check(p, 0, events, 1)
			p.fence()
		}
		for _, x := range []struct {
			pattern, since string
			after          uint64
			count          int
			step           uint64
		}{
			{"d.*", `{"seq":0}`, 0, events, 1},
			{"d.1", `{"seq":0}`, 0, events / 3, 0},
			{"d.*", fmt.Sprintf(`{"seq":%d}`, events-10), events - 10, 10, 1},
			{"d.*", `{"last":1}`, events - 3, 3, 1},
			{"d.2", `{"last":1}`, events - 1, 1, 1},
			{"d.2", `{"last":2000}`, 0, events / 3, 0},
			{"d.>", `{"time":"2001-01-01T00:00:00Z"}`, 0, events, 1},
			{"d.>", `{"time":"2101-01-01T00:00:00Z"}`, events, 0, 1},
			{"d.none", `{"seq":0}`, 0, 0, 1},
		} {
			p := n.dial(t)
			if r := p.resume(x.pattern, token, x.since); r.Seq != events || r.Recovered != uint64(x.count) || !*r.Complete {
				t.Errorf("%s since %s: %+v", x.pattern, x.since, r)
			}
			if x.step > 0 {
				check(p, x.after, x.count, x.step)
			} else {
				all := p.events(x.count)
				for i := range all[1:] {
					if all[i+1].Seq != all[i].Seq+3 || *all[i+1].Prev != all[i].Seq {
						t.Fatalf("%d behind %d", all[i+1].Seq, all[i].Seq)
					}
				}
			}
			p.fence()
		}
		pub.send(`{"type":"publish","id":"again","topic":"d.0","msg_id":"0","token":%q,"data":0}`, token)
		pub.wantExactly(`{"type":"ack","id":"again","seq":1,"duplicate":true}`)
		s := n.stream(t, token, "d.0")
		pub.send(`{"type":"publish","id":"last","topic":"d.0","token":%q,"data":"end"}`, token)
		pub.want(`{"type":"ack","id":"last","seq":6001}`)
		s.want("", fmt.Sprintf(`{"type":"event","topic":"d.0","data":"end","seq":6001,"prev":%d,`, events-2))
		if !strings.HasSuffix(s.id, ".6001") {
			t.Errorf("id %q", s.id)
		}
		for _, p := range joined {
			p.want(`"data":"end","seq":6001,`)
			p.fence()
		}
	})
}
