//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notifyd/notifyd/internal/testkit/history"
)

// What publishes to durable topics and reads them while servers are killed. It shares no code with the clients of this
// project: it dials, sends and reads JSON, and comes back after each failure.

// stored is an envelope of a durable topic.
type stored struct {
	Type, ID, Topic, Code, Message, Epoch, Stream string
	Data                                          json.RawMessage
	Seq, After, First                             uint64
	Prev                                          *uint64
	Complete                                      *bool
}

// dialAny connects to one of the nodes, in turn, until ctx ends.
func dialAny(ctx context.Context, urls []string, turn *int) (*websocket.Conn, error) {
	for ctx.Err() == nil {
		url := urls[*turn%len(urls)]
		*turn++
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		c, _, err := websocket.Dial(once, url, &websocket.DialOptions{Subprotocols: []string{"notifyd.v1"}})
		cancel()
		if err == nil {
			c.SetReadLimit(1 << 20)
			return c, nil
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil, context.Cause(ctx)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d/2 + rand.N(d)):
	}
}

// A writer publishes to a few topics, some at once, and repeats with the same msg_id what was not acknowledged.
type writer struct {
	name, token string
	urls        []string
	topics      []string

	mu       sync.Mutex
	acks     []history.Ack
	repeated int // publishes that were sent once more
}

// inFlight is how many publishes of a writer wait for their ack.
const inFlight = 16

