package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
)

func orders() bus.StreamOptions {
	return bus.StreamOptions{Name: "orders", Topics: []string{"orders.>", "invoices.*"}, MaxAge: time.Hour}
}

// streamWith is the declaration of orders, changed.
func streamWith(change func(*bus.StreamOptions)) bus.StreamOptions {
	o := orders()
	change(&o)
	return o
}

func TestStreamsThatAreRefused(t *testing.T) {
	cluster := bus.Embedded{ClusterName: "c", ClusterListen: "127.0.0.1:6222", Routes: []string{"127.0.0.1:6223"}}
	for _, c := range []struct {
		name    string
		streams []bus.StreamOptions
		field   string
		says    string
		of      bus.Embedded
	}{
		{"no name", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Name = "" })}, "Streams[0].Name", "not a name", bus.Embedded{}},
		{"name with a dot", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Name = "a.b" })}, "Streams[0].Name", "not a name", bus.Embedded{}},
		{"long name", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Name = strings.Repeat("a", 33) })}, "Streams[0].Name", "not a name", bus.Embedded{}},
		{"no topics", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Topics = nil })}, "Streams[0].Topics", "needs topics", bus.Embedded{}},
		{"bad topic", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Topics[1] = "a..b" })}, "Streams[0].Topics", "not a topic", bus.Embedded{}},
		{"overlap in itself", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Topics[1] = "orders.7" })}, "Streams[0].Topics", "in common", bus.Embedded{}},
		{"overlap of two", []bus.StreamOptions{orders(), streamWith(func(o *bus.StreamOptions) { o.Name, o.Topics = "b", []string{"*.7"} })}, "Streams[1].Topics", "of the stream orders", bus.Embedded{}},
		{"same name", []bus.StreamOptions{orders(), streamWith(func(o *bus.StreamOptions) { o.Topics = []string{"b"} })}, "Streams[1].Name", "has this name", bus.Embedded{}},
		{"no bound", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.MaxAge = 0 })}, "Streams[0].MaxAge", "without a bound", bus.Embedded{}},
		{"short age", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.MaxAge = 1 })}, "Streams[0].MaxAge", "too short", bus.Embedded{}},
		{"negative age", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.MaxAge = -time.Hour })}, "Streams[0].MaxAge", "too short", bus.Embedded{}},
		{"window beyond age", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.DuplicateWindow = 2 * time.Hour })}, "Streams[0].DuplicateWindow", "longer than", bus.Embedded{}},
		{"negative count", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.MaxPerTopic = -1 })}, "Streams[0].MaxPerTopic", "out of range", bus.Embedded{}},
		{"negative bytes", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.MaxBytes = -1 })}, "Streams[0].MaxBytes", "out of range", bus.Embedded{}},
		{"storage", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Storage = "tape" })}, "Streams[0].Storage", "no such storage", bus.Embedded{}},
		{"replicas", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Replicas = 6 })}, "Streams[0].Replicas", "out of range", cluster},
		{"epoch with a dot", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Epoch = "a.b" })}, "Streams[0].Epoch", "not a part", bus.Embedded{}},
		{"long epoch", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Epoch = strings.Repeat("a", 11) })}, "Streams[0].Epoch", "not a part", bus.Embedded{}},
		{"replicas of one server", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Replicas = 3 })}, "Streams[0].Replicas", "one server", bus.Embedded{}},
		{"replicas of two servers", []bus.StreamOptions{streamWith(func(o *bus.StreamOptions) { o.Replicas = 3 })}, "Streams[0].Replicas", "2 members at most", cluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := bus.Options{Streams: c.streams, Embedded: c.of, DataDir: t.TempDir()}.Check()
			option, ok := err.(*bus.OptionError) //nolint:errorlint // Check gives this very type
			if !ok || option.Field != c.field || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %s: … %s", err, c.field, c.says)
			}
		})
	}
	if err := (bus.Options{Streams: []bus.StreamOptions{orders()}}).Check(); err != nil {
		t.Error(err)
	}
}

// jetStream talks to the NATS of a bus as its operator would.
func jetStream(t *testing.T, b *bus.Bus) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(b.Conn())
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func configOfOrders(t *testing.T, js jetstream.JetStream) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), "notify-orders")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

