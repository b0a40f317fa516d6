package authz

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// MaxRevocations is how many revocations are held at once: a quarter of a
// gigabyte with names of ordinary length.
const MaxRevocations = 1 << 20

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
	// missed is how far those reach that could not be put in force, whomever they are
	// about: a token within it may be revoked. Guarded by mu.
	missed extent
	// outdated: any token may have been revoked without this node's knowing. Guarded by mu.
	outdated bool
	// load counts the times that all revocations began to be passed anew. Guarded by mu.
	load uint32
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
	load    uint32 // that in which one which reaches as far was passed last
}

func newRevoked() *revoked { return &revoked{most: MaxRevocations, entries: map[target]extent{}} }

// join gives the extent that reaches as far as both do; other is the one that was passed
// later.
func (e extent) join(other extent) extent {
	if e.before > other.before {
		other.load = e.load
	}
	return extent{max(e.before, other.before), max(e.expires, other.expires), other.load}
}

// add revokes. Entries that expire by now, in Unix seconds, may be dropped. When there
// is no room, every token whose iat is before issuedBy, as that of the revoked one is,
// becomes unavailable: it may be the one.
func (r *revoked) add(revocation Revocation, now, issuedBy int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, reach := target{false, revocation.Issuer, revocation.JTI}, extent{math.MaxInt64, revocation.Expires, r.load}
	if revocation.Subject != "" {
		key, reach = target{true, revocation.Issuer, revocation.Subject}, extent{revocation.Before, revocation.Expires, r.load}
	}
	r.sweep(now)
	r.epoch.Add(1)
	old, known := r.entries[key]
	if !known && len(r.entries) >= r.most {
		reach.before = min(reach.before, max(issuedBy, revocation.Before))
		r.missed = r.missed.join(reach)
		return fmt.Errorf("%d revocations are in force, and no more can be held; tokens that were issued before this one are unavailable; "+
			"set max_lifetime for every issuer, so that revocations end sooner", r.most)
	}
	r.entries[key] = old.join(reach)
	return nil
}

// miss makes tokens unavailable that a revocation may be about which nobody understands.
func (r *revoked) miss(reach extent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = r.missed.join(reach)
	r.epoch.Add(1)
}

// tidy ends missed when it has expired by now, in Unix seconds.
func (r *revoked) tidy(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.missed.expires != 0 && r.missed.expires <= now {
		r.missed = extent{}
		r.epoch.Add(1)
	}
}

// setOutdated reports whether that is a change.
func (r *revoked) setOutdated(outdated bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.outdated == outdated {
		return false
	}
	r.outdated = outdated
	r.epoch.Add(1)
	return true
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

// look tells whether the token was revoked: OK, TokenRevoked, or Unavailable when it
// may have been.
func (r *revoked) look(t *Token) wire.Code {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, issuer := range [2]string{t.issuer, ""} {
		if t.id != "" {
			if _, ok := r.entries[target{false, issuer, t.id}]; ok {
				return wire.TokenRevoked
			}
		}
		if t.subject != "" {
			if reach, ok := r.entries[target{true, issuer, t.subject}]; ok && t.issued < reach.before {
				return wire.TokenRevoked
			}
		}
		if issuer == "" {
			break
		}
	}
	if r.outdated || r.missed.expires != 0 && t.issued < r.missed.before {
		return wire.Unavailable
	}
	return wire.OK
}

// begin starts a load.
func (r *revoked) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load++
}

// unseen gives those that are in force beyond now, in Unix seconds, and were not passed
// since begin.
func (r *revoked) unseen(now int64) []Revocation {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var all []Revocation
	for of, reach := range r.entries {
		if reach.load == r.load || reach.expires <= now {
			continue
		}
		found := Revocation{Issuer: of.issuer, JTI: of.name, Expires: reach.expires}
		if of.subject {
			found.JTI, found.Subject, found.Before = "", of.name, reach.before
		}
		all = append(all, found)
	}
	return all
}

func (r *revoked) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.entries)
}

