package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// A reader reads a stream page after page. For the first one it asks directly. For each such request JetStream counts what
// follows, in time that grows with the stream, and writes headers into a copy of each event. So a reader that goes on
// makes a consumer, which finds its place once and gives events as they are stored. A consumer may be lost at any time,
// with the server that has it: then the reader asks directly again.
type reader struct {
	s       *Stream
	pattern string
	at      uint64 // everything up to here was read
	// chain is the last event of each topic up to at; nil: not known.
	chain    map[string]uint64
	goesOn   bool
	consumer *consumer // nil: none
}

const (
	// maxChain bounds the topics that a reader keeps the last events of.
	maxChain = 4096
	// consumerLife is for how long NATS keeps a consumer that is asked for nothing.
	consumerLife = 5 * time.Second
	// consumersOff is how long none is made after one could not be made: NATS may forbid it.
	consumersOff = time.Minute
)

// Read reads what pattern matches behind the position after, ascending: at most most events, and not many more than
// mostBytes bytes. With End in the page the leader has said that nothing follows. Each event's Prev is as memory or the stream
// has it now, 0 if nothing before it is stored; PrevUnknown if that could not be asked for.
func (s *Stream) Read(ctx context.Context, pattern string, after uint64, most, mostBytes int) (wire.StreamPage, error) {
	r := &reader{s: s, pattern: pattern, at: after}
	return r.read(ctx, most, mostBytes)
}

func (r *reader) read(ctx context.Context, most, mostBytes int) (wire.StreamPage, error) {
	page := wire.StreamPage{}
	most, mostBytes = min(max(most, 1), maxPage), min(max(mostBytes, 1), maxPageBytes)
	after, size := r.at, 0
	add := func(events ...wire.StoredEvent) {
		page.Events = append(page.Events, events...)
		for i := range events {
			r.at = events[i].Seq
			size += len(events[i].Topic) + len(events[i].Data)
		}
	}
	full := func() bool { return len(page.Events) >= most || size >= mostBytes }
	for !full() {
		p, err := r.part(ctx, most-len(page.Events), mostBytes-size)
		if err != nil {
			return page, err
		}
		add(p.events...)
		if page.Pending = p.pending; full() || p.pending > 0 && len(p.events) > 0 {
			continue
		}
		e, err := r.s.leaderGet(ctx, getRequest{Seq: r.at + 1, NextFor: r.subject()})
		if err != nil {
			return page, err
		}
		if e == nil {
			page.End = true
			break
		}
		add(*e)
		r.leave() // it does not give what the leader has
		r.goesOn = false
	}
	info := r.s.heads.latest.Load()
	if info == nil {
		var err error
		if info, err = r.s.info(ctx); err != nil {
			return page, err
		}
	}
	page.First = info.First
	r.link(ctx, page.Events, after, page.First)
	if page.End {
		r.leave()
	} else {
		r.goesOn = true
		page.Next = r.read
	}
	return page, nil
}

func (r *reader) subject() string { return r.s.bus.subject + r.pattern }

// part reads some of what follows.
func (r *reader) part(ctx context.Context, most, mostBytes int) (part, error) {
	if r.goesOn && r.consumer == nil {
		r.consume(ctx)
	}
	if r.consumer != nil {
		p, err := r.consumer.pull(ctx, most, mostBytes)
		if err == nil {
			p.events = slices.DeleteFunc(p.events, func(e wire.StoredEvent) bool {
				return e.Seq <= r.at || !wire.Covers(r.pattern, e.Topic) // the leader has given it; the consumer gives all
			})
			return p, nil
		}
		r.leave()
		r.goesOn = false
		if ctx.Err() != nil {
			return part{}, err
		}
	}
	return r.s.direct(ctx, getRequest{Seq: r.at + 1, NextFor: r.subject(), Batch: most, MaxBytes: mostBytes})
}

// link notes for each of the events behind after, which are all that there are of their topics, what came before it. The
// stream's first event is begins, or a later one.
func (r *reader) link(ctx context.Context, events []wire.StoredEvent, after, begins uint64) {
	if r.chain == nil {
		r.chain = make(map[string]uint64)
	}
	first := make(map[string]*wire.StoredEvent) // of the topics that are not known
	var topics []string
	for i := range events {
		e := &events[i]
		if prev, known := r.chain[e.Topic]; known {
			e.Prev = prev
		} else {
			first[e.Topic] = e
			topics = append(topics, e.Topic)
		}
		r.chain[e.Topic] = e.Seq
	}
	prevs := make(map[string]uint64, len(topics))
	if after > 0 && after >= begins {
		topics = r.s.follower.feed.window.lastOf(topics, after, prevs)
		if err := r.s.lastInto(ctx, prevs, topics, after); err != nil {
			for _, topic := range topics {
				delete(first, topic)
			}
		}
	}
	for topic, e := range first {
		e.Prev = prevs[topic]
	}
	if len(r.chain) > maxChain {
		r.chain = nil
	}
}

// lastInto notes in seqs the last event of each of topics up to the position upTo.
func (s *Stream) lastInto(ctx context.Context, seqs map[string]uint64, topics []string, upTo uint64) error {
	if len(topics) == 0 {
		return nil
	}
	witness, err := s.witness(ctx, upTo)
	if err != nil {
		return err
	}
	return s.lastOf(ctx, topics, witness, upTo, func(e *wire.StoredEvent) { seqs[e.Topic] = e.Seq })
}

// A consumer is one of JetStream's, of this node's own. It is asked for the next page while the one before is worked on.
type consumer struct {
	s      *Stream
	number uint64 // the end of its name
	name   string
	seq    uint64 // how many events it has given
	ahead  *answer
	idle   *time.Timer // removes it
}

