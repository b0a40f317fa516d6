package server

import (
	"bytes"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
)

// manyPatterns is how many patterns an event is encoded for ahead of its delivery.
const manyPatterns = 16

// eventForMany is [Server.Event] for an event that more patterns match than people
// have a use for. It must not cost others what it costs those that hold the
// patterns: a thousand copies of a large event are no longer made here, where all
// events of the node come by, but by the loops, and only as long as somebody takes
// them.
func (s *Server) eventForMany(sh *shard, handles []uint32, name string, data []byte) {
	if !s.validEvent(sh, true, name, data) {
		return
	}
	topics := make([]*topic, 0, len(handles))
	for _, h := range handles {
		if t := s.topics.byHandle(h); t != nil && t.matches(name) {
			if t.due != nil {
				s.deliver(t) // came first
			}
			topics = append(topics, t)
		}
	}
	data = bytes.Clone(data)
	for _, l := range s.engine.Loops() {
		l.DeliverFunc(len(data)+8*len(topics), func() { s.deliverToMany(l, topics, name, data) })
	}
}

// deliverToMany delivers an event to those that l has for topics. A connection whose
// copies of it would take more than [loop.Options.PendingBytes] together is closed
// as a slow one, whether it reads or not: nobody else is to wait for so much.
func (s *Server) deliverToMany(l *loop.Loop, topics []*topic, name string, data []byte) {
	var scratch []byte
	copies := make(map[*loop.Conn]int) // bytes
	for _, t := range topics {
		for i, g := range []*loop.Group{t.groups[l.Index()].Load(), t.groups[len(t.groups)/2+l.Index()].Load()} {
			if g == nil {
				continue
			}
			size, open := len(t.name)+len(data), false
			for _, m := range g.Members() {
				if n := copies[m.Conn]; n > 0 && n+size > s.opts.Loop.PendingBytes {
					m.Conn.CloseSlow()
				}
				copies[m.Conn] += size
				open = open || m.Conn.Open()
			}
			if !open {
				continue
			}
			b := loop.NewBatch()
			scratch = t.appendEvent(scratch[:0], name, data)
			if forStreams := i > 0; forStreams {
				b.AppendEvent(scratch)
			} else {
				b.Append(ws.OpText, scratch)
			}
			l.DeliverNow(g, b)
		}
	}
}
