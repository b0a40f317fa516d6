package server_test

import (
	"fmt"
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
			{eventsPath("d.a", "x.a"), "Last-Event-ID: e1.2", wire.HistoryUnavailable},
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
