package authz

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")
)

const spacing = DefaultJWKSCooldown / spacings

// A stranger that uses up its fetches takes none from others.
func TestFetchBudgetOfAddresses(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	p := newPublisher(t, first)
	c := newClock()
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL}})
	stranger := func(kid string) []byte { return tokenBy(t, keyNamed(t, "ES256", kid), plainClaims) }
	good := tokenBy(t, second, plainClaims)
	for i, step := range []struct {
		wait    time.Duration
		token   []byte
		from    netip.Addr
		want    wire.Code
		fetches int64
	}{
		{0, stranger("x"), addrA, wire.TokenInvalid, 1},
		{0, stranger("y"), addrA, wire.Unavailable, 1},
		{0, good, addrB, wire.Unavailable, 1}, // too soon for anybody
		{spacing - 1, good, addrB, wire.Unavailable, 1},
		{1, stranger("y"), addrA, wire.Unavailable, 1}, // has had its fetch
		{0, good, addrB, wire.OK, 2},
		{0, stranger("y"), addrA, wire.TokenInvalid, 2}, // that one looked for it too
		{0, stranger("z"), addrA, wire.Unavailable, 2},
		{DefaultJWKSCooldown - spacing - 1, stranger("z"), addrA, wire.Unavailable, 2},
		{1, stranger("z"), addrA, wire.TokenInvalid, 3},
	} {
		if i == 1 {
			p.publish(t, first, second)
		}
		c.advance(step.wait)
		if _, code := v.VerifyFrom(step.token, step.from); code != step.want || p.hits.Load() != 1+step.fetches {
			t.Errorf("step %d: %v, want %v; %d fetches, want %d", i, code, step.want, p.hits.Load()-1, step.fetches)
		}
	}
}

// Strangers from many addresses cause a bounded number of fetches.
func TestFetchBudgetOfMany(t *testing.T) {
	p := newPublisher(t, keyNamed(t, "ES256", "1"))
	c := newClock()
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL}})
	e := v.issuers[0].remote[0].endpoint
	stranger := keyNamed(t, "ES256", "x")
	for i := range 300 { // three cooldowns
		stranger.kid = fmt.Sprint(i)
		_, _ = v.VerifyFrom(tokenBy(t, stranger, plainClaims), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		c.advance(DefaultJWKSCooldown / 100)
		if len(e.spent) > spacings {
			t.Fatal(len(e.spent), "addresses are remembered")
		}
	}
	if n := p.hits.Load() - 1; n < 3*spacings-1 || n > 3*spacings {
		t.Error(n, "fetches in three cooldowns")
	}
}

// An issuer that gives its keys no kid rotates them too: a signature that none of them
// has made may be by a new one.
func TestRotationWithoutKids(t *testing.T) {
	unnamed := func() Key {
		key, err := generate("ES256")
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	bare := func(key Key, jti string) []byte {
		return []byte(forge(t, key.alg, key.sign, `{"alg":"ES256"}`, `{"exp":1800009999,"jti":"`+jti+`"}`))
	}
	first, second, third, forger := unnamed(), unnamed(), unnamed(), unnamed()
	p := newPublisher(t, first)
	c := newClock()
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL}})
	if v.Cost(bare(first, "0")) != Slow {
		t.Error("what may cause a fetch is not slow")
	}
	for i, step := range []struct {
		wait    time.Duration
		publish []Key
		token   []byte
		from    netip.Addr
		want    wire.Code
		fetches int64
	}{
		{0, nil, bare(first, "1"), addrA, wire.OK, 0},
		{0, []Key{first, second}, bare(second, "1"), addrA, wire.OK, 1},
		{0, nil, bare(first, "2"), addrA, wire.OK, 1},
		{0, nil, bare(second, "2"), addrB, wire.OK, 1},
		// A forger causes one fetch, and is told.
		{spacing, nil, bare(forger, "1"), addrB, wire.TokenInvalid, 2},
		{0, nil, bare(forger, "2"), addrB, wire.TokenInvalid, 2},
		{spacing, nil, bare(forger, "2"), addrB, wire.TokenInvalid, 2},
		// And takes nothing from others.
		{0, []Key{third}, bare(third, "1"), addrA, wire.TokenInvalid, 2},
		{DefaultJWKSCooldown, nil, bare(third, "1"), addrA, wire.OK, 3},
		{0, nil, bare(first, "3"), addrB, wire.TokenInvalid, 3}, // somebody has just looked
		{0, nil, bare(third, "2"), addrB, wire.OK, 3},
		{spacing, nil, bare(first, "3"), addrB, wire.TokenInvalid, 4},
		// What others have looked for meanwhile takes nothing from an address either.
		{DefaultJWKSCooldown - spacing, []Key{second}, bare(second, "3"), addrA, wire.OK, 5},
	} {
		if step.publish != nil {
			p.publish(t, step.publish...)
		}
		c.advance(step.wait)
		if _, code := v.VerifyFrom(step.token, step.from); code != step.want || p.hits.Load() != 1+step.fetches {
			t.Errorf("step %d: %v, want %v; %d fetches, want %d", i, code, step.want, p.hits.Load()-1, step.fetches)
		}
	}
	// What a file holds is all that there is, and a URL serves no secrets.
	secret := keyNamed(t, "HS256", "s")
	mixed := newTestVerifier(t, c, Options{Keys: []string{p.URL}, Trusted: []Key{secret}})
	hits := p.hits.Load()
	if _, code := mixed.Verify([]byte(forge(t, "HS256", keyNamed(t, "HS256", "s").sign, `{"alg":"HS256"}`, plainClaims))); code != wire.TokenInvalid || p.hits.Load() != hits {
		t.Error("a forged HS256:", code)
	}
	files := newTestVerifier(t, c, Options{Trusted: []Key{first}})
	if _, code := files.Verify(bare(forger, "1")); code != wire.TokenInvalid || files.Cost(bare(first, "1")) != Brief {
		t.Error("without a URL:", code)
	}
}
