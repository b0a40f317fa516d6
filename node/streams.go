package node

import (
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
)

// streams are the streams of a bus as the server sees them. A nil pointer must not become an interface that is not nil.
type streams struct{ bus *bus.Bus }

// streamsOf gives the streams of b, nil if it has none.
func streamsOf(b *bus.Bus) server.Streams {
	if len(b.Streams()) == 0 {
		return nil
	}
	return streams{b}
}

// StreamOf implements [server.Streams].
func (x streams) StreamOf(topic []byte) server.Stream {
	if s := x.bus.StreamOf(topic); s != nil {
		return s
	}
	return nil
}

// StreamAround implements [server.Streams].
func (x streams) StreamAround(pattern []byte) (server.Stream, string) {
	s, outside := x.bus.StreamAround(pattern)
	if s == nil {
		return nil, outside
	}
	return s, ""
}
