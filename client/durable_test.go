package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/notifyd/notifyd/internal/testkit/history"
	"github.com/notifyd/notifyd/wire"
)

// reader is a subscription without a client's goroutines: a test says what connections bring, and sees what the handler
// would.
type reader struct {
	sub      *Subscription
	problems []error
}

func newReader() *reader {
	r := &reader{}
	c := &Client{opts: Options{OnError: func(err error) { r.problems = append(r.problems, err) }}}
	ctx, cancel := context.WithCancel(context.Background())
	r.sub = &Subscription{
		c: c, pattern: "a.*", queue: newQueue(1 << 20), ctx: ctx, cancel: cancel,
		dropped: make(chan struct{}, 1), full: make(chan struct{}, 1),
	}
	return r
}

func newSource() *session { return &session{down: make(chan struct{})} }

// subscribe answers as a server does that has recovered events for it.
func (r *reader) subscribe(from *session, wanted wire.Since, ack wire.Message) wire.Since {
	since, renewal := r.sub.durable.since(from, wanted)
	if !renewal {
		r.sub.begin(from, since, &ack)
	}
	return since
}

func (r *reader) bring(from *session, e history.Event) {
	r.sub.pushStored(from, Event{Topic: e.Topic, Pattern: "a.*", Data: []byte(e.Data), Seq: e.Seq, Prev: e.Prev})
}

// seen gives what the handler and OnGap get, and empties the queue.
func (r *reader) seen() (events []history.Event, gaps []Gap) {
	for _, i := range r.sub.queue.items {
		if i.gap != nil {
			gaps = append(gaps, *i.gap)
		}
		if i.is {
			events = append(events, history.Event{Topic: i.event.Topic, Data: string(i.event.Data), Seq: i.event.Seq, Prev: i.event.Prev})
		}
	}
	r.sub.queue.items, r.sub.queue.bytes = nil, 0
	return events, gaps
}

// The scripts say what connections bring.
func TestChain(t *testing.T) {
	text, err := os.ReadFile("testdata/chain.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(line, ": ")
		if !ok || line[0] == '#' {
			continue
		}
		script, want, _ := strings.Cut(strings.TrimSpace(rest), " => ")
		t.Run(name, func(t *testing.T) { runChain(t, script, want) })
	}
}

