package authz

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestRevoke(t *testing.T) {
	payloads := map[string]string{
		"ann 1":      `{"iss":"i","jti":"1","sub":"ann","iat":1799999990,"exp":1800000060}`,
		"ann 2":      `{"iss":"i","jti":"2","sub":"ann","iat":1799999995,"exp":1800000060}`,
		"ann of k":   `{"iss":"k","jti":"1","sub":"ann","iat":1799999990,"exp":1800000060}`,
		"ann no iat": `{"iss":"i","sub":"ann","exp":1800000060}`,
		"ann 95.9":   `{"iss":"i","sub":"ann","iat":1799999995.9,"exp":1800000060}`,
		"bob 1":      `{"iss":"i","jti":"1x","sub":"bob","iat":1799999990,"exp":1800000060}`,
		"jti ann":    `{"iss":"i","jti":"ann","sub":"1","exp":1800000060}`,
		"nobody":     `{"exp":1800000060}`,
		"without":    `{"jti":"1","sub":"ann","exp":1800000060}`,
	}
	for _, row := range []struct {
		name string
		r    Revocation
		gone string // names, each with a comma behind
	}{
		{"jti", Revocation{JTI: "1"}, "ann 1,ann of k,without,"},
		{"jti of an issuer", Revocation{JTI: "1", Issuer: "i"}, "ann 1,"},
		{"jti that nobody has", Revocation{JTI: "7"}, ""},
		{"jti that is a sub", Revocation{JTI: "bob"}, ""},
		{"sub", Revocation{Subject: "ann"}, "ann 1,ann 2,ann of k,ann no iat,ann 95.9,without,"},
		{"sub of an issuer", Revocation{Subject: "ann", Issuer: "k"}, "ann of k,"},
		{"sub before", Revocation{Subject: "ann", Before: start - 5}, "ann 1,ann of k,ann no iat,without,"},
		{"sub a second later", Revocation{Subject: "ann", Before: start - 4}, "ann 1,ann 2,ann of k,ann no iat,ann 95.9,without,"},
		{"sub that is a jti", Revocation{Subject: "2"}, ""},
		{"sub long ago", Revocation{Subject: "ann", Before: 1}, "ann no iat,without,"},
		{"already expired", Revocation{JTI: "1", Expires: start - 1}, ""},
		{"expiring now", Revocation{JTI: "1", Expires: start}, ""},
		{"not yet expired", Revocation{JTI: "1", Expires: start + 1}, "ann 1,ann of k,without,"},
	} {
		t.Run(row.name, func(t *testing.T) {
			calls := 0
			o := Options{OnChange: func() { calls++ }}
			before, after := newTestVerifier(t, newClock(), o), newTestVerifier(t, newClock(), o)
			held := map[string]*Token{}
			for name, payload := range payloads {
				token, code := before.Verify([]byte(signed(t, "HS256", payload)))
				if code != wire.OK {
					t.Fatal(name, code)
				}
				held[name] = token
			}
			for _, v := range []*Verifier{before, after} {
				if err := v.Revoke(row.r); err != nil {
					t.Fatal(err)
				}
			}
			if calls != 2 {
				t.Error("OnChange was called", calls, "times")
			}
			for name, payload := range payloads {
				want := wire.OK
				if strings.Contains(","+row.gone, ","+name+",") {
					want = wire.TokenRevoked
				}
				raw := []byte(signed(t, "HS256", payload))
				for range 2 {
					if code := held[name].Check(start * 1e9); code != want {
						t.Errorf("%s, held: %v, want %v", name, code, want)
					}
				}
				if found := before.Find(raw); found != held[name] {
					t.Errorf("%s is not found any more", name)
				}
				if _, code := before.Verify(raw); code != want {
					t.Errorf("%s, remembered: %v, want %v", name, code, want)
				}
				if _, code := after.Verify(raw); code != want {
					t.Errorf("%s, at first sight: %v, want %v", name, code, want)
				}
				if want != wire.OK && after.Find(raw) != nil {
					t.Errorf("%s was remembered", name)
				}
			}
			for name := range payloads {
				if code := held[name].Check((start + 60) * 1e9); code != wire.TokenExpired {
					t.Errorf("%s at its end: %v", name, code)
				}
			}
		})
	}
}

