package authz

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestNewTicket(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		ticket := NewTicket()
		if len(ticket) != 32 || strings.Trim(ticket, "-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			t.Fatal(ticket)
		}
		key := TicketKey(ticket)
		checkBucketKey(t, key)
		if seen[ticket] || seen[key] || strings.Contains(key, ticket) {
			t.Fatal("not new, or shown")
		}
		seen[ticket], seen[key] = true, true
	}
	for _, odd := range []string{"", " ", "*.>", strings.Repeat("x", 10_000), "\x00\xff"} {
		checkBucketKey(t, TicketKey(odd))
	}
}

// A token says the same after its record went to another node.
func TestRecord(t *testing.T) {
	key := keyNamed(t, "ES256", "k")
	options := Options{Trusted: []Key{key}, Leeway: time.Second}
	c := newClock()
	here, there := newTestVerifier(t, c, options), newTestVerifier(t, c, options)
	for _, payload := range []string{
		`{"exp":1800000060}`,
		`{"exp":253402300799}`,
		`{"exp":1800000060.9,"iat":1799999990.5,"nbf":1799999995.5}`,
		`{"exp":1800000060,"iat":0,"nbf":0}`,
		`{"exp":1800000060,"iss":"i <&>","sub":"ä\u0000.*","jti":"\"","aud":["x"]}`,
		`{"exp":1800000060,"sub":"{sub}x","notify":{"publish":["a.{sub}","b.>"],"subscribe":["*"],"admin":true}}`,
		`{"exp":1800000060,"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["c"]}]}`,
	} {
		raw := tokenBy(t, key, payload)
		token, code := here.Verify(raw)
		if code != wire.OK {
			t.Fatal(payload, code)
		}
		b := token.Record()
		if strings.Contains(string(b), string(raw[len(raw)-40:])) {
			t.Error("the record holds the signature")
		}
		got, code := there.Restore(b)
		if code != wire.OK {
			t.Errorf("%s: %v from %s", payload, code, b)
			continue
		}
		if got.issuer != token.issuer || got.subject != token.subject || got.id != token.id || got.issued != token.issued ||
			got.from != token.from || got.until != token.until || got.exp != token.exp || got.admin != token.admin || got.bound != nil ||
			!slices.Equal(got.publish, token.publish) || !slices.Equal(got.subscribe, token.subscribe) {
			t.Errorf("%s became %+v, then %+v", payload, token, got)
		}
		if string(got.Record()) != string(b) {
			t.Errorf("%s, then %s", b, got.Record())
		}
		if got.Same(nil) || got.Same([]byte{}) || got.Same(raw) || got.Same(b) {
			t.Error("a restored token passes for one of a client")
		}
	}
	if n := there.Stats().Entries; n != 0 {
		t.Error(n, "were remembered")
	}
}

