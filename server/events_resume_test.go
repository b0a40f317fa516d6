package server_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// Events of durable topics have an id, and whoever sends it back goes on there.
func TestEventsResume(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		other := newMemStream("other", "x.>")
		s := newMemStream("orders", "d.>")
		with.fake = &memBus{kept: memStreams{s, other}}
		n := start(t, with)
		bearer := "Authorization: Bearer " + n.all(t)
		s.fill("d.a", 1, 3)
		open := func(topics []string, query string, headers ...string) *stream {
			t.Helper()
			return n.streamFrom(t, "127.0.0.1", get(eventsPath(topics...)+query, append(headers, bearer)...))
		}
		// event expects one of d.a.
		event := func(c *stream, pattern string, i int) {
			t.Helper()
			c.want("", strings.TrimSuffix(stored("d.a", pattern, fmt.Sprint(i), uint64(i), uint64(i-1)), ","))
			if want := fmt.Sprintf("e1.%d", i); c.id != want {
				t.Errorf("id %q, want %q", c.id, want)
			}
		}
		for _, window := range []int{0, 64} {
			s.with(func() { s.window = window })
			c := open([]string{"d.*"}, "&since=0")
			c.want("ack", `{"type":"ack","id":"d.*","exp":`)
			for i := 1; i <= 3; i++ {
				event(c, "d.*", i)
			}
			_ = c.conn.Close()
			c = open([]string{"d.a"}, "&since=0", "Last-Event-ID: e1.2")
			c.want("ack", `{"type":"ack","id":"d.a","exp":`)
			event(c, "", 3)
			_ = c.conn.Close()
		}
		// With one that is not durable, and live.
		c := open([]string{"d.a", "plain"}, "", "Last-Event-ID: e1.2")
		acks := 0
		for acks < 2 {
			name, data := c.next()
			switch {
			case name == "ack":
				acks++
			case strings.Contains(data, `"seq":3,`):
			default:
				t.Fatalf("%s %s", name, data)
			}
		}
		_ = c.conn.Close()
		c = open([]string{"d.>"}, "")
		c.want("ack", `{"type":"ack","id":"d.>","exp":`)
		s.fill("d.a", 4, 4)
		event(c, "d.>", 4)
		s.with(func() { s.silent = true })
		s.fill("d.a", 5, 6)
		s.discard(5)
		s.repeat(6)
		c.want("gap", `{"type":"gap","topic":"d.>","after":4,"first":6}`)
		c.want("", `{"type":"event","topic":"d.a","pattern":"d.>","data":6,`)
		s.with(func() { s.silent = false })
		for _, x := range []struct {
			path   string
			header string
			code   wire.Code
		}{
			{eventsPath("d.a") + "&since=", "", wire.BadEnvelope},
			{eventsPath("d.a") + "&since=x", "", wire.BadEnvelope},
			{eventsPath("d.a"), "Last-Event-ID: 1.2.3", wire.BadEnvelope},
			{eventsPath("d.*") + "&since=last:2", "", wire.BadEnvelope},
			{eventsPath("plain") + "&since=1", "", wire.HistoryUnavailable},
			{eventsPath("d.a", "plain") + "&since=last:1", "", wire.HistoryUnavailable},
			{eventsPath("d.a", "x.a") + "&since=1", "", wire.HistoryUnavailable},
		} {
			headers := []string{bearer}
			if x.header != "" {
				headers = append(headers, x.header)
			}
			n.ask(t, get(x.path, headers...)).wantProblem(400, x.code)
		}
		none := sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), Subscribe: []string{">"}, History: "none"})
		n.ask(t, get(eventsPath("d.a")+"&since=0", "Authorization: Bearer "+none)).wantProblem(400, wire.HistoryUnavailable)
		// The last of each, of both streams.
		other.fill("x.a", 1, 2)
		c = open([]string{"d.a", "x.a"}, "&since=last:1")
		got := make(map[string]int)
		for range 4 {
			name, data := c.next()
			got[name]++
			if name == "" && !strings.Contains(data, `"seq":6,`) && !strings.Contains(data, `"seq":2,`) {
				t.Errorf("got %s", data)
			}
		}
		if got["ack"] != 2 || got[""] != 2 {
			t.Errorf("%v", got)
		}
	})
}

