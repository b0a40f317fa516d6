//go:build unix

package bus_test

import (
	"fmt"
	"syscall"
	"testing"

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
