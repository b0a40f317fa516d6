//go:build linux

package hub

import (
	"net/http"

	"github.com/lxzan/gws"
)

// gwsHub does not batch: gws hands over one message after the other, from a
// goroutine per connection, and every write of it is a write(2). The reader's
// goroutine itself does that. gws.Broadcaster encodes only once, but it starts a
// goroutine for each idle subscriber: a burst to 1,000 costs a fifth less with it,
// a single event to 1,000, and everything between pairs, a fifth more.
type gwsHub struct {
	gws.BuiltinEventHandler
	topics *registry[*gws.Conn]
}

func serveGws(addr string) error {
	upgrader := gws.NewUpgrader(&gwsHub{topics: newRegistry[*gws.Conn]()}, &gws.ServerOption{})
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r)
		if err != nil {
			return
		}
		go c.ReadLoop() // so that the request can be collected
	}))
}

func (h *gwsHub) OnClose(c *gws.Conn, _ error) { h.topics.drop(c) }

// OnPing answers as RFC 6455 §5.5.3 wants it; gws by itself sends an empty pong.
func (h *gwsHub) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (h *gwsHub) OnMessage(c *gws.Conn, m *gws.Message) {
	defer func() { _ = m.Close() }() // gives its buffer back
	switch op, topic, payload := parse(m.Bytes()); op {
	case opSubscribe:
		h.topics.add(topic, c)
		_ = c.WriteString(subscribed) // gws closes a connection that fails
	case opPublish:
		for _, sub := range h.topics.subscribers(topic) {
			_ = sub.WriteMessage(gws.OpcodeText, payload) // as above
		}
	}
}
