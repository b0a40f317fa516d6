package server

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// A quota bounds how often something may be had in a time by each of very many:
// n at once, and then one more after each n-th part of the time. Those that ask are kept in a fixed
// number of places. Two that share one take it from each other, which lets them
// have more, never less. Any goroutine may call it.
type quota struct {
	n      int // 0: no bound
	within time.Duration
	seed   maphash.Seed // random, so that nobody can aim at a place (CWE-407)

	mu     sync.Mutex
	places []quotaPlace // guarded by mu
}

type quotaPlace struct {
	key uint64
	// full is when all n may be had again, in Unix nanoseconds (the "theoretical
	// arrival time" of the generic cell rate algorithm, ITU-T I.371).
	full int64
}

const quotaPlaces = 1 << 13

func newQuota(n int, within time.Duration) *quota {
	return &quota{n: n, within: within, seed: maphash.MakeSeed(), places: make([]quotaPlace, quotaPlaces)}
}

// take takes one for the owner of the key parts. When there is none, wait is how
// long it is until there is.
func (q *quota) take(now int64, key ...string) (wait time.Duration) {
	return q.ask(now, 0, key...)
}

// reserve takes one even if there is none yet, and returns how long it is until there
// is, at most longest.
func (q *quota) reserve(now int64, longest time.Duration, key ...string) (wait time.Duration) {
	return min(q.ask(now, longest, key...), longest)
}

// ask lets an owner have more than there is by what comes within ahead.
func (q *quota) ask(now int64, ahead time.Duration, key ...string) (wait time.Duration) {
	if q.n == 0 {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(q.seed)
	for _, part := range key {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	id := h.Sum64()
	q.mu.Lock()
	defer q.mu.Unlock()
	p := &q.places[id%quotaPlaces]
	if p.key != id {
		*p = quotaPlace{key: id}
	}
	latest := now + int64(q.within) + int64(ahead)
	p.full = min(p.full, latest) // the clock was set back
	full := max(p.full, now) + int64(q.within)/int64(q.n)
	wait = time.Duration(max(0, full-now-int64(q.within)))
	if full <= latest {
		p.full = full
	}
	return wait
}

// addressKey is what an address is counted as: IPv6 by its /64, since one customer
// has that at least.
func addressKey(addr netip.Addr) netip.Addr {
	if addr.Is6() && !addr.Is4In6() {
		p, _ := addr.WithZone("").Prefix(64)
		return p.Addr()
	}
	return addr.Unmap()
}
