package authz

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// unsigned makes entries for tests of the cache alone, where no signature
// matters.
func unsigned(n int, key *trusted, until int64) []*Token {
	tokens := make([]*Token, n)
	for i := range tokens {
		tokens[i] = &Token{raw: fmt.Sprintf("header.payload-%d-%d.signature", n, i), key: key, until: until}
	}
	return tokens
}

// newTrusted is a key of which nothing but its end counts.
func newTrusted() *trusted {
	k := &trusted{revoked: newRevoked()}
	k.expires.Store(math.MaxInt64)
	return k
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(256)
	key := newTrusted()
	for _, token := range unsigned(10_000, key, 100) {
		if c.add(token, 1) != token {
			t.Fatal("another token came back")
		}
		if c.find([]byte(token.raw)) != token {
			t.Fatal("not found right after it was added")
		}
	}
	if n := c.entries.Load(); n != 256 {
		t.Error("entries:", n)
	}
	if n := c.evicted.Load(); n != 10_000-256 {
		t.Error("evicted:", n)
	}
}

// A token in use outlives any flood of tokens that come once.
func TestCacheKeepsTokensInUse(t *testing.T) {
	c := newCache(64)
	key := newTrusted()
	kept := c.add(&Token{raw: "h.kept.s", key: key, until: 100}, 1)
	for i, token := range unsigned(5_000, key, 100) {
		c.add(token, 1)
		if c.find([]byte(kept.raw)) != kept {
			t.Fatalf("lost after %d others", i+1)
		}
	}
}

// Tokens that have ended, or whose key has gone, are replaced before any other.
func TestCacheReplacesDeadTokensFirst(t *testing.T) {
	gone := newTrusted()
	gone.fall()
	for name, dead := range map[string]*Token{
		"expired": {raw: "h.dead.s", key: newTrusted(), until: 10},
		"fallen":  {raw: "h.dead.s", key: gone, until: 100},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCache(ways) // one set
			key := newTrusted()
			alive := unsigned(ways, key, 100)
			for _, token := range alive[:ways-1] {
				c.add(token, 1)
			}
			c.add(dead, 1)
			c.add(alive[ways-1], 20)
			for _, token := range alive {
				if c.find([]byte(token.raw)) != token {
					t.Error("a living token made room")
				}
			}
			if n := c.evicted.Load(); n != 0 {
				t.Error("evicted:", n)
			}
		})
	}
}

// Two goroutines that verified the same token share one entry.
func TestCacheKeepsOneEntryPerToken(t *testing.T) {
	c := newCache(64)
	key := newTrusted()
	first := c.add(&Token{raw: "h.p.s", key: key, until: 100}, 1)
	if c.add(&Token{raw: "h.p.s", key: key, until: 100}, 1) != first || c.entries.Load() != 1 {
		t.Error("two entries")
	}
	other := &Token{raw: "h.p.s", key: newTrusted(), until: 100}
	if c.add(other, 1) != other || c.find([]byte("h.p.s")) != other || c.entries.Load() != 1 {
		t.Error("the entry of a changed key stayed")
	}
}

