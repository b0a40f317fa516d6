package store

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	// probeInterval is how often each bucket is written to, so that a full disk and lost content are noticed before
	// somebody needs the bucket.
	probeInterval = 10 * time.Second
	// probeRetry is the wait after a probe that failed.
	probeRetry = 2 * time.Second
	// probeTTL is how long the entry of a node that has ended stays.
	probeTTL = 10 * time.Minute
	// probeBytes is more than the rest of a page of a file, which can be written to when the disk is full.
	probeBytes = 4 << 10
	// probePrefix begins the keys of probes; those of tickets, one-use tokens and revocations begin otherwise.
	probePrefix = "probe."
)

// A probe is an entry of this node's own in a bucket. Its revision is known: when it is another one, or gone, then the
// bucket has lost what was in it.
type probe struct {
	bucket   time.Time // when the bucket was made that it is in
	revision uint64    // 0: unknown
	written  time.Time
}

var errLost = errors.New("what was in it is lost")

// Writable says why revocations cannot be stored; nil if they can, as far as is known. While NATS is away, that does not
// change: [Store.LastFresh] tells it.
func (s *Store) Writable() error {
	if err := s.unwritable.Load(); err != nil {
		return *err
	}
	return nil
}

// errNoAnswer is all that NATS 2.15 lets a client know of a full disk.
var errNoAnswer = errors.New("NATS does not confirm what it is sent; is its disk full?")

// silentWrites is how many writes in a row have to stay without an answer: one may be lost to a change of leader.
const silentWrites = 2

// noteWrite keeps what a write to the revocations came to.
func (s *Store) noteWrite(err error) {
	var api *jetstream.APIError
	var setup *SetupError
	switch {
	case err == nil:
		s.silent.Store(0)
		s.unwritable.Store(nil)
	case errors.As(err, &api), errors.As(err, &setup):
		s.unwritable.Store(&err)
	case errors.Is(err, context.DeadlineExceeded) && s.silent.Add(1) >= silentWrites:
		s.unwritable.Store(&errNoAnswer)
	}
}

// Losses says how often each bucket, by its name in metrics, lost its content while this node ran.
func (s *Store) Losses() map[string]uint64 {
	n := map[string]uint64{}
	for _, k := range s.buckets() {
		n[k.feature] = k.losses.Load()
	}
	return n
}

// probe writes to each bucket from time to time, until Close.
func (s *Store) probe() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		wait := probeRetry
		err := s.revocations.probe(s.ctx)
		s.noteWrite(err)
		if err == nil && s.once.probe(s.ctx) == nil && s.tickets.probe(s.ctx) == nil {
			wait = probeInterval
		}
		timer.Reset(wait)
	}
}

// probe writes this node's entry anew. To everybody who reads the bucket it is a key that was removed.
func (k *bucket) probe(ctx context.Context) error {
	key := probePrefix + k.store.id
	return k.do(ctx, key, func(ctx context.Context, o *openBucket) error {
		if p := &k.last; !p.bucket.Equal(o.made()) || time.Since(p.written) > probeTTL/2 {
			*p = probe{bucket: o.made()}
		}
		m := nats.NewMsg(k.subject() + key)
		m.Header.Set("KV-Operation", "DEL")
		if k.want.Storage == jetstream.FileStorage {
			m.Data = make([]byte, probeBytes)
		}
		options := []jetstream.PublishOpt{jetstream.WithMsgTTL(probeTTL)}
		if k.last.revision != 0 {
			options = append(options, jetstream.WithExpectLastSequencePerSubject(k.last.revision))
		}
		k.last.revision = 0 // until it is known that it was written
		began := time.Now()
		ack, err := k.store.js.PublishMsg(ctx, m, options...)
		if err == nil {
			k.last.revision, k.last.written = ack.Sequence, began
		}
		if conflict(err) == jetstream.JSErrCodeStreamWrongLastSequence {
			return k.examine(ctx, o)
		}
		return err
	})
}

// examine finds out why the probe is not what it was.
func (k *bucket) examine(ctx context.Context, o *openBucket) error {
	k.opened.CompareAndSwap(o, nil)
	before := k.losses.Load()
	if _, err := k.open(ctx); err != nil {
		return err
	}
	if k.losses.Load() == before { // the bucket is the same one
		k.lose("it was purged, or NATS lost what it had not written to its disk")
	}
	return errLost
}

// lose notes that what was in the bucket is gone.
func (k *bucket) lose(how string) {
	k.losses.Add(1)
	k.reload.Store(true)
	k.store.log.Log(k.lossLevel, "a bucket in NATS has lost what was in it: "+k.lossMeans, zap.String("stream", k.want.Name), zap.String("how", how))
}
