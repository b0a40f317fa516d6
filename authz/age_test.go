package authz

import (
	"context"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Keys of a URL that cannot be fetched any more count for JWKSMaxAge. Their tokens are
// unavailable after that, remembered or not, until a fetch succeeds.
func TestKeySetMaxAge(t *testing.T) {
	key, other := keyNamed(t, "ES256", "1"), keyNamed(t, "HS256", "file")
	p := newPublisher(t, key)
	c := newClock()
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL}, Trusted: []Key{other}, JWKSMaxAge: time.Hour})
	token := func(by Key, jti string) []byte { return tokenBy(t, by, `{"exp":1800009999,"jti":"`+jti+`"}`) }
	check := func(when string, want wire.Code, tokens ...[]byte) {
		t.Helper()
		for i, raw := range tokens {
			if _, code := v.Verify(raw); code != want {
				t.Errorf("%s, token %d: %v, want %v", when, i, code, want)
			}
		}
	}
	remembered := token(key, "remembered")
	held, code := v.Verify(remembered)
	if code != wire.OK {
		t.Fatal(code)
	}
	record := held.Record()
	p.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	c.advance(time.Hour - 1)
	check("just before", wire.OK, remembered, token(key, "before"))
	c.advance(1)
	check("from then on", wire.Unavailable, remembered, token(key, "after"))
	if code := held.Check(c.now().UnixNano()); code != wire.Unavailable {
		t.Error("held:", code)
	}
	if _, code := v.Restore(record); code != wire.Unavailable {
		t.Error("restored:", code)
	}
	check("a key of no URL", wire.OK, token(other, "other"))
	// What is wrong for good is told before.
	stranger := keyNamed(t, "ES256", "1")
	check("a stranger's", wire.TokenInvalid, token(stranger, "x"))
	check("an expired one", wire.TokenExpired, tokenBy(t, key, `{"exp":1800000001}`))
	if err := v.Revoke(Revocation{JTI: "before"}); err != nil {
		t.Fatal(err)
	}
	check("a revoked one", wire.TokenRevoked, token(key, "before"))

	// A fetch that fails changes nothing; one that succeeds heals.
	fetch := func() { <-v.beginFetch(v.issuers[0].remote[0]) }
	fetch()
	check("after a fetch that failed", wire.Unavailable, remembered)
	p.publish(t, key)
	fetch()
	check("healed", wire.OK, remembered, token(key, "after"))
	if code := held.Check(c.now().UnixNano()); code != wire.OK {
		t.Error("held, healed:", code)
	}
	c.advance(time.Hour - 1)
	check("just before again", wire.OK, remembered)

	// A key that was withdrawn meanwhile falls when a fetch succeeds.
	c.advance(1)
	p.publish(t, keyNamed(t, "ES256", "2"))
	fetch()
	if code := held.Check(c.now().UnixNano()); code != wire.TokenInvalid {
		t.Error("withdrawn:", code)
	}
}

// A key that two sources have counts for as long as one of them does.
func TestMaxAgeOfAKeyFromTwoSources(t *testing.T) {
	both, one := keyNamed(t, "ES256", "both"), keyNamed(t, "ES256", "one")
	for name, trusted := range map[string][]Key{"in memory too": {both}, "at a second URL too": nil} {
		t.Run(name, func(t *testing.T) {
			p, q := newPublisher(t, both, one), newPublisher(t, both)
			c := newClock()
			o := Options{Keys: []string{p.URL}, Trusted: trusted, JWKSMaxAge: time.Hour}
			if trusted == nil {
				o.Keys = append(o.Keys, q.URL)
			}
			v := newTestVerifier(t, c, o)
			down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
			p.do(down)
			c.advance(30 * time.Minute)
			for _, from := range v.issuers[0].remote {
				<-v.beginFetch(from)
			}
			c.advance(30 * time.Minute)
			for _, row := range []struct {
				key  Key
				want wire.Code
			}{{both, wire.OK}, {one, wire.Unavailable}} {
				if _, code := v.Verify(tokenBy(t, row.key, `{"exp":1800009999}`)); code != row.want {
					t.Errorf("%v: %v, want %v", row.key, code, row.want)
				}
			}
		})
	}
}

