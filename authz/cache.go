package authz

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/notifyd/notifyd/wire"
)

// ways is how many tokens may share one set of the cache.
const ways = 8

// cache remembers verified tokens by all of their bytes. It is set-associative,
// as a processor's caches are: the hash chooses a set of eight, and a token is
// in that set or nowhere. So a look-up takes no lock, and making room costs the
// same however many tokens a flood brings. The hash is seeded at random, so
// that nobody can aim at one set (CWE-407), and it only narrows the search: the
// bytes decide.
type cache struct {
	seed    maphash.Seed
	sets    []cacheSet // a power of two
	entries atomic.Int64
	evicted atomic.Uint64
	counts  [64]hitCount // spread, so that cores do not fight over one counter
}

type cacheSet struct {
	// tags holds the hashes, so that a look-up touches few other tokens.
	tags   [ways]atomic.Uint64
	tokens [ways]atomic.Pointer[Token]
	mu     sync.Mutex // held by writers
	hand   uint8      // where the search for a victim goes on; guarded by mu
}

type hitCount struct {
	hits, misses atomic.Uint64
	_            [48]byte // the rest of a cache line
}

// newCache makes room for at least entries tokens.
func newCache(entries int) *cache {
	sets := 1
	for sets*ways < entries {
		sets *= 2
	}
	return &cache{seed: maphash.MakeSeed(), sets: make([]cacheSet, sets)}
}

func (c *cache) find(token []byte) *Token {
	hash := maphash.Bytes(c.seed, token)
	count := &c.counts[hash>>58]
	set := &c.sets[hash&uint64(len(c.sets)-1)]
	for i := range set.tags {
		if set.tags[i].Load() != hash {
			continue
		}
		if t := set.tokens[i].Load(); t != nil && t.Same(token) {
			if !t.used.Load() { // a store would take the line from other cores
				t.used.Store(true)
			}
			count.hits.Add(1)
			return t
		}
	}
	count.misses.Add(1)
	return nil
}

// add remembers t and returns the entry to use: another goroutine may have
// verified the same token meanwhile.
func (c *cache) add(t *Token, now int64) *Token {
	hash := maphash.String(c.seed, t.raw)
	set := &c.sets[hash&uint64(len(c.sets)-1)]
	set.mu.Lock()
	defer set.mu.Unlock()
	for i := range set.tokens {
		if old := set.tokens[i].Load(); old != nil && old.raw == t.raw {
			if old.key == t.key {
				return old
			}
			set.tokens[i].Store(t) // its key was changed
			return t
		}
	}
	i := set.victim(now)
	switch old := set.tokens[i].Load(); {
	case old == nil:
		c.entries.Add(1)
	case old.Check(now) == wire.OK:
		c.evicted.Add(1)
	}
	set.tokens[i].Store(t)
	set.tags[i].Store(hash)
	return t
}

// victim chooses a place: an empty one, one whose token has expired or fallen,
// or the next that was not found again since the hand last passed (second
// chance). So tokens in use outlive a flood of tokens that come once.
func (s *cacheSet) victim(now int64) int {
	for i := range s.tokens {
		if old := s.tokens[i].Load(); old == nil || old.Check(now) != wire.OK {
			return i
		}
	}
	for {
		i := int(s.hand)
		s.hand = (s.hand + 1) % ways
		if !s.tokens[i].Load().used.Swap(false) {
			return i
		}
	}
}
