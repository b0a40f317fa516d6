//go:build unix

package bus_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// counter is a sink that tells how many events each round had.
type counter struct {
	n      []int // by shard
	rounds chan int
}

func newCounter(shards int) *counter {
	return &counter{n: make([]int, shards), rounds: make(chan int, 1<<16)}
}

func (c *counter) Event(shard int, _ []uint32, _ string, _ []byte) { c.n[shard]++ }

func (c *counter) Flush(shard int) {
	c.rounds <- c.n[shard]
	c.n[shard] = 0
}

func (c *counter) Answered() {}

func (c *counter) Room() {}

// cpu is what this process has used, in nanoseconds.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkRoundTrip is Publish to Sink.Event with at most window messages in flight. cpu-ns/op is of this
// process, without an external server.
func BenchmarkRoundTrip(b *testing.B) {
	child := testkit.StartNATS(b)
	for _, kind := range []string{"embedded", "external"} {
		for _, shards := range []int{1, 2} {
			for _, window := range []int{1, 16, 1024} {
				b.Run(fmt.Sprintf("%s/shards=%d/window=%d", kind, shards, window), func(b *testing.B) {
					o := bus.Options{Shards: shards}
					if kind == "external" {
						o.URL = child.URL()
					}
					roundTrip(b, o, window)
				})
			}
		}
	}
}

func roundTrip(b *testing.B, o bus.Options, window int) {
	const topics = 16
	sink := newCounter(o.Shards)
	bb := open(b, o, sink)
	testkit.Eventually(b, "connected", bb.Connected)
	var names [topics][]byte
	for i := range names {
		names[i] = fmt.Appendf(nil, "bench.topic.%d", i)
		bustest.Subscribe(b, bb, uint32(i), string(names[i]))
	}
	data := make([]byte, 128)
	b.ReportAllocs()
	flying, rounds, start := 0, 0, cpu(b)
	for i := 0; b.Loop(); i++ {
		if bb.Publish(names[i%topics], data) != wire.OK {
			b.Fatal("not published")
		}
		if flying++; flying >= window {
			bb.Flush()
		}
		for ; flying >= window; rounds++ {
			flying -= <-sink.rounds
		}
	}
	bb.Flush()
	for ; flying > 0; rounds++ {
		flying -= <-sink.rounds
	}
	b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/float64(rounds), "events/round")
}

// BenchmarkStore is Store with its receipt, in file storage, with at most window events in flight, beside nats.go's
// PublishAsync in the same process with the same bound. cpu-ns/op is of this process: with an external NATS without
// JetStream's part.
func BenchmarkStore(b *testing.B) {
	child := testkit.StartJetStream(b)
	for _, kind := range []string{"embedded", "external"} {
		for _, headers := range []bool{false, true} {
			for _, by := range []string{"store", "nats.go"} {
				b.Run(fmt.Sprintf("%s/headers=%v/%s", kind, headers, by), func(b *testing.B) {
					o := bus.Options{Prefix: "bench"}
					if kind == "external" {
						o.URL = child.URL()
					}
					benchStore(b, o, headers, by == "store")
				})
			}
		}
	}
}

func benchStore(b *testing.B, o bus.Options, headers, store bool) {
	const window = 256
	o.Streams = []bus.StreamOptions{{Name: "kept", Topics: []string{"kept.>"}, MaxBytes: 64 << 20}}
	bb := open(b, o, bustest.NewRecorder())
	s := stream(b, bb, "kept")
	data := make([]byte, 128)
	done := make(chan wire.Code, window)
	r := receipt(func(a bustest.Answer) { done <- a.Code })
	js, err := jetstream.New(bb.Conn(), jetstream.WithPublishAsyncMaxPending(window))
	if err != nil {
		b.Fatal(err)
	}
	m := wire.ToStore{Topic: []byte("kept.topic.1"), Data: data}
	var header nats.Header
	if headers {
		m.From, m.JTI = "somebody", "0123456789"
		header = nats.Header{"Notifyd-From": {m.From}, "Notifyd-Jti": {m.JTI}}
	}
	b.ReportAllocs()
	start, flying := cpu(b), 0
	for b.Loop() {
		if !store {
			if _, err := js.PublishMsgAsync(&nats.Msg{Subject: "bench.ev.kept.topic.1", Header: header, Data: data}); err != nil {
				b.Fatal(err)
			}
			continue
		}
		if flying == window {
			if c := <-done; c != wire.OK {
				b.Fatal(c)
			}
			flying--
		}
		if c := s.Store(&m, r); c != wire.OK {
			b.Fatal(c)
		}
		flying++
	}
	if store {
		for ; flying > 0; flying-- {
			if c := <-done; c != wire.OK {
				b.Fatal(c)
			}
		}
	} else {
		<-js.PublishAsyncComplete()
	}
	b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
}

// BenchmarkRead reads 50,000 events in pages, beside an ordered consumer of nats.go.
func BenchmarkRead(b *testing.B) {
	const events = 50_000
	child := testkit.StartJetStream(b)
	o := bus.Options{URL: child.URL(), Streams: []bus.StreamOptions{{Name: "kept", Topics: []string{"kept.>"}, MaxBytes: 64 << 20}}}
	bb := open(b, o, bustest.NewRecorder())
	s := stream(b, bb, "kept")
	js, err := jetstream.New(bb.Conn())
	if err != nil {
		b.Fatal(err)
	}
	for i := range events {
		if _, err := js.PublishAsync(fmt.Sprintf("notify.ev.kept.%d", i%20), make([]byte, 128), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	measure := func(name string, read func()) {
		b.Run(name, func(b *testing.B) {
			start := cpu(b)
			for b.Loop() {
				read()
			}
			b.ReportMetric(float64(cpu(b)-start)/float64(b.N)/events, "cpu-ns/event")
			b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
	measure("pages", func() {
		page, err := s.Read(b.Context(), "kept.>", 0, 500, 64<<10)
		for n := len(page.Events); n < events; n += len(page.Events) {
			if page, err = page.Next(b.Context(), 4096, 1<<20); err != nil {
				b.Fatal(err)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	})
	measure("ordered consumer", func() {
		c, err := js.OrderedConsumer(b.Context(), "notify-kept", jetstream.OrderedConsumerConfig{})
		if err != nil {
			b.Fatal(err)
		}
		messages, err := c.Messages()
		if err != nil {
			b.Fatal(err)
		}
		for range events {
			if _, err := messages.Next(); err != nil {
				b.Fatal(err)
			}
		}
		messages.Stop()
	})
}
