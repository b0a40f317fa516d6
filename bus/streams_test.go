package bus_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// kept and last are the streams of the conformance suite.
func kept() bus.StreamOptions {
	return bus.StreamOptions{Name: "kept", Topics: []string{"kept.>", "also.*"}, MaxAge: time.Hour, Storage: bus.StorageMemory, TTL: true}
}

func last() bus.StreamOptions {
	return bus.StreamOptions{Name: "last", Topics: []string{"last.>"}, MaxPerTopic: 1, Storage: bus.StorageMemory}
}

// A streamBus is a bus for the suite.
type streamBus struct {
	*bus.Bus
	t testing.TB
}

func (b streamBus) Stream(name string) bustest.Stream { return stream(b.t, b.Bus, name) }

// stream gives a stream when it is ready.
func stream(t testing.TB, b *bus.Bus, name string) *bus.Stream {
	t.Helper()
	for _, s := range b.Streams() {
		if s.Name() == name {
			testkit.Eventually(t, "the stream", func() bool { ready, _ := s.Ready(); return ready })
			return s
		}
	}
	t.Fatal("no stream " + name)
	return nil
}

func TestStreamConformance(t *testing.T) {
	for name, options := range map[string]func(t *testing.T) bus.Options{
		"embedded": func(*testing.T) bus.Options { return bus.Options{} },
		"prefix":   func(*testing.T) bus.Options { return bus.Options{Prefix: "a.b"} },
		"external": func(t *testing.T) bus.Options {
			return bus.Options{URL: testkit.StartJetStream(t).URL(), Shards: 2}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bustest.RunStreams(t, func(t *testing.T, sink bustest.Sink) bustest.StreamBus {
				o := options(t)
				o.Streams = []bus.StreamOptions{kept(), last()}
				b := open(t, o, sink)
				testkit.Eventually(t, "connected", b.Connected)
				return streamBus{b, t}
			})
		})
	}
}

// What NATS has of an event: a token never, the publisher's name and the id of its token beside the data.
func TestStoredHeaders(t *testing.T) {
	b := open(t, bus.Options{Streams: []bus.StreamOptions{kept()}}, bustest.NewRecorder())
	s := stream(t, b, "kept")
	a := bustest.Store(t, s, &wire.ToStore{Topic: []byte("kept.a"), Data: []byte(`{"n":1}`), MsgID: []byte("m 1"), TTL: 60, From: "ann", JTI: "j\n1"})
	js := jetStream(t, b)
	natsStream, err := js.Stream(t.Context(), "notify-kept")
	if err != nil {
		t.Fatal(err)
	}
	m, err := natsStream.GetMsg(t.Context(), a.Seq)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Sequence", "Stream", "Subject", "Time-Stamp"} {
		m.Header.Del("Nats-" + name) // of the answer
	}
	want := nats.Header{"Nats-Msg-Id": {"kept.a m 1"}, "Nats-TTL": {"60"}, "Notifyd-From": {"ann"}, "Notifyd-Jti": {"j%0A1"}}
	if m.Subject != "notify.ev.kept.a" || string(m.Data) != `{"n":1}` || !reflect.DeepEqual(m.Header, want) {
		t.Errorf("%s %s %v", m.Subject, m.Data, m.Header)
	}
	if a := bustest.MustStore(t, s, "kept.a", "2"); a != 2 {
		t.Errorf("seq %d", a)
	}
}

