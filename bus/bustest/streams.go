package bustest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// A Stream is what is tested of a stream.
type Stream interface {
	Name() string
	AllowsTTL() bool
	HasRoom() bool
	Store(m *wire.ToStore, r wire.Receipt) wire.Code
	Head(ctx context.Context) (wire.StreamHead, error)
	Read(ctx context.Context, pattern string, after uint64, most, mostBytes int) (wire.StreamPage, error)
	Seek(ctx context.Context, pattern string, since wire.Since) (after uint64, err error)
	LastOfEach(ctx context.Context, pattern string, after, upTo uint64, most int) (wire.StreamPage, error)
	At(after uint64, f func(position uint64, epoch string, ok bool))
	Recent(after, upTo uint64, pattern string, f func(*wire.StoredEvent) (more bool)) bool
	RecentFrom() uint64
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
		{"head", head},
		{"read in pages", readPages},
		{"read an event as it was stored", readVerbatim},
		{"read what was superseded", readSuperseded},
		{"seek", seek},
		{"last of each", lastOfEach},
		{"last of each of many", lastOfMany},
		{"live events", live},
		{"live events of patterns that cover more", liveBoth},
		{"live events by whoever publishes", livePublished},
		{"unsubscribed gets nothing stored", liveUnsubscribed},
		{"at a position", at},
		{"recent events", recent},
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

func head(t *testing.T, b StreamBus, _ *Recorder) {
	kept, last := b.Stream("kept"), b.Stream("last")
	empty, err := kept.Head(t.Context())
	if err != nil || empty.Epoch == "" || empty.First != 1 || empty.Last != 0 {
		t.Errorf("empty: %+v %v", empty, err)
	}
	for i := range uint64(3) {
		seq := MustStore(t, kept, "kept.a", "1")
		MustStore(t, last, "last.a", "1")
		if h, err := kept.Head(t.Context()); err != nil || h != (wire.StreamHead{Epoch: empty.Epoch, First: 1, Last: seq}) || seq != i+1 {
			t.Errorf("%+v %v", h, err)
		}
	}
	if h, err := last.Head(t.Context()); err != nil || h.First != 3 || h.Last != 3 {
		t.Errorf("the last of each: %+v %v", h, err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { // each sees what was stored before its call
			seq := MustStore(t, kept, "kept.a", "1")
			if h, err := kept.Head(t.Context()); err != nil || h.Last < seq {
				t.Errorf("stored %d, head %+v, %v", seq, h, err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kept.Head(ctx); err == nil {
		t.Error("an ended context gives a head")
	}
}

// readAll reads in pages of that size.
func readAll(t *testing.T, s Stream, pattern string, after uint64, most int) []wire.StoredEvent {
	t.Helper()
	return pages(t, after, most, func(after uint64) (wire.StreamPage, error) {
		return s.Read(t.Context(), pattern, after, most, 1<<20)
	})
}

// readOn reads the same, each page by the Next of the one before.
func readOn(t *testing.T, s Stream, pattern string, after uint64, most int) []wire.StoredEvent {
	t.Helper()
	var next wire.ReadOn
	return pages(t, after, most, func(after uint64) (page wire.StreamPage, err error) {
		if next != nil {
			page, err = next(t.Context(), most, 1<<20)
		} else {
			page, err = s.Read(t.Context(), pattern, after, most, 1<<20)
		}
		next = page.Next
		return page, err
	})
}

// pages reads page after page, of most events each at most.
func pages(t *testing.T, after uint64, most int, read func(after uint64) (wire.StreamPage, error)) []wire.StoredEvent {
	t.Helper()
	var all []wire.StoredEvent
	for {
		page, err := read(after)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Events) > most || len(page.Events) == 0 && !page.End {
			t.Fatalf("a page of %d has %d events, end %v", most, len(page.Events), page.End)
		}
		if all = append(all, page.Events...); page.End {
			return all
		}
		after = all[len(all)-1].Seq
	}
}

func seqs(events []wire.StoredEvent) (list []uint64) {
	for _, e := range events {
		list = append(list, e.Seq)
	}
	return list
}

// chained says whether the Prev of the events, which are all of some topics, is right.
func chained(t *testing.T, events []wire.StoredEvent) {
	t.Helper()
	last := map[string]uint64{}
	for _, e := range events {
		if e.Prev != last[e.Topic] {
			t.Fatalf("event %d of %s: prev %d, want %d", e.Seq, e.Topic, e.Prev, last[e.Topic])
		}
		last[e.Topic] = e.Seq
	}
}

func readPages(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	if got := readAll(t, s, "kept.>", 0, 10); len(got) != 0 {
		t.Errorf("an empty stream gives %v", got)
	}
	const n = 60
	for i := range n {
		MustStore(t, s, []string{"kept.a", "kept.b.c", "also.d"}[i%3], fmt.Sprint(i))
	}
	for _, most := range []int{1, 7, 20, 59, 60, 1000} {
		all := readAll(t, s, ">", 0, most)
		if len(all) != n {
			t.Fatalf("pages of %d: %d events", most, len(all))
		}
		chained(t, all)
		for i, e := range all {
			if e.Seq != uint64(i+1) || string(e.Data) != fmt.Sprint(i) {
				t.Fatalf("pages of %d: event %d is %+v", most, i, e)
			}
		}
		for _, pattern := range []string{">", "kept.*", "kept.>", "kept.b.c"} {
			for _, after := range []uint64{0, 10, n} {
				if one, other := readAll(t, s, pattern, after, most), readOn(t, s, pattern, after, most); !reflect.DeepEqual(one, other) {
					t.Errorf("%s behind %d, pages of %d, one by one %v, by the page before %v", pattern, after, most, one, other)
				}
			}
		}
		got := readAll(t, s, "kept.*", 10, most)
		if len(got) != 16 || got[0].Seq != 13 || got[0].Prev != 10 || got[15].Seq != 58 {
			t.Errorf("kept.* behind 10: %v", seqs(got))
		}
	}
	page, err := s.Read(t.Context(), ">", 5, 1000, 50)
	if err != nil || page.End || len(page.Events) == 0 || len(page.Events) > 10 || page.First != 1 {
		t.Errorf("a page of 50 bytes: %d events, end %v, first %d, %v", len(page.Events), page.End, page.First, err)
	}
	if page.Pending != uint64(n-5-len(page.Events)) {
		t.Errorf("%d follow %d events, as it says", page.Pending, len(page.Events))
	}
	if page, err := s.Read(t.Context(), ">", 1_000_000, 10, 1<<20); err != nil || !page.End || len(page.Events) != 0 {
		t.Errorf("behind the end: %+v %v", page, err)
	}
}

func readVerbatim(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	before := time.Now().Add(-time.Minute)
	for _, data := range []string{`{"a":"ü\u0000"}`, "1", string(make([]byte, 60_000))} {
		a := Store(t, s, &wire.ToStore{Topic: []byte("kept.ü"), Data: []byte(data), From: " a\r\n%é", JTI: "7", MsgID: []byte(data[:1])})
		page, err := s.Read(t.Context(), "kept.ü", a.Seq-1, 10, 1<<20)
		if err != nil || len(page.Events) != 1 {
			t.Fatalf("%d events, %v", len(page.Events), err)
		}
		e := page.Events[0]
		if e.Topic != "kept.ü" || string(e.Data) != data || e.From != " a\r\n%é" || e.Seq != a.Seq || e.Prev != a.Seq-1 {
			t.Errorf("%.100v", e)
		}
		if at := time.Unix(0, e.Time); at.Before(before) || at.After(time.Now().Add(time.Minute)) {
			t.Errorf("stored at %v", at)
		}
	}
}

func readSuperseded(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("last")
	for _, topic := range []string{"a", "b", "a", "c", "a"} {
		MustStore(t, s, "last."+topic, "1")
	}
	got := readAll(t, s, "last.>", 0, 2)
	if !slices.Equal(seqs(got), []uint64{2, 4, 5}) {
		t.Errorf("got %v", seqs(got))
	}
	chained(t, got)
}

func seek(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	to := func(pattern string, since wire.Since) uint64 {
		t.Helper()
		after, err := s.Seek(t.Context(), pattern, since)
		if err != nil {
			t.Fatal(err)
		}
		return after
	}
	if got := to("kept.a", wire.Since{Kind: wire.SinceLast, N: 3}); got != 0 {
		t.Errorf("the last of nothing: %d", got)
	}
	const n = 40
	for i := range n {
		MustStore(t, s, fmt.Sprintf("kept.%d", i%4), "1") // kept.1 has 2, 6, …, 38
	}
	if got := to("kept.1", wire.Since{Kind: wire.SinceSeq, N: 17}); got != 17 {
		t.Errorf("seq 17: %d", got)
	}
	if got := to("kept.1", wire.Since{}); got != n {
		t.Errorf("from now on: %d", got)
	}
	for last := range uint64(15) {
		after := to("kept.1", wire.Since{Kind: wire.SinceLast, N: last})
		if got := readAll(t, s, "kept.1", after, 100); len(got) != int(min(last, 10)) {
			t.Errorf("the last %d: after %d, %v", last, after, seqs(got))
		}
	}
	all := readAll(t, s, ">", 0, 100)
	for _, i := range []int{0, 7, n - 1} {
		want := all[i].Seq - 1
		for want > 0 && all[want-1].Time == all[i].Time {
			want--
		}
		if got := to(">", wire.Since{Kind: wire.SinceTime, Time: all[i].Time}); got != want {
			t.Errorf("time of event %d: %d", i+1, got)
		}
	}
	if got := to("kept.0", wire.Since{Kind: wire.SinceTime, Time: all[1].Time + 1}); got >= 5 {
		t.Errorf("the time behind event 2 on kept.0: %d", got)
	}
	if got := to(">", wire.Since{Kind: wire.SinceTime, Time: time.Now().Add(time.Hour).UnixNano()}); got != n {
		t.Errorf("a time to come: %d", got)
	}
	if got := to(">", wire.Since{Kind: wire.SinceTime, Time: 1}); got != 0 {
		t.Errorf("a time long ago: %d", got)
	}
}

func lastEach(t *testing.T, s Stream, pattern string, upTo uint64, most int) []wire.StoredEvent {
	t.Helper()
	return pages(t, 0, most, func(after uint64) (wire.StreamPage, error) {
		return s.LastOfEach(t.Context(), pattern, after, upTo, most)
	})
}

func lastOfEach(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	for i := range 30 {
		MustStore(t, s, fmt.Sprintf("kept.%d", i%7), "1")
	}
	for _, most := range []int{1, 3, 7, 100} {
		for _, c := range []struct {
			pattern string
			upTo    uint64
			want    []uint64
		}{
			{"kept.>", 30, []uint64{24, 25, 26, 27, 28, 29, 30}},
			{"kept.*", 12, []uint64{6, 7, 8, 9, 10, 11, 12}},
			{"kept.3", 12, []uint64{11}},
			{"kept.3", 3, nil},
			{"also.*", 30, nil},
			{"kept.>", 0, nil},
		} {
			if got := lastEach(t, s, c.pattern, c.upTo, most); !slices.Equal(seqs(got), c.want) {
				t.Errorf("%s up to %d, pages of %d: %v", c.pattern, c.upTo, most, seqs(got))
			}
		}
	}
}

func lastOfMany(t *testing.T, b StreamBus, _ *Recorder) {
	const topics = 1500 // more than JetStream tells at once
	s := b.Stream("last")
	var receipts []*Receipt
	for i := range 2 * topics {
		r := NewReceipt()
		if c := s.Store(&wire.ToStore{Topic: fmt.Appendf(nil, "last.%d", i%topics), Data: []byte("1")}, r); c != wire.OK {
			t.Fatal(c)
		}
		receipts = append(receipts, r)
	}
	for _, r := range receipts {
		r.Wait(t)
	}
	got := lastEach(t, s, "last.>", 2*topics, 700)
	if len(got) != topics || got[0].Seq != topics+1 || got[topics-1].Seq != 2*topics {
		t.Errorf("%d events", len(got))
	}
}

func live(t *testing.T, b StreamBus, r *Recorder) {
	s := b.Stream("kept")
	MustStore(t, s, "kept.a", "before")
	all := map[uint32]string{step: "kept.>", 2 * step: "kept.*", 3 * step: "kept.a", 4 * step: "also.x"}
	for h, pattern := range all {
		Subscribe(t, b, h, pattern)
	}
	const n = 300
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range n / 3 {
				m := &wire.ToStore{Topic: []byte([]string{"kept.a", "kept.b", "kept.a.b"}[w]), Data: fmt.Appendf(nil, "%d", i), From: "ann"}
				if a := Store(t, s, m); a.Code != wire.OK {
					t.Error(a)
				}
			}
		})
	}
	wg.Wait()
	for h, want := range map[uint32]int{step: n, 2 * step: 2 * n / 3, 3 * step: n / 3} {
		got := r.StoredFor(t, h, want)
		if len(got) != want {
			t.Errorf("%s got %d events, want %d", all[h], len(got), want)
		}
		last, count := map[string]uint64{"kept.a": 1}, map[string]int{}
		seq := uint64(1)
		for _, e := range got {
			if e.Seq <= seq || h == step && e.Seq != seq+1 || e.Prev != last[e.Topic] || e.From != "ann" || e.Data != fmt.Sprint(count[e.Topic]) {
				t.Fatalf("%s: after %d came %+v, before it on the topic %d", all[h], seq, e, last[e.Topic])
			}
			seq, last[e.Topic] = e.Seq, e.Seq
			count[e.Topic]++
		}
	}
	if got := r.StoredFor(t, 4*step, 0); len(got) != 0 || len(r.Events()) != 0 {
		t.Errorf("came where it does not belong: %v, %v", got, r.Events())
	}
}

func liveBoth(t *testing.T, b StreamBus, r *Recorder) {
	Subscribe(t, b, step, ">")
	Subscribe(t, b, 2*step, "*.a")
	kept, last := b.Stream("kept"), b.Stream("last")
	for range 5 {
		MustStore(t, kept, "kept.a", "1")
		MustStore(t, last, "last.a", "2")
		Publish(t, b, "other.a", "3")
	}
	for _, h := range []uint32{step, 2 * step} {
		got := r.StoredFor(t, h, 10)
		if len(got) != 10 {
			t.Errorf("%v", got)
		}
		seq := map[string]uint64{}
		for _, e := range got {
			if seq[e.Topic]++; e.Seq != seq[e.Topic] {
				t.Errorf("%v", got)
				break
			}
		}
	}
	got := r.Wait(t, "the events that are not stored", func(got []Event) bool { return len(got) >= 10 })
	for _, e := range got {
		if e.Topic != "other.a" {
			t.Errorf("%v came as if it were not stored", e)
		}
	}
}

// livePublished: who publishes past Store, another NATS client for example, is not acknowledged, but stored.
func livePublished(t *testing.T, b StreamBus, r *Recorder) {
	Subscribe(t, b, step, "kept.a")
	for i := range 5 {
		Publish(t, b, "kept.a", fmt.Sprint(i))
	}
	for i, e := range r.StoredFor(t, step, 5) {
		if e.Data != fmt.Sprint(i) || e.Seq != uint64(i+1) || e.Prev != uint64(i) {
			t.Errorf("%+v", e)
		}
	}
}

func liveUnsubscribed(t *testing.T, b StreamBus, r *Recorder) {
	s := b.Stream("kept")
	Subscribe(t, b, step, "kept.a")
	Subscribe(t, b, 2*step, "kept.b")
	b.Unsubscribe(step)
	MustStore(t, s, "kept.a", "1")
	MustStore(t, s, "kept.b", "1")
	r.StoredFor(t, 2*step, 1)
	if got := r.StoredFor(t, step, 0); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	Subscribe(t, b, 3*step, "kept.a") // takes over
	seq := MustStore(t, s, "kept.a", "2")
	if got := r.StoredFor(t, 3*step, 1); len(got) != 1 || got[0].Seq != seq || got[0].Prev != seq-2 {
		t.Errorf("got %v", got)
	}
}

// position gives what At says.
func position(t *testing.T, s Stream, after uint64) (position uint64, epoch string, ok bool) {
	t.Helper()
	done := make(chan struct{})
	s.At(after, func(p uint64, e string, o bool) {
		position, epoch, ok = p, e, o
		close(done)
	})
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("At says nothing")
	}
	return position, epoch, ok
}

func at(t *testing.T, b StreamBus, r *Recorder) {
	s := b.Stream("kept")
	MustStore(t, s, "kept.a", "1")
	Subscribe(t, b, step, "kept.a")
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, epoch, ok := position(t, s, head.Last); p != 1 || epoch != head.Epoch || !ok {
		t.Errorf("%d %s %v, head %+v", p, epoch, ok, head)
	}
	for range 50 {
		seq := MustStore(t, s, "kept.a", "1")
		p, _, ok := position(t, s, seq)
		if !ok || p != seq {
			t.Fatalf("%d %v", p, ok)
		}
		// What was handed over was flushed before.
		if got := r.StoredFor(t, step, 0); len(got) == 0 || got[len(got)-1].Seq != seq {
			t.Fatalf("at %d there is %v", seq, got)
		}
	}
	if p, _, ok := position(t, s, 1000); ok || p != 51 {
		t.Errorf("a position that does not come: %d %v", p, ok)
	}
}

func recent(t *testing.T, b StreamBus, _ *Recorder) {
	s := b.Stream("kept")
	MustStore(t, s, "kept.a", "1")
	Subscribe(t, b, step, "kept.a")
	for i := range 20 {
		MustStore(t, s, []string{"kept.a", "kept.b"}[i%2], "1")
	}
	if _, _, ok := position(t, s, 21); !ok {
		t.Fatal("the events do not come")
	}
	if from := s.RecentFrom(); from != 1 {
		t.Errorf("from %d", from)
	}
	for _, c := range []struct {
		after, upTo uint64
		pattern     string
		most        int
		want        []uint64
		ok          bool
	}{
		{1, 21, "kept.a", 100, []uint64{2, 4, 6, 8, 10, 12, 14, 16, 18, 20}, true},
		{1, 1<<64 - 1, "kept.a", 100, []uint64{2, 4, 6, 8, 10, 12, 14, 16, 18, 20}, true},
		{5, 9, "kept.>", 100, []uint64{6, 7, 8, 9}, true},
		{5, 9, "kept.>", 2, []uint64{6, 7}, true},
		{5, 9, "also.*", 100, nil, true},
		{21, 21, ">", 100, nil, true},
		{30, 21, ">", 100, nil, true},
		{0, 21, ">", 100, nil, false},
	} {
		var got []uint64
		ok := s.Recent(c.after, c.upTo, c.pattern, func(e *wire.StoredEvent) bool {
			got = append(got, e.Seq)
			return len(got) < c.most
		})
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("behind %d up to %d, %s: %v %v", c.after, c.upTo, c.pattern, got, ok)
		}
	}
}