// consume makes a consumer, if NATS lets it.
func (r *reader) consume(ctx context.Context) {
	s, sc := r.s, r.s.bus.sc
	if time.Now().UnixNano() < s.noConsumers.Load() {
		return
	}
	js, err := jetstream.New(sc.conn)
	if err != nil {
		return
	}
	c := &consumer{s: s, number: sc.readings.number()}
	c.name = sc.consumers + strconv.FormatUint(c.number, 36)
	filter := r.subject()
	if !slices.ContainsFunc(s.opts.Topics, func(topics string) bool { return !wire.Covers(r.pattern, topics) }) {
		filter = "" // a filter costs time; what was stored of topics that are declared no more is left out by part
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	_, err = js.CreateConsumer(ctx, s.want.Name, jetstream.ConsumerConfig{
		Name: c.name, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.at + 1, FilterSubject: filter,
		AckPolicy: jetstream.AckNonePolicy, Replicas: 1, MemoryStorage: true, InactiveThreshold: consumerLife,
	})
	if err == nil {
		c.idle = time.AfterFunc(consumerLife, c.remove)
		r.consumer = c
		return
	}
	s.noConsumers.Store(time.Now().Add(consumersOff).UnixNano())
	if s.bus.errors.allow() {
		s.bus.log.Warn("NATS makes no consumer, so long histories are read more slowly", zap.String("stream", s.Name()), zap.Error(err))
	}
}

// leave removes the consumer. NATS does that itself, later, if this does not reach it.
func (r *reader) leave() {
	if c := r.consumer; c != nil {
		r.consumer = nil
		c.idle.Stop()
		c.remove()
	}
}

func (c *consumer) remove() {
	sc := c.s.bus.sc
	sc.readings.end(c.number)
	_ = sc.conn.PublishRequest("$JS.API.CONSUMER.DELETE."+c.s.want.Name+"."+c.name, sc.inbox+"none", nil)
}

// ask asks for some of what follows.
func (c *consumer) ask(most, mostBytes int) (err error) {
	question, err := json.Marshal(struct {
		Batch    int  `json:"batch"`
		MaxBytes int  `json:"max_bytes"`
		NoWait   bool `json:"no_wait"`
	}{most, mostBytes, true})
	if err == nil {
		c.ahead, err = c.s.bus.sc.begin("$JS.API.CONSUMER.MSG.NEXT."+c.s.want.Name+"."+c.name, question, c.number, most)
	}
	return err
}

// pull gives what was asked for last, and asks for more. After an error the consumer is of no more use.
func (c *consumer) pull(ctx context.Context, most, mostBytes int) (p part, err error) {
	if !c.idle.Stop() {
		return p, errSilent
	}
	defer c.idle.Reset(consumerLife)
	if c.ahead == nil {
		if err := c.ask(most, mostBytes); err != nil {
			return p, err
		}
	}
	msgs, err := c.s.bus.sc.await(ctx, c.ahead)
	if c.ahead = nil; err != nil {
		return p, err
	}
	if d, ok := deliveryOf(msgs[len(msgs)-1].Reply); ok && d.pending > 0 || !ok && len(msgs) > 1 {
		if err := c.ask(most, mostBytes); err != nil {
			return p, err
		}
	}
	p.events = make([]wire.StoredEvent, 0, len(msgs))
	for _, m := range msgs {
		if m.Reply == "" {
			return p, c.end(m.Header)
		}
		d, ok := deliveryOf(m.Reply)
		topic, ours := strings.CutPrefix(m.Subject, c.s.bus.subject)
		if !ok || !ours || d.number != c.seq+1 {
			return p, errAnswer
		}
		c.seq++
		p.events = append(p.events, wire.StoredEvent{
			Topic: topic, Data: m.Data, Seq: d.seq, Prev: wire.PrevUnknown, Time: d.time, From: unescape(m.Header.Get(headerFrom)),
		})
		p.pending = d.pending
	}
	return p, nil
}

// end says what is wrong with the end of an answer.
func (c *consumer) end(h nats.Header) error {
	switch status, text := h.Get("Status"), h.Get("Description"); {
	case status == "404", status == "408", status == "409" && strings.HasPrefix(text, "Message Size Exceeds"):
		return nil
	default:
		return fmt.Errorf("%w: %s %s", errAnswer, status, text)
	}
}

// A delivery is what a consumer says of an event that it gives.
type delivery struct {
	seq, number uint64 // of the event in the stream, and among those that the consumer has given
	time        int64
	pending     uint64
}

// deliveryOf reads the subject for the ack of an event:
//
//	$JS.ACK.STREAM.CONSUMER.deliveries.seq.number.time.pending
//	$JS.ACK.DOMAIN.ACCOUNT.STREAM.CONSUMER.deliveries.seq.number.time.pending.…
func deliveryOf(reply string) (d delivery, ok bool) {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return d, false
	}
	skip := 1
	if strings.Count(rest, ".") >= 8 {
		skip = 3
	}
	var errs [4]error
	for i := 0; ; i++ {
		token, more, found := strings.Cut(rest, ".")
		switch i - skip {
		case 2:
			d.seq, errs[0] = strconv.ParseUint(token, 10, 64)
		case 3:
			d.number, errs[1] = strconv.ParseUint(token, 10, 64)
		case 4:
			d.time, errs[2] = strconv.ParseInt(token, 10, 64)
		case 5:
			d.pending, errs[3] = strconv.ParseUint(token, 10, 64)
			return d, errors.Join(errs[:]...) == nil
		}
		if !found {
			return d, false
		}
		rest = more
	}
}
