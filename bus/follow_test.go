package bus

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// openKept opens a bus with the stream kept, which is ready.
func openKept(t *testing.T, change func(*StreamOptions)) (*Stream, *bustest.Recorder) {
	t.Helper()
	kept := StreamOptions{Name: "kept", Topics: []string{"kept.>"}, MaxAge: time.Hour, Storage: StorageMemory}
	change(&kept)
	return openStream(t, Options{Streams: []StreamOptions{kept}})
}

// openStream opens a bus with a stream, which is ready.
func openStream(t *testing.T, o Options) (*Stream, *bustest.Recorder) {
	t.Helper()
	return openLogged(t, o, zap.NewNop())
}

func openLogged(t *testing.T, o Options, log *zap.Logger) (*Stream, *bustest.Recorder) {
	t.Helper()
	sink := bustest.NewRecorder()
	b, err := Open(t.Context(), o, sink, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	s := b.streams[0]
	testkit.Eventually(t, "the stream", func() bool { ready, _ := s.Ready(); return ready })
	return s, sink
}

// deafen has the feed miss what the leader passes on, until the function it gives is called.
func deafen(t *testing.T, s *Stream) (listen func()) {
	t.Helper()
	f := s.follower
	do := func(g func() error) {
		done := make(chan error, 1)
		f.post(func() { done <- g() })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	do(func() error { return f.nats.Unsubscribe() })
	return func() {
		do(func() (err error) {
			f.nats, err = s.bus.sc.conn.ChanSubscribe(s.republished+">", f.msgs)
			return err
		})
	}
}

// whole says whether what came is events first to last, each once, and their chain.
func whole(t *testing.T, got []bustest.Stored, first, last uint64) {
	t.Helper()
	prev := map[string]uint64{}
	for i, e := range got {
		if before, ok := prev[e.Topic]; e.First != 0 || e.Seq != first+uint64(i) || ok && e.Prev != before {
			t.Fatalf("event %d is %+v, before it on the topic %d", i, e, before)
		}
		prev[e.Topic] = e.Seq
	}
	if n := last - first + 1; uint64(len(got)) != n {
		t.Fatalf("%d events, want %d", len(got), n)
	}
}

// What was stored and not passed on comes, though nothing follows it: the tail; and in front of what follows: a hole.
func TestWhatIsNotPassedOnIsRead(t *testing.T) {
	s, sink := openKept(t, func(*StreamOptions) {})
	bustest.MustStore(t, s, "kept.a", "1")
	bustest.Subscribe(t, s.bus, 1, "kept.>")
	bustest.MustStore(t, s, "kept.a", "2")
	sink.StoredFor(t, 1, 1)
	listen := deafen(t, s)
	for i := range 1200 { // more than one page
		bustest.MustStore(t, s, fmt.Sprint("kept.", i%5), "3")
	}
	whole(t, sink.StoredFor(t, 1, 1201), 2, 1202)
	for range 3 {
		bustest.MustStore(t, s, "kept.b", "4")
	}
	listen()
	bustest.MustStore(t, s, "kept.a", "5")
	got := sink.StoredFor(t, 1, 1205)
	whole(t, got, 2, 1206)
	if e := got[1204]; e.Topic != "kept.a" || e.Prev != 2 {
		t.Errorf("%+v", e)
	}
	if st := s.Stats(); st.Healed < 1203 || st.Gaps != 0 || st.Position != 1206 || st.Stored != 1206 || st.Last < 1202 {
		t.Errorf("%+v", st)
	}
	if !s.Recent(1000, 1206, "kept.>", func(*wire.StoredEvent) bool { return true }) {
		t.Error("what was read is not in the window")
	}
}

// remembers says whether memory has what follows position 1, and what it gives.
func remembers(s *Stream) (seqs []uint64, ok bool) {
	ok = s.Recent(1, 100, "kept.>", func(e *wire.StoredEvent) bool {
		seqs = append(seqs, e.Seq)
		return true
	})
	return seqs, ok
}

// What has outlived its time, or was removed, does not come from memory: the stream is asked what is left.
func TestMemoryForgetsWhatIsGone(t *testing.T) {
	for _, c := range []struct {
		name string
		ttl  uint32 // of event 3
		gone func(t *testing.T, stream jetstream.Stream)
		left []uint64
	}{
		{"its own time is over", 1, func(*testing.T, jetstream.Stream) {}, []uint64{2, 4, 5}},
		{"purged", 0, func(t *testing.T, stream jetstream.Stream) {
			if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(4)); err != nil {
				t.Fatal(err)
			}
		}, []uint64{4, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, sink := openKept(t, func(o *StreamOptions) { o.TTL = true })
			bustest.MustStore(t, s, "kept.a", "1")
			bustest.Subscribe(t, s.bus, 1, "kept.a")
			bustest.MustStore(t, s, "kept.a", "2")
			bustest.Store(t, s, &wire.ToStore{Topic: []byte("kept.a"), Data: []byte("3"), TTL: c.ttl})
			bustest.MustStore(t, s, "kept.a", "4")
			bustest.MustStore(t, s, "kept.a", "5")
			sink.StoredFor(t, 1, 4)
			if seqs, ok := remembers(s); c.ttl == 0 && (!ok || len(seqs) != 4) {
				t.Fatalf("%v %v", seqs, ok)
			}
			js, err := jetstream.New(s.bus.conn)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), "notify-kept")
			if err != nil {
				t.Fatal(err)
			}
			c.gone(t, stream)
			testkit.Eventually(t, "memory does not have them all", func() bool { _, ok := remembers(s); return !ok })
			testkit.Eventually(t, "the stream has what is left", func() bool {
				page, err := s.Read(t.Context(), "kept.>", 1, 100, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				var seqs []uint64
				for _, e := range page.Events {
					seqs = append(seqs, e.Seq)
				}
				return slices.Equal(seqs, c.left)
			})
			if from := s.RecentFrom(); c.ttl == 0 && from != 3 {
				t.Errorf("memory begins behind %d", from)
			}
			if !s.Recent(3, 100, "kept.>", func(*wire.StoredEvent) bool { return true }) {
				t.Error("memory does not have the rest")
			}
		})
	}
}