func TestStoreRefuses(t *testing.T) {
	c := testkit.StartJetStream(t)
	o := kept()
	b := open(t, bus.Options{URL: c.URL(), MaxPayload: 1000, Streams: []bus.StreamOptions{o}}, bustest.NewRecorder())
	s := stream(t, b, "kept")
	store := func(topic string, size int) wire.Code {
		r := bustest.NewReceipt()
		if c := s.Store(&wire.ToStore{Topic: []byte(topic), Data: make([]byte, size)}, r); c != wire.OK {
			return c
		}
		return r.Wait(t).Code
	}
	if c := store("kept.a b", 1); c != wire.BadTopic {
		t.Errorf("a topic with a space: %v", c)
	}
	if c := store("kept.a", 1001); c != wire.TooLarge {
		t.Errorf("1,001 bytes: %v", c)
	}
	// A stream of its operator's making that takes less.
	js := jetStream(t, b)
	natsStream, err := js.Stream(t.Context(), "notify-kept")
	if err != nil {
		t.Fatal(err)
	}
	config := natsStream.CachedInfo().Config
	config.MaxMsgSize = 100
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if c := store("kept.a", 500); c != wire.TooLarge {
		t.Errorf("more than the stream takes: %v", c)
	}
	if err := js.DeleteStream(t.Context(), "notify-kept"); err != nil {
		t.Fatal(err)
	}
	if c := store("kept.a", 1); c != wire.Unavailable {
		t.Errorf("without a stream: %v", c)
	}
	c.Kill(t)
	if c := store("kept.a", 1); c != wire.Unavailable {
		t.Errorf("without NATS: %v", c)
	}
	testkit.Eventually(t, "the end of the connection", func() bool { return !b.Connected() })
	if c := store("kept.a", 1); c != wire.Unavailable {
		t.Errorf("without NATS: %v", c)
	}
	c.Start(t)
	testkit.Eventually(t, "stored again", func() bool { return store("kept.a", 1) == wire.OK })
}

// A NATS that hangs is given five seconds, and the events that wait hold their publishers back.
func TestStoreAtNATSThatHangs(t *testing.T) {
	c := testkit.StartJetStream(t)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: c.URL(), Streams: []bus.StreamOptions{kept()}}, sink)
	s := stream(t, b, "kept")
	bustest.MustStore(t, s, "kept.a", "1")
	c.Freeze(t)
	var waiting []*bustest.Receipt
	for s.HasRoom() {
		r := bustest.NewReceipt()
		if c := s.Store(&wire.ToStore{Topic: []byte("kept.a"), Data: []byte("1")}, r); c != wire.OK {
			t.Fatal(c)
		}
		waiting = append(waiting, r)
	}
	if !b.HasRoom() {
		t.Error("a stream in trouble holds up other events")
	}
	rooms := sink.Rooms()
	for _, r := range waiting {
		if a := r.Wait(t); a.Code != wire.Unavailable {
			t.Fatalf("%+v", a)
		}
	}
	testkit.Eventually(t, "room", func() bool { return sink.Rooms() > rooms && s.HasRoom() })
	c.Thaw(t)
	testkit.Eventually(t, "stored again", func() bool {
		r := bustest.NewReceipt()
		return s.Store(&wire.ToStore{Topic: []byte("kept.a"), Data: []byte("1")}, r) == wire.OK && r.Wait(t).Code == wire.OK
	})
}

// The NATS is a process of its own, so what is counted is ours and nats.go's, with the answer.
func TestStoreAllocatesLittle(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := open(t, bus.Options{URL: c.URL(), Streams: []bus.StreamOptions{kept()}}, bustest.NewRecorder())
	s := stream(t, b, "kept")
	done := make(chan bustest.Answer, 1)
	r := receipt(func(a bustest.Answer) { done <- a })
	for _, c := range []struct {
		name string
		m    wire.ToStore
		most float64
	}{
		{"bare", wire.ToStore{}, 6},
		{"with publisher", wire.ToStore{From: "ann", JTI: "7"}, 12},
	} {
		c.m.Topic, c.m.Data = []byte("kept.a"), make([]byte, 128)
		if n := testing.AllocsPerRun(500, func() {
			if code := s.Store(&c.m, r); code != wire.OK {
				t.Fatal(code)
			}
			<-done
		}); n > c.most {
			t.Errorf("%s: %v allocations", c.name, n)
		} else {
			t.Logf("%s: %v allocations", c.name, n)
		}
	}
}

type receipt func(bustest.Answer)

func (f receipt) Stored(seq uint64, duplicate bool, code wire.Code) {
	f(bustest.Answer{Seq: seq, Duplicate: duplicate, Code: code})
}
