package authz

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Each cause has a reason and a text of its own, which names the check, what the token says and what was wanted.
func TestRefusalSaysWhy(t *testing.T) {
	first, second, other := keyNamed(t, "EdDSA", "a"), keyNamed(t, "EdDSA", "b"), keyNamed(t, "EdDSA", "c")
	impostor := keyNamed(t, "EdDSA", "a")
	bare := Options{Trusted: []Key{first, second}}
	flat := bare
	flat.Issuer, flat.Audience = "https://id.example", []string{"notifyd", "push"}
	policy := Issuer{Name: "me", Trusted: []Key{first}, Publish: []string{"a.*", "b"}, Subscribe: []string{"c"}}
	listed := Options{Issuers: []Issuer{policy, {Name: "you", Trusted: []Key{second}, Admin: true, MaxLifetime: time.Hour, Type: "at+jwt"}}}
	by := func(key Key, payload string) string { return string(tokenBy(t, key, payload)) }
	headed := func(header string) string { return forge(t, "EdDSA", first.sign, header, `{"exp":1800009999}`) }
	seen := map[string]string{}
	for _, c := range []struct {
		name    string
		options Options
		token   string
		reason  Reason
		want    string
	}{
		{"no token", bare, "", ReasonMissing, "no token"},
		{"too long", bare, strings.Repeat("a", DefaultMaxTokenBytes+1), ReasonMalformed, "auth.token_bytes"},
		{"no segments", bare, "abc", ReasonMalformed, "three segments"},
		{"header no JSON", bare, encode([]byte("x")) + ".e30.AA", ReasonMalformed, "the header is not one JSON object"},
		{"signature no base64", bare, strings.TrimRight(by(first, `{"exp":1800009999}`), "=")[:len(by(first, `{"exp":1800009999}`))-1], ReasonMalformed, "the signature is not base64url"},
		{"payload no JSON", bare, by(first, "x"), ReasonMalformed, "the payload is not one JSON object"},
		{"header of the wrong type", bare, headed(`{"alg":"EdDSA","kid":7}`), ReasonHeader, "the header's kid is not a string"},
		{"critical extension", bare, headed(`{"alg":"EdDSA","kid":"a","crit":["x"]}`), ReasonHeader, "the header has crit"},
		{"misspelt header", bare, headed(`{"alg":"EdDSA","Kid":"a"}`), ReasonHeader, `"Kid", which differs from a registered name only in case`},
		{"another kind of token", bare, headed(`{"alg":"EdDSA","kid":"a","typ":"logout+jwt"}`), ReasonType, `typ is "logout+jwt", configured none`},
		{"type of a policy", listed, forge(t, "EdDSA", second.sign, `{"alg":"EdDSA","kid":"b","typ":"JWT"}`, `{"exp":1800000099,"iss":"you"}`), ReasonType, `typ is "JWT", issuer "you" is configured with type "at+jwt"`},
		{"no type", listed, forge(t, "EdDSA", second.sign, `{"alg":"EdDSA","kid":"b"}`, `{"exp":1800000099,"iss":"you"}`), ReasonType, `typ is missing`},
		{"alg none", bare, headed(`{"alg":"none"}`), ReasonAlgorithm, `alg is "none", the configured keys are for "EdDSA"`},
		{"no alg", bare, headed(`{"kid":"a"}`), ReasonAlgorithm, `alg is missing, the key "a" is for "EdDSA"`},
		{"another alg of a key", bare, headed(`{"alg":"ES256","kid":"a"}`), ReasonAlgorithm, `alg is "ES256", the key "a" is for "EdDSA"`},
		{"unknown kid", bare, by(other, `{}`), ReasonKey, `kid "c" is not among "a", "b"`},
		{"another issuer's kid", listed, by(other, `{"iss":"me"}`), ReasonKey, `kid "c" is not among "a"`},
		{"forged", bare, by(impostor, `{"exp":1800009999}`), ReasonSignature, `not by the key "a" (EdDSA)`},
		{"forged and bad", bare, by(impostor, `{"exp":1}`), ReasonSignature, `not by the key "a"`},
		{"no exp", bare, by(first, `{}`), ReasonClaim, "exp is missing"},
		{"exp no number", bare, by(first, `{"exp":"soon"}`), ReasonClaim, "exp is not a number"},
		{"nbf no number", bare, by(first, `{"exp":1800009999,"nbf":true}`), ReasonClaim, "nbf is not a number"},
		{"iat no number", bare, by(first, `{"exp":1800009999,"iat":true}`), ReasonClaim, "iat is not a number"},
		{"sub no string", bare, by(first, `{"exp":1800009999,"sub":7}`), ReasonClaim, "sub is not a string"},
		{"jti too long", bare, by(first, `{"exp":1800009999,"jti":"`+strings.Repeat("j", 1025)+`"}`), ReasonClaim, "jti is not a string of at most 1,024 bytes"},
		{"aud no string", bare, by(first, `{"exp":1800009999,"aud":7}`), ReasonClaim, "aud is neither"},
		{"misspelt claim", bare, by(first, `{"exp":1800009999,"Nbf":7}`), ReasonClaim, `a claim "Nbf", which differs`},
		{"grant no object", bare, by(first, `{"exp":1800009999,"notify":7}`), ReasonGrant, "notify is not an object"},
		{"grant unknown", bare, by(first, `{"exp":1800009999,"notify":{"rate":7,"publish":["a"]}}`), ReasonGrant, `a member "rate", which is not understood`},
		{"grant no pattern", bare, by(first, `{"exp":1800009999,"notify":{"publish":["a..b"]}}`), ReasonGrant, `"a..b" is not a pattern`},
		{"grant no array", bare, by(first, `{"exp":1800009999,"notify":{"subscribe":"a"}}`), ReasonGrant, `notify.subscribe is not an array`},
		{"publish no array", bare, by(first, `{"exp":1800009999,"notify":{"publish":"a"}}`), ReasonGrant, `notify.publish is not an array`},
		{"admin no bool", bare, by(first, `{"exp":1800009999,"notify":{"admin":1}}`), ReasonGrant, "notify.admin is neither"},
		{"once no bool", bare, by(first, `{"exp":1800009999,"notify":{"once":1}}`), ReasonGrant, "notify.once is neither"},
		{"digest", bare, by(first, `{"exp":1800009999,"notify":{"digest":"x"}}`), ReasonGrant, "notify.digest is not"},
		{"details", bare, by(first, `{"exp":1800009999,"authorization_details":[{"type":"notifyd"}]}`), ReasonGrant, "authorization_details is not"},
		{"once without jti", bare, by(first, `{"exp":1800009999,"notify":{"once":true}}`), ReasonGrant, "notify.once needs a jti"},
		{"no subject", bare, by(first, `{"exp":1800009999,"notify":{"publish":["{sub}.x"]}}`), ReasonGrant, `sub is ""`},
		{"subject of parts", bare, by(first, `{"exp":1800009999,"sub":"a.b","notify":{"publish":["{sub}.x"]}}`), ReasonGrant, `sub is "a.b"`},
		{"long subjects", bare, by(first, `{"exp":1800009999,"sub":"`+strings.Repeat("s", 200)+`","notify":{"publish":["`+strings.Repeat(`{sub}","`, 50)+`a"]}}`), ReasonGrant, "too long"},
		{"publish beyond the policy", listed, by(first, `{"exp":1800009999,"iss":"me","notify":{"publish":["a.>"]}}`), ReasonPolicy, `publish "a.>", issuer "me" may grant "a.*", "b"`},
		{"subscribe beyond the policy", listed, by(first, `{"exp":1800009999,"iss":"me","notify":{"subscribe":["d"]}}`), ReasonPolicy, `subscribe "d", issuer "me" may grant "c"`},
		{"administrator beyond the policy", listed, by(first, `{"exp":1800009999,"iss":"me","notify":{"admin":true}}`), ReasonPolicy, "notify.admin"},
		{"no iat", listed, forge(t, "EdDSA", second.sign, `{"alg":"EdDSA","kid":"b","typ":"at+jwt"}`, `{"exp":1800000099,"iss":"you"}`), ReasonPolicy, `no iat, which max_lifetime of issuer "you" needs`},
		{"too long a life", listed, forge(t, "EdDSA", second.sign, `{"alg":"EdDSA","kid":"b","typ":"at+jwt"}`, `{"exp":1800007200,"iat":1800000000,"iss":"you"}`), ReasonPolicy, `7200 s from iat to exp, max_lifetime of issuer "you" is 1h0m0s`},
		{"another issuer", flat, by(first, `{"exp":1800009999,"iss":"https://evil.example","aud":"notifyd"}`), ReasonIssuer, `iss is "https://evil.example", configured "https://id.example"`},
		{"no issuer", flat, by(first, `{"exp":1800009999,"aud":"notifyd"}`), ReasonIssuer, `iss is missing, configured "https://id.example"`},
		{"none of the issuers", listed, by(first, `{"exp":1800009999,"iss":"them"}`), ReasonIssuer, `iss is "them", configured "me", "you"`},
		{"another audience", flat, by(first, `{"exp":1800009999,"iss":"https://id.example","aud":["x","y"]}`), ReasonAudience, `aud is "x", "y", configured "notifyd", "push"`},
		{"no audience", flat, by(first, `{"exp":1800009999,"iss":"https://id.example"}`), ReasonAudience, `there is no aud, configured "notifyd", "push"`},
		{"no audience, any issuer", Options{Trusted: []Key{first}, Audience: []string{"it"}}, by(first, `{"exp":1800009999}`), ReasonAudience, `there is no aud, configured "it"`},
		{"expired", bare, by(first, `{"exp":1799999999}`), ReasonExpired, "exp is 2027-01-15T07:59:59Z"},
		{"not before", bare, by(first, `{"exp":1800009999,"nbf":1800000060}`), ReasonNotYet, "2027-01-15T08:01:00Z, which is ahead"},
		{"issued ahead", bare, by(first, `{"exp":1800009999,"iat":1800000120}`), ReasonNotYet, "2027-01-15T08:02:00Z, which is ahead"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told *Refusal
			from := netip.MustParseAddr("192.0.2.7")
			c.options.OnRefused = func(r *Refusal, addr netip.Addr) {
				if told = r; addr != from {
					t.Error("from", addr)
				}
			}
			v := newTestVerifier(t, newClock(), c.options)
			_, code := v.VerifyFrom([]byte(c.token), from)
			says(t, told, code, c.token)
			if told.Reason != c.reason || !strings.Contains(told.Error(), c.want) {
				t.Errorf("%v: %v; want %v: %s", told.Reason, told, c.reason, c.want)
			}
			if n := v.Stats().Refused; n.Of(c.reason) != 1 || n.Sum() != 1 {
				t.Errorf("counted %v", n)
			}
			if before, ok := seen[told.Error()]; ok && !strings.HasPrefix(c.name, "forged") {
				t.Errorf("the same words as for %q: %v", before, told)
			}
			seen[told.Error()] = c.name
		})
	}
}

