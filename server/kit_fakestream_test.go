package server_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// streamSink is what streams deliver to.
type streamSink interface {
	bustest.Sink
	Stored(shard int, handles []uint32, e *wire.StoredEvent)
	Gap(shard int, handles []uint32, epoch string, after, first uint64)
}

// memStreams are the streams of a memBus.
type memStreams []*memStream

func (x memStreams) StreamOf(topic []byte) server.Stream {
	for _, s := range x {
		if s.covers(topic) {
			return s
		}
	}
	return nil
}

func (x memStreams) StreamAround(pattern []byte) (server.Stream, string) {
	for _, s := range x {
		if s.covers(pattern) {
			return s, ""
		}
	}
	return nil, fmt.Sprintf("no stream keeps all of %s", pattern)
}

// memStream is a stream in memory whose moods a test chooses. What it passes on may be
// lost, come twice or late; one goroutine, its feed, puts that right, as a bus does.
type memStream struct {
	name   string
	topics []string
	ttl    bool
	shard  int
	bus    *memBus
	sink   streamSink
	done   sync.WaitGroup

	mu      sync.Mutex
	change  sync.Cond
	tasks   []func() // of the feed
	ended   bool
	epoch   string
	lives   int
	kept    []wire.StoredEvent // ascending
	log     []string           // topics of all that were stored, by seq from 1 on
	last    uint64
	ids     map[string]uint64 // seq by msg_id
	stored  []wire.ToStore    // all that came
	refuse  wire.Code         // what Store answers
	answer  wire.Code         // what a receipt hears
	mute    bool              // receipts are held
	held    []func()
	silent  bool // what is stored is not passed on
	full    bool
	away    bool // the leader does not answer
	reads   int
	gate    func() // called in Read, without mu
	between func() // called in Head, Read and At, without mu
	asked   int    // calls of Head
	pageMax int    // events a page at most; 0: as asked

	// Of the feed.
	position uint64
	window   int    // how many events Recent remembers
	doubt    bool   // nothing is handed over before the leader has answered
	forgot   uint64 // Recent remembers nothing up to here
	waiting  []atCall

	atPatience time.Duration // how long At waits
}

type atCall struct {
	after uint64
	f     func(uint64, string, bool)
	until time.Time
}

func newMemStream(name string, topics ...string) *memStream {
	s := &memStream{name: name, topics: topics, ttl: true, window: 64, atPatience: time.Second, ids: make(map[string]uint64)}
	s.change.L = &s.mu
	s.begin()
	return s
}

// begin starts a life of the stream. mu is held, or nobody else has s yet.
func (s *memStream) begin() {
	s.lives++
	s.epoch = fmt.Sprintf("e%d", s.lives)
	s.kept, s.log, s.last = nil, nil, 0
	clear(s.ids)
}

func (s *memStream) start(b *memBus, sink streamSink, shard int) {
	s.bus, s.sink, s.shard = b, sink, shard
	s.done.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for {
			for len(s.tasks) == 0 && !s.ended {
				s.change.Wait()
			}
			if len(s.tasks) == 0 {
				return
			}
			f := s.tasks[0]
			s.tasks = s.tasks[1:]
			s.mu.Unlock()
			f()
			s.sink.Flush(s.shard)
			s.answerAt()
			s.mu.Lock()
		}
	})
}

func (s *memStream) stop() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.change.Broadcast()
	s.done.Wait()
}

// do has the feed call f. mu is held.
func (s *memStream) do(f func()) {
	s.tasks = append(s.tasks, f)
	s.change.Broadcast()
}

func (s *memStream) covers(pattern []byte) bool {
	return slices.ContainsFunc(s.topics, func(t string) bool { return wire.Covers(t, pattern) })
}

func (s *memStream) Name() string { return s.name }

func (s *memStream) AllowsTTL() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ttl
}

func (s *memStream) AnswersSoon() bool { return true }

func (s *memStream) HasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.full
}

func (s *memStream) Store(m *wire.ToStore, receipt wire.Receipt) wire.Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != wire.OK {
		return s.refuse
	}
	x := *m
	x.Topic, x.Data, x.MsgID = slices.Clone(m.Topic), slices.Clone(m.Data), slices.Clone(m.MsgID)
	s.stored = append(s.stored, x)
	seq, duplicate, code := uint64(0), false, s.answer
	if code == wire.OK {
		seq, duplicate = s.append(x)
	}
	tell := func() { receipt.Stored(seq, duplicate, code) }
	if s.mute {
		s.held = append(s.held, tell)
	} else {
		s.do(tell)
	}
	return wire.OK
}

