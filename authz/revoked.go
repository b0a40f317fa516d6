package authz

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// maxRevocations is how many revocations are held at once: a quarter of a
// gigabyte with names of ordinary length.
const maxRevocations = 1 << 20

// revoked is what was revoked. Each change raises the epoch, and a token looks
// itself up again at the first Check in a new epoch. So a revocation is in force
// at once for every token, remembered here, held by a subscription or seen for
// the first time, and nobody has to find them.
type revoked struct {
	epoch atomic.Uint64
	fresh atomic.Int64 // when the revocations were last known to be complete, Unix nanoseconds

	most    int // entries
	mu      sync.RWMutex
	entries map[target]extent // guarded by mu
}

// target is whom a revocation is about.
type target struct {
	subject      bool // name is a sub, not a jti
	issuer, name string
}

// extent is how far a revocation reaches, in Unix seconds.
type extent struct {
	before  int64 // iat of a revoked token is earlier
	expires int64
}

func newRevoked() *revoked { return &revoked{most: maxRevocations, entries: map[target]extent{}} }

// add revokes. Entries that expire by now, in Unix seconds, may be dropped.
func (r *revoked) add(revocation Revocation, now int64) error {
	key, reach := target{false, revocation.Issuer, revocation.JTI}, extent{math.MaxInt64, revocation.Expires}
	if revocation.Subject != "" {
		key, reach = target{true, revocation.Issuer, revocation.Subject}, extent{revocation.Before, revocation.Expires}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(now)
	old, known := r.entries[key]
	if !known && len(r.entries) >= r.most {
		return fmt.Errorf("%d revocations are in force, and no more can be held; set a maximum lifetime for every issuer, so that they end sooner", r.most)
	}
	r.entries[key] = extent{max(old.before, reach.before), max(old.expires, reach.expires)}
	r.epoch.Add(1)
	return nil
}

// sweep drops what has expired among a few entries, which the map's iteration
// chooses at random. As it is called for every new entry, at most about one
// entry in eight is out of date, and the path never waits for a long search.
func (r *revoked) sweep(now int64) {
	n := 0
	for key, reach := range r.entries {
		if reach.expires <= now {
			delete(r.entries, key)
		}
		if n++; n == 8 {
			break
		}
	}
}

// has reports whether the token was revoked.
func (r *revoked) has(t *Token) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.entries) == 0 {
		return false
	}
	for _, issuer := range [2]string{t.issuer, ""} {
		if t.id != "" {
			if _, ok := r.entries[target{false, issuer, t.id}]; ok {
				return true
			}
		}
		if t.subject != "" {
			if reach, ok := r.entries[target{true, issuer, t.subject}]; ok && t.issued < reach.before {
				return true
			}
		}
		if issuer == "" {
			break
		}
	}
	return false
}

func (r *revoked) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.entries)
}

// revoked asks once in each epoch and keeps the answer. Revoked stays revoked.
func (t *Token) revoked() bool {
	epoch := t.key.revoked.epoch.Load()
	seen := t.seen.Load()
	if seen&1 != 0 || seen>>1 == epoch {
		return seen&1 != 0
	}
	next := epoch << 1
	if t.key.revoked.has(t) {
		next |= 1
	}
	// If another goroutine was faster, the next Check sees which epoch it saw.
	t.seen.CompareAndSwap(seen, next)
	return next&1 != 0
}

// Revoke puts a revocation in force on this node, at once: Check of any token
// that it is about says TokenRevoked from now on. It is completed as by
// Complete, and joined with an earlier one of the same Key. Revoking what has
// expired is no error. Options.OnChange is called before it returns.
func (v *Verifier) Revoke(r Revocation) error {
	r, err := v.Complete(r)
	if err != nil {
		return err
	}
	now := v.options.Now().Add(-v.options.Leeway).Unix()
	if r.Expires > now {
		if err := v.revocations.add(r, now); err != nil {
			return err
		}
	}
	v.changed()
	return nil
}

// SetRevocationsFresh tells that all revocations made before at have been
// passed to Revoke. With Options.RevocationMaxAge it has to be called more often
// than that, for the first time when they have been loaded.
func (v *Verifier) SetRevocationsFresh(at time.Time) { v.revocations.fresh.Store(at.UnixNano()) }

// stale reports whether a token that is seen for the first time may have been
// revoked without this node's knowing.
func (v *Verifier) stale(now int64) bool {
	age := v.options.RevocationMaxAge
	return age > 0 && now-v.revocations.fresh.Load() > int64(age)
}

// changed tells the owner that tokens may have fallen. No lock is held.
func (v *Verifier) changed() {
	if v.options.OnChange != nil {
		v.options.OnChange()
	}
}
