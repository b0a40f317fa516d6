package authz

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
)

// FuzzVerify signs any header and payload with one of the keys, or takes raw as
// it is. What Verify accepts, golang-jwt with its strict options, and the key
// chosen as RFC 7515 says, must accept too.
func FuzzVerify(f *testing.F) {
	fast := []string{"HS256", "EdDSA", "ES256"} // RSA signs too slowly to fuzz
	var keys []Key
	for _, alg := range fast {
		keys = append(keys, testKeys()[alg])
	}
	for i, alg := range fast {
		f.Add(uint8(i), `{"alg":"`+alg+`","typ":"JWT","kid":"`+keys[i].kid+`"}`, goodPayload, "")
		f.Add(uint8(i), `{"alg":"`+alg+`"}`, `{"iss":"https://id.example","aud":["notifyd"],"exp":1.8000001e9,"nbf":0,"iat":1}`, "")
	}
	f.Add(uint8(0), `{"alg":"HS256","crit":[]}`, `{"\u0065xp":1800000060,"exp":0}`, "")
	f.Add(uint8(0), `{"ALG":"HS256"}`, `null`, "")
	f.Add(uint8(0), ``, `{"exp":1800000060,"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["a.*"]}]}`, "")
	f.Add(uint8(0), ``, ``, "a.b.c")

	c := newClock()
	v := newTestVerifier(f, c, Options{
		Trusted: keys, Issuer: "https://id.example", Audience: []string{"notifyd"},
		NotBeforeLeeway: -1, // the reference knows one leeway for all
		CacheEntries:    64,
	})
	// The same keys, each with one of two issuers, and a kid that both have.
	double := keyNamed(f, "HS256", keys[1].kid)
	many := newTestVerifier(f, c, Options{
		Issuers: []Issuer{
			{Name: "https://id.example", Trusted: keys[:2], Audience: []string{"notifyd"}, Publish: []string{"rooms.*", "a.>"}, Subscribe: []string{"rooms.>"}},
			{Name: "b", Trusted: []Key{keys[2], double}, Publish: everything, Admin: true, MaxLifetime: time.Hour},
		},
		NotBeforeLeeway: -1, CacheEntries: 64,
	})
	f.Add(uint8(2), `{"alg":"ES256","kid":"es256"}`, `{"iss":"b","sub":"ann","jti":"j","exp":1800000060,"notify":{"publish":["x.{sub}"],"once":true}}`, "")
	f.Add(uint8(0), `{"alg":"HS256"}`, `{"iss":"https://id.example","aud":"notifyd","exp":1800000060,"notify":{"publish":["rooms.>"]}}`, "")
	reference := jwt.NewParser(jwt.WithValidMethods(fast), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(c.now),
		jwt.WithIssuer("https://id.example"), jwt.WithAudience("notifyd"))
	choose := func(t *jwt.Token) (any, error) {
		for _, key := range keys {
			if kid, has := t.Header["kid"]; t.Method.Alg() == key.alg && (!has || kid == key.kid) {
				return key.verify, nil
			}
		}
		return nil, jwt.ErrTokenUnverifiable
	}

	f.Fuzz(func(t *testing.T, which uint8, header, payload, raw string) {
		if raw == "" {
			key := keys[int(which)%len(keys)]
			if header == "" {
				header = `{"alg":"` + key.alg + `"}`
			}
			raw = forge(t, key.alg, key.sign, header, payload)
		}
		v.Cost([]byte(raw))
		v.sameByParts(t, raw)
		if token, code := many.Verify([]byte(raw)); code == wire.OK {
			is := token.key.issuer
			parser := jwt.NewParser(jwt.WithValidMethods([]string{token.key.alg}), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(),
				jwt.WithIssuedAt(), jwt.WithTimeFunc(c.now), jwt.WithIssuer(is.Name))
			claims := jwt.MapClaims{}
			if _, err := parser.ParseWithClaims(raw, claims, token.key.material); err != nil {
				t.Fatalf("accepted what golang-jwt refuses by that key: %v", err)
			}
			for _, p := range token.publish {
				if !covered(is.Publish, p) || !wire.ValidPattern(p) {
					t.Fatalf("%v granted publishing to %q", is, p)
				}
			}
			for _, p := range token.subscribe {
				if !covered(is.Subscribe, p) || !wire.ValidPattern(p) {
					t.Fatalf("%v granted subscribing to %q", is, p)
				}
			}
			notify, _ := claims["notify"].(map[string]any)
			if _, _, once := token.Once(); once != (notify["once"] == true) || once && token.ID() == "" {
				t.Fatal("two readings of once")
			}
			if token.Admin() && (notify["admin"] != true || !is.Admin) {
				t.Fatal("an administrator out of nothing")
			}
			if b := token.Record(); b != nil {
				again, code := many.Restore(b)
				if code != wire.OK || string(again.Record()) != string(b) {
					t.Fatalf("%s came back with %v", b, code)
				}
			}
		}
		token, code := v.Verify([]byte(raw))
		if (code == wire.OK) != (token != nil) {
			t.Fatal(code, "with token", token != nil)
		}
		if code != wire.OK {
			if v.Find([]byte(raw)) != nil {
				t.Fatal("a refused token was remembered")
			}
			return
		}
		claims := jwt.MapClaims{}
		if _, err := reference.ParseWithClaims(raw, claims, choose); err != nil {
			t.Fatalf("accepted what golang-jwt refuses: %v", err)
		}
		if exp, _ := claims["exp"].(float64); token.ExpSeconds() != int64(math.Floor(exp)) {
			t.Fatalf("exp %v became %d", claims["exp"], token.ExpSeconds())
		}
		if sub, _ := claims["sub"].(string); token.Subject() != sub {
			t.Fatal("two readings of sub")
		}
		if again, code := v.Verify([]byte(raw)); code != wire.OK || again != token || token.Check(start*1e9) != wire.OK {
			t.Fatal("remembered:", code)
		}
		for _, patterns := range [][]string{token.publish, token.subscribe} {
			for _, p := range patterns {
				if !wire.ValidPattern(p) {
					t.Fatalf("granted the pattern %q", p)
				}
			}
		}
	})
}

// sameByParts holds what golang-jwt's method and validator say of a token, once
// its header is known, against what the parser as a whole says.
func (v *Verifier) sameByParts(t *testing.T, raw string) {
	head, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(head)
	if !isCompact([]byte(raw)) || err != nil || json.Unmarshal(decoded, &map[string]any{}) != nil {
		return // such a header is never known
	}
	r, reason, _ := v.keys.Load().route([]byte(head))
	if reason != reasonNone || r.of(v.issuers[0], nil) == nil {
		return
	}
	key := r.of(v.issuers[0], nil)
	whole, parts := v.newClaims(), v.newClaims()
	want := verdict(key.examine(raw, whole, false), whole, key.issuer)
	if parts.read([]byte(payload)) != nil {
		if want == reasonNone {
			t.Fatal("the payload is read in two ways")
		}
		return
	}
	if got := verdict(key.examine(raw, parts, true), parts, key.issuer); got != want {
		t.Fatalf("by parts %v, as a whole %v", got, want)
	}
	if !reflect.DeepEqual(whole, parts) {
		t.Fatalf("two readings of the claims:\n%+v\n%+v", whole, parts)
	}
}