// A token counts for a while after exp where a leeway is set, and can be revoked
// for as long.
func TestRevokeWithinTheLeeway(t *testing.T) {
	for name, r := range map[string]Revocation{
		"by jti":                       {JTI: "1"},
		"by sub":                       {Subject: "ann"},
		"until exp, as its holder has": {JTI: "1", Expires: start - 10},
	} {
		t.Run(name, func(t *testing.T) {
			v := newTestVerifier(t, newClock(), Options{Leeway: time.Minute})
			token, code := v.Verify([]byte(signed(t, "HS256", `{"jti":"1","sub":"ann","iat":1799999000,"exp":1799999990}`)))
			if code != wire.OK {
				t.Fatal("within the leeway:", code)
			}
			if err := v.Revoke(r); err != nil {
				t.Fatal(err)
			}
			if code := token.Check(start * 1e9); code != wire.TokenRevoked {
				t.Error(code)
			}
		})
	}
}

// A token that was pushed out of the cache, and is held by a subscription, is
// revoked as well.
func TestRevokeReachesForgottenTokens(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{CacheEntries: 1})
	raw := []byte(signed(t, "HS256", `{"jti":"held","exp":1800000060}`))
	token, code := v.Verify(raw)
	if code != wire.OK {
		t.Fatal(code)
	}
	for i := range 100 {
		if _, code := v.Verify([]byte(signed(t, "HS256", fmt.Sprintf(`{"jti":"%d","exp":1800000060}`, i)))); code != wire.OK {
			t.Fatal(code)
		}
	}
	if v.Find(raw) != nil {
		t.Fatal("still in the cache")
	}
	if err := v.Revoke(Revocation{JTI: "held"}); err != nil {
		t.Fatal(err)
	}
	if code := token.Check(start * 1e9); code != wire.TokenRevoked {
		t.Error(code)
	}
}

