package server

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Live events of durable topics, on the goroutine of their stream's feed. They are
// encoded once for all subscribers of a topic or pattern, and delivered, as in path.go;
// streams of Server-Sent Events are told the position as well, by which they resume.

// due is what a topic is due in the round of one shard.
type due struct {
	frames, events *loop.Batch // for WebSockets, and for streams; nil: nothing
	topic          *topic      // nil: it is not in shard.stored
}

// dueOf is what a topic is due from a shard that has streams. A pattern may be sent
// events by several shards at a time, a topic by one.
func (t *topic) dueOf(number int) *due {
	if len(t.dues) == 1 {
		return &t.dues[0]
	}
	return &t.dues[number]
}

// Stored encodes an event of a stream for the subscribers that this node has for its
// topic, and for the patterns that match it. It is called like [Server.Event].
func (s *Server) Stored(number int, handles []uint32, e *wire.StoredEvent) {
	sh := &s.shards[number]
	if !s.opts.EventsFrom && e.From != "" {
		sh.event = *e
		sh.event.From = ""
		e = &sh.event
	}
	if !wire.ValidTopic(e.Topic) || !wire.ValidJSON(e.Data) {
		s.invalidStored(sh, e)
		s.Gap(number, handles, "", e.Seq-1, e.Seq+1)
		return
	}
	if len(handles) > manyPatterns {
		topics := make([]*topic, 0, len(handles))
		for _, h := range handles {
			if t := s.topics.byHandle(h); t != nil && t.matches(e.Topic) {
				s.deliverStored(t, t.dueOf(number)) // came first
				topics = append(topics, t)
			}
		}
		s.deliverMany(sh, topics, e)
		return
	}
	for _, h := range handles {
		if t := s.topics.byHandle(h); t != nil && t.matches(e.Topic) {
			sh.scratch = wire.AppendStoredEvent(sh.scratch[:0], t.pattern(), e)
			s.addStored(number, t, nil, e.Seq)
		}
	}
}

func (s *Server) invalidStored(sh *shard, e *wire.StoredEvent) {
	sh.invalid.Add(1)
	s.log.Warn("an event in a stream is no envelope: subscribers are told of a gap", zap.Uint64("seq", e.Seq))
}

// Gap tells the subscribers of a stream that events are gone: those behind after and
// before first. epoch is that of the stream, if it is another than before. It is called
// like [Server.Event], in the order of the events.
func (s *Server) Gap(number int, handles []uint32, epoch string, after, first uint64) {
	sh := &s.shards[number]
	for _, h := range handles {
		if t := s.topics.byHandle(h); t != nil {
			if epoch != "" && t.home != nil {
				t.home.epoch.Store(&epoch)
			}
			sh.scratch = wire.AppendGap(sh.scratch[:0], t.name, epoch, after, first)
			s.addStored(number, t, gapEvent, 0)
		}
	}
}

// gapEvent is the name of the event as which streams are sent a gap.
var gapEvent = []byte("gap")

// addStored appends what is in the shard's scratch to what a topic is due in this round.
// seq is that of an event, 0 for what has none.
func (s *Server) addStored(number int, t *topic, name []byte, seq uint64) {
	sh := &s.shards[number]
	d := t.dueOf(number)
	if d.topic == nil {
		d.topic = t
		sh.stored = append(sh.stored, d)
	}
	if d.frames == nil {
		d.frames = loop.NewBatch()
		d.frames.Came(s.began(sh))
	}
	d.frames.Append(ws.OpText, sh.scratch)
	if t.streams.Load() > 0 {
		if d.events == nil {
			d.events = loop.NewBatch()
			d.events.Came(s.began(sh))
		}
		sh.id = t.appendPosition(sh.id[:0], seq)
		d.events.AppendEvent(name, sh.id, sh.scratch)
	}
	if d.frames.Len() > maxRoundBytes {
		s.deliverStored(t, d)
	}
}

// flushStored ends a round.
func (s *Server) flushStored(sh *shard) {
	for i, d := range sh.stored {
		s.deliverStored(d.topic, d)
		d.topic = nil
		sh.stored[i] = nil
	}
	sh.stored = sh.stored[:0]
}

// deliverStored posts what a topic is due to each loop that has subscribers for it.
func (s *Server) deliverStored(t *topic, d *due) {
	loops := s.engine.Loops()
	if d.frames != nil {
		deliverTo(loops, t.groups[:len(loops)], d.frames)
	}
	if d.events != nil {
		deliverTo(loops, t.groups[len(loops):], d.events)
	}
	d.frames, d.events = nil, nil
}

// home is what the server keeps of a stream.
type home struct {
	Stream
	epoch atomic.Pointer[string] // as far as it is known; nil: it is not
	heads heads
}

// homes are those of a server, by the names of the streams.
type homes struct {
	mu     sync.Mutex
	byName map[string]*home // guarded by mu
}

func (x *homes) of(stream Stream) *home {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.byName[stream.Name()]
	if h == nil {
		h = &home{Stream: stream}
		if x.byName == nil {
			x.byName = make(map[string]*home)
		}
		x.byName[stream.Name()] = h
	}
	return h
}

// homeOf gives the stream that keeps all that a pattern matches, or nil and the reason.
func (s *Server) homeOf(pattern []byte) (*home, string) {
	if s.streams == nil {
		return nil, ""
	}
	stream, reason := s.streams.StreamAround(pattern)
	if stream == nil {
		return nil, reason
	}
	return s.homes.of(stream), ""
}

// appendPosition appends the last event ID of an event, EPOCH.SEQ; nothing where a
// subscription could not resume from it.
func (t *topic) appendPosition(dst []byte, seq uint64) []byte {
	if seq == 0 || t.home == nil {
		return dst
	}
	epoch := t.home.epoch.Load()
	if epoch == nil {
		return dst
	}
	return appendPosition(dst, *epoch, seq)
}

func appendPosition(dst []byte, epoch string, seq uint64) []byte {
	dst = append(append(dst, epoch...), '.')
	return strconv.AppendUint(dst, seq, 10)
}