func TestNoMaxAge(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	for age, want := range map[time.Duration]wire.Code{0: wire.Unavailable, -1: wire.OK} {
		c := newClock()
		v := newTestVerifier(t, c, Options{Keys: []string{p.URL}, JWKSMaxAge: age})
		c.advance(DefaultJWKSMaxAge)
		if _, code := v.Verify(tokenBy(t, key, `{"exp":1900000000}`)); code != want {
			t.Errorf("%v: %v, want %v", age, code, want)
		}
	}
	for age, want := range map[time.Duration]bool{DefaultJWKSRefresh + DefaultJWKSTimeout: false, DefaultJWKSRefresh + DefaultJWKSTimeout + 1: true} {
		if _, err := New(Options{Trusted: allKeys(), JWKSMaxAge: age}); (err == nil) != want {
			t.Error(age, err)
		}
	}
}

func TestKeySetAge(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	c := newClock()
	age := func(v *Verifier) time.Duration { return v.Stats().KeySetAge }
	if got := age(newTestVerifier(t, c, Options{})); got != 0 {
		t.Error("without URLs:", got)
	}
	p, q := newPublisher(t, key), newPublisher(t, key)
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL, q.URL}})
	c.advance(time.Minute)
	<-v.beginFetch(v.issuers[0].remote[0])
	c.advance(time.Second)
	if got := age(v); got != time.Minute+time.Second {
		t.Error("the older of two:", got)
	}
	q.body("<html>")
	if got := age(newTestVerifier(t, c, Options{Keys: []string{p.URL, q.URL}})); got != math.MaxInt64 {
		t.Error("one that was never fetched:", got)
	}
}

// roundTrip answers requests without a network, which synctest cannot wait for.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Run tells once that a set has become too old, and has what is held checked.
func TestRunNoticesAge(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		changes := 0
		// Not made by New, whose first fetch would use the network.
		v := &Verifier{
			options: Options{
				JWKSMaxAge: time.Hour, OnChange: func() { mu.Lock(); changes++; mu.Unlock() },
				OnKeySetTooOld: func(err error) { mu.Lock(); told = append(told, err.Error()); mu.Unlock() },
			},
			cache: newCache(1), revocations: newRevoked(), filePoll: filePoll,
		}
		if err := v.options.settle(); err != nil {
			t.Fatal(err)
		}
		answers := true
		body := string(mustPublic(t, key))
		e, err := newEndpoint(p.URL, &v.options)
		if err != nil {
			t.Fatal(err)
		}
		e.client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if !answers {
				return nil, http.ErrHandlerTimeout
			}
			return &http.Response{StatusCode: http.StatusOK, Body: nopCloser{strings.NewReader(body)}}, nil
		})
		from := &source{endpoint: e}
		v.issuers = []*issuer{{remote: []*source{from}, sources: []*source{from}}}
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		<-v.beginFetch(from)
		go v.Run(ctx)
		expect := func(when string, tellings, checks int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(told) != tellings || changes != checks {
				t.Errorf("%s: told %q, checked %d times", when, told, changes)
			}
		}
		set := func(to bool) { mu.Lock(); answers = to; mu.Unlock() }
		time.Sleep(3 * time.Hour)
		expect("while it answers", 0, 0)
		set(false)
		time.Sleep(time.Hour - DefaultJWKSRefresh - time.Minute)
		expect("a while after it ceased to", 0, 0)
		time.Sleep(DefaultJWKSRefresh + 2*time.Minute)
		expect("past the age", 1, 1)
		if !strings.Contains(told[0], e.name) || !strings.Contains(told[0], "auth.jwks_max_age") {
			t.Error(told[0])
		}
		time.Sleep(3 * time.Hour)
		expect("long after", 1, 1)
		set(true)
		time.Sleep(time.Hour)
		expect("when it is back", 1, 1)
		set(false)
		time.Sleep(2 * time.Hour)
		expect("past the age again", 2, 2)
	})
}

type nopCloser struct{ *strings.Reader }

func (nopCloser) Close() error { return nil }

func mustPublic(t *testing.T, key Key) []byte {
	t.Helper()
	b, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
