package bustest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// A Stream is what is tested of a stream.
type Stream interface {
	Name() string
	AllowsTTL() bool
	Store(m *wire.ToStore, r wire.Receipt) wire.Code
}

// A StreamBus is a bus with two streams. "kept" has the topics kept.> and also.*, keeps them for an hour and allows
// TTL; "last" has the topics last.> and keeps the last event of each.
type StreamBus interface {
	Bus
	// Stream gives a stream by its name, when it is ready.
	Stream(name string) Stream
}

// RunStreams tests the streams of a bus. open is as in [Run].
func RunStreams(t *testing.T, open func(t *testing.T, sink Sink) StreamBus) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, StreamBus, *Recorder)
	}{
		{"store gives ascending positions", storeAscends},
		{"store finds duplicates in a topic", storeDuplicates},
		{"store keeps no slice", storeKeepsNothing},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewRecorder()
			test.run(t, open(t, r), r)
		})
	}
}

// A Receipt waits for what became of an event.
type Receipt struct {
	answer chan Answer
}

// An Answer is what a [Receipt] heard.
type Answer struct {
	Seq       uint64
	Duplicate bool
	Code      wire.Code
}

// NewReceipt gives a Receipt for one event.
func NewReceipt() *Receipt { return &Receipt{make(chan Answer, 2)} }

// Stored implements [wire.Receipt].
func (r *Receipt) Stored(seq uint64, duplicate bool, code wire.Code) {
	r.answer <- Answer{seq, duplicate, code}
}

// Wait gives the answer, which must be the only one.
func (r *Receipt) Wait(t testing.TB) Answer {
	t.Helper()
	select {
	case a := <-r.answer:
		if len(r.answer) > 0 {
			t.Error("a receipt heard twice")
		}
		return a
	case <-time.After(patience):
		t.Fatal("a receipt heard nothing")
		return Answer{}
	}
}

// Store stores an event and gives its answer. The test fails unless the stream took it.
func Store(t testing.TB, s Stream, m *wire.ToStore) Answer {
	t.Helper()
	r := NewReceipt()
	if c := s.Store(m, r); c != wire.OK {
		t.Fatalf("store on %s: %v", m.Topic, c)
	}
	return r.Wait(t)
}

// MustStore stores data on topic and gives its position.
func MustStore(t testing.TB, s Stream, topic, data string) uint64 {
	t.Helper()
	a := Store(t, s, &wire.ToStore{Topic: []byte(topic), Data: []byte(data)})
	if a.Code != wire.OK || a.Duplicate {
		t.Fatalf("store on %s: %+v", topic, a)
	}
	return a.Seq
}

func storeAscends(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	if s.Name() != "kept" || !s.AllowsTTL() || b.Stream("last").AllowsTTL() {
		t.Error("the stream is another")
	}
	const n = 2000
	receipts := make([]*Receipt, n)
	for i := range receipts {
		receipts[i] = NewReceipt()
		m := &wire.ToStore{Topic: fmt.Appendf(nil, "kept.%d", i%7), Data: fmt.Appendf(nil, "%d", i), From: "a b%\r\nc", JTI: "7"}
		if c := s.Store(m, receipts[i]); c != wire.OK {
			t.Fatal(c)
		}
	}
	for i, r := range receipts {
		if a := r.Wait(t); a != (Answer{uint64(i + 1), false, wire.OK}) {
			t.Fatalf("event %d: %+v", i, a)
		}
	}
	if seq := MustStore(t, b.Stream("last"), "last.a", "1"); seq != 1 {
		t.Errorf("streams share positions: %d", seq)
	}
}

func storeDuplicates(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	store := func(topic, id string) Answer {
		return Store(t, s, &wire.ToStore{Topic: []byte(topic), Data: []byte(`1`), MsgID: []byte(id)})
	}
	for _, id := range []string{"x", " x", "x ", "a\r\nNats-TTL: 1", "%0D", "\x00", "ü%"} {
		first := store("kept.a", id)
		if first.Code != wire.OK || first.Duplicate {
			t.Fatalf("id %q: %+v", id, first)
		}
		if a := store("kept.a", id); a != (Answer{first.Seq, true, wire.OK}) {
			t.Errorf("id %q again: %+v, first %+v", id, a, first)
		}
		if a := store("kept.b", id); a != (Answer{first.Seq + 1, false, wire.OK}) {
			t.Errorf("id %q on another topic: %+v, first %+v", id, a, first)
		}
	}
}

func storeKeepsNothing(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			m := &wire.ToStore{Topic: []byte("kept.0"), Data: []byte("0"), MsgID: []byte("0")}
			for i := range byte(10) {
				m.Topic[5], m.Data[0], m.MsgID[0] = '0'+byte(w), '0'+i, '0'+i
				r := NewReceipt()
				if c := s.Store(m, r); c != wire.OK {
					t.Error(c)
					return
				}
				m.Topic[5], m.Data[0], m.MsgID[0] = 'x', 'x', 'x'
				if a := r.Wait(t); a.Code != wire.OK || a.Duplicate {
					t.Errorf("%+v", a)
				}
			}
		})
	}
	wg.Wait()
}