// A stream is made, and changed where that is possible; what is not possible is refused before anything is touched.
func TestStreamsAreMade(t *testing.T) {
	nats := testkit.StartJetStream(t)
	with := func(o bus.StreamOptions) bus.Options {
		return bus.Options{URL: nats.URL(), Streams: []bus.StreamOptions{o}}
	}
	b := open(t, with(orders()), bustest.NewRecorder())
	js := jetStream(t, b)
	testkit.Eventually(t, "the stream is there", func() bool { ready, err := b.Streams()[0].Ready(); return ready && err == nil })
	c := configOfOrders(t, js)
	if c.MaxAge != time.Hour || c.Duplicates != 2*time.Minute || c.Storage != jetstream.FileStorage || !c.AllowDirect || c.AllowMsgTTL ||
		strings.Join(c.Subjects, " ") != "notify.ev.orders.> notify.ev.invoices.*" || c.RePublish.Destination != "notify.st.orders.>" {
		t.Errorf("made as %+v", c)
	}

	changed := streamWith(func(o *bus.StreamOptions) {
		o.Topics, o.MaxAge, o.MaxPerTopic, o.MaxBytes, o.TTL = []string{"orders.>"}, time.Minute, 7, 1<<20, true
	})
	open(t, with(changed), bustest.NewRecorder())
	c = configOfOrders(t, js)
	if c.MaxAge != time.Minute || c.Duplicates != time.Minute || c.MaxMsgsPerSubject != 7 || c.MaxBytes != 1<<20 || !c.AllowMsgTTL || len(c.Subjects) != 1 {
		t.Errorf("changed to %+v", c)
	}

	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{"notify.ev.taken.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "notify-foreign", Subjects: []string{"elsewhere"}}); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []struct {
		o     bus.StreamOptions
		field string
	}{
		{streamWith(func(o *bus.StreamOptions) { o.Storage, o.TTL = "memory", true }), "Streams[0].Storage"},
		{orders(), "Streams[0].TTL"},
		{streamWith(func(o *bus.StreamOptions) { o.Replicas, o.TTL = 3, true }), "Streams[0].Replicas"},
		{streamWith(func(o *bus.StreamOptions) { o.Name, o.Topics = "b", []string{"taken.>"} }), "Streams[0].Topics"},
		{streamWith(func(o *bus.StreamOptions) { o.Name, o.Topics = "foreign", []string{"f"} }), "Streams[0].Name"},
	} {
		_, err := bus.Open(t.Context(), with(refused.o), bustest.NewRecorder(), zapNop)
		var option *bus.OptionError
		if !errors.As(err, &option) || option.Field != refused.field {
			t.Errorf("got %v, want %s", err, refused.field)
		}
	}
	if after := configOfOrders(t, js); after.MaxAge != c.MaxAge || after.Storage != c.Storage || !after.AllowMsgTTL || after.Replicas != 1 {
		t.Errorf("a refusal changed it to %+v", after)
	}
}

// Where NATS is away at the start, the stream is made when it comes.
func TestStreamIsMadeLater(t *testing.T) {
	nats := testkit.StartJetStream(t)
	nats.Kill(t)
	b := open(t, bus.Options{URL: nats.URL(), Streams: []bus.StreamOptions{orders()}}, bustest.NewRecorder())
	if ready, _ := b.Streams()[0].Ready(); ready {
		t.Error("ready without NATS")
	}
	nats.Start(t)
	testkit.Eventually(t, "the stream is there", func() bool { ready, _ := b.Streams()[0].Ready(); return ready })
}

// NATS without JetStream keeps nothing, and the start says so.
func TestStreamWithoutJetStream(t *testing.T) {
	server := testkit.StartNATS(t)
	b := open(t, bus.Options{URL: server.URL(), Streams: []bus.StreamOptions{orders()}}, bustest.NewRecorder())
	testkit.Eventually(t, "somebody has looked", func() bool { _, err := b.Streams()[0].Ready(); return err != nil })
	if ready, err := b.Streams()[0].Ready(); ready || !strings.Contains(err.Error(), "is it enabled") {
		t.Errorf("ready %v, error %v", ready, err)
	}
}