// What ends a token ends its record.
func TestRestoreRefuses(t *testing.T) {
	key, secret := keyNamed(t, "ES256", "k"), keyNamed(t, "HS256", "s")
	c := newClock()
	policy := Issuer{Name: "i", Trusted: []Key{key, secret}, Publish: []string{"a.*"}, Subscribe: everything, Type: "at+jwt", MaxLifetime: time.Minute}
	verifier := func(change func(*Issuer, *Options)) *Verifier {
		is, o := policy, Options{}
		change(&is, &o)
		o.Issuers = []Issuer{is, {Name: "other", Trusted: []Key{key}, Publish: everything, Subscribe: everything}}
		return newTestVerifier(t, c, o)
	}
	raw, err := Sign(key, Claims{
		Type: "at+jwt", Issuer: "i", Subject: "ann", ID: "j", IssuedAt: c.now(), Expires: c.now().Add(time.Minute), Publish: []string{"a.b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	token, code := verifier(func(*Issuer, *Options) {}).Verify([]byte(raw))
	if code != wire.OK {
		t.Fatal(code)
	}
	b := token.Record()
	revoke := func(r Revocation) func(*Verifier) {
		return func(v *Verifier) {
			if err := v.Revoke(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	nothing := func(*Verifier) {}
	for _, row := range []struct {
		name  string
		node  func(*Issuer, *Options)
		first func(*Verifier)
		want  wire.Code
	}{
		{"the same", func(*Issuer, *Options) {}, nothing, wire.OK},
		{"revoked by jti", func(*Issuer, *Options) {}, revoke(Revocation{JTI: "j"}), wire.TokenRevoked},
		{"revoked by sub", func(*Issuer, *Options) {}, revoke(Revocation{Subject: "ann"}), wire.TokenRevoked},
		{"another revoked", func(*Issuer, *Options) {}, revoke(Revocation{JTI: "k"}), wire.OK},
		{"sub revoked before it", func(*Issuer, *Options) {}, revoke(Revocation{Subject: "ann", Before: start}), wire.OK},
		{"stale revocations", func(_ *Issuer, o *Options) { o.RevocationMaxAge = time.Second }, nothing, wire.Unavailable},
		{"key removed", func(i *Issuer, _ *Options) { i.Trusted = []Key{secret} }, nothing, wire.TokenInvalid},
		{"key replaced", func(i *Issuer, _ *Options) { i.Trusted = []Key{keyNamed(t, "ES256", "k")} }, nothing, wire.TokenInvalid},
		{"key renamed", func(i *Issuer, _ *Options) {
			renamed := key
			renamed.kid = "k2"
			i.Trusted = []Key{renamed}
		}, nothing, wire.TokenInvalid},
		{"issuer removed", func(i *Issuer, _ *Options) { i.Name = "else" }, nothing, wire.TokenInvalid},
		{"allowed less", func(i *Issuer, _ *Options) { i.Publish = []string{"b.*"} }, nothing, wire.TokenInvalid},
		{"allowed shorter", func(i *Issuer, _ *Options) { i.MaxLifetime = time.Second }, nothing, wire.TokenInvalid},
	} {
		v := verifier(row.node)
		row.first(v)
		got, code := v.Restore(b)
		if code != row.want || (got == nil) != (code != wire.OK) {
			t.Errorf("%s: %v, want %v", row.name, code, row.want)
		}
	}

	v := verifier(func(*Issuer, *Options) {})
	restored, code := v.Restore(b)
	if code != wire.OK {
		t.Fatal(code)
	}
	revoke(Revocation{JTI: "j"})(v)
	if code := restored.Check(start * 1e9); code != wire.TokenRevoked {
		t.Error("restored, then revoked:", code)
	}
	c.advance(time.Minute)
	if _, code := verifier(func(*Issuer, *Options) {}).Restore(b); code != wire.TokenExpired {
		t.Error("after its end:", code)
	}
	if code := token.Check(c.now().UnixNano()); code != wire.TokenExpired {
		t.Error(code)
	}
}

func TestRestoreFallsWithKey(t *testing.T) {
	key, other := keyNamed(t, "HS256", "k"), keyNamed(t, "HS256", "o")
	v := newTestVerifier(t, newClock(), Options{Trusted: []Key{key, other}})
	token, _ := v.Verify(tokenBy(t, key, plainClaims))
	restored, code := v.Restore(token.Record())
	if code != wire.OK {
		t.Fatal(code)
	}
	if err := v.SetKeys([]Key{other}); err != nil {
		t.Fatal(err)
	}
	if code := restored.Check(start * 1e9); code != wire.TokenInvalid {
		t.Error(code)
	}
}

// Another node met the new key first.
func TestRestoreFetchesKey(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	p := newPublisher(t, first)
	options := Options{Issuers: []Issuer{{Name: "i", Keys: []string{p.URL}, Type: "at+jwt"}}}
	here, there := newTestVerifier(t, newClock(), options), newTestVerifier(t, newClock(), options)
	p.publish(t, second)
	token, code := here.Verify([]byte(forge(t, "ES256", second.sign, `{"alg":"ES256","kid":"2","typ":"at+jwt"}`, `{"iss":"i","exp":1800000060}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	if _, code := there.Restore(token.Record()); code != wire.OK {
		t.Error(code)
	}
}

func TestBoundTokenHasNoRecord(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	for _, notify := range []string{`"once":true`, `"digest":"` + DigestOf("a", nil) + `"`} {
		token, code := v.Verify([]byte(signed(t, "HS256", `{"jti":"j","exp":1800000060,"notify":{"publish":["a"],`+notify+`}}`)))
		if code != wire.OK {
			t.Fatal(code)
		}
		if b := token.Record(); b != nil {
			t.Errorf("%s", b)
		}
	}
}

func TestAbuseOfRecord(t *testing.T) {
	key := keyNamed(t, "HS256", "k")
	v := newTestVerifier(t, newClock(), Options{Trusted: []Key{key}, Issuer: "i"})
	rest := fmt.Sprintf(`"alg":"HS256","kid":"k","key":%q`, key.thumb)
	if _, code := v.Restore([]byte(`{"iss":"i","exp":1800000060,` + rest + `}`)); code != wire.OK {
		t.Fatal(code)
	}
	for _, bad := range []string{
		``, `null`, `[]`, `{}`, `{` + rest + `}`, `{"iss":"i",` + rest + `}`, `{"exp":1800000060,` + rest + `}`,
		`{"iss":"x","exp":1800000060,` + rest + `}`, `{"iss":"","exp":1800000060,` + rest + `}`,
		`{"iss":"i","exp":1800000060,"x":1,` + rest + `}`, `{"iss":"i","exp":1800000060,"aud":"x",` + rest + `}`,
		`{"iss":"i","exp":0,` + rest + `}`, `{"iss":"i","exp":"1800000060",` + rest + `}`, `{"iss":"i","exp":1,"exp":1800000060,` + rest + `}`,
		`{"iss":"i","exp":1800000060,"notify":{"publish":["a..b"]},` + rest + `}`, `{"iss":"i","exp":1800000060,"notify":{"x":1},` + rest + `}`,
		`{"iss":"i","exp":1800000060,"jti":"j","notify":{"once":true},` + rest + `}`,
		`{"iss":"i","exp":1800000060,"notify":{"digest":"` + DigestOf("a", nil) + `"},` + rest + `}`,
		`{"iss":"i","exp":1800000060,` + rest + `}x`, `{"iss":"i","exp":1800000060,` + rest, `{"iss":"i","exp":1800000060,` + strings.ReplaceAll(rest, `"key":"`, `"key":"x`) + `}`,
		`{"iss":"i","exp":1800000060,"alg":"HS256","kid":"k"}`, `{"iss":"i","exp":1800000060,"alg":"HS256","kid":"k","key":""}`,
		`{"iss":"i","exp":1800000060,"kid":"k","key":"` + key.thumb + `"}`, `{"iss":"i","exp":1800000060,` + strings.ReplaceAll(rest, "HS256", "ES256") + `}`,
		string(tokenBy(t, key, `{"iss":"i","exp":1800000060}`)),
	} {
		if token, code := v.Restore([]byte(bad)); code != wire.TokenInvalid || token != nil {
			t.Errorf("%s: %v", bad, code)
		}
	}
	if _, code := v.Restore([]byte(`{"iss":"i","exp":1799999999,` + rest + `}`)); code != wire.TokenExpired {
		t.Error(code)
	}
	if _, code := v.Restore([]byte(`{"iss":"i","exp":1800000060,"nbf":1800000030,` + rest + `}`)); code != wire.TokenNotYetValid {
		t.Error(code)
	}
}

// The shape is a contract between nodes of different versions.
func TestRecordShape(t *testing.T) {
	key := keyNamed(t, "HS256", "k")
	v := newTestVerifier(t, newClock(), Options{Trusted: []Key{key}})
	token, code := v.Verify(tokenBy(t, key, `{"iss":"i","sub":"s","jti":"j","iat":1799999990,"exp":1800000060,"notify":{"publish":["a"],"subscribe":["b.>"],"admin":true}}`))
	if code != wire.OK {
		t.Fatal(code)
	}
	want := `{"iss":"i","sub":"s","jti":"j","iat":1799999990,"nbf":1799999990,"exp":1800000060,"notify":{"publish":["a"],"subscribe":["b.\u003e"],"admin":true},"alg":"HS256","kid":"k","key":"` + key.thumb + `"}`
	if got := string(token.Record()); got != want {
		t.Error(got)
	}
}