func runChain(t *testing.T, script, want string) {
	r := newReader()
	sessions := map[string]*session{}
	var told []string
	for step := range strings.SplitSeq(strings.NewReplacer(", A", "\nA", ", B", "\nB").Replace(script), "\n") {
		line, flaw, _ := strings.Cut(step, " [")
		words := strings.Fields(line)
		from := sessions[words[0]]
		if from == nil || from.isDown() {
			from = newSource()
			sessions[words[0]] = from
		}
		r.problems = nil
		r.step(t, from, words[1:])
		if got := flawOf(r.problems); got != strings.TrimSuffix(flaw, "]") {
			t.Errorf("%s: told of %q", step, got)
		}
	}
	for _, i := range r.sub.queue.items {
		if g := i.gap; g != nil {
			text := fmt.Sprintf("gap(%d,%d,%s)", g.After, g.First, g.Epoch)
			told = append(told, strings.Replace(text, ",)", ")", 1))
		}
		if i.is {
			told = append(told, strconv.FormatUint(i.event.Seq, 10))
		}
	}
	if got := strings.Join(told, " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r *reader) step(t *testing.T, from *session, words []string) {
	t.Helper()
	switch words[0] {
	case "none", "since", "last":
		r.answer(t, from, words)
	case "renewed":
		if since := r.subscribe(from, wire.Since{}, wire.Message{Epoch: []byte("e"), Seq: 1000}); since.Kind != wire.SinceNone {
			t.Errorf("a renewal asks for %v", since)
		}
	case "lost":
		r.sub.lose(from)
	case "forgets":
		if !r.sub.durable.forget() {
			t.Error("there was no position")
		}
	case "down":
		close(from.down)
	case "gap":
		m := wire.Message{After: number(t, words[1]), First: number(t, words[2])}
		if len(words) > 3 {
			m.Epoch = []byte(words[3])
		}
		r.sub.gap(from, &m)
	default:
		e := history.Event{Topic: "a.1", Prev: wire.PrevUnknown}
		seq, prev, ok := strings.Cut(words[0], "<")
		if ok {
			e.Prev = number(t, prev)
		}
		if strings.HasPrefix(seq, "y") {
			e.Topic, seq = "a.y", seq[1:]
		}
		e.Seq = number(t, seq)
		r.bring(from, e)
	}
}

// answer is the server's to a subscribe, and checks what was asked.
func (r *reader) answer(t *testing.T, from *session, words []string) {
	t.Helper()
	ack := wire.Message{Kind: wire.MessageAck, Epoch: []byte("e"), Complete: true}
	var want wire.Since
	for i := 0; i < len(words); i++ {
		switch word := words[i]; word {
		case "none":
		case "since", "last":
			i++
			want = wire.Since{Kind: wire.SinceSeq, N: number(t, words[i])}
			if word == "last" {
				want.Kind = wire.SinceLast
			}
		case "epoch":
			i++
			ack.Epoch = []byte(words[i])
		case "part":
			i++
			ack.Complete, ack.First = false, number(t, words[i])
		case "ack":
			i++
			ack.Seq = number(t, words[i])
		default:
			ack.Recovered = number(t, strings.TrimPrefix(word, "+"))
		}
	}
	if asked := r.subscribe(from, want, ack); asked.Kind != want.Kind || asked.N != want.N {
		t.Errorf("%v: asked for %v", words, asked)
	}
}

func flawOf(problems []error) string {
	if len(problems) == 0 {
		return ""
	}
	var e *OrderError
	switch {
	case len(problems) > 1 || !errors.As(problems[0], &e):
		return fmt.Sprint(problems)
	case e.Dropped:
		return fmt.Sprintf("%d dropped after %d", e.Seq, e.Last)
	case e.Prev == wire.PrevUnknown:
		return fmt.Sprintf("%d after %d, prev unknown", e.Seq, e.Last)
	}
	return fmt.Sprintf("%d after %d, prev %d", e.Seq, e.Last, e.Prev)
}

// A stream of random events, read over random connections, is seen whole, and nothing is told of it. With a loss, a repeat
// or a swap that the server has let happen, the application is told.
func TestDurableHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "events")
		events := make([]history.Event, n)
		prev := map[string]uint64{}
		seq := uint64(0)
		for i := range events {
			seq += rapid.Uint64Range(1, 3).Draw(t, "step")
			topic := rapid.SampledFrom([]string{"a.1", "a.2", "a.3"}).Draw(t, "topic")
			events[i] = history.Event{Topic: topic, Data: strconv.Itoa(i), Seq: seq, Prev: prev[topic]}
			prev[topic] = seq
		}
		flaw := rapid.SampledFrom([]string{"", "", "loss", "repeat", "swap"}).Draw(t, "flaw")
		r := newReader()
		bring := newServer(t, r, events)
		flawed := bring.run(flaw)
		seen, gaps := r.seen()
		if len(gaps) > 0 {
			t.Fatalf("gaps: %v", gaps)
		}
		if flawed {
			if len(r.problems) == 0 {
				t.Fatalf("a %s, and nothing was told: %v", flaw, seen)
			}
			return
		}
		if len(r.problems) > 0 {
			t.Fatal(r.problems)
		}
		if problems := history.Check(nil, events, []history.Reader{{Name: "reader", Pattern: "a.*", Seen: seen}}); len(problems) > 0 {
			t.Fatal(problems)
		}
	})
}

// server is a model of nodes that bring a stream's events to one subscription over one or two connections.
type server struct {
	t      *rapid.T
	r      *reader
	events []history.Event
	conns  []*conn
}

type conn struct {
	session *session
	next    int             // index of the event that it brings next
	whole   uint64          // up to it the events are replayed
	told    map[string]bool // topics of which it has brought an event
}

func newServer(t *rapid.T, r *reader, events []history.Event) *server {
	s := &server{t: t, r: r, events: events}
	s.connect()
	return s
}

