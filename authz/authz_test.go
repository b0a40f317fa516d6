package authz

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
)

// start is the time on every test's clock, in Unix seconds.
const start = 1_800_000_000

// clock is a clock that tests turn by hand.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanos.Store(start * int64(time.Second))
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// testKeys has one key for each algorithm; their kids are the algorithms'
// names in lower case. They are made once, as RSA keys take their time.
var testKeys = sync.OnceValue(func() map[string]Key {
	keys := map[string]Key{}
	for _, alg := range algorithms {
		key, err := GenerateKey(alg)
		if err != nil {
			panic(err)
		}
		key.kid = strings.ToLower(alg)
		keys[alg] = key
	}
	return keys
})

func allKeys() []Key {
	var keys []Key
	for _, alg := range algorithms {
		keys = append(keys, testKeys()[alg])
	}
	return keys
}

// newTestVerifier makes a Verifier with the clock. Without keys or issuers in
// options it trusts all test keys.
func newTestVerifier(t testing.TB, c *clock, options Options) *Verifier {
	t.Helper()
	if options.Trusted == nil && options.Keys == nil && options.Issuers == nil {
		options.Trusted = allKeys()
	}
	options.Now = c.now
	v, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// forge signs any header and payload with alg's own method, whatever they say.
func forge(t testing.TB, alg string, material any, header, payload string) string {
	t.Helper()
	text := encode([]byte(header)) + "." + encode([]byte(payload))
	signature, err := jwt.GetSigningMethod(alg).Sign(text, material)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(signature)
}

// signed is a token by the test key for alg, with an ordinary header.
func signed(t testing.TB, alg, payload string) string {
	t.Helper()
	key := testKeys()[alg]
	header, err := json.Marshal(map[string]string{"alg": alg, "typ": "JWT", "kid": key.kid})
	if err != nil {
		t.Fatal(err)
	}
	return forge(t, alg, key.sign, string(header), payload)
}

// Only one signature of a common kind is brief.
func TestBrief(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	for _, alg := range algorithms {
		want, special := map[string]Cost{"HS256": Cheap, "ES384": Slow}[alg]
		if !special {
			want = Brief
		}
		if got := v.Cost([]byte(signed(t, alg, goodPayload))); got != want {
			t.Errorf("%s: %v", alg, got)
		}
	}
	for bits, want := range map[int]bool{2048: true, 3072: true, 4096: false} {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		key, err := newKey("", "RS256", &private.PublicKey, private)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&trusted{Key: key}).brief(); got != want {
			t.Errorf("RSA with %d bits: %v", bits, got)
		}
		private.E = 1<<16 + 3
		if (&trusted{Key: key}).brief() {
			t.Error("an exponent beyond the usual is brief")
		}
	}
}

// goodPayload is what an ordinary issuer would write.
const goodPayload = `{"iss":"https://id.example","aud":"notifyd","sub":"alice","iat":1799999990,"exp":1800000060,` +
	`"notify":{"publish":["rooms.42"],"subscribe":["rooms.*"]}}`

func TestVerifyEveryAlgorithm(t *testing.T) {
	for _, alg := range algorithms {
		t.Run(alg, func(t *testing.T) {
			c := newClock()
			v := newTestVerifier(t, c, Options{Issuer: "https://id.example", Audience: []string{"notifyd"}})
			raw := []byte(signed(t, alg, goodPayload))
			if v.Find(raw) != nil {
				t.Fatal("found before it was verified")
			}
			if got, want := v.Cost(raw) == Cheap, alg == "HS256"; got != want {
				t.Errorf("cheap: %v", got)
			}
			token, code := v.Verify(raw)
			if code != wire.OK {
				t.Fatal(code)
			}
			if v.Find(raw) != token || !token.Same(raw) {
				t.Error("not remembered")
			}
			if again, code := v.Verify(raw); code != wire.OK || again != token {
				t.Error("verified twice:", code)
			}
			if token.Subject() != "alice" || token.ExpSeconds() != start+60 || token.Expires() != (start+60)*1e9 {
				t.Error(token.Subject(), token.ExpSeconds(), token.Expires())
			}
			if !token.MayPublish([]byte("rooms.42")) || token.MayPublish([]byte("rooms.43")) ||
				!token.MaySubscribe([]byte("rooms.*")) || token.MaySubscribe([]byte("rooms.>")) {
				t.Error("grants are wrong")
			}
			raw[0] ^= 1 // the caller's buffer is the caller's
			if token.Same(raw) {
				t.Error("the token shares memory with the caller's buffer")
			}
			want := Stats{Hits: 2, Misses: 2, Verified: 1, Entries: 1}
			if got := v.Stats(); got != want {
				t.Errorf("stats %+v, want %+v", got, want)
			}
		})
	}
}

