package node_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// What docs/protocol.md, section 8, promises of durable topics, for TestModel. Nothing is ever discarded.

var (
	durableTopics   = []string{"d.1", "d.2", "d.2.x"}
	durablePatterns = []string{"d.1", "d.2", "d.2.x", "d.*", "d.>"}
)

func durable(topic string) bool { return strings.HasPrefix(topic, "d.") }

// reading is how a subscription reads the stream, from where it began last.
type reading struct {
	since     wire.Since
	after     uint64            // what is behind it is due, unless only the last were asked for
	oldest    map[string]uint64 // where only the last were asked for: nothing older may come
	from      uint64            // the position of the ack
	recovered uint64            // as the ack has it

	at      uint64            // the seq that came last
	chain   map[string]uint64 // that of each topic
	got     map[uint64]bool
	early   uint64 // how many came up to from
	bytes   int    // that they took
	begun   bool   // what is due up to from has come
	checked uint64 // and what is due up to here
}

// last reports whether only the last events of each topic were asked for, and later ones.
func (r *reading) last() bool { return r.since.Kind == wire.SinceLast && r.since.N > 0 }

// The stream.

// stored notes that an event has a seq. mu is held.
func (w *world) stored(e *modelEvent, seq uint64) {
	for uint64(len(w.log)) < seq {
		w.log = append(w.log, nil)
	}
	other := w.log[seq-1]
	if e.seq != 0 && e.seq != seq || other != nil && other != e {
		w.wrong("event [%d,%d] is %d in the stream, and %d", e.from, e.number, e.seq, seq)
	}
	e.seq, w.log[seq-1] = seq, e
}

