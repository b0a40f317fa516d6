//go:build linux

package loop

import (
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

// keepBatch bounds the buffers that wait in the pool.
const keepBatch = 256 << 10

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
	if b.refs.Add(-1) > 0 {
		return
	}
	if cap(b.B) > keepBatch {
		b.B = nil
	}
	b.B, b.N = b.B[:0], 0
	batches.Put(b)
}
