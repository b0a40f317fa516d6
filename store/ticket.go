package store

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// PutTicket keeps value under key, which is new, for ttl (rounded up to whole seconds, at least 1), or until
// it is taken. A lone NATS server that restarts forgets the tickets.
func (s *Store) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.tickets.do(ctx, key, func(ctx context.Context, _ *openBucket) error {
		return s.tickets.put(ctx, key, value, min(ttl, maxLifetime), isNew)
	})
}

// TakeTicket gives the value under key to exactly one caller in the whole cluster. ok is false for the
// others, and when the ticket is unknown, was taken or has outlived its ttl. After an error the ticket may
// be lost.
func (s *Store) TakeTicket(ctx context.Context, key string) (value []byte, ok bool, err error) {
	err = s.tickets.do(ctx, key, func(ctx context.Context, o *openBucket) error {
		for {
			entry, err := o.kv.Get(ctx, key)
			if errors.Is(err, jetstream.ErrKeyNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			// The revision makes one win. The marker that it leaves need not outlive the race.
			err = o.kv.Purge(ctx, key, jetstream.LastRevision(entry.Revision()), jetstream.PurgeTTL(time.Second))
			if err == nil {
				value, ok = entry.Value(), true
				return nil
			}
			switch conflict(err) {
			case 0:
				return err
			case jetstream.JSErrCodeStreamWrongLastSequence:
				return nil
			}
			// A replicated bucket says that something is happening to this key: another take, or the
			// last of the put, whose answer comes a little before its end. Look again.
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return value, ok, err
}

// conflict gives the code of an error that says that the revision was another one than expected, or 0.
func conflict(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return api.ErrorCode
		}
	}
	return 0
}

// UseOnce says whether this is the first use of key in the whole cluster. The key is remembered until the
// given time and a minute longer, for nodes whose clocks are behind. An error means that nobody knows, and
// that a later UseOnce may call the key used.
//
// NATS remembers it in a file; the embedded server forgets it at a restart if it has no data directory. The
// death of the server's process loses nothing; a power failure can lose the last two minutes (NATS's
// sync_interval), unless Options.Replicas keeps copies elsewhere.
func (s *Store) UseOnce(ctx context.Context, key string, until time.Time) (first bool, err error) {
	err = s.once.do(ctx, key, func(ctx context.Context, _ *openBucket) error {
		err := s.once.put(ctx, key, nil, lifetime(until), isNew)
		first = err == nil
		if conflict(err) != 0 {
			return nil
		}
		return err
	})
	return first, err
}

// PutRevocation keeps value under key until the given time and a minute longer, in place of an earlier
// value, and brings it to every node that watches. It is kept in a file, like the keys of UseOnce.
func (s *Store) PutRevocation(ctx context.Context, key string, value []byte, until time.Time) error {
	err := s.revocations.do(ctx, key, func(ctx context.Context, _ *openBucket) error {
		return s.revocations.put(ctx, key, value, lifetime(until))
	})
	s.noteWrite(err)
	return err
}
