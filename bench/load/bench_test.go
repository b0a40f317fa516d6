//go:build linux

package load

import (
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/wire"
)

// BenchmarkRead is what the generator itself spends on what one read brought:
// 32 events that were written together, as a fanout with that window has them.
func BenchmarkRead(b *testing.B) {
	const events = 32
	var batch []byte
	data := newData(128, 0)
	for range events {
		envelope := wire.AppendEvent(nil, "bench.run.0", "", data)
		head := []byte{0x80 | byte(ws.OpText), 126, byte(len(envelope) >> 8), byte(len(envelope))}
		batch = append(append(batch, head...), envelope...)
	}
	e := &engine{
		target: &Notifyd{}, latency: hdrhistogram.New(minLatency, maxLatency, latencyDigits), until: 1,
		pace: pace{Load: Load{Window: events}, outstanding: make([]int, 1)},
	}
	c := &conn{}
	b.ReportAllocs()
	for b.Loop() {
		e.outstanding[0] = 2 * events
		e.now += 1000
		if err := e.split(c, batch); err != nil {
			b.Fatal(err)
		}
	}
	if e.count.delivered == 0 || e.latency.TotalCount() != int64(e.count.delivered) {
		b.Errorf("%d delivered, %d late", e.count.delivered, e.latency.TotalCount())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
}