// The later of two revocations of a subject does not take the earlier one back.
func TestRevocationsAddUp(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	token, code := v.Verify([]byte(signed(t, "HS256", `{"sub":"ann","iat":1799999990,"exp":1800000060}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	for _, before := range []int64{start - 20, start - 5, start - 30} {
		if err := v.Revoke(Revocation{Subject: "ann", Before: before}); err != nil {
			t.Fatal(err)
		}
	}
	if code := token.Check(start * 1e9); code != wire.TokenRevoked {
		t.Error(code)
	}
	if n := v.Stats().Revocations; n != 1 {
		t.Error(n, "entries")
	}
	// One issued after it is fine.
	if _, code := v.Verify([]byte(signed(t, "HS256", `{"sub":"ann","iat":1799999995,"exp":1800000060}`))); code != wire.OK {
		t.Error("a token issued afterwards:", code)
	}
	a := Revocation{Subject: "ann", Before: 5, Expires: 10}
	b := Revocation{Subject: "ann", Before: 7, Expires: 8}
	if want := (Revocation{Subject: "ann", Before: 7, Expires: 10}); a.Merge(b) != want || b.Merge(a) != want {
		t.Error(a.Merge(b), b.Merge(a))
	}
}

func TestRevocationComplete(t *testing.T) {
	key := keyNamed(t, "HS256", "k")
	c := newClock()
	c.advance(300 * time.Millisecond)
	bounded := newTestVerifier(t, c, Options{Issuers: []Issuer{
		{Name: "a", Trusted: []Key{key}, MaxLifetime: time.Minute}, {Name: "b", Trusted: []Key{key}, MaxLifetime: time.Hour},
	}})
	open := newTestVerifier(t, c, Options{Issuers: []Issuer{
		{Name: "a", Trusted: []Key{key}, MaxLifetime: time.Minute}, {Name: "b", Trusted: []Key{key}},
	}})
	const by = start + 6 // the leeway on iat, and what was rounded
	const hour = 3600
	for _, row := range []struct {
		v        *Verifier
		in, want Revocation
	}{
		{bounded, Revocation{JTI: "j"}, Revocation{JTI: "j", Expires: by + hour}},
		{bounded, Revocation{JTI: "j", Expires: 7}, Revocation{JTI: "j", Expires: 7}},
		{bounded, Revocation{Subject: "s"}, Revocation{Subject: "s", Before: by, Expires: by + hour}},
		{bounded, Revocation{Subject: "s", Before: 100}, Revocation{Subject: "s", Before: 100, Expires: 100 + hour}},
		{bounded, Revocation{Subject: "s", Before: 100, Expires: 101}, Revocation{Subject: "s", Before: 100, Expires: 100 + hour}},
		{bounded, Revocation{Subject: "s", Before: 100, Expires: start}, Revocation{Subject: "s", Before: 100, Expires: start}},
		{open, Revocation{JTI: "j"}, Revocation{JTI: "j", Expires: maxNumericDate}},
		{bounded, Revocation{Subject: "s", Before: maxNumericDate, Expires: maxNumericDate}, Revocation{Subject: "s", Before: maxNumericDate, Expires: maxNumericDate}},
		{open, Revocation{Subject: "s", Before: 5}, Revocation{Subject: "s", Before: 5, Expires: maxNumericDate}},
	} {
		got, err := row.v.Complete(row.in)
		if err != nil || got != row.want {
			t.Errorf("%+v became %+v (%v), want %+v", row.in, got, err, row.want)
		}
		if again, err := row.v.Complete(got); err != nil || again != got {
			t.Errorf("%+v became %+v", got, again)
		}
	}
	for _, bad := range []Revocation{
		{},
		{Issuer: "i"},
		{JTI: "j", Subject: "s"},
		{JTI: "j", Before: 1},
		{JTI: "j", Expires: -1},
		{Subject: "s", Before: -1},
		{Subject: "s", Before: maxNumericDate + 1},
		{Subject: "s", Expires: math.MaxInt64},
		{JTI: strings.Repeat("j", maxNameBytes+1)},
		{JTI: "j", Issuer: strings.Repeat("i", maxNameBytes+1)},
	} {
		if err := bounded.Revoke(bad); err == nil {
			t.Errorf("%.50v was revoked", bad)
		}
	}
	if n := bounded.Stats().Revocations; n != 0 {
		t.Error(n, "entries")
	}
}

func TestRevocationEncoding(t *testing.T) {
	keys := map[string]Revocation{}
	for _, r := range []Revocation{
		{JTI: "j"},
		{JTI: "j", Issuer: "i"},
		{JTI: "ij"},
		{JTI: "i", Issuer: "j"},
		{Subject: "j"},
		{Subject: "j", Issuer: "i", Before: 5, Expires: 7},
		{Subject: "ann.*>/ \n\u00e4\u2028", Before: start, Expires: maxNumericDate},
		{JTI: strings.Repeat("j", maxNameBytes)},
	} {
		got, err := DecodeRevocation(r.Encode())
		if err != nil || got != r {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
		checkBucketKey(t, r.Key())
		if other, has := keys[r.Key()]; has {
			t.Errorf("%+v and %+v share a key", r, other)
		}
		keys[r.Key()] = r
		r.Expires++
		if r.Key() == "" || keys[r.Key()].JTI != r.JTI {
			t.Error("the key depends on more than whom it is about")
		}
	}
	if got, err := DecodeRevocation([]byte(` {"before":1.5,"sub":"s","expires":7e0} `)); err != nil || got != (Revocation{Subject: "s", Before: 2, Expires: 7}) {
		t.Error(got, err)
	}
	for _, bad := range []string{
		``, `null`, `[]`, `"j"`, `{}`, `{"jti":""}`, `{"sub":""}`, `{"jti":"j","sub":""}`, `{"jti":"j","sub":"s"}`, `{"jti":1}`, `{"jti":null}`, `{"sub":["s"]}`,
		`{"jti":"j","before":1}`, `{"sub":"s","before":"1"}`, `{"sub":"s","before":-1}`, `{"sub":"s","before":0}`, `{"sub":"s","before":null}`, `{"sub":"s","before":1e300}`,
		`{"sub":"s","expires":1e400}`, `{"jti":"j","Sub":"s"}`, `{"JTI":"j"}`, `{"jti":"j","aud":"x"}`, `{"jti":"j","jti":"k"}`, `{"jti":"j","\u006ati":"k"}`,
		`{"jti":"j"}x`, `{"jti":"j"}{"jti":"j"}`, `{"jti":"j"`, "\xef\xbb\xbf" + `{"jti":"j"}`, "{\"jti\":\"\xff\"}", `{"jti":"secret","iss":1}`,
		`{"jti":"` + strings.Repeat("j", maxNameBytes+1) + `"}`,
	} {
		if r, err := DecodeRevocation([]byte(bad)); err == nil {
			t.Errorf("%.80s became %+v", bad, r)
		} else if strings.Contains(err.Error(), "secret") {
			t.Error("quoted:", err)
		}
	}
}

// What has expired is dropped: the table does not grow with all that was ever
// revoked.
func TestRevocationsAreBounded(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{})
	for i := range 20_000 {
		if err := v.Revoke(Revocation{JTI: fmt.Sprint(i), Expires: start + int64(i) + 100}); err != nil {
			t.Fatal(err)
		}
		c.advance(time.Second) // 100 are alive at any time
	}
	if n := v.Stats().Revocations; n < 100 || n > 400 {
		t.Error(n, "entries for 100 alive")
	}
}

// A revocation for which there is no room fails closed: tokens that it may be about, all
// that were issued by then, are unavailable for as long as they can live, and others
// are not.
func TestRevocationsAreFull(t *testing.T) {
	c := newClock()
	calls := 0
	v := newTestVerifier(t, c, Options{OnChange: func() { calls++ }})
	v.revocations.most = 1000
	for i := range v.revocations.most {
		if err := v.Revoke(Revocation{JTI: fmt.Sprint(i), Expires: start + 100}); err != nil {
			t.Fatal(err)
		}
	}
	tokens := map[string]*Token{}
	check := func(when string, want map[string]wire.Code) {
		t.Helper()
		for name, code := range want {
			raw := []byte(signed(t, "HS256", map[string]string{
				"its token":           `{"jti":"j","sub":"ann","iat":1799999990,"exp":1800009999}`,
				"another":             `{"jti":"k","sub":"bob","iat":1799999990,"exp":1800009999}`,
				"one without iat":     `{"jti":"l","exp":1800009999}`,
				"one a moment ahead":  `{"jti":"m","iat":1800000005,"exp":1800009999}`,
				"one revoked before":  `{"jti":"7","iat":1799999990,"exp":1800009999}`,
				"one issued later":    `{"jti":"n","iat":1800000006,"exp":1800009999}`,
				"one that is revoked": `{"jti":"7","iat":1800000006,"exp":1800009999}`,
			}[name]))
			token, got := v.Verify(raw)
			if got != code {
				t.Errorf("%s, %s: %v, want %v", when, name, got, code)
			}
			if token != nil {
				tokens[name] = token
			}
			if held := tokens[name]; held != nil && held.Check(c.now().UnixNano()) != code {
				t.Errorf("%s, %s, held: %v", when, name, held.Check(c.now().UnixNano()))
			}
		}
	}
	check("before", map[string]wire.Code{
		"its token": wire.OK, "another": wire.OK, "one without iat": wire.OK, "one a moment ahead": wire.OK, "one revoked before": wire.TokenRevoked,
	})
	calls = 0
	if err := v.Revoke(Revocation{JTI: "j", Expires: start + 50}); err == nil || calls != 1 {
		t.Error("no bound, or nobody was told:", err, calls)
	}
	c.advance(2 * time.Second)
	closed := map[string]wire.Code{
		"its token": wire.Unavailable, "another": wire.Unavailable, "one without iat": wire.Unavailable,
		"one a moment ahead": wire.Unavailable, "one revoked before": wire.TokenRevoked,
		"one issued later": wire.OK, "one that is revoked": wire.TokenRevoked,
	}
	check("no room", closed)
	if err := v.Revoke(Revocation{JTI: "7", Expires: start + 60}); err != nil {
		t.Error("one that is known:", err)
	}
	check("after another", closed)
	if n := v.Stats().Revocations; n != 1000 {
		t.Error(n, "entries")
	}
	c.advance(47 * time.Second)
	v.SetRevocationsFresh(c.now())
	check("nearly over", closed)
	c.advance(time.Second)
	v.SetRevocationsFresh(c.now())
	closed["its token"], closed["another"], closed["one without iat"], closed["one a moment ahead"] = wire.OK, wire.OK, wire.OK, wire.OK
	check("over", closed)
	c.advance(50 * time.Second)
	if err := v.Revoke(Revocation{JTI: "j", Expires: start + 200}); err != nil {
		t.Error("when others have expired:", err)
	}
	closed = map[string]wire.Code{"its token": wire.TokenRevoked, "another": wire.OK}
	check("with room", closed)

	// By subject, it reaches as far as that revocation.
	clear(tokens)
	v = newTestVerifier(t, c, Options{})
	v.revocations.most = 0
	if err := v.Revoke(Revocation{Subject: "ann", Before: start - 9, Expires: start + 300}); err == nil {
		t.Error("no bound")
	}
	check("a subject's", map[string]wire.Code{"its token": wire.Unavailable, "one a moment ahead": wire.OK})
}

// A revocation that nobody understands fails closed as well.
func TestMissedRevocation(t *testing.T) {
	c := newClock()
	calls := 0
	v := newTestVerifier(t, c, Options{
		Issuers:  []Issuer{{Name: "i", Trusted: []Key{keyNamed(t, "HS256", "k")}, MaxLifetime: time.Minute}},
		OnChange: func() { calls++ },
	})
	key := v.issuers[0].Trusted[0]
	token := func(iat int64) *Token {
		t.Helper()
		got, code := v.Verify(tokenBy(t, key, fmt.Sprintf(`{"iss":"i","iat":%d,"exp":%d}`, iat, iat+60)))
		if code != wire.OK {
			t.Fatal(code)
		}
		return got
	}
	before, ahead := token(start-1), token(start+5)
	v.MissRevocation(c.now())
	if calls != 1 {
		t.Error("nobody was told")
	}
	c.advance(time.Second)
	after := token(start + 6)
	for want, tokens := range map[wire.Code][]*Token{wire.Unavailable: {before, ahead}, wire.OK: {after}} {
		for _, token := range tokens {
			if code := token.Check(c.now().UnixNano()); code != want {
				t.Errorf("issued at %d: %v, want %v", token.issued, code, want)
			}
		}
	}
	v.MissRevocation(c.now().Add(-time.Hour)) // reaches less far
	if code := ahead.Check(c.now().UnixNano()); code != wire.Unavailable {
		t.Error(code)
	}
	// It is over when no token can be left that it may be about.
	for _, row := range []struct {
		at   int64
		want bool
	}{{start + 6 + 59, true}, {start + 6 + 60, false}} {
		c.nanos.Store(row.at * 1e9)
		v.SetRevocationsFresh(c.now())
		if got := v.revocations.missed.expires != 0; got != row.want {
			t.Errorf("at %d: %v", row.at, got)
		}
	}
}

func TestRevocationOutage(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{RevocationMaxAge: 30 * time.Second})
	raw := func(n int) []byte { return []byte(signed(t, "HS256", fmt.Sprintf(`{"jti":"%d","exp":1800009999}`, n))) }
	verify := func(when string, n int, want wire.Code) {
		t.Helper()
		token, code := v.Verify(raw(n))
		if code != want || (token == nil) != (want != wire.OK) {
			t.Errorf("%s: %v, want %v", when, code, want)
		}
	}
	verify("before anything was loaded", 1, wire.Unavailable)
	if v.Find(raw(1)) != nil {
		t.Error("remembered")
	}
	v.SetRevocationsFresh(c.now())
	verify("fresh", 1, wire.OK)
	c.advance(30 * time.Second)
	verify("at the limit", 2, wire.OK)
	c.advance(1)
	verify("over it", 3, wire.Unavailable)
	verify("over it, once more", 3, wire.Unavailable)
	verify("over it, remembered", 1, wire.OK)
	if _, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1}`))); code != wire.TokenExpired {
		t.Error("over it, a bad token:", code)
	}
	if err := v.Revoke(Revocation{JTI: "2"}); err != nil {
		t.Fatal(err)
	}
	verify("over it, remembered and revoked", 2, wire.TokenRevoked)
	v.SetRevocationsFresh(c.now())
	verify("fresh again", 3, wire.OK)
	c.advance(-time.Hour) // somebody sets the clock back: nobody knows how old the news is
	verify("by a clock that was set back", 4, wire.Unavailable)
	v.SetRevocationsFresh(c.now())
	verify("and news since", 4, wire.OK)
	if n := v.Stats().Stale; n != 4 {
		t.Error(n, "were counted")
	}

	open := newTestVerifier(t, c, Options{})
	if _, code := open.Verify(raw(1)); code != wire.OK {
		t.Error("without a limit:", code)
	}
	if _, err := New(Options{Trusted: allKeys(), RevocationMaxAge: -1}); err == nil {
		t.Error("an age below zero was accepted")
	}
}

// With RevocationStrict an outage is in force for what is remembered and held as well, whoever notices it first, and those that
// hold tokens are told. It is over with the next news.
func TestRevocationOutageStrict(t *testing.T) {
	c := newClock()
	told := 0
	v := newTestVerifier(t, c, Options{RevocationMaxAge: 30 * time.Second, RevocationStrict: true, OnChange: func() { told++ }})
	v.SetRevocationsFresh(c.now())
	raw := []byte(signed(t, "HS256", `{"jti":"1","exp":1800009999}`))
	held, code := v.Verify(raw)
	if code != wire.OK {
		t.Fatal(code)
	}
	told = 0
	check := func(when string, want wire.Code) {
		t.Helper()
		if got := held.Check(c.now().UnixNano()); got != want {
			t.Errorf("%s, held: %v, want %v", when, got, want)
		}
		if _, got := v.Verify(raw); got != want {
			t.Errorf("%s, remembered: %v, want %v", when, got, want)
		}
	}
	last := c.now()
	for _, notice := range map[string]func(){
		"by itself":             v.noticeOutage,
		"with news that is old": func() { v.SetRevocationsFresh(last) },
	} {
		last, told = c.now(), 0
		v.SetRevocationsFresh(last)
		c.advance(30 * time.Second)
		notice()
		check("at the limit", wire.OK)
		c.advance(1)
		notice()
		notice()
		check("over it", wire.Unavailable)
		if told != 1 {
			t.Errorf("told %d times", told)
		}
		v.SetRevocationsFresh(c.now())
		check("news since", wire.OK)
	}
	c.advance(-time.Hour)
	v.noticeOutage()
	check("by a clock that was set back", wire.Unavailable)
	if err := v.Revoke(Revocation{JTI: "1"}); err != nil {
		t.Fatal(err)
	}
	check("revoked meanwhile", wire.TokenRevoked)
	v.SetRevocationsFresh(c.now())
	check("revoked, and news since", wire.TokenRevoked)
}

// Run notices an outage although nobody says anything.
func TestRunNoticesAnOutage(t *testing.T) {
	c := newClock()
	outdated := make(chan struct{}, 8)
	v := newTestVerifier(t, c, Options{RevocationMaxAge: 30 * time.Second, RevocationStrict: true, OnChange: func() { outdated <- struct{}{} }})
	v.SetRevocationsFresh(c.now())
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { v.Run(ctx) })
	c.advance(31 * time.Second)
	select {
	case <-outdated:
	case <-time.After(time.Minute):
		t.Error("not noticed")
	}
	cancel()
	run.Wait()
}

