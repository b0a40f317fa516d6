package server

import (
	"bytes"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
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
	s.deliverMany(sh, topics, &wire.StoredEvent{Topic: name, Data: data})
}

// deliverMany has all loops deliver an event, of which Data is not kept. One without a
// Seq is of no stream.
func (s *Server) deliverMany(sh *shard, topics []*topic, e *wire.StoredEvent) {
	own, came := *e, s.began(sh)
	own.Data = bytes.Clone(e.Data)
	for _, l := range s.engine.Loops() {
		l.DeliverBy(len(own.Data)+8*len(topics), func() { s.deliverToMany(l, topics, &own, came) })
	}
}

// deliverToMany delivers an event to those that l has for topics. A connection whose
// copies of it would take more than [loop.Options.PendingBytes] together is closed
// as a slow one, whether it reads or not: nobody else is to wait for so much.
func (s *Server) deliverToMany(l *loop.Loop, topics []*topic, e *wire.StoredEvent, came int64) {
	var scratch, id []byte
	copies := make(map[*loop.Conn]int) // bytes
	for _, t := range topics {
		for i, g := range []*loop.Group{t.groups[l.Index()].Load(), t.groups[len(t.groups)/2+l.Index()].Load()} {
			if g == nil {
				continue
			}
			size, open := len(t.name)+len(e.Data), false
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
			b.Came(came)
			if e.Seq == 0 {
				scratch = t.appendEvent(scratch[:0], e.Topic, e.Data)
			} else {
				scratch = wire.AppendStoredEvent(scratch[:0], t.pattern(), e)
			}
			if forStreams := i > 0; forStreams {
				id = t.appendPosition(id[:0], e.Seq)
				b.AppendEvent(nil, id, scratch)
			} else {
				b.Append(ws.OpText, scratch)
			}
			l.DeliverNow(g, b)
		}
	}
}