func TestStreamOf(t *testing.T) {
	b := open(t, bus.Options{Streams: []bus.StreamOptions{orders()}}, bustest.NewRecorder())
	for topic, want := range map[string]bool{"orders.1": true, "orders.1.2": true, "invoices.1": true, "orders": false, "invoices": false, "invoices.1.2": false, "x": false} {
		if got := b.StreamOf([]byte(topic)) != nil; got != want {
			t.Errorf("%s: %v", topic, got)
		}
	}
	for pattern, want := range map[string]string{
		"orders.>": "", "orders.7": "", "orders.*.a": "", "invoices.*": "", "invoices.1": "",
		">": "only the part of it that orders.> matches", "*.7": "only the part", "x.>": "no topic of it",
	} {
		s, outside := b.StreamAround([]byte(pattern))
		if (s != nil) != (want == "") || !strings.HasPrefix(outside, want) {
			t.Errorf("%s: %v %q", pattern, s, outside)
		}
	}
	topic := []byte("invoices.12345678901234567890123456789012345678901234567890")
	if n := testing.AllocsPerRun(100, func() { b.StreamOf(topic) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The port without a password is for events: it cannot make believe that a stream passed something on.
func TestStreamsAreNotForged(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	_ = l.Close()
	open(t, bus.Options{Streams: []bus.StreamOptions{orders()}, Embedded: bus.Embedded{Listen: listen}}, bustest.NewRecorder())
	refused := make(chan error, 1)
	c, err := nats.Connect("nats://"+listen, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Publish("notify.st.orders.notify.ev.orders.7", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; !strings.Contains(err.Error(), "Permissions Violation") {
		t.Error(err)
	}
}

// What NATS would refuse is told of all streams at once, and none of them is made or changed then.
func TestNothingIsChangedBeforeAllStreamsAreExamined(t *testing.T) {
	nats := testkit.StartJetStream(t)
	before := open(t, bus.Options{URL: nats.URL(), Streams: []bus.StreamOptions{orders()}}, bustest.NewRecorder())
	stream(t, before, "orders")
	js := jetStream(t, before)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{"notify.ev.news.*"}}); err != nil {
		t.Fatal(err)
	}
	o := bus.Options{URL: nats.URL(), Streams: []bus.StreamOptions{
		streamWith(func(o *bus.StreamOptions) { o.MaxAge = 2 * time.Hour }),
		{Name: "made", Topics: []string{"made.*"}, MaxPerTopic: 1},
		{Name: "news", Topics: []string{"fine", "news.>"}, MaxPerTopic: 1},
	}}
	for name, try := range map[string]func() error{
		"check": func() error {
			_, err := bus.CheckStreams(t.Context(), before.Conn(), o)
			return err
		},
		"start": func() error {
			_, err := bus.Open(t.Context(), o, bustest.NewRecorder(), zap.NewNop())
			return err
		},
	} {
		err := try()
		var option *bus.OptionError
		if !errors.As(err, &option) || option.Field != "Streams[2].Topics" || !strings.Contains(err.Error(), "the stream other") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := configOfOrders(t, js).MaxAge; got != time.Hour {
		t.Errorf("it was changed: %v", got)
	}
	if _, err := js.Stream(t.Context(), "notify-made"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("it was made: %v", err)
	}
	o.Streams = o.Streams[:2]
	changes, err := bus.CheckStreams(t.Context(), before.Conn(), o)
	if err != nil || !slices.Equal(changes, []string{"orders: max_age is 1h0m0s, and 2h0m0s here"}) {
		t.Errorf("nothing is wrong with it: %v %v", changes, err)
	}
	// Two mistakes are told at once.
	o.Streams[0].Storage = bus.StorageMemory
	o.Streams[1].Topics = []string{"news.today"}
	_, err = bus.CheckStreams(t.Context(), before.Conn(), o)
	if err == nil || !strings.Contains(err.Error(), "Streams[0].Storage") || !strings.Contains(err.Error(), "Streams[1].Topics") {
		t.Errorf("%v", err)
	}
}

// A node whose configuration of a stream is another one changes it when it starts, and says so; a node that runs says
// that it was changed, and leaves it, also when it has a new connection.
func TestStreamsThatNodesDeclareDifferently(t *testing.T) {
	nats := testkit.StartJetStream(t)
	begin := func(o bus.StreamOptions) (*bus.Bus, func(message string) []string) {
		log, seen := testkit.Log()
		b, err := bus.Open(t.Context(), bus.Options{URL: nats.URL(), Streams: []bus.StreamOptions{o}}, bustest.NewRecorder(), log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			_ = b.Close(ctx)
		})
		stream(t, b, "orders")
		return b, func(message string) (all []string) {
			for _, entry := range seen.FilterMessageSnippet(message).All() {
				all = append(all, fmt.Sprint(entry.Level, " ", entry.ContextMap()["differences"]))
			}
			return all
		}
	}
	one, saidByOne := begin(orders())
	bustest.Subscribe(t, one, 1, "orders.>") // so that it follows the stream
	_, saidByTwo := begin(streamWith(func(o *bus.StreamOptions) { o.MaxAge, o.MaxPerTopic, o.Epoch = 2*time.Hour, 5, "b" }))
	if got := saidByTwo("changed a stream"); !slices.Equal(got, []string{"warn [max_age is 1h0m0s, and 2h0m0s here max_per_topic is not set, and 5 here epoch is not set, and b here]"}) {
		t.Errorf("%q", got)
	}
	want := []string{"warn [max_age is 2h0m0s, and 1h0m0s here max_per_topic is 5, and not set here epoch is b, and not set here]"}
	testkit.Eventually(t, "the first node says it", func() bool { return len(saidByOne("left as it is")) > 0 })
	nats.Kill(t)
	nats.Start(t)
	testkit.Eventually(t, "the connection is lost", func() bool { return len(saidByOne("lost the connection for streams")) > 0 })
	s := stream(t, one, "orders")
	bustest.MustStore(t, s, "orders.1", "1")
	if got := saidByOne("left as it is"); !slices.Equal(got, want) { // once
		t.Errorf("%q", got)
	}
	testkit.Eventually(t, "the other connection is there again", one.Connected)
	if c := configOfOrders(t, jetStream(t, one)); c.MaxAge != 2*time.Hour || c.MaxMsgsPerSubject != 5 {
		t.Errorf("it was changed back: %+v", c)
	}
	if _, said := begin(orders()); len(said("changed a stream")) != 1 {
		t.Error("the last start does not count")
	}
}