func TestRememberedTokenEnds(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{})
	raw := []byte(signed(t, "HS256", `{"exp":1800000060,"nbf":1799999990}`))
	token, code := v.Verify(raw)
	if code != wire.OK {
		t.Fatal(code)
	}
	for _, at := range []struct {
		nanos int64
		want  wire.Code
	}{
		{(start-15)*1e9 - 1, wire.TokenNotYetValid},
		{(start - 15) * 1e9, wire.OK}, // nbf with 5 s of leeway
		{(start+60)*1e9 - 1, wire.OK},
		{(start + 60) * 1e9, wire.TokenExpired}, // exactly now is too late
		{(start + 61) * 1e9, wire.TokenExpired},
	} {
		if got := token.Check(at.nanos); got != at.want {
			t.Errorf("Check(%d) = %v, want %v", at.nanos, got, at.want)
		}
		c.nanos.Store(at.nanos)
		if _, got := v.Verify(raw); got != at.want {
			t.Errorf("remembered, at %d: %v, want %v", at.nanos, got, at.want)
		}
		fresh := newTestVerifier(t, c, Options{})
		if _, got := fresh.Verify(raw); got != at.want {
			t.Errorf("first sight, at %d: %v, want %v", at.nanos, got, at.want)
		}
	}
}

func TestLeeway(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{Leeway: 10 * time.Second, NotBeforeLeeway: time.Second})
	raw := []byte(signed(t, "HS256", `{"exp":1799999995}`))
	token, code := v.Verify(raw)
	if code != wire.OK {
		t.Fatal(code)
	}
	if token.Expires() != (start+5)*1e9 || token.ExpSeconds() != start-5 {
		t.Error(token.Expires(), token.ExpSeconds())
	}
	c.advance(5 * time.Second)
	if _, code := v.Verify(raw); code != wire.TokenExpired {
		t.Error("after the leeway:", code)
	}
	none := newTestVerifier(t, newClock(), Options{NotBeforeLeeway: -1})
	for _, claim := range []string{"nbf", "iat"} {
		late := []byte(signed(t, "HS256", `{"exp":1800000060,"`+claim+`":1800000002}`))
		if _, code := newTestVerifier(t, newClock(), Options{}).Verify(late); code != wire.OK {
			t.Error(claim, "within the default leeway:", code)
		}
		if _, code := none.Verify(late); code != wire.TokenNotYetValid {
			t.Error(claim, "with none:", code)
		}
		// A fraction of a second counts against the token.
		if _, code := none.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,"`+claim+`":1800000000.1}`))); code != wire.TokenNotYetValid {
			t.Error(claim, "with a fraction:", code)
		}
	}
}

func TestFarExpiry(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{Leeway: time.Hour})
	for _, exp := range []string{"9223372035", "9223372036", "9223372037", "253402300799"} {
		token, code := v.Verify([]byte(signed(t, "HS256", `{"exp":`+exp+`}`)))
		if code != wire.OK {
			t.Fatal(exp, code)
		}
		if token.Expires() < 9223300000e9 || token.Check(9223300000e9) != wire.OK {
			t.Error(exp, "overflows to", token.Expires())
		}
	}
}

func TestOptionsOutOfBounds(t *testing.T) {
	for name, o := range map[string]Options{
		"leeway below zero":       {Leeway: -1},
		"leeway over an hour":     {Leeway: time.Hour + 1},
		"nbf leeway over an hour": {NotBeforeLeeway: time.Hour + 1},
		"cache below zero":        {CacheEntries: -1},
		"cache too large":         {CacheEntries: maxCacheEntries + 1},
		"token bytes below zero":  {MaxTokenBytes: -1},
	} {
		o.Trusted = allKeys()
		if _, err := New(o); err == nil {
			t.Error(name, "was accepted")
		}
	}
}

// What fails before its signature is looked at is cheap.
func TestCost(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{})
	es := testKeys()["ES256"].sign
	for _, row := range []struct {
		name, token string
		want        bool
	}{
		{"ES256", signed(t, "ES256", goodPayload), true},
		{"ES256 without kid", forge(t, "ES256", es, `{"alg":"ES256"}`, goodPayload), true},
		{"HS256", signed(t, "HS256", goodPayload), false},
		{"unknown kid", forge(t, "ES256", es, `{"alg":"ES256","kid":"x"}`, goodPayload), false},
		{"unknown alg", encode([]byte(`{"alg":"ES512"}`)) + ".e30.AA", false},
		{"garbage", "garbage", false},
		{"garbage with dots", "gar.ba.ge", false},
		{"empty", "", false},
		{"too long", signed(t, "ES256", `{"exp":1800000060,"x":"`+strings.Repeat("x", DefaultMaxTokenBytes)+`"}`), false},
	} {
		if got := v.Cost([]byte(row.token)) != Cheap; got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}