// append stores an event. mu is held.
func (s *memStream) append(m wire.ToStore) (seq uint64, duplicate bool) {
	if m.MsgID != nil {
		id := string(m.Topic) + " " + string(m.MsgID)
		if seq, ok := s.ids[id]; ok {
			return seq, true
		}
		s.ids[id] = s.last + 1
	}
	s.last++
	e := wire.StoredEvent{Topic: string(m.Topic), Data: m.Data, Seq: s.last, Prev: s.before(string(m.Topic), s.last), Time: time.Now().UnixNano(), From: m.From}
	s.kept = append(s.kept, e)
	s.log = append(s.log, e.Topic)
	if !s.silent {
		s.do(func() { s.pass(e.Seq) })
	}
	return e.Seq, false
}

// before is the seq of a topic's last event before one. mu is held.
func (s *memStream) before(topic string, seq uint64) uint64 {
	for i := len(s.kept) - 1; i >= 0; i-- {
		if e := &s.kept[i]; e.Topic == topic && e.Seq < seq {
			return e.Seq
		}
	}
	return 0
}

// pass is what the feed does with an event that the stream passes on: it hands over all
// up to it that it has not handed over yet.
func (s *memStream) pass(seq uint64) {
	for {
		s.mu.Lock()
		if s.doubt || s.position >= min(seq, s.last) {
			s.mu.Unlock()
			return
		}
		i, _ := slices.BinarySearchFunc(s.kept, s.position+1, bySeq)
		after, next := s.position, s.last+1
		var e wire.StoredEvent
		if i < len(s.kept) {
			e = s.kept[i]
			next = e.Seq
		}
		s.position = min(next, s.last)
		s.mu.Unlock()
		if next > after+1 {
			s.sink.Gap(s.shard, s.around(), "", after, next)
		}
		if e.Seq == 0 {
			continue
		}
		if handles := append(s.bus.matching(e.Topic, false), s.bus.matching(e.Topic, true)...); len(handles) > 0 {
			s.sink.Stored(s.shard, handles, &e)
		}
	}
}

// behind gives the events behind a position. mu is held.
func (s *memStream) behind(after uint64) []wire.StoredEvent {
	i, _ := slices.BinarySearchFunc(s.kept, after, func(e wire.StoredEvent, after uint64) int {
		if e.Seq <= after {
			return -1
		}
		return 1
	})
	return s.kept[i:]
}

func bySeq(e wire.StoredEvent, seq uint64) int {
	switch {
	case e.Seq < seq:
		return -1
	case e.Seq > seq:
		return 1
	}
	return 0
}

// around gives the handles of the patterns that overlap the stream.
func (s *memStream) around() (handles []uint32) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	for handle, pattern := range s.bus.interest {
		if slices.ContainsFunc(s.topics, func(t string) bool { return wire.Overlap(t, pattern) }) {
			handles = append(handles, handle)
		}
	}
	return handles
}

// pause calls what a test has put in the way.
func (s *memStream) pause(reads bool) {
	s.mu.Lock()
	gate, between := s.gate, s.between
	s.mu.Unlock()
	if gate != nil && reads {
		gate()
	}
	if between != nil {
		between()
	}
}

func (s *memStream) Head(context.Context) (wire.StreamHead, error) {
	s.pause(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.away {
		return wire.StreamHead{}, context.DeadlineExceeded
	}
	if !s.silent { // as a bus that looks at the leader now and then
		last := s.last
		s.do(func() { s.pass(last) })
	}
	return wire.StreamHead{Epoch: s.epoch, First: s.first(), Last: s.last}, nil
}

// first is the oldest seq. mu is held.
func (s *memStream) first() uint64 {
	if len(s.kept) == 0 {
		return s.last + 1
	}
	return s.kept[0].Seq
}

func (s *memStream) Seek(_ context.Context, pattern string, since wire.Since) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return 0, context.DeadlineExceeded
	}
	var found uint64
	n := uint64(0)
	for i := len(s.kept) - 1; i >= 0; i-- {
		e := &s.kept[i]
		switch {
		case since.Kind == wire.SinceTime && e.Time >= since.Time:
			found = e.Seq
		case since.Kind == wire.SinceLast && wire.Covers(pattern, e.Topic) && n < since.N:
			n++
			found = e.Seq
		}
	}
	if found == 0 {
		return s.last, nil
	}
	return found - 1, nil
}