// newest gives the known seqs of a topic up to one, the newest n. mu is held.
func (w *world) newest(topic string, upTo, n uint64) (seqs []uint64) {
	for seq := min(upTo, uint64(len(w.log))); seq > 0 && uint64(len(seqs)) < n; seq-- {
		if e := w.log[seq-1]; e != nil && e.topic == topic {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

// oldest is for a subscribe that is about to ask for the last events: nothing older may come. mu is held.
func (w *world) oldest(since wire.Since) map[string]uint64 {
	oldest := map[string]uint64{}
	if since.Kind == wire.SinceLast {
		for _, topic := range durableTopics {
			if seqs := w.newest(topic, uint64(len(w.log)), since.N); uint64(len(seqs)) == since.N && since.N > 0 {
				oldest[topic] = seqs[len(seqs)-1]
			}
		}
	}
	return oldest
}

// uncertain reports whether an event of the topic may be stored or not. mu is held.
func (w *world) uncertain(topic string) bool {
	for _, events := range w.events {
		for _, e := range events {
			if e.topic == topic && e.seq == 0 && !e.refused {
				return true
			}
		}
	}
	return false
}

// due gives the seqs up to its position that a subscription has to have. Those behind it are due in any case. mu is held.
func (w *world) due(pattern string, r *reading) (seqs []uint64) {
	for _, topic := range durableTopics {
		switch {
		case !wire.Covers(pattern, topic):
		case !r.last():
			seqs = append(seqs, w.newest(topic, r.from, r.from-min(r.from, r.after))...)
		case !w.uncertain(topic):
			seqs = append(seqs, w.newest(topic, r.from, r.since.N)...)
		}
	}
	return seqs
}

// Publishing.

func (e *modelEvent) request(token *modelToken, more int) request {
	data := fmt.Sprintf("[%d,%d,%q]", e.from, e.number, strings.Repeat("x", more))
	return request{kind: 'p', topic: e.topic, token: token, msgID: e.msgID, data: data}
}

// repeat publishes events a second time, with the same msg_id, that have been stored or may have been.
func (p *modelPeer) repeat(events []*modelEvent, token *modelToken, more int) {
	w := p.w
	for _, e := range events {
		w.mu.Lock()
		again := durable(e.topic) && !e.refused && !p.ended()
		e.again = e.again || again && !e.acked
		q := &question{request: e.request(token, more)}
		m := w.now()
		w.mu.Unlock()
		if !again {
			continue
		}
		answer, answered := p.answer(p.send(q))
		if !answered {
			return
		}
		w.mu.Lock()
		p.judge("publish of a repeat", token, m, answer, permits(token.publish, e.topic))
		if answer.Code == wire.OK {
			if e.acked && !answer.Duplicate {
				w.wrong("%d: a repeat of [%d,%d] is no duplicate", p.number, e.from, e.number)
			}
			if answer.Duplicate {
				w.seen["duplicate"]++
			}
			w.stored(e, answer.Seq)
			e.acked = true
		}
		w.mu.Unlock()
	}
}

// Reading.

// begins acts on the answer to a subscribe that was accepted. mu is held.
func (p *modelPeer) begins(q *question, m *wire.Message) {
	w, s := p.w, q.sub
	q.tenure.acked = true
	switch {
	case !durable(s.pattern):
		if len(m.Stream) > 0 {
			w.wrong("%d: %s begins in the stream %s", p.number, s.pattern, m.Stream)
		}
		return
	case len(m.Stream) == 0:
		if s.reading == nil || q.since.Kind != wire.SinceNone {
			w.wrong("%d: %s begins without a position", p.number, s.pattern)
		}
		return
	case string(m.Stream) != "kept" || w.epoch != "" && string(m.Epoch) != w.epoch:
		w.wrong("%d: %s is in the life %s of the stream %s, and not in %s of kept", p.number, s.pattern, m.Epoch, m.Stream, w.epoch)
	}
	w.epoch = string(m.Epoch)
	r := &reading{since: q.since, oldest: q.oldest, from: m.Seq, recovered: m.Recovered, chain: map[string]uint64{}, got: map[uint64]bool{}}
	complete := true
	switch {
	case q.since.Kind == wire.SinceNone || q.since.Kind == wire.SinceLast && q.since.N == 0:
		r.after = m.Seq
	case q.since.Kind == wire.SinceSeq && q.since.Epoch != nil && string(q.since.Epoch) != w.epoch:
		complete = false
	case q.since.Kind == wire.SinceSeq:
		r.after = q.since.N
	}
	r.at = r.after
	if m.Complete != complete || !complete && m.First != 1 {
		w.wrong("%d: %s since %d %d %s is complete: %v, from %d on", p.number, s.pattern, q.since.Kind, q.since.N, q.since.Epoch, m.Complete, m.First)
	}
	s.reading, s.got, s.last = r, map[int]map[int]bool{}, map[string]int{}
	w.seen[fmt.Sprint("begins since ", q.since.Kind)]++
}

// storedEvent compares an event of the stream with what the subscription has had. mu is held.
func (p *modelPeer) storedEvent(s *modelSub, m *wire.Message) {
	r, topic := s.reading, string(m.Topic)
	if r == nil {
		return // of a pattern that covers other topics too
	}
	w := p.w
	last, known := r.chain[topic]
	switch {
	case m.Seq <= r.at:
		w.wrong("%d: %s received %d after %d", p.number, s.pattern, m.Seq, r.at)
	case r.last() && m.Seq < r.oldest[topic]:
		w.wrong("%d: %s received %d, which is not among the last %d of %s", p.number, s.pattern, m.Seq, r.since.N, topic)
	case !slices.ContainsFunc(s.tenures, func(n *tenure) bool { return n.ended.IsZero() }):
		w.wrong("%d: %s received %d after its end", p.number, s.pattern, m.Seq)
	case m.Prev == wire.PrevUnknown:
	case known && m.Prev != last, !known && !r.last() && m.Prev > r.after:
		w.wrong("%d: %s received %d of %s after %d, and its prev is %d", p.number, s.pattern, m.Seq, topic, max(last, r.after), m.Prev)
	}
	r.at, r.chain[topic], r.got[m.Seq] = m.Seq, m.Seq, true
	if m.Seq <= r.from {
		r.early++
		r.bytes += len(m.Data) + 200
		w.seen["event of a replay"]++
	}
}

// missing gives an event that a subscription to durable topics should have had by now. mu is held.
func (p *modelPeer) missing(s *modelSub, at time.Time) *modelEvent {
	r, w := s.reading, p.w
	if r == nil || w.away || p.ended() || !s.live(at) {
		return nil
	}
	if !r.begun {
		for _, seq := range w.due(s.pattern, r) {
			if seq > r.after && !r.got[seq] {
				return w.log[seq-1]
			}
		}
		// What more than one read brings may be counted at several moments.
		if r.early != r.recovered && r.bytes < 16<<10 && !slices.ContainsFunc(durableTopics, w.uncertain) {
			w.wrong("%d: %s recovered %d, and the ack says %d", p.number, s.pattern, r.early, r.recovered)
		}
		r.begun, r.checked = true, r.from
	}
	for _, e := range w.log[min(r.checked, uint64(len(w.log))):] {
		if e != nil && wire.Covers(s.pattern, e.topic) && !r.got[e.seq] {
			return e
		}
	}
	r.checked = uint64(len(w.log))
	return nil
}

// Steps.

// durableAction draws what the connection in a slot, which is open, does with durable topics.
func (w *world) durableAction(slot int) func() {
	token, what, form := w.anyToken(), w.rng.IntN(12), w.rng.IntN(7)
	pattern, topics := durablePatterns[w.rng.IntN(len(durablePatterns))], slices.Clone(durableTopics)
	n, luck, part := 1+w.rng.IntN(30), w.rng.IntN(3), w.rng.Float64()
	p := w.peers[slot]
	w.rng.Shuffle(len(topics), func(i, j int) { topics[i], topics[j] = topics[j], topics[i] })
	if luck > 0 {
		token = p.token
	}
	switch {
	case what < 4:
		return func() { p.publish(topics[:1+n%len(topics)], token, n, 0, n%3 == 0) }
	case what < 6:
		return func() {
			p.drop()
			w.connect(slot, nil, false)
			if p := w.peers[slot]; !p.ended() {
				p.subscribe(pattern, p.token, w.resumption(slot, pattern))
			}
		}
	default:
		return func() { p.subscribe(pattern, token, w.since(form, slot, pattern, n, part)) }
	}
}

// since gives one of the forms of since.
func (w *world) since(form, slot int, pattern string, n int, part float64) (since wire.Since) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch form {
	case 0:
	case 1:
		since.Kind = wire.SinceSeq // everything
	case 2, 3:
		since.Kind, since.N = wire.SinceLast, uint64(n-1)
		if wire.HasWildcard(pattern) {
			since.N = 1
		}
	case 4:
		since.Kind, since.N = wire.SinceSeq, uint64(part*float64(len(w.log)))
	case 5:
		since.Kind, since.N, since.Epoch = wire.SinceSeq, uint64(part*float64(len(w.log))), []byte("another")
	default:
		return w.resumptionLocked(slot, pattern)
	}
	return since
}

// resumption is how a subscription goes on that the connection in the slot before this one had.
func (w *world) resumption(slot int, pattern string) wire.Since {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.resumptionLocked(slot, pattern)
}

func (w *world) resumptionLocked(slot int, pattern string) wire.Since {
	since := wire.Since{Kind: wire.SinceSeq}
	if p := w.left[slot]; p != nil {
		if s := p.subs[pattern]; s != nil && s.reading != nil {
			since.N, since.Epoch = s.reading.at, []byte(w.epoch)
		}
	}
	return since
}

// heldUp has a connection that reads nothing for a while replay all that there is, and something happen meanwhile: its
// token expires, is revoked or replaced, or NATS is killed.
func (w *world) heldUp() {
	slot, what, n := w.rng.IntN(slots), w.rng.IntN(6), 1+w.rng.IntN(20)
	if p := w.peers[slot]; !p.ended() {
		p.drop()
	}
	w.connect(slot, nil, true)
	p := w.peers[slot]
	if w.away || p.ended() {
		return
	}
	if !w.filled {
		w.filled = true
		for range 16 { // so that no subscriber falls far behind
			p.publish([]string{"d.2"}, p.token, 4, 16<<10, false)
			w.awaitEvents()
		}
	}
	life := time.Hour
	if what < 3 {
		life = 2 * time.Second
	}
	w.mu.Lock()
	token := &modelToken{subject: "held", id: fmt.Sprint("h", p.number), issued: time.Now(), subscribe: []string{">"}}
	w.sign(token, time.Now().Add(life), false)
	w.mu.Unlock()
	goOn := make(chan struct{})
	var all sync.WaitGroup
	q := p.sendSubscribe(request{kind: 's', topic: "d.>", token: token, since: wire.Since{Kind: wire.SinceSeq}, hold: goOn})
	p.subscribed(q)
	switch {
	case what < 3:
		w.note("waits until the token of the replay for %d expires", p.number)
		w.expire(token.causes[0].surely, p)
	case what == 3:
		w.revokeOne(token)
	case what == 4:
		renewed := p.sendSubscribe(request{kind: 's', topic: "d.>", token: p.token})
		all.Go(func() { p.subscribed(renewed) })
	case w.nats != nil:
		w.killNATS()
	}
	w.each(func(other *modelPeer) {
		if other != p && other.number%3 == 0 {
			all.Go(func() { other.publish(durableTopics, other.token, n, 0, false) })
		}
	})
	ping := p.send(&question{request: request{kind: 'g'}})
	close(goOn)
	p.answer(ping)
	all.Wait()
	if w.down {
		w.startNATS()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[fmt.Sprint("held up ", what)]++
}

// expire waits until a moment at which a token expires, and until the loops know. One connection does not read.
func (w *world) expire(at time.Time, but *modelPeer) {
	time.Sleep(time.Until(at))
	w.each(func(p *modelPeer) {
		if p != but {
			p.ask(request{kind: 'g'}) // has each loop look at the clock
		}
	})
	testkit.Eventually(w.t, "the loops look at the clock", func() bool { return !w.now().clock.Before(at) })
}
