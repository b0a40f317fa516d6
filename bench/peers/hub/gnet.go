//go:build linux

package hub

import (
	"net"
	"slices"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
)

// gnetHub batches what one read brought: gnet hands over all bytes that a
// connection has sent, so the frames in them become one write per topic and
// subscriber. It runs one event loop, where connections may write to each other
// directly; between loops every write would be a task in the other loop's queue.
type gnetHub struct {
	gnet.BuiltinEventEngine
	topics map[string]*gnetTopic
	due    []*gnetTopic
}

type gnetTopic struct {
	subs  []gnet.Conn
	batch []byte
}

// gnetConn is what a connection carries: whether it has shaken hands, and what it
// is subscribed to.
type gnetConn struct {
	up     bool
	topics []*gnetTopic
}

func serveGnet(addr string) error {
	return gnet.Run(&gnetHub{topics: map[string]*gnetTopic{}}, "tcp://"+addr,
		gnet.WithNumEventLoop(1), gnet.WithLockOSThread(true), gnet.WithTCPNoDelay(gnet.TCPNoDelay),
		gnet.WithReadBufferCap(256<<10), gnet.WithLogLevel(logging.ErrorLevel))
}

func (h *gnetHub) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(&gnetConn{})
	return nil, gnet.None
}

func (h *gnetHub) OnClose(c gnet.Conn, _ error) gnet.Action {
	for _, t := range c.Context().(*gnetConn).topics {
		if i := slices.Index(t.subs, c); i >= 0 {
			t.subs = slices.Concat(t.subs[:i], t.subs[i+1:]) // OnTraffic may be walking it
		}
	}
	return gnet.None
}

func (h *gnetHub) OnTraffic(c gnet.Conn) gnet.Action {
	b, err := c.Peek(-1)
	if err != nil {
		return gnet.Close
	}
	used, err := h.consume(c, c.Context().(*gnetConn), b)
	if err != nil {
		return gnet.Close
	}
	for _, t := range h.due {
		for _, sub := range t.subs {
			_, _ = sub.Write(t.batch) // gnet closes a connection that fails
		}
		t.batch = t.batch[:0]
	}
	h.due = h.due[:0]
	if used > 0 {
		_, err = c.Discard(used)
	}
	if err != nil {
		return gnet.Close
	}
	return gnet.None
}

// consume handles what is complete in b, and tells how much that was.
func (h *gnetHub) consume(c gnet.Conn, state *gnetConn, b []byte) (used int, err error) {
	if !state.up {
		answer, size, err := upgrade(b)
		if err != nil || size == 0 {
			return 0, err
		}
		state.up, used = true, size
		if _, err := c.Write(answer); err != nil {
			return used, err
		}
	}
	for {
		opcode, payload, size, err := nextFrame(b[used:])
		if err != nil || size == 0 {
			return used, err
		}
		used += size
		switch opcode {
		case opcodeClose:
			return used, net.ErrClosed
		case opcodePing:
			if _, err := c.Write(appendPong(nil, payload)); err != nil {
				return used, err
			}
			continue
		}
		switch op, name, data := parse(payload); op {
		case opSubscribe:
			t := h.topic(name)
			t.subs = append(t.subs, c)
			state.topics = append(state.topics, t)
			if _, err := c.Write(appendFrame(nil, []byte(subscribed))); err != nil {
				return used, err
			}
		case opPublish:
			t := h.topic(name)
			if len(t.batch) == 0 {
				h.due = append(h.due, t)
			}
			t.batch = appendFrame(t.batch, data)
		}
	}
}

func (h *gnetHub) topic(name []byte) *gnetTopic {
	t := h.topics[string(name)]
	if t == nil {
		t = &gnetTopic{}
		h.topics[string(name)] = t
	}
	return t
}