// What becomes of tokens that were good.
func TestRefusalOfOnceGoodTokens(t *testing.T) {
	key := keyNamed(t, "EdDSA", "a")
	p := newPublisher(t, key)
	c := newClock()
	var told *Refusal
	v := newTestVerifier(t, c, Options{
		Keys: []string{p.URL}, RevocationMaxAge: time.Minute, JWKSMaxAge: time.Hour,
		OnRefused: func(r *Refusal, _ netip.Addr) { told = r },
	})
	payload := func(jti string) string {
		return `{"exp":1800009999,"iat":1800000000,"sub":"ann","jti":"` + jti + `"}`
	}
	verify := func(jti string, code wire.Code, reason Reason, want string) {
		t.Helper()
		told = nil
		if _, got := v.Verify(tokenBy(t, key, payload(jti))); got != code {
			t.Fatalf("%s: %v, want %v", jti, got, code)
		}
		if code != wire.OK && (told == nil || told.Reason != reason || !strings.Contains(told.Error(), want)) {
			t.Errorf("%s: %v, want %v: %s", jti, told, reason, want)
		}
	}
	verify("1", wire.Unavailable, ReasonRevocations, "whether it was revoked")
	v.SetRevocationsFresh(c.now())
	verify("1", wire.OK, 0, "")
	verify("2", wire.OK, 0, "")
	if err := v.Revoke(Revocation{JTI: "1"}); err != nil {
		t.Fatal(err)
	}
	verify("1", wire.TokenRevoked, ReasonRevoked, `jti ("1")`)
	v.MissRevocation(c.now())
	verify("2", wire.Unavailable, ReasonRevocations, "could not be put in force")
	c.advance(2 * time.Hour)
	verify("2", wire.Unavailable, ReasonKeyTooOld, `key "a" is from a URL that could not be fetched for auth.jwks_max_age (1h0m0s)`)
	c.advance(time.Hour)
	verify("2", wire.TokenExpired, ReasonExpired, "exp is 2027-01-15T10:46:39Z")
	stranger := tokenBy(t, keyNamed(t, "EdDSA", "x"), `{}`)
	if _, code := v.Verify(stranger); code != wire.TokenInvalid || told.Reason != ReasonKey { // it was looked for
		t.Errorf("%v: %v", code, told)
	}
	stranger = tokenBy(t, keyNamed(t, "EdDSA", "y"), `{}`)
	if _, code := v.Verify(stranger); code != wire.Unavailable || told.Reason != ReasonKeyPending || !strings.Contains(told.Error(), `"y"`) {
		t.Errorf("%v: %v", code, told)
	}
}

// Every reason has a name of its own, and a code.
func TestReasonsHaveNames(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Reasons() {
		if r.String() == "" || names[r.String()] || r.Code() == wire.OK {
			t.Errorf("%d is %q, %v", r, r, r.Code())
		}
		names[r.String()] = true
	}
	if len(names) != int(reasons)-1 {
		t.Errorf("%d reasons", len(names))
	}
}