func (s *server) connect() {
	c := &conn{session: newSource(), told: map[string]bool{}}
	since, _ := s.r.sub.durable.since(c.session, Everything().wire)
	for c.next < len(s.events) && s.events[c.next].Seq <= since.N {
		c.next++
	}
	stored := rapid.IntRange(c.next, len(s.events)).Draw(s.t, "stored")
	if stored > 0 {
		c.whole = s.events[stored-1].Seq
	}
	c.whole = max(c.whole, since.N)
	s.r.sub.begin(c.session, since, &wire.Message{Epoch: []byte("e"), Seq: c.whole, Recovered: uint64(stored - c.next), Complete: true})
	s.conns = append(s.conns, c)
}

// run brings all events, the last ones over one connection, with one flaw among those. It reports whether there was room
// for the flaw.
func (s *server) run(flaw string) bool {
	for range rapid.IntRange(0, 80).Draw(s.t, "steps") {
		i := rapid.IntRange(0, len(s.conns)-1).Draw(s.t, "connection")
		switch rapid.IntRange(0, 9).Draw(s.t, "what") {
		case 0:
			if len(s.conns) == 1 { // a move begins
				s.connect()
			}
		case 1:
			close(s.conns[i].session.down)
			s.conns = append(s.conns[:i], s.conns[i+1:]...)
			if len(s.conns) == 0 {
				s.connect()
			}
		default:
			s.bring(s.conns[i])
		}
	}
	if len(s.conns) == 2 {
		s.r.sub.lose(s.conns[0].session)
	}
	c := s.conns[len(s.conns)-1]
	flawed := s.plant(c, flaw)
	for c.next < len(s.events) {
		s.bring(c)
	}
	return flawed
}

func (s *server) bring(c *conn) {
	if c.next < len(s.events) {
		s.send(c, s.events[c.next])
		c.next++
	}
}

func (s *server) send(c *conn, e history.Event) {
	if e.Seq <= c.whole && !c.told[e.Topic] && rapid.Bool().Draw(s.t, "without prev") {
		e.Prev = wire.PrevUnknown
	}
	c.told[e.Topic] = true
	s.r.bring(c.session, e)
}

// plant makes the flaw, if events are left that it can be made of and that the other connection has not brought.
func (s *server) plant(c *conn, flaw string) bool {
	for c.next < len(s.events) && s.events[c.next].Seq <= max(s.r.sub.durable.chain.seen, c.whole) {
		s.bring(c)
	}
	at := c.next
	if flaw == "" || at >= len(s.events) {
		return false
	}
	same := at + 1 // the next event of the topic
	for same < len(s.events) && s.events[same].Topic != s.events[at].Topic {
		same++
	}
	switch {
	case flaw == "repeat":
		s.bring(c)
		s.send(c, s.events[at])
	case same == len(s.events):
		return false
	case flaw == "loss":
		c.next++
	case flaw == "swap":
		for _, i := range []int{same, at} {
			s.send(c, s.events[i])
		}
		c.next = same + 1
	}
	return true
}

// A pattern with topics without end takes bounded memory, and what is remembered is still checked.
func TestChainForgets(t *testing.T) {
	c := newChain(0)
	from := &source{whole: 0}
	seq := uint64(0)
	for range 3*rememberedTopics + 7 {
		seq++
		if take, err := c.take(from, &Event{Topic: strconv.FormatUint(seq, 10), Seq: seq}); !take || err != nil {
			t.Fatal(take, err)
		}
		if len(c.recent)+len(c.older) > 2*rememberedTopics {
			t.Fatalf("%d topics", len(c.recent)+len(c.older))
		}
	}
	for back := range uint64(rememberedTopics) { // each of these is remembered
		last := seq - back
		topic := strconv.FormatUint(last, 10)
		if got, known := c.last(topic); got != last || !known {
			t.Fatalf("%d events back: %d, %v", back, got, known)
		}
	}
	if _, err := c.take(from, &Event{Topic: "1", Seq: seq + 1, Prev: 1}); err != nil {
		t.Errorf("a topic of long ago: %v", err)
	}
	if _, err := c.take(from, &Event{Topic: "2", Seq: seq + 3, Prev: seq + 2}); err == nil {
		t.Error("a loss of a forgotten topic was not told")
	}
}