// run publishes until quit is closed, and returns when all has been acknowledged, or ctx ends.
func (w *writer) run(ctx context.Context, quit <-chan struct{}) error {
	var open []history.Ack // not yet acknowledged
	number, turn := 0, rand.N(len(w.urls))
	for {
		conn, err := dialAny(ctx, w.urls, &turn)
		if err != nil {
			return fmt.Errorf("%s: %d publishes were never acknowledged: %w", w.name, len(open), err)
		}
		for _, o := range open {
			err = errors.Join(err, w.again(ctx, conn, o))
		}
		for err == nil {
			for ended := closed(quit); !ended && len(open) < inFlight && err == nil; ended = closed(quit) {
				number++
				o := history.Ack{Topic: w.topics[number%len(w.topics)], Data: quote(fmt.Sprintf("%s-%06d", w.name, number))}
				open = append(open, o)
				err = w.send(ctx, conn, o)
			}
			if closed(quit) && len(open) == 0 {
				return conn.CloseNow()
			}
			var m stored
			if err == nil {
				m, err = w.receive(ctx, conn)
			}
			if err == nil && m.Type == "error" && m.Code != "unavailable" {
				return fmt.Errorf("%s: %s: %s", w.name, m.Code, m.Message)
			}
			for i, o := range open {
				if err != nil || m.ID == "" || quote(m.ID) != o.Data {
					continue
				}
				if m.Type == "error" {
					pause(ctx, 100*time.Millisecond)
					err = w.again(ctx, conn, o)
					break
				}
				o.Seq = m.Seq
				w.mu.Lock()
				w.acks = append(w.acks, o)
				w.mu.Unlock()
				open = append(open[:i], open[i+1:]...)
				break
			}
		}
		_ = conn.CloseNow()
		pause(ctx, 50*time.Millisecond)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (w *writer) send(ctx context.Context, c *websocket.Conn, o history.Ack) error {
	frame := fmt.Sprintf(`{"type":"publish","id":%s,"msg_id":%s,"topic":%s,"token":%s,"data":%s}`, o.Data, o.Data, quote(o.Topic), quote(w.token), o.Data)
	return c.Write(ctx, websocket.MessageText, []byte(frame))
}

func (w *writer) again(ctx context.Context, c *websocket.Conn, o history.Ack) error {
	w.mu.Lock()
	w.repeated++
	w.mu.Unlock()
	return w.send(ctx, c, o)
}

// receive reads an answer. A node that says nothing for long is left.
func (w *writer) receive(ctx context.Context, c *websocket.Conn) (m stored, err error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	_, frame, err := c.Read(ctx)
	if err == nil {
		err = json.Unmarshal(frame, &m)
	}
	return m, err
}

// A reader has one subscription, and resumes it from its position on each new connection.
type reader struct {
	name, token string
	urls        []string

	mu       sync.Mutex
	record   history.Reader
	position uint64
	epoch    string
	faults   []string // what should not happen
	resumes  int
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	turn := rand.N(len(r.urls))
	for ctx.Err() == nil {
		conn, err := dialAny(ctx, r.urls, &turn)
		if err != nil {
			return
		}
		r.read(ctx, conn)
		_ = conn.CloseNow()
		pause(ctx, 50*time.Millisecond)
	}
}

func (r *reader) read(ctx context.Context, c *websocket.Conn) {
	r.mu.Lock()
	since := fmt.Sprintf(`{"seq":%d}`, r.position)
	if r.epoch != "" {
		since = fmt.Sprintf(`{"seq":%d,"epoch":%s}`, r.position, quote(r.epoch))
	}
	r.resumes++
	r.record.Resumed = append(r.record.Resumed, len(r.record.Seen))
	r.mu.Unlock()
	frame := fmt.Sprintf(`{"type":"subscribe","id":"s","topic":%s,"token":%s,"since":%s}`, quote(r.record.Pattern), quote(r.token), since)
	if c.Write(ctx, websocket.MessageText, []byte(frame)) != nil {
		return
	}
	for {
		_, frame, err := c.Read(ctx)
		var m stored
		if err != nil || json.Unmarshal(frame, &m) != nil || !r.heed(&m) {
			return
		}
	}
}

// heed notes what came. false: the connection is of no more use.
func (r *reader) heed(m *stored) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.Type {
	case "event":
		e := history.Event{Topic: m.Topic, Data: string(m.Data), Seq: m.Seq, Prev: history.PrevUnknown}
		if m.Prev != nil {
			e.Prev = *m.Prev
		}
		r.record.Seen = append(r.record.Seen, e)
		r.position = max(r.position, m.Seq)
	case "ack":
		if r.epoch != "" && m.Epoch != r.epoch {
			r.faults = append(r.faults, fmt.Sprintf("the epoch changed from %s to %s", r.epoch, m.Epoch))
		}
		r.epoch = m.Epoch
		if m.Complete == nil || !*m.Complete {
			r.faults = append(r.faults, fmt.Sprintf("resumed after %d, and not complete: first is %d", r.position, m.First))
		}
	case "gap":
		r.faults = append(r.faults, fmt.Sprintf("a gap after %d up to %d, and nothing was discarded", m.After, m.First))
	case "error":
		if m.Code != "unavailable" {
			r.faults = append(r.faults, m.Code+": "+m.Message)
		}
		return false
	}
	return true
}

// A workload is writers and readers of topics of one stream, on any of some nodes.
type workload struct {
	stream  string // its topics are stream.>
	writers []*writer
	readers []*reader
	quit    chan struct{}
	end     context.CancelFunc
	wrote   []chan error
	reading sync.WaitGroup
	writing sync.WaitGroup
}

// startLoad starts two writers and four readers of the stream k.
func startLoad(t *testing.T, keys issuer, urls []string) *workload {
	t.Helper()
	return startLoadOf(t, keys, urls, "k")
}

func startLoadOf(t *testing.T, keys issuer, urls []string, stream string) *workload {
	t.Helper()
	ctx, end := context.WithTimeout(context.Background(), 10*time.Minute)
	l := &workload{stream: stream, quit: make(chan struct{}), end: end}
	t.Cleanup(func() {
		end()
		l.reading.Wait()
		l.writing.Wait()
	})
	for i := range 2 {
		w := &writer{name: fmt.Sprint("w", i), token: keys.publisher(t, time.Hour, stream+".>"), urls: urls}
		for k := range 4 {
			w.topics = append(w.topics, fmt.Sprintf("%s.%d", stream, (i*2+k)%6))
		}
		l.writers = append(l.writers, w)
		done := make(chan error, 1)
		l.wrote = append(l.wrote, done)
		l.writing.Go(func() {
			done <- w.run(ctx, l.quit)
			close(done)
		})
	}
	for _, pattern := range []string{".>", ".*", ".1", ".4"} {
		pattern = stream + pattern
		r := &reader{name: "reader of " + pattern, token: keys.subscriber(t, time.Hour, stream+".>"), urls: urls}
		r.record = history.Reader{Name: r.name, Pattern: pattern}
		l.readers = append(l.readers, r)
		l.reading.Go(func() { r.run(ctx) })
	}
	return l
}

// acked is how many publishes were acknowledged so far.
func (l *workload) acked() (n int) {
	for _, w := range l.writers {
		w.mu.Lock()
		n += len(w.acks)
		w.mu.Unlock()
	}
	return n
}

// goesOn waits until n more publishes were acknowledged.
func (l *workload) goesOn(t *testing.T, n int) {
	t.Helper()
	n += l.acked()
	eventually(t, "publishes are acknowledged", func() bool { return l.acked() >= n })
}

// finish ends the load, and compares what everybody saw with what the NATS server at address holds.
func (l *workload) finish(t *testing.T, address string) {
	t.Helper()
	close(l.quit)
	for _, done := range l.wrote {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	events := storedEvents(t, address, "notify-"+l.stream)
	last := map[string]uint64{}
	for _, e := range events {
		for _, r := range l.readers {
			if p := r.record.Pattern; p == l.stream+".>" || p == l.stream+".*" || p == e.Topic {
				last[p] = e.Seq
			}
		}
	}
	for _, r := range l.readers {
		eventually(t, r.name+" has the last event", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.position >= last[r.record.Pattern]
		})
	}
	l.end()
	l.reading.Wait()
	var acks []history.Ack
	var readers []history.Reader
	resumes, repeated := 0, 0
	for _, w := range l.writers {
		acks = append(acks, w.acks...)
		repeated += w.repeated
	}
	for _, r := range l.readers {
		readers = append(readers, r.record)
		resumes += r.resumes
		for _, fault := range r.faults {
			t.Errorf("%s: %s", r.name, fault)
		}
	}
	for _, problem := range history.Check(acks, events, readers) {
		t.Error(problem)
	}
	t.Logf("%d acknowledged, %d of them repeated, %d stored, %d subscriptions of %d readers", len(acks), repeated, len(events), resumes, len(readers))
}

// storedEvents reads a stream straight from NATS, again until it can be read from its first event to its last.
func storedEvents(t *testing.T, address, stream string) (events []history.Event) {
	t.Helper()
	conn, err := nats.Connect("nats://"+address, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	last := "" // why it could not be read
	defer func() {
		if t.Failed() {
			t.Log("the stream: ", last)
		}
	}()
	eventually(t, "the stream can be read", func() bool {
		if events, err = readStream(t.Context(), js, stream); err != nil {
			last = fmt.Sprintf("%v, after %d events", err, len(events))
		}
		return err == nil
	})
	return events
}

// readStream reads a stream from its first event to its last. It gives up when nothing has come for 10 s.
func readStream(ctx context.Context, js jetstream.JetStream, stream string) (events []history.Event, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(10*time.Second, cancel)
	defer silence.Stop()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	messages, err := c.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	for last := s.CachedInfo().State.LastSeq; len(events) == 0 || events[len(events)-1].Seq < last; {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return events, err
		}
		silence.Reset(10 * time.Second)
		meta, err := m.Metadata()
		if err != nil {
			return events, err
		}
		events = append(events, history.Event{Topic: strings.TrimPrefix(m.Subject(), "notify.ev."), Data: string(m.Data()), Seq: meta.Sequence.Stream})
	}
	return events, nil
}