func TestSetKeys(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{})
	hs := []byte(signed(t, "HS256", goodPayload))
	es := []byte(signed(t, "ES256", goodPayload))
	hsToken, _ := v.Verify(hs)
	esToken, _ := v.Verify(es)
	if hsToken == nil || esToken == nil {
		t.Fatal("refused")
	}

	if err := v.SetKeys(nil); err == nil {
		t.Error("no keys at all were accepted")
	}
	if v.Find(hs) != hsToken || hsToken.Check(start*1e9) != wire.OK {
		t.Error("an error changed the keys")
	}
	if err := v.Reload(); err != nil || hsToken.Check(start*1e9) != wire.OK {
		t.Error("a reload behind an error:", err)
	}
	if err := v.SetKeys(append(allKeys(), testKeys()["ES256"])); err != nil || hsToken.Check(start*1e9) != wire.OK {
		t.Error("one key twice:", err)
	}

	// Removed.
	if err := v.SetKeys([]Key{testKeys()["ES256"]}); err != nil {
		t.Fatal(err)
	}
	if code := hsToken.Check(start * 1e9); code != wire.TokenInvalid {
		t.Error("a token whose key is gone:", code)
	}
	if hsToken.Same(hs) || v.Find(hs) != nil {
		t.Error("a token whose key is gone is still remembered")
	}
	if _, code := v.Verify(hs); code != wire.TokenInvalid {
		t.Error("a token whose key is gone, verified again:", code)
	}
	if v.Find(es) != esToken || esToken.Check(start*1e9) != wire.OK {
		t.Error("a token whose key stayed was forgotten")
	}

	// Back again.
	if err := v.SetKeys(allKeys()); err != nil {
		t.Fatal(err)
	}
	back, code := v.Verify(hs)
	if code != wire.OK || v.Find(hs) != back {
		t.Error("the key is back:", code)
	}
	if hsToken.Check(start*1e9) != wire.TokenInvalid {
		t.Error("what fell rose again")
	}

	// Another key under the same kid.
	other, err := GenerateKey("HS256")
	if err != nil {
		t.Fatal(err)
	}
	other.kid = "hs256"
	if err := v.SetKeys([]Key{testKeys()["ES256"], other}); err != nil {
		t.Fatal(err)
	}
	if back.Check(start*1e9) != wire.TokenInvalid || v.Find(hs) != nil {
		t.Error("a token outlived the change of its key")
	}
	if _, code := v.Verify(hs); code != wire.TokenInvalid {
		t.Error("verified with the changed key:", code)
	}
	if esToken.Check(start*1e9) != wire.OK {
		t.Error("a token whose key stayed fell")
	}
}

// Look-ups, verifications, evictions and changes of keys at the same time: what
// comes out is always the token that was asked for.
func TestConcurrentUse(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{CacheEntries: 16})
	var tokens [][]byte
	for i := range 64 {
		tokens = append(tokens, []byte(signed(t, "HS256", fmt.Sprintf(`{"exp":1800000060,"sub":"s%d"}`, i))))
	}
	hs, es := testKeys()["HS256"], testKeys()["ES256"]
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2_000 {
				n := i % len(tokens)
				token := v.Find(tokens[n])
				if token == nil {
					v.Cost(tokens[n])
					var code wire.Code
					if token, code = v.Verify(tokens[n]); code != wire.OK {
						if code != wire.TokenInvalid { // its key was away
							t.Error(code)
						}
						continue
					}
				}
				if token.Subject() != fmt.Sprintf("s%d", n) {
					t.Error("asked for", n, "and got", token.Subject())
				}
				if code := token.Check(start * 1e9); code != wire.OK && code != wire.TokenInvalid {
					t.Error(code)
				}
				if token.MayPublish([]byte("a.b")) {
					t.Error("more than was granted")
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			keys := []Key{es, hs}
			if i%2 == 0 {
				keys = keys[:1]
			}
			if err := v.SetKeys(keys); err != nil {
				t.Error(err)
			}
			v.Stats()
		}
	})
	wg.Wait()
	if n := v.Stats().Entries; n > 16 {
		t.Error("entries:", n)
	}
}

func TestNoAllocations(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	raw := []byte(signed(t, "EdDSA", goodPayload))
	token, code := v.Verify(raw)
	if code != wire.OK {
		t.Fatal(code)
	}
	unknown := append(append([]byte{}, raw...), 'A')
	publish, subscribe := []byte("rooms.42"), []byte("rooms.*")
	now := time.Unix(start, 0).UnixNano()
	for name, f := range map[string]func() bool{
		"Find":         func() bool { return v.Find(raw) == token },
		"Find unknown": func() bool { return v.Find(unknown) == nil },
		"Cost":         func() bool { return v.Cost(unknown) != Cheap },
		"Same":         func() bool { return token.Same(raw) },
		"Check":        func() bool { return token.Check(now) == wire.OK },
		"MayPublish":   func() bool { return token.MayPublish(publish) },
		"MaySubscribe": func() bool { return token.MaySubscribe(subscribe) },
	} {
		ok := true
		if n := testing.AllocsPerRun(100, func() { ok = f() && ok }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if !ok {
			t.Errorf("%s: wrong answer", name)
		}
	}
}
