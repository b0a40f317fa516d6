package loop

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// Batch is a run of finished frames that is written as it is to many
// connections, on several loops. It is counted: whoever holds it releases it
// once. Between [NewBatch] and the first Deliver its maker alone appends to B;
// from then on nobody changes it.
type Batch struct {
	// B is the frames, one behind another.
	B []byte
	// N is the number of frames in B.
	N    int
	refs atomic.Int32
}

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
	if cap(b.B) > keepBatch {
		b.B = nil
	}
	b.B, b.N = b.B[:0], 0
	batches.Put(b)
}

// exactBatch returns a batch with a copy of p, in no more memory than that.
func exactBatch(p []byte, n int) *Batch {
	b := &Batch{B: bytes.Clone(p), N: n}
	b.refs.Store(1)
	return b
}

// fit returns b, or an exact copy in exchange for it when most of its buffer is
// empty. Buffers from the pool are of all sizes, and what a slow peer is owed
// stays: a thousand small events must not hold a thousand large buffers.
func (b *Batch) fit() *Batch {
	if cap(b.B) <= 2*len(b.B)+64 {
		return b
	}
	x := exactBatch(b.B, b.N)
	b.Release()
	return x
}