// What a token has seen of the revocations: an epoch, and in the two lowest bits what
// they said of it then.
const (
	seenOK uint64 = iota
	seenRevoked
	seenUnsure
	seenBits = 2
	seenMask = 1<<seenBits - 1
)

// revoked asks once in each epoch and keeps the answer. Revoked stays revoked.
func (t *Token) revoked() wire.Code {
	epoch := t.key.revoked.epoch.Load()
	seen := t.seen.Load()
	if seen&seenMask != seenRevoked && seen>>seenBits != epoch {
		next := epoch << seenBits
		switch t.key.revoked.look(t) {
		case wire.TokenRevoked:
			next |= seenRevoked
		case wire.Unavailable:
			next |= seenUnsure
		}
		// If another goroutine was faster, the next Check sees which epoch it saw.
		t.seen.CompareAndSwap(seen, next)
		seen = next
	}
	switch seen & seenMask {
	case seenRevoked:
		return wire.TokenRevoked
	case seenUnsure:
		return wire.Unavailable
	}
	return wire.OK
}

// Revoke puts a revocation in force on this node, at once: Check of any token
// that it is about says TokenRevoked from now on. It is completed as by
// Complete, and joined with an earlier one of the same Key. Revoking what has
// expired is no error. When no more revocations can be held there is an error, and
// tokens that it may be about are Unavailable: those issued by now. Options.OnChange is
// called before it returns.
func (v *Verifier) Revoke(r Revocation) error {
	r, err := v.Complete(r)
	if err != nil {
		return err
	}
	if now := v.expiredBy(); r.Expires > now {
		err = v.revocations.add(r, now, v.issuedBy(v.options.Now()))
	}
	v.changed()
	return err
}

// MissRevocation tells that a revocation which was made at a time, or before, cannot be
// put in force, since nobody understands it. All tokens that it may be about, those
// issued by then, are Unavailable for as long as they can live; later ones are not.
func (v *Verifier) MissRevocation(at time.Time) {
	by := v.issuedBy(at)
	v.revocations.miss(extent{before: by, expires: v.longest(by)})
	v.changed()
}

// BeginRevocations tells that all revocations that there are will be passed to Revoke
// now. Those from before stay in force.
func (v *Verifier) BeginRevocations() { v.revocations.begin() }

// UnseenRevocations gives the completed revocations that are in force and were not passed
// to Revoke since BeginRevocations: whoever keeps them has lost them, or never had them.
// It is for rare use, since tokens that are looked up meanwhile wait.
func (v *Verifier) UnseenRevocations() []Revocation {
	return v.revocations.unseen(v.expiredBy())
}

// expiredBy is the Unix second by which a token has to have had its exp, so that it
// counts no more.
func (v *Verifier) expiredBy() int64 { return v.options.Now().Add(-v.options.Leeway).Unix() }

// SetRevocationsFresh tells that all revocations made before at have been
// passed to Revoke. With Options.RevocationMaxAge it has to be called more often
// than that, for the first time when they have been loaded.
func (v *Verifier) SetRevocationsFresh(at time.Time) {
	v.revocations.fresh.Store(at.UnixNano())
	v.revocations.tidy(v.expiredBy())
	v.noticeOutage()
}

// noticeOutage puts Options.RevocationStrict in force, or ends that.
func (v *Verifier) noticeOutage() {
	if !v.options.RevocationStrict {
		return
	}
	if outdated := v.stale(v.options.Now().UnixNano()); v.revocations.setOutdated(outdated) && outdated {
		v.changed()
	}
}

// stale reports whether a token that is seen for the first time may have been
// revoked without this node's knowing.
func (v *Verifier) stale(now int64) bool {
	age := v.options.RevocationMaxAge
	passed := now - v.revocations.fresh.Load() // below 0: the clock was set back, and nobody knows
	return age > 0 && (passed > int64(age) || passed < -int64(age))
}

// changed tells the owner that tokens may have fallen. No lock is held.
func (v *Verifier) changed() {
	if v.options.OnChange != nil {
		v.options.OnChange()
	}
}
