package loop

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"
)

// Batch is a run of messages that is written as it is to many connections, on
// several loops. It is counted: each holder releases it once. Between [NewBatch] and
// the first Deliver its maker alone appends to it; from then on nobody changes it.
type Batch struct {
	b    []byte // finished frames, one behind another
	n    int    // how many
	came int64  // when the bus handed over the first one; 0: it did not
	refs atomic.Int32
}

// Came notes when the bus handed over the first message of the batch, by
// [Engine.Elapsed]. Its delay is counted ([Stats.Delays]), as that of no other batch is.
func (b *Batch) Came(at int64) { b.came = at }

// Append appends a message. It copies payload.
func (b *Batch) Append(op ws.OpCode, payload []byte) {
	b.b = append(appendHeader(b.b, op, len(payload)), payload...)
	b.n++
}

// Len is the number of bytes that the batch takes on the wire.
func (b *Batch) Len() int { return len(b.b) }

// keepBatch bounds the buffers that wait in the pool: twice the largest merged
// batch, since append grows them beyond what they hold.
const keepBatch = 512 << 10

var batches = sync.Pool{New: func() any { return new(Batch) }}

// NewBatch returns an empty batch with one reference. Any goroutine may call it.
func NewBatch() *Batch {
	b := batches.Get().(*Batch)
	b.refs.Store(1)
	return b
}

// Retain adds n references. The caller must hold one.
func (b *Batch) Retain(n int) { b.refs.Add(int32(n)) }

// Release gives one reference back. The caller must not touch b afterwards.
func (b *Batch) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		// The bytes of one topic would reach the subscribers of another.
		panic("loop: batch released more often than held")
	}
	if cap(b.b) > keepBatch {
		b.b = nil
	}
	b.b, b.n, b.came = b.b[:0], 0, 0
	batches.Put(b)
}

// exactBatch returns a batch with a copy of p, in no more memory than that.
func exactBatch(p []byte, n int) *Batch {
	b := &Batch{b: bytes.Clone(p), n: n}
	b.refs.Store(1)
	return b
}

// Fit returns b, or an exact copy in exchange for it when most of its buffer is
// empty. Buffers from the pool are of all sizes, and what waits for a slow peer
// stays: a thousand small events must not hold a thousand large buffers.
func (b *Batch) Fit() *Batch {
	if cap(b.b) <= 2*len(b.b)+64 {
		return b
	}
	x := exactBatch(b.b, b.n)
	x.came = b.came
	b.Release()
	return x
}