func (s *memStream) Read(_ context.Context, pattern string, after uint64, limit, bytes int) (page wire.StreamPage, err error) {
	s.pause(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.away {
		return page, context.DeadlineExceeded
	}
	if s.pageMax > 0 {
		limit = min(limit, s.pageMax)
	}
	page.First = s.first()
	for _, e := range s.behind(after) {
		if !wire.Covers(pattern, e.Topic) {
			continue
		}
		if len(page.Events) == limit || bytes <= 0 {
			page.Pending++
			continue
		}
		bytes -= len(e.Data)
		e.Prev = s.before(e.Topic, e.Seq)
		page.Events = append(page.Events, e)
	}
	page.End = page.Pending == 0
	if n := len(page.Events); n > 0 && !page.End {
		called := false
		page.Next = func(ctx context.Context, limit, bytes int) (wire.StreamPage, error) {
			if called {
				panic("a page is read twice")
			}
			called = true
			return s.Read(ctx, pattern, page.Events[n-1].Seq, limit, bytes)
		}
	}
	return page, nil
}

func (s *memStream) LastOfEach(_ context.Context, pattern string, after, upTo uint64, limit int) (page wire.StreamPage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return page, context.DeadlineExceeded
	}
	page.First = s.first()
	latest := make(map[string]uint64)
	for _, e := range s.kept {
		if e.Seq <= upTo && wire.Covers(pattern, e.Topic) {
			latest[e.Topic] = e.Seq
		}
	}
	for _, e := range s.kept {
		if e.Seq > after && latest[e.Topic] == e.Seq {
			if len(page.Events) == limit {
				page.Pending++
				continue
			}
			page.Events = append(page.Events, e)
		}
	}
	page.End = page.Pending == 0
	return page, nil
}

func (s *memStream) At(after uint64, f func(uint64, string, bool)) {
	s.pause(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, atCall{after, f, time.Now().Add(s.atPatience)})
	s.do(func() {})
	time.AfterFunc(s.atPatience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.do(func() {})
	})
}

// answerAt calls what waits for the position.
func (s *memStream) answerAt() {
	s.mu.Lock()
	var due []atCall
	position, epoch := s.position, s.epoch
	now := time.Now()
	s.waiting = slices.DeleteFunc(s.waiting, func(x atCall) bool {
		ends := x.after <= position || !now.Before(x.until)
		if ends {
			due = append(due, x)
		}
		return ends
	})
	s.mu.Unlock()
	for _, x := range due {
		x.f(position, epoch, x.after <= position)
	}
}

func (s *memStream) Recent(after, upTo uint64, pattern string, f func(*wire.StoredEvent) bool) bool {
	s.mu.Lock()
	from, position := s.recentFrom(), s.position
	var kept []wire.StoredEvent
	if after >= from {
		kept = slices.Clone(s.behind(after))
	}
	s.mu.Unlock()
	if after < from {
		return false
	}
	for i := range kept {
		if e := &kept[i]; e.Seq <= min(upTo, position) && wire.Covers(pattern, e.Topic) && !f(e) {
			break
		}
	}
	return true
}

func (s *memStream) RecentFrom() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recentFrom()
}

func (s *memStream) recentFrom() uint64 {
	from := uint64(0)
	if s.position > uint64(s.window) {
		from = s.position - uint64(s.window)
	}
	return max(from, s.forgot, min(s.first()-1, s.position))
}

// what a test does

// fill stores events of a topic with the numbers from and up to to.
func (s *memStream) fill(topic string, from, to int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := from; i <= to; i++ {
		s.append(wire.ToStore{Topic: []byte(topic), Data: fmt.Append(nil, i), From: "tester"})
	}
}

// with changes the stream's mood.
func (s *memStream) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// hold has receipts wait, or lets them go.
func (s *memStream) hold(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = on
	if !on {
		for _, f := range s.held {
			s.do(f)
		}
		s.held = nil
	}
}

// heal has the feed look at the leader.
func (s *memStream) heal() { s.repeat(s.lastSeq()) }

// reconnect is a new connection of the feed, or another leader: what was on its way is lost, and what the node remembered
// perhaps too. The life of the stream is the same; the feed asks the leader for the position, which answers after a while.
func (s *memStream) reconnect(forgets bool, after time.Duration) {
	s.with(func() {
		s.doubt = true
		if forgets {
			s.forgot = s.position
		}
	})
	time.AfterFunc(after, func() {
		s.with(func() {
			s.doubt = false
			last := s.last
			s.do(func() { s.pass(last) })
		})
	})
}

// repeat passes an event on once more.
func (s *memStream) repeat(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.do(func() { s.pass(seq) })
}

// discard lets go of the events up to a seq.
func (s *memStream) discard(upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.DeleteFunc(s.kept, func(e wire.StoredEvent) bool { return e.Seq <= upTo })
}

// remake makes the stream anew; the feed notices.
func (s *memStream) remake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
	epoch := s.epoch
	s.do(func() {
		s.mu.Lock()
		s.position, s.forgot = 0, 0
		first := s.first()
		s.mu.Unlock()
		s.sink.Gap(s.shard, s.around(), epoch, 0, first)
	})
}

// lastSeq is the seq of the last event.
func (s *memStream) lastSeq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
