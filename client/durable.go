package client

import (
	"fmt"
	"slices"
	"sync"

	"github.com/notifyd/notifyd/wire"
)

// durable is what a subscription to the topics of one stream knows. All events ascend in seq, on each connection: so one
// position is enough to go on from, and two connections that are both whole from a position on may be taken together.
type durable struct {
	mu      sync.Mutex
	epoch   string // "": the topics are not durable, or it is not known yet
	at      uint64 // all up to it is in the queue, or was, or is gone
	placed  bool   // at is known
	lost    bool   // the server does not give what is after at
	sources []*source
	chain   chain
	handled Position // what the handler has done
}

// Position says up to where the handler has seen a subscription to durable topics: it has returned from all events up to
// there. [After] goes on from it. Its Epoch is empty while there is none.
func (s *Subscription) Position() Position {
	s.durable.mu.Lock()
	defer s.durable.mu.Unlock()
	return s.durable.handled
}

func (d *durable) setHandled(p Position) {
	d.mu.Lock()
	d.handled = p
	d.mu.Unlock()
}

func (d *durable) isOn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch != ""
}

// since says what to ask a connection for. renewal means that it brings the events already, and gets another token.
func (d *durable) since(from *session, wanted wire.Since) (since wire.Since, renewal bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.sourceOf(from) != nil:
		return wire.Since{}, true
	case d.lost:
		return wire.Since{}, false
	case d.placed:
		return wire.Since{Kind: wire.SinceSeq, N: d.at, Epoch: []byte(d.epoch)}, false
	}
	return wanted, false
}

// forget gives up the position, since the server does not give what is after it. It reports false if there is none.
func (d *durable) forget() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.placed || d.lost {
		return false
	}
	d.lost = true
	return true
}

func (d *durable) sourceOf(from *session) *source {
	for _, source := range d.sources {
		if source.session == from {
			return source
		}
	}
	return nil
}

// begin takes a connection as a source, by its answer to a subscribe. The connection's reader calls it, before it reads
// the events that follow.
func (s *Subscription) begin(from *session, since wire.Since, ack *wire.Message) {
	d := &s.durable
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.epoch
	if was == "" {
		was = string(since.Epoch)
	}
	d.sources = slices.DeleteFunc(d.sources, func(s *source) bool { return s.session == from || s.session.isDown() })
	epoch := string(ack.Epoch)
	anew := was != "" && was != epoch
	next := &source{session: from, whole: ack.Seq}
	floor := ack.Seq
	switch since.Kind {
	case wire.SinceNone:
		next.since = ack.Seq
	case wire.SinceSeq:
		next.since = since.N
		floor = since.N
	}
	if anew {
		next.since, floor = 0, 0
	}
	var gap *Gap
	switch {
	case d.placed && since.Kind == wire.SinceNone:
		gap = &Gap{Pattern: s.pattern, After: d.at}
		if epoch != "" {
			gap.First = ack.Seq + 1
		}
	case since.Kind != wire.SinceNone && !ack.Complete && epoch != "":
		gap = &Gap{Pattern: s.pattern, First: ack.First}
		if since.Kind == wire.SinceSeq {
			gap.After = since.N
		}
	}
	if gap != nil && anew {
		gap.Epoch = epoch
	}
	if d.epoch == "" || anew || since.Kind == wire.SinceNone {
		d.chain, d.sources, d.at, d.placed = newChain(floor), nil, next.since, since.Kind <= wire.SinceSeq
	}
	if gap != nil {
		d.chain.gone = max(d.chain.gone, ack.Seq+1)
	}
	if ack.Recovered == 0 {
		d.at, d.placed = max(d.at, ack.Seq), true
	}
	next.last = next.since
	d.epoch, d.lost = epoch, false
	if epoch == "" {
		d.at, d.placed = 0, false
	} else {
		d.sources = append(d.sources, next)
	}
	if gap != nil || d.placed {
		s.queue.add(item{gap: gap, at: d.position()})
	}
}

// position is where to go on, if that is known.
func (d *durable) position() Position {
	if !d.placed {
		return Position{}
	}
	return Position{Seq: d.at, Epoch: d.epoch}
}

// pushStored takes an event to the queue if it belongs to a stream. One that the queue has no room for is read again from the
// stream, with all that follow it.
func (s *Subscription) pushStored(from *session, e Event) bool {
	if e.Seq == 0 {
		return false
	}
	d := &s.durable
	d.mu.Lock()
	if d.epoch == "" {
		d.mu.Unlock()
		return false
	}
	source := d.sourceOf(from)
	var err *OrderError
	var full bool
	if source != nil {
		if full = !s.queue.hasRoom(&e); full {
			d.sources = nil
		} else {
			var take bool
			if take, err = d.chain.take(source, &e); take {
				d.at, d.placed = e.Seq, true
				s.queue.add(item{event: e, is: true, at: d.position()})
			}
		}
	}
	d.mu.Unlock()
	if err != nil {
		s.c.report(err)
	}
	if full {
		s.c.report(fmt.Errorf("%s: %w", s.pattern, ErrBehind))
		replace(s.full, struct{}{})
	}
	return true
}

// gap notes that events are gone, as the server says.
func (s *Subscription) gap(from *session, m *wire.Message) {
	d := &s.durable
	d.mu.Lock()
	defer d.mu.Unlock()
	source := d.sourceOf(from)
	if source == nil {
		return // what is asked for next tells it too
	}
	gap := &Gap{Pattern: s.pattern, After: m.After, First: m.First}
	last := max(m.First, 1) - 1
	if epoch := string(m.Epoch); epoch != "" && epoch != d.epoch {
		gap.Epoch = epoch
		gap.After = d.at
		d.epoch, d.at, d.chain = epoch, 0, newChain(0)
		source.since, source.whole, source.last = 0, 0, 0
		d.sources = append(d.sources[:0], source)
	} else if m.First <= d.chain.gone {
		return // known
	}
	d.chain.gone = max(d.chain.gone, m.First)
	source.last = max(source.last, last)
	d.at, d.placed = max(d.at, last), true
	s.queue.add(item{gap: gap, at: d.position()})
}

// lose gives up a connection as a source: what it brings from now on is not whole.
func (s *Subscription) lose(from *session) {
	d := &s.durable
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sources = slices.DeleteFunc(d.sources, func(s *source) bool { return s.session == from })
}

// leave ends the subscription on a connection, of which nothing is wanted any more.
func (s *Subscription) leave(session *session) {
	call, err := session.send(s.ctx, wire.Unsubscribe, nil, func(id string) []byte {
		return wire.AppendUnsubscribe(nil, id, s.pattern)
	})
	if err == nil {
		_ = call.wait(s.ctx) // whatever the answer
	}
	s.lose(session)
}

// catchUp has the server send nothing until the handler has done what is queued.
func (s *Subscription) catchUp(session *session) {
	s.leave(session)
	s.c.mu.Lock()
	s.session = nil
	s.c.mu.Unlock()
	select {
	case <-s.queue.whenIdle():
	case <-s.ctx.Done():
	}
}
