package authz

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/notifyd/notifyd/wire"
)

// The sets in testdata/jwks are made up after what issuers publish. Each holds one good
// key, "good", beside what its name tells; testdata/jwks/good.jwk signs for it.
func TestKeysAsIssuersPublishThem(t *testing.T) {
	private, _, err := ReadKeys("testdata/jwks/good.jwk")
	if err != nil {
		t.Fatal(err)
	}
	good := private[0]
	files, err := filepath.Glob("testdata/jwks/*.json")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var about struct {
				Skipped string // part of the warning; "" for none
			}
			if err := json.Unmarshal(body, &about); err != nil {
				t.Fatal(err)
			}
			p := newPublisher(t)
			p.body(string(body))
			for _, from := range []string{file, p.URL} {
				var mu sync.Mutex
				var told []string
				v := newTestVerifier(t, newClock(), Options{Keys: []string{from}, OnKeySkipped: func(err error) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, err.Error())
				}})
				if _, code := v.Verify(tokenBy(t, good, plainClaims)); code != wire.OK {
					t.Errorf("%s: the good key: %v", from, code)
				}
				if err := v.Reload(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if about.Skipped == "" && len(told) != 0 || about.Skipped != "" && (len(told) != 1 || !strings.Contains(told[0], about.Skipped) || !strings.Contains(told[0], strings.TrimPrefix(from, "http://"))) {
					t.Errorf("%s: told %q, want %q once", from, told, about.Skipped)
				}
				mu.Unlock()
			}
		})
	}
}

// At a rotation, too, an odd entry does not stand in the way of the new key.
func TestRotationBesideAnOddKey(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	p := newPublisher(t, first)
	v := newTestVerifier(t, newClock(), Options{Keys: []string{p.URL}})
	next, err := json.Marshal(second.publicJWK())
	if err != nil {
		t.Fatal(err)
	}
	p.body(`{"keys":[{"kty":"EC","crv":"P-256","kid":"odd","x":"AQ","y":"AQ"},` + string(next) + `]}`)
	if _, code := v.Verify(tokenBy(t, second, plainClaims)); code != wire.OK {
		t.Error(code)
	}
}

// One kid may stand for keys of several algorithms, and even for several of one.
func TestOneKidForSeveralKeys(t *testing.T) {
	rsa := keyNamed(t, "RS256", "k")
	pss := rsa
	pss.alg = "PS256"
	all := []Key{rsa, pss, keyNamed(t, "ES256", "k"), keyNamed(t, "EdDSA", "k"), keyNamed(t, "EdDSA", "k")}
	v := newTestVerifier(t, newClock(), Options{Trusted: all})
	for i, key := range all {
		if _, code := v.Verify(tokenBy(t, key, fmt.Sprintf(`{"exp":1800000060,"jti":"%d"}`, i))); code != wire.OK {
			t.Errorf("key %d: %v", i, code)
		}
	}
	if _, code := v.Verify(tokenBy(t, keyNamed(t, "EdDSA", "k"), plainClaims)); code != wire.TokenInvalid {
		t.Error("a stranger's:", code)
	}
}

// RFC 9864 calls EdDSA with Ed25519 by the name of the curve.
func TestEd25519IsEdDSA(t *testing.T) {
	key := keyNamed(t, "EdDSA", "k")
	public := key.publicJWK()
	public.Alg = "Ed25519"
	b, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseKey(b)
	if err != nil || read.Algorithm() != "EdDSA" {
		t.Fatal(read, err)
	}
	v := newTestVerifier(t, newClock(), Options{Trusted: []Key{read}})
	for _, alg := range []string{"EdDSA", "Ed25519"} {
		for i := range 2 { // the header is known at the second
			raw := forge(t, "EdDSA", key.sign, `{"alg":"`+alg+`","kid":"k"}`, fmt.Sprintf(`{"exp":1800000060,"jti":"%s%d"}`, alg, i))
			if _, code := v.Verify([]byte(raw)); code != wire.OK {
				t.Errorf("%s: %v", alg, code)
			}
		}
	}
	for _, alg := range []string{"ed25519", "Ed448", "EdDSA2"} {
		raw := forge(t, "EdDSA", key.sign, `{"alg":"`+alg+`","kid":"k"}`, plainClaims)
		if _, code := v.Verify([]byte(raw)); code != wire.TokenInvalid {
			t.Errorf("%s: %v", alg, code)
		}
	}
}

// A key that was configured without a kid serves for tokens that have one, as
// long as no key has that kid; one that has another kid does not.
func TestKidOfAnUnnamedKey(t *testing.T) {
	unnamed, err := newKey("", "HS256", []byte(strings.Repeat("s", 32)), []byte(strings.Repeat("s", 32)))
	if err != nil {
		t.Fatal(err)
	}
	named := keyNamed(t, "HS256", "named")
	v := newTestVerifier(t, newClock(), Options{Trusted: []Key{unnamed, named}})
	for _, row := range []struct {
		name, kid string
		key       Key
		want      wire.Code
	}{
		{"any kid", "whatever", unnamed, wire.OK},
		{"its thumbprint", unnamed.kid, unnamed, wire.OK},
		{"the other's kid", "named", unnamed, wire.TokenInvalid},
		{"the other under its kid", "named", named, wire.OK},
		{"the other under any kid", "whatever", named, wire.TokenInvalid},
	} {
		raw := forge(t, "HS256", row.key.sign, `{"alg":"HS256","kid":"`+row.kid+`"}`, `{"exp":1800000060,"jti":"`+row.name+`"}`)
		if _, code := v.Verify([]byte(raw)); code != row.want {
			t.Errorf("%s: %v, want %v", row.name, code, row.want)
		}
	}
}

