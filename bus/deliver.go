package bus

import (
	"runtime"

	"github.com/nats-io/nats.go"
)

// maxRound is how many events a sink gets at most before Flush.
const maxRound = 1024

// A shard is a queue that many NATS subscriptions share, and the goroutine that empties it. All messages
// of one subscription go through one shard, which keeps their order.
type shard struct {
	number  int
	sink    Sink
	queue   chan *nats.Msg
	handles []uint32 // of the event in hand
}

// read hands over events until Close: one when it comes, then whatever waits behind it.
func (b *Bus) read(s *shard) {
	for {
		var m *nats.Msg
		select {
		case m = <-s.queue:
		case <-b.quit:
			return
		}
		for n := 1; ; n++ {
			b.event(s, m)
			if n == maxRound {
				break
			}
			if m = s.next(); m == nil {
				break
			}
		}
		s.sink.Flush(s.number)
	}
}

// next returns the message that waits, or nil. Before it returns nil it lets the goroutines that feed the queue
// run: under load that makes rounds of 15 events out of rounds of 3, and each round costs a write to every
// subscriber; an idle process does not notice.
func (s *shard) next() *nats.Msg {
	if m := s.poll(); m != nil {
		return m
	}
	runtime.Gosched()
	return s.poll()
}

func (s *shard) poll() *nats.Msg {
	select {
	case m := <-s.queue:
		return m
	default:
		return nil
	}
}

func (b *Bus) event(s *shard, m *nats.Msg) {
	if len(m.Subject) <= len(b.subject) {
		return // a mapping of NATS's made another subject of it
	}
	topic := m.Subject[len(b.subject):]
	if m.Sub.Queue != "" {
		if streamOf(b, topic) != nil {
			return // it comes by the stream
		}
		s.handles = b.interest.patterns.match(s.handles[:0], topic)
	} else {
		s.handles = b.interest.find(m.Sub).append(s.handles[:0])
	}
	if len(s.handles) > 0 { // else it lingers, or was unsubscribed and NATS had sent this before it knew
		s.sink.Event(s.number, s.handles, topic, m.Data)
	}
}

// find returns the subscription that a message came for, without a lock unless there is none.
func (in *interest) find(n *nats.Subscription) *subscription {
	v, ok := in.bySub.Load(n)
	if !ok {
		// The first message can overtake Subscribe, which holds mu until it has noted n.
		in.mu.Lock()
		v, ok = in.bySub.Load(n)
		in.mu.Unlock()
		if !ok {
			return nil
		}
	}
	return v.(*subscription)
}