// An EventSource sends Last-Event-ID by itself, and gives up for good when it is refused. What cannot resume begins now
// and says so.
func TestEventsBeginNowWhereTheyCannotResume(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		other, s := newMemStream("other", "x.>"), newMemStream("orders", "d.>")
		with.fake = &memBus{kept: memStreams{s, other}}
		n := start(t, with)
		s.fill("d.a", 1, 3)
		other.with(func() { other.epoch = "x1" })
		other.fill("x.a", 1, 5)
		all := n.all(t)
		none := sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), Subscribe: []string{">"}, History: "none"})
		ack := func(topic, stream, epoch string, seq, recovered int, complete string) string {
			return fmt.Sprintf(`"id":%q,"stream":%q,"epoch":%q,"seq":%d,"recovered":%d,"complete":%s}`, topic, stream, epoch, seq, recovered, complete)
		}
		for _, x := range []struct {
			name, token, id string
			topics          []string
			acks            []string
			seqs            []string
		}{
			{
				"a position of one of two streams", all, "e1.2",
				[]string{"d.a", "x.a"},
				[]string{ack("d.a", "orders", "e1", 3, 1, "true"), ack("x.a", "other", "x1", 5, 0, `false,"first":1`)},
				[]string{"d.a 3"},
			},
			{
				"of the other", all, "x1.4",
				[]string{"d.a", "x.a"},
				[]string{ack("d.a", "orders", "e1", 3, 0, `false,"first":1`), ack("x.a", "other", "x1", 5, 1, "true")},
				[]string{"x.a 5"},
			},
			{
				"of neither", all, "gone.4",
				[]string{"d.a", "x.a"},
				[]string{ack("d.a", "orders", "e1", 3, 0, `false,"first":1`), ack("x.a", "other", "x1", 5, 0, `false,"first":1`)},
				nil,
			},
			{
				"of another life of the only stream", all, "gone.2",
				[]string{"d.a"},
				[]string{ack("d.a", "orders", "e1", 3, 3, `false,"first":1`)},
				[]string{"d.a 1", "d.a 2", "d.a 3"},
			},
			{
				"a token that reads no history", none, "e1.2",
				[]string{"d.a", "plain"},
				[]string{ack("d.a", "orders", "e1", 3, 0, `false,"first":1`), `"id":"plain"}`},
				nil,
			},
		} {
			c := n.streamFrom(t, "127.0.0.1", get(eventsPath(x.topics...), "Authorization: Bearer "+x.token, "Last-Event-ID: "+x.id))
			var acks, seqs []string
			for len(acks) < len(x.acks) || len(seqs) < len(x.seqs) {
				name, data := c.next()
				var m struct {
					Topic string
					Seq   uint64
				}
				if err := json.Unmarshal([]byte(data), &m); err != nil {
					t.Fatal(err)
				}
				switch name {
				case "ack":
					acks = append(acks, expMember.ReplaceAllString(strings.TrimPrefix(data, `{"type":"ack",`), ""))
				case "":
					seqs = append(seqs, fmt.Sprint(m.Topic, " ", m.Seq))
				default:
					t.Fatalf("%s: %s %s", x.name, name, data)
				}
			}
			slices.Sort(acks)
			if !slices.Equal(acks, x.acks) || !slices.Equal(seqs, x.seqs) {
				t.Errorf("%s:\n%s\n%s", x.name, acks, seqs)
			}
			_ = c.conn.Close()
		}
	})
}

var expMember = regexp.MustCompile(`,"exp":\d+`)