// Whoever checks while others revoke sees the revocation as soon as Revoke has
// returned.
func TestRevokeConcurrently(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	const n = 200
	tokens := make([]*Token, n)
	for i := range tokens {
		token, code := v.Verify([]byte(signed(t, "HS256", fmt.Sprintf(`{"jti":"%d","exp":1800000060}`, i))))
		if code != wire.OK {
			t.Fatal(code)
		}
		tokens[i] = token
	}
	var done [n]atomic.Bool
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !over.Load() {
				for i, token := range tokens {
					revoked := done[i].Load()
					if code := token.Check(start * 1e9); code != wire.TokenRevoked && (revoked || code != wire.OK) {
						t.Error(i, code)
						return
					}
				}
			}
		})
	}
	for i := range n {
		if err := v.Revoke(Revocation{JTI: fmt.Sprint(i)}); err != nil {
			t.Error(err)
		}
		done[i].Store(true)
	}
	over.Store(true)
	wg.Wait()
}

// Looking oneself up in a new epoch does not allocate either.
func TestRevokedDoesNotAllocate(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	token, code := v.Verify([]byte(signed(t, "HS256", `{"iss":"i","jti":"j","sub":"s","iat":1,"exp":1800000060}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	if err := v.Revoke(Revocation{Subject: "s", Before: 1}); err != nil {
		t.Fatal(err)
	}
	ok := true
	n := testing.AllocsPerRun(100, func() {
		v.revocations.epoch.Add(1)
		ok = ok && token.Check(start*1e9) == wire.OK
	})
	if n != 0 || !ok {
		t.Error(n, "allocations; still valid:", ok)
	}
}

// A token that no revocation could name is refused.
func TestNamesThatAreTooLong(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	fits := strings.Repeat("n", maxNameBytes)
	for _, claim := range []string{"jti", "sub", "iss"} {
		for text, want := range map[string]wire.Code{
			fits: wire.OK, fits + "n": wire.TokenInvalid, fits[1:] + `\u0000`: wire.OK, fits[1:] + `\u00e4`: wire.TokenInvalid, fits[2:] + "ä": wire.OK,
		} {
			raw := signed(t, "HS256", `{"exp":1800000060,"`+claim+`":"`+text+`"}`)
			token, code := v.Verify([]byte(raw))
			if code != want {
				t.Errorf("%s with %d bytes: %v, want %v", claim, len(text), code, want)
			}
			in, err := Inspect(raw)
			if err != nil || (len(in.TooLong) == 0) != (want == wire.OK) || want != wire.OK && in.TooLong[0] != claim {
				t.Errorf("%s with %d bytes: inspected as %q, %v", claim, len(text), in.TooLong, err)
			}
			if code != wire.OK || claim == "iss" {
				continue
			}
			r := Revocation{JTI: token.ID(), Subject: token.Subject()}
			if err := v.Revoke(r); err != nil || token.Check(start*1e9) != wire.TokenRevoked {
				t.Error(claim, "cannot be revoked:", err)
			}
		}
	}
	for name, c := range map[string]Claims{"jti": {ID: fits + "n"}, "sub": {Subject: fits + "n"}, "iss": {Issuer: fits + "n"}} {
		c.Expires = time.Unix(start+60, 0)
		if _, err := Sign(testKeys()["HS256"], c); err == nil || !strings.Contains(err.Error(), name+" has 1025 bytes, and 1024 are the most") {
			t.Error(name, err)
		}
	}
}

// An issuer's administrators revoke its own tokens, unless they may revoke everybody's.
func TestWhoseTokensMayBeRevoked(t *testing.T) {
	key := keyNamed(t, "HS256", "k")
	several := newTestVerifier(t, newClock(), Options{
		Issuers: []Issuer{
			{Name: "own", Trusted: []Key{key}, Admin: true},
			{Name: "all", Trusted: []Key{key}, Admin: true, AdminOfAll: true},
			{Name: "none", Trusted: []Key{key}},
		},
		Trusted: []Key{key}, Issuer: "flat",
	})
	one := newTestVerifier(t, newClock(), Options{Trusted: []Key{key}})
	for _, row := range []struct {
		v          *Verifier
		iss, admin string
		may        string // of "own", "all" and ""
	}{
		{several, "own", "true", "own"},
		{several, "all", "true", "own all "},
		{several, "flat", "true", "own all "},
		{several, "own", "false", "-"},
		{several, "none", "false", "-"},
		{one, "whoever", "true", "own all "},
		{one, "", "true", "own all "},
		{one, "own", "false", "-"},
	} {
		token, code := row.v.Verify(tokenBy(t, key, `{"exp":1800000060,"iss":"`+row.iss+`","notify":{"admin":`+row.admin+`}}`))
		if code != wire.OK {
			t.Fatal(row.iss, code)
		}
		var may []string
		for _, of := range []string{"own", "all", ""} {
			if token.MayRevoke(of) {
				may = append(may, of)
			}
		}
		if got := strings.Join(may, " "); got != row.may && (row.may != "-" || may != nil) {
			t.Errorf("%q, admin %s: %q", row.iss, row.admin, may)
		}
	}
}

// A revocation is to be kept for the leeway on exp, too.
func TestRevocationEnd(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{Leeway: time.Minute})
	if at := v.End(Revocation{JTI: "j", Expires: start}); at.Unix() != start+60 {
		t.Error(at)
	}
}

// The iat of a token that counts may be ahead, as its issuer's clock may; such a token
// falls with the others of its subject.
func TestRevokeATokenFromAheadOfTheClock(t *testing.T) {
	for leeway, ahead := range map[time.Duration]int64{0: 5, time.Minute: 60, -1: 0, 1500 * time.Millisecond: 1} {
		c := newClock()
		v := newTestVerifier(t, c, Options{NotBeforeLeeway: leeway})
		token, code := v.Verify([]byte(signed(t, "HS256", fmt.Sprintf(`{"sub":"ann","iat":%d,"exp":1800009999}`, start+ahead))))
		if code != wire.OK {
			t.Fatal(leeway, code)
		}
		c.advance(999 * time.Millisecond)
		if err := v.Revoke(Revocation{Subject: "ann"}); err != nil {
			t.Fatal(err)
		}
		if code := token.Check(c.now().UnixNano()); code != wire.TokenRevoked {
			t.Errorf("with a leeway of %v: %v", leeway, code)
		}
		c.advance(time.Hour)
		later := fmt.Sprintf(`{"sub":"ann","iat":%d,"exp":1800009999}`, start+max(ahead, int64((max(leeway, 0)+time.Second-1)/time.Second))+1)
		if _, code := v.Verify([]byte(signed(t, "HS256", later))); code != wire.OK {
			t.Errorf("with a leeway of %v, one issued afterwards: %v", leeway, code)
		}
	}
}

// FuzzDecodeRevocation: what is decoded can be put in force, and says the same
// after another round.
func FuzzDecodeRevocation(f *testing.F) {
	f.Add([]byte(`{"jti":"j","expires":1800000000}`))
	f.Add([]byte(`{"sub":"s","iss":"i","before":1800000000.5}`))
	v := newTestVerifier(f, newClock(), Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRevocation(b)
		if err != nil {
			return
		}
		again, err := DecodeRevocation(r.Encode())
		if err != nil || again != r {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
		checkBucketKey(t, r.Key())
		if err := v.Revoke(r); err != nil {
			t.Fatal(err)
		}
	})
}

// Those that were not passed since a load began are listed, as they are kept.
func TestUnseenRevocations(t *testing.T) {
	key, err := GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(Options{Trusted: []Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour).Unix()
	revoke := func(r Revocation) Revocation {
		t.Helper()
		if err := v.Revoke(r); err != nil {
			t.Fatal(err)
		}
		r, err := v.Complete(r)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	unseen := func(want ...Revocation) {
		t.Helper()
		got := map[Revocation]bool{}
		for _, r := range v.UnseenRevocations() {
			got[r] = true
		}
		if len(got) != len(want) {
			t.Errorf("unseen are %v, want %v", got, want)
		}
		for _, r := range want {
			if !got[r] {
				t.Errorf("unseen are %v, without %v", got, r)
			}
		}
	}
	jti := revoke(Revocation{JTI: "j", Issuer: "i", Expires: soon})
	revoke(Revocation{JTI: "expired", Expires: 1})
	sub := revoke(Revocation{Subject: "s", Before: 100})
	unseen()
	v.BeginRevocations()
	unseen(jti, sub)
	other := Revocation{JTI: "new", Expires: soon}
	revoke(other)
	revoke(jti)
	revoke(Revocation{Subject: "s", Before: 50}) // does not reach as far
	unseen(sub)
	revoke(sub)
	unseen()
	farther := revoke(Revocation{Subject: "s", Before: 200})
	unseen()
	v.BeginRevocations()
	revoke(sub)
	unseen(jti, other, farther)
}