// An issuer whose URL does not answer at the start does not stop the others; its
// tokens are unavailable until it does. Where nothing could be accepted at all,
// the start fails.
func TestStartWhileAnIssuerIsDown(t *testing.T) {
	a, b := keyNamed(t, "ES256", "a"), keyNamed(t, "ES256", "b")
	up, down := newPublisher(t, a), newPublisher(t, b)
	down.body("<html>")
	c := newClock()
	var told []error
	v := newTestVerifier(t, c, Options{
		Issuers: []Issuer{
			{Name: "up", Keys: []string{up.URL}, Publish: []string{">"}},
			{Name: "down", Keys: []string{down.URL}, Publish: []string{">"}},
		},
		OnKeyError: func(err error) { told = append(told, err) },
	})
	if len(told) != 1 || !strings.Contains(told[0].Error(), strings.TrimPrefix(down.URL, "http://")) {
		t.Error("told", told)
	}
	tokens := map[string][]byte{"up": tokenBy(t, a, `{"exp":1800000060,"iss":"up"}`), "down": tokenBy(t, b, `{"exp":1800000060,"iss":"down"}`)}
	if _, code := v.Verify(tokens["up"]); code != wire.OK {
		t.Error("the issuer that is up:", code)
	}
	if _, code := v.Verify(tokens["down"]); code != wire.Unavailable {
		t.Error("the issuer that is down:", code)
	}
	if _, code := v.Verify([]byte(forge(t, "ES256", b.sign, `{"alg":"ES256"}`, `{"exp":1800000060,"iss":"down"}`))); code != wire.Unavailable {
		t.Error("the issuer that is down, without a kid:", code)
	}
	down.publish(t, b)
	c.advance(DefaultJWKSCooldown)
	eventually(t, "the issuer to be back", func() bool {
		_, code := v.Verify(tokens["down"])
		return code == wire.OK
	})
	down.body("<html>")
	if _, err := New(Options{Keys: []string{down.URL}, Now: c.now}); err == nil {
		t.Error("started without any key")
	}
}

// Only what is sought by name, and not yet by a fetch, is unavailable; what is
// remembered of that is bounded.
func TestSoughtIsBounded(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	v := newTestVerifier(t, newClock(), Options{Keys: []string{p.URL}})
	e := v.issuers[0].remote[0].endpoint
	for i := range 2 * maxSought {
		e.seek(fmt.Sprint(i), func() <-chan struct{} { return nil })
	}
	if len(e.sought) != maxSought {
		t.Error(len(e.sought), "are remembered")
	}
	long := key
	long.kid = strings.Repeat("k", maxKidBytes+1)
	if _, code := v.Verify(tokenBy(t, long, plainClaims)); code != wire.TokenInvalid || p.hits.Load() != 1 {
		t.Error("a long kid:", code, p.hits.Load(), "fetches")
	}
}

// What stands in claims that nobody here reads is the issuer's business: it locks nobody
// out as long as all readers read the same.
func TestClaimsThatNobodyReads(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, row := range map[string]struct {
		member string
		want   wire.Code
	}{
		"half a surrogate pair":            {`"name":"Ann \ud83d"`, wire.OK},
		"the other half, deep inside":      {`"name":{"first":["\ude00"]}`, wire.OK},
		"half a pair in a name":            {`"\ud83d":1`, wire.OK},
		"half a pair in details of others": {`"authorization_details":[{"type":"payment","creditor":"\ud83d"}]`, wire.OK},
		"control characters, escaped":      {`"name":"\u0000\u001f"`, wire.OK},
		"noncharacters":                    {"\"name\":\"\ufffe\uffff\\ufdd0\"", wire.OK},
		"a number beyond any float":        {`"n":1e400`, wire.OK},
		"a number of many digits":          {`"n":-` + strings.Repeat("9", 1000) + `.` + strings.Repeat("9", 1000) + `e-99999`, wire.OK},
		"deep nesting":                     {`"x":` + deep(2500), wire.OK},
		"an empty name":                    {`"":1`, wire.OK},
		"null":                             {`"name":null`, wire.OK},

		// These are no JSON, or say two things at once (RFC 7519 §4, RFC 8259 §8.1).
		"a name twice":            {`"name":1,"name":2`, wire.TokenMalformed},
		"a name twice, inside":    {`"name":{"a":1,"a":2}`, wire.TokenMalformed},
		"a name twice, escaped":   {`"name":1,"n\u0061me":2`, wire.TokenMalformed},
		"bytes that are no text":  {"\"name\":\"\xff\"", wire.TokenMalformed},
		"half a pair in bytes":    {"\"name\":\"\xed\xa0\xbd\"", wire.TokenMalformed},
		"a raw control character": {"\"name\":\"\x01\"", wire.TokenMalformed},
		"a leading zero":          {`"n":01`, wire.TokenMalformed},
		"a comment":               {`"n":1/**/`, wire.TokenMalformed},
	} {
		raw := []byte(signed(t, "HS256", `{"exp":1800000060,`+row.member+`}`))
		if _, code := v.Verify(raw); code != row.want {
			t.Errorf("%s: %v, want %v", name, code, row.want)
		}
		if _, err := Inspect(string(raw)); (err == nil) != (row.want == wire.OK) {
			t.Errorf("%s, inspected: %v", name, err)
		}
		if row.want != wire.OK {
			continue
		}
		head := []byte(forge(t, "HS256", testKeys()["HS256"].sign, `{"alg":"HS256","kid":"hs256",`+row.member+`}`, plainClaims))
		want := wire.OK
		if name == "a number beyond any float" {
			want = wire.TokenMalformed // golang-jwt reads the whole header, numbers into float64
		}
		if _, code := v.Verify(head); code != want {
			t.Errorf("%s, in the header: %v, want %v", name, code, want)
		}
	}
}