// However an event was read, it is known when its time ends: what a hole is filled with comes into memory, too.
func TestEveryReadKnowsTheEnd(t *testing.T) {
	s, _ := openKept(t, func(o *StreamOptions) { o.TTL = true })
	bustest.Store(t, s, &wire.ToStore{Topic: []byte("kept.a"), Data: []byte("1"), TTL: 60})
	e, err := s.leaderGet(t.Context(), getRequest{Seq: 1, NextFor: s.bus.subject + "kept.>"})
	if err != nil || e == nil || e.Until != e.Time+int64(time.Minute) {
		t.Fatalf("%+v, %v", e, err)
	}
	page, err := s.Read(t.Context(), "kept.>", 0, 10, 1<<20)
	if err != nil || len(page.Events) != 1 || page.Events[0].Until != e.Until {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestTimeToLiveOfAHeader(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "1h": time.Hour, "never": 0, "1500ms": 1500 * time.Millisecond, "x": 0, "-1": 0,
	} {
		if got := ttlOf(nats.Header{headerTTL: {text}}); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// What is gone before it could be read is told.
func TestGap(t *testing.T) {
	s, sink := openKept(t, func(o *StreamOptions) { o.MaxPerTopic = 2 })
	bustest.Subscribe(t, s.bus, 1, "kept.a")
	bustest.Subscribe(t, s.bus, 2, "kept.*")
	bustest.MustStore(t, s, "kept.a", "1")
	sink.StoredFor(t, 1, 1)
	deafen(t, s)
	for range 10 {
		bustest.MustStore(t, s, "kept.a", "2")
	}
	for _, h := range []uint32{1, 2} {
		got := sink.StoredFor(t, h, 4)
		last := uint64(1)
		for _, e := range got {
			if e.First != 0 {
				if e.Seq != last {
					t.Errorf("a gap behind %d at %d", e.Seq, last)
				}
				last = e.First - 1
				continue
			}
			if last++; e.Seq != last && last != 2 {
				t.Errorf("behind %d came %+v", last-1, e)
			}
			last = e.Seq
		}
		if last != 11 {
			t.Errorf("%+v", got)
		}
	}
	if st := s.Stats(); st.Gaps == 0 {
		t.Errorf("%+v", st)
	}
}

// A stream that was removed and made again has another epoch, and its subscribers hear of it.
func TestStreamMadeAnew(t *testing.T) {
	s, sink := openKept(t, func(*StreamOptions) {})
	bustest.Subscribe(t, s.bus, 1, "kept.>")
	for range 5 {
		bustest.MustStore(t, s, "kept.a", "1")
	}
	sink.StoredFor(t, 1, 5)
	before, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made := s.Stats().Created
	js, err := jetstream.New(s.bus.conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "notify-kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), s.want); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if seq := bustest.MustStore(t, s, "kept.a", "2"); seq != uint64(i+1) {
			t.Fatalf("seq %d", seq)
		}
	}
	after, err := s.Head(t.Context())
	if err != nil || after.Epoch == before.Epoch {
		t.Fatalf("%+v, before %+v, %v", after, before, err)
	}
	testkit.Eventually(t, "the statistics tell", func() bool {
		st := s.Stats()
		return st.Renewals == 1 && st.Epoch == after.Epoch && st.Created.After(made)
	})
	got := sink.StoredFor(t, 1, 9)
	whole(t, got[:5], 1, 5)
	if gap := got[5]; gap.Epoch != after.Epoch || gap.First != 1 || gap.Seq != 0 {
		t.Errorf("%+v", gap)
	}
	whole(t, got[6:], 1, 3)
}

// A node that has no more subscribers for a stream does not follow it, and does again when there is one.
func TestFollowsWhileThereAreSubscribers(t *testing.T) {
	s, sink := openKept(t, func(*StreamOptions) {})
	s.bus.linger = 0
	if s.Stats().Following {
		t.Error("it follows without a subscriber")
	}
	for round := range uint32(3) {
		bustest.Subscribe(t, s.bus, 2*round, "kept.>")
		bustest.Subscribe(t, s.bus, 2*round+1, "kept.a")
		if !s.Stats().Following {
			t.Error("it does not follow")
		}
		bustest.MustStore(t, s, "kept.a", "1")
		sink.StoredFor(t, 2*round, 1)
		sink.StoredFor(t, 2*round+1, 1)
		s.bus.Unsubscribe(2 * round)
		s.bus.Unsubscribe(2*round + 1)
		testkit.Eventually(t, "the end of following", func() bool { return !s.Stats().Following })
		bustest.MustStore(t, s, "kept.a", "nobody hears it")
	}
	for h := range uint32(6) {
		if got := sink.StoredFor(t, h, 0); len(got) != 1 || got[0].Data != "1" {
			t.Errorf("%d got %v", h, got)
		}
	}
}

// Nobody is subscribed to a stream that is not there, or to a pattern that overlaps one.
func TestSubscribeWithoutTheStream(t *testing.T) {
	s, sink := openKept(t, func(*StreamOptions) {})
	js, err := jetstream.New(s.bus.conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "notify-kept"); err != nil {
		t.Fatal(err)
	}
	other := jetstream.StreamConfig{Name: "other", Subjects: s.want.Subjects[:1]} // so that it is not made again
	if _, err := js.CreateStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	answers := make(chan wire.Code, 3)
	for i, pattern := range []string{"kept.a", "kept.>", ">"} {
		s.bus.Subscribe(uint32(i), pattern, func(c wire.Code) { answers <- c })
	}
	for range 3 {
		if c := <-answers; c != wire.Unavailable {
			t.Errorf("%v", c)
		}
	}
	if n := s.follower.wanted.Load(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if err := js.DeleteStream(t.Context(), other.Name); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is made again", func() bool {
		_, err := s.Head(t.Context())
		return err == nil
	})
	bustest.Subscribe(t, s.bus, 1, "kept.a")
	bustest.MustStore(t, s, "kept.a", "1")
	sink.StoredFor(t, 1, 1)
}

// A stream that was removed while nodes run is made again, whether somebody follows it or an event for it finds nobody.
// Subscribers are told of another life, and the log has an error.
func TestStreamRemovedIsMadeAgain(t *testing.T) {
	for _, followed := range []bool{true, false} {
		t.Run(fmt.Sprintf("followed %v", followed), func(t *testing.T) {
			log, seen := testkit.Log()
			s, sink := openLogged(t, Options{Streams: []StreamOptions{{Name: "kept", Topics: []string{"kept.>"}, MaxAge: time.Hour}}}, log)
			if followed {
				bustest.Subscribe(t, s.bus, 1, "kept.>")
			}
			bustest.MustStore(t, s, "kept.a", "1")
			before, err := s.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			js, err := jetstream.New(s.bus.conn)
			if err != nil {
				t.Fatal(err)
			}
			if err := js.DeleteStream(t.Context(), "notify-kept"); err != nil {
				t.Fatal(err)
			}
			if !followed {
				if a := bustest.Store(t, s, &wire.ToStore{Topic: []byte("kept.a"), Data: []byte("lost")}); a.Code != wire.Unavailable {
					t.Fatalf("stored in a stream that is not there: %+v", a)
				}
			}
			testkit.Eventually(t, "it is made again", func() bool {
				there, err := js.Stream(t.Context(), "notify-kept")
				return err == nil && len(s.differences(&there.CachedInfo().Config)) == 0
			})
			if seq := bustest.MustStore(t, s, "kept.a", "2"); seq != 1 {
				t.Errorf("seq %d", seq)
			}
			after, err := s.Head(t.Context())
			if err != nil || after.Epoch == before.Epoch {
				t.Errorf("%+v, before %+v, %v", after, before, err)
			}
			if followed {
				got := sink.StoredFor(t, 1, 3)
				if gap := got[1]; gap.Epoch != after.Epoch || gap.First != 1 || got[2].Data != "2" {
					t.Errorf("%+v", got)
				}
			}
			if seen.FilterMessageSnippet("was removed while this node runs").Len() != 1 {
				t.Errorf("%v", seen.All())
			}
		})
	}
}

// A bus that closes answers all who wait.
func TestCloseWhileStreamsAreAwaited(t *testing.T) {
	s, _ := openKept(t, func(*StreamOptions) {})
	bustest.Subscribe(t, s.bus, 1, "kept.a")
	answers := make(chan bool, 3)
	s.At(1000, func(_ uint64, _ string, ok bool) { answers <- ok })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.bus.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s.At(0, func(_ uint64, _ string, ok bool) { answers <- ok })
	for range 2 {
		if <-answers {
			t.Error("a closed bus has come to a position")
		}
	}
	if c := s.Store(&wire.ToStore{Topic: []byte("kept.a"), Data: []byte("1")}, bustest.NewReceipt()); c != wire.Unavailable {
		t.Errorf("store: %v", c)
	}
	if _, err := s.Head(context.Background()); err == nil {
		t.Error("a closed bus gives a head")
	}
	if _, err := s.Read(context.Background(), ">", 0, 1, 1000); err == nil {
		t.Error("a closed bus reads")
	}
}
