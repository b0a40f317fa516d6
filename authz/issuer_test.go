package authz

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// keyNamed makes a key with a kid of the test's choice.
func keyNamed(t testing.TB, alg, kid string) Key {
	t.Helper()
	key, err := GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	key.kid = kid
	return key
}

// tokenBy signs any payload with key, under an ordinary header.
func tokenBy(t testing.TB, key Key, payload string) []byte {
	t.Helper()
	return []byte(forge(t, key.alg, key.sign, fmt.Sprintf(`{"alg":%q,"kid":%q}`, key.alg, key.kid), payload))
}

func writeKey(t testing.TB, file string, key Key) {
	t.Helper()
	b, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, file, b)
}

// replaceFile writes a file at once, as one does with keys: nobody reads half of it.
func replaceFile(t testing.TB, file string, text []byte) {
	t.Helper()
	err := os.WriteFile(file+".new", text, 0o600)
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var everything = []string{">"}

// Two issuers have a key under the same kid; a third has one that nobody else
// has. A token counts only with the key of the issuer that it names.
func TestIssuersKeepTheirKeys(t *testing.T) {
	a, b, c := keyNamed(t, "ES256", "k1"), keyNamed(t, "ES256", "k1"), keyNamed(t, "HS256", "c1")
	v := newTestVerifier(t, newClock(), Options{
		Issuers: []Issuer{{Name: "a", Trusted: []Key{a}, Publish: everything}, {Name: "b", Trusted: []Key{b}}},
		Trusted: []Key{c}, Issuer: "c",
	})
	other := keyNamed(t, "ES256", "k1")
	bare := func(key Key, iss string) []byte {
		return []byte(forge(t, key.alg, key.sign, `{"alg":"`+key.alg+`"}`, `{"exp":1800000060,"iss":"`+iss+`"}`))
	}
	claims := func(iss string) string { return `{"exp":1800000060,"iss":"` + iss + `"}` }
	for _, round := range []string{"first sight", "after others were remembered"} {
		for _, row := range []struct {
			name  string
			token []byte
			want  wire.Code
		}{
			{"a by a", tokenBy(t, a, claims("a")), wire.OK},
			{"b by b", tokenBy(t, b, claims("b")), wire.OK},
			{"c by c", tokenBy(t, c, claims("c")), wire.OK},
			{"a by a without kid", bare(a, "a"), wire.OK},
			{"b by b without kid", bare(b, "b"), wire.OK},
			{"iss b by a's key", tokenBy(t, a, claims("b")), wire.TokenInvalid},
			{"iss a by b's key", tokenBy(t, b, claims("a")), wire.TokenInvalid},
			{"iss a by c's key", tokenBy(t, c, claims("a")), wire.TokenInvalid},
			{"iss c by a's key", tokenBy(t, a, claims("c")), wire.TokenInvalid},
			{"iss b by a's key without kid", bare(a, "b"), wire.TokenInvalid},
			{"iss a by a stranger", tokenBy(t, other, claims("a")), wire.TokenInvalid},
			{"iss of nobody", tokenBy(t, a, claims("d")), wire.TokenInvalid},
			{"iss empty", tokenBy(t, a, claims("")), wire.TokenInvalid},
			{"iss missing", tokenBy(t, a, `{"exp":1800000060}`), wire.TokenInvalid},
			{"iss null", tokenBy(t, a, `{"exp":1800000060,"iss":null}`), wire.TokenInvalid},
			{"iss array", tokenBy(t, a, `{"exp":1800000060,"iss":["a"]}`), wire.TokenInvalid},
			{"iss twice", tokenBy(t, a, `{"exp":1800000060,"iss":"b","iss":"a"}`), wire.TokenMalformed},
			{"iss twice, once escaped", tokenBy(t, a, `{"exp":1800000060,"iss":"a","\u0069ss":"b"}`), wire.TokenMalformed},
			{"ISS", tokenBy(t, a, `{"exp":1800000060,"ISS":"a"}`), wire.TokenInvalid},
			{"iss with a slash", tokenBy(t, a, claims("a/")), wire.TokenInvalid},
			{"payload no object", tokenBy(t, a, `["a"]`), wire.TokenMalformed},
		} {
			if _, code := v.Verify(row.token); code != row.want {
				t.Errorf("%s, %s: %v, want %v", row.name, round, code, row.want)
			}
		}
	}
	// iss and exp are wrong at once: nothing but exp may be told of a token that a fresh one mends.
	if _, code := v.Verify(tokenBy(t, a, `{"exp":1,"iss":"b"}`)); code != wire.TokenInvalid {
		t.Error(code)
	}
	if v.Cost(bare(a, "a")) == Cheap || v.Cost(tokenBy(t, c, claims("c"))) != Cheap {
		t.Error("the cost is wrong")
	}
}

func TestIssuerPolicy(t *testing.T) {
	key := keyNamed(t, "HS256", "k")
	v := newTestVerifier(t, newClock(), Options{Issuers: []Issuer{{
		Name: "a", Trusted: []Key{key}, Audience: []string{"here", "nearby"},
		Publish: []string{"in.*", "rooms.>"}, Subscribe: []string{"out.*"}, MaxLifetime: time.Hour,
	}}})
	row := func(name, claims string, want wire.Code) {
		t.Helper()
		token := tokenBy(t, key, `{"iss":"a","aud":"here",`+claims+`}`)
		for range 2 {
			if _, code := v.Verify(token); code != want {
				t.Errorf("%s: %v, want %v", name, code, want)
			}
		}
	}
	const exp = `"exp":1800000060,"iat":1800000000,`
	row("no grant", `"exp":1800000060,"iat":1800000000`, wire.OK)
	row("granted", exp+`"notify":{"publish":["in.a","in.*","rooms.a.>"],"subscribe":["out.a"]}`, wire.OK)
	row("beyond publish", exp+`"notify":{"publish":["in.a","other"]}`, wire.TokenInvalid)
	row("wider than publish", exp+`"notify":{"publish":["in.>"]}`, wire.TokenInvalid)
	row("everything", exp+`"notify":{"publish":[">"]}`, wire.TokenInvalid)
	row("subscribe where publish is allowed", exp+`"notify":{"subscribe":["in.a"]}`, wire.TokenInvalid)
	row("publish where subscribe is allowed", exp+`"notify":{"publish":["out.a"]}`, wire.TokenInvalid)
	row("only together covered", exp+`"notify":{"subscribe":["*.a"]}`, wire.TokenInvalid)
	row("details", exp+`"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["in.a"]}]`, wire.OK)
	row("details beyond", exp+`"authorization_details":[{"type":"notifyd","actions":["publish","subscribe"],"topics":["in.a"]}]`, wire.TokenInvalid)
	row("good notify, details beyond", exp+`"notify":{"publish":["in.a"]},"authorization_details":[{"type":"notifyd","actions":["publish"],"topics":["x"]}]`, wire.TokenInvalid)
	row("admin", exp+`"notify":{"admin":true}`, wire.TokenInvalid)
	row("admin false", exp+`"notify":{"admin":false}`, wire.OK)
	row("beyond and expired", `"exp":1799999999,"notify":{"publish":["x"]}`, wire.TokenInvalid)

	row("an hour", `"iat":1799999990,"exp":1800003590`, wire.OK)
	row("an hour and a second", `"iat":1799999990,"exp":1800003591`, wire.TokenInvalid)
	row("no iat", `"exp":1800000001`, wire.TokenInvalid)
	row("iat a fraction too early", `"iat":1799999999.9,"exp":1800003600`, wire.TokenInvalid)
	row("an hour, a moment ahead", `"iat":1800000005,"exp":1800003605`, wire.OK)
	row("long, nearly over", `"iat":1700000000,"exp":1800000001`, wire.TokenInvalid)
	row("iat 0", `"iat":0,"exp":1800000001`, wire.TokenInvalid)
	row("to the year 9999", `"exp":253402300799`, wire.TokenInvalid)
	row("long and over", `"iat":1700000000,"exp":1799999999`, wire.TokenInvalid)

	for aud, want := range map[string]wire.Code{
		`"here"`: wire.OK, `"nearby"`: wire.OK, `["there","nearby"]`: wire.OK, `["here","nearby"]`: wire.OK,
		`"there"`: wire.TokenInvalid, `["there","Here"]`: wire.TokenInvalid, `"here,nearby"`: wire.TokenInvalid, `""`: wire.TokenInvalid, `[]`: wire.TokenInvalid,
	} {
		if _, code := v.Verify(tokenBy(t, key, `{"iss":"a","aud":`+aud+`,"iat":1800000000,"exp":1800000060}`)); code != want {
			t.Errorf("audience %s: %v, want %v", aud, code, want)
		}
	}
	// What an issuer is not allowed at all, it cannot grant.
	none := newTestVerifier(t, newClock(), Options{Issuers: []Issuer{{Name: "a", Trusted: []Key{key}, Admin: true}}})
	for _, claims := range []string{`{"publish":["a"]}`, `{"subscribe":["a"]}`} {
		if _, code := none.Verify(tokenBy(t, key, `{"iss":"a","exp":1800000060,"notify":`+claims+`}`)); code != wire.TokenInvalid {
			t.Error(claims, code)
		}
	}
	if _, code := none.Verify(tokenBy(t, key, `{"iss":"a","exp":1800000060,"notify":{"admin":true}}`)); code != wire.OK {
		t.Error("admin where it is allowed:", code)
	}
}

func TestIssuerType(t *testing.T) {
	key := keyNamed(t, "ES256", "k")
	verifier := func(typ string) *Verifier {
		return newTestVerifier(t, newClock(), Options{Issuers: []Issuer{{Name: "a", Trusted: []Key{key}, Type: typ}}})
	}
	token := func(typ string) []byte {
		return []byte(forge(t, "ES256", key.sign, `{"alg":"ES256","kid":"k"`+typ+`}`, `{"iss":"a","exp":1800000060}`))
	}
	for _, row := range []struct {
		policy, typ string
		want        wire.Code
	}{
		{"at+jwt", `,"typ":"at+jwt"`, wire.OK},
		{"at+jwt", `,"typ":"AT+JWT"`, wire.OK},
		{"at+jwt", `,"typ":"application/at+jwt"`, wire.OK},
		{"application/at+jwt", `,"typ":"at+jwt"`, wire.OK},
		{"at+jwt", `,"typ":"JWT"`, wire.TokenInvalid},
		{"at+jwt", ``, wire.TokenInvalid},
		{"at+jwt", `,"typ":""`, wire.TokenInvalid},
		{"at+jwt", `,"typ":"at+jwt "`, wire.TokenInvalid},
		{"at+jwt", `,"TYP":"at+jwt"`, wire.TokenInvalid},
		{"at+jwt", `,"typ":"id+jwt"`, wire.TokenInvalid},
		{"JWT", `,"typ":"at+jwt"`, wire.TokenInvalid},
		{"JWT", `,"typ":"jwt"`, wire.OK},
		{"notify+jwt", `,"typ":"notify+jwt"`, wire.OK},
		{"", `,"typ":"notify+jwt"`, wire.TokenInvalid},
		{"", ``, wire.OK},
	} {
		v := verifier(row.policy)
		if _, code := v.Verify(token(row.typ)); code != row.want {
			t.Errorf("%q with %q: %v, want %v", row.typ, row.policy, code, row.want)
		}
		if (v.Cost(token(row.typ)) != Cheap) != (row.want == wire.OK) {
			t.Errorf("%q with %q: the cost is wrong", row.typ, row.policy)
		}
	}
}

func TestSubjectInGrants(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	verify := func(sub, claims string) (*Token, wire.Code) {
		quoted, err := json.Marshal(sub)
		if err != nil {
			t.Fatal(err)
		}
		return v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,`+claims+`,"sub":`+string(quoted)+`}`)))
	}
	const notify = `"notify":{"publish":["users.{sub}.out"],"subscribe":["users.{sub}.>","x-{sub}-{sub}"]}`
	const details = `"authorization_details":[{"type":"notifyd","actions":["publish","subscribe"],"topics":["users.{sub}.out"]}]`
	for _, sub := range []string{"ann", "_x", "$y", "a@b", "{sub}", "ä-ö", "x/y"} {
		token, code := verify(sub, notify)
		if code != wire.OK {
			t.Errorf("%q: %v", sub, code)
			continue
		}
		for topic, want := range map[string]bool{
			"users." + sub + ".out": true, "users.other.out": false, "users.{sub}.out": sub == "{sub}", "users.*.out": false,
		} {
			if token.MayPublish([]byte(topic)) != want {
				t.Errorf("%q publishes to %s: %v", sub, topic, !want)
			}
		}
		if !token.MaySubscribe([]byte("users."+sub+".>")) || token.MaySubscribe([]byte("users.*.>")) || !token.MaySubscribe([]byte("x-"+sub+"-"+sub)) {
			t.Errorf("%q: subscribe grants are wrong", sub)
		}
		if token, code = verify(sub, details); code != wire.OK || !token.MayPublish([]byte("users."+sub+".out")) || !token.MaySubscribe([]byte("users."+sub+".out")) {
			t.Errorf("%q, details: %v", sub, code)
		}
	}
	for _, sub := range []string{
		"", "*", ">", "a.b", ".", "a.", ".a", "a.*", "a*", "a>", "a b", " a", "a\n", "a\t", "\u00a0", "\u2003", "\x00", "\x7f",
		strings.Repeat("a", 250),
	} {
		for _, claims := range []string{notify, details} {
			if _, code := verify(sub, claims); code != wire.TokenInvalid {
				t.Errorf("%q in %s: %v", sub, claims[:8], code)
			}
		}
	}
	// Where the subject is not used, it may be anything.
	if _, code := verify("auth0|a.b *", `"notify":{"publish":["a"]}`); code != wire.OK {
		t.Error("unused subject:", code)
	}
	// At the beginning of a topic, the grammar holds there too.
	for sub, want := range map[string]wire.Code{"ann": wire.OK, "$SYS": wire.TokenInvalid, "_INBOX": wire.TokenInvalid} {
		if _, code := verify(sub, `"notify":{"subscribe":["{sub}.>"]}`); code != want {
			t.Errorf("%q first: %v", sub, code)
		}
	}
	if _, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,`+notify+`}`))); code != wire.TokenInvalid {
		t.Error("no subject:", code)
	}
	// A policy holds for what comes out.
	key := keyNamed(t, "HS256", "k")
	narrow := newTestVerifier(t, newClock(), Options{Issuers: []Issuer{{Name: "a", Trusted: []Key{key}, Publish: []string{"users.*"}}}})
	for pattern, want := range map[string]wire.Code{"users.{sub}": wire.OK, "{sub}.users": wire.TokenInvalid} {
		token := tokenBy(t, key, `{"exp":1800000060,"iss":"a","sub":"ann","notify":{"publish":["`+pattern+`"]}}`)
		if _, code := narrow.Verify(token); code != want {
			t.Errorf("%s under a policy: %v", pattern, code)
		}
	}
}

// A long subject in many short patterns does not make a small token large.
func TestSubjectDoesNotMultiply(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	for n, want := range map[int]wire.Code{30: wire.OK, 700: wire.TokenInvalid} {
		patterns := strings.TrimSuffix(strings.Repeat(`"{sub}",`, n), ",")
		token := signed(t, "HS256", `{"exp":1800000060,"sub":"`+strings.Repeat("a", 250)+`","notify":{"publish":[`+patterns+`]}}`)
		if len(token) > DefaultMaxTokenBytes {
			t.Fatal("the token is refused for its length")
		}
		if _, code := v.Verify([]byte(token)); code != want {
			t.Errorf("%d patterns: %v", n, code)
		}
	}
}

func TestIssuersRefused(t *testing.T) {
	key := keyNamed(t, "HS256", "k")
	good := Issuer{Name: "a", Trusted: []Key{key}}
	with := func(change func(*Issuer)) Options {
		is := good
		change(&is)
		return Options{Issuers: []Issuer{is}}
	}
	for name, o := range map[string]Options{
		"no name":              with(func(i *Issuer) { i.Name = "" }),
		"no key":               with(func(i *Issuer) { i.Trusted = nil }),
		"bad pattern":          with(func(i *Issuer) { i.Publish = []string{"a..b"} }),
		"bad subscribe":        with(func(i *Issuer) { i.Subscribe = []string{""} }),
		"subject in a policy":  with(func(i *Issuer) { i.Subscribe = []string{"users.{sub}"} }),
		"lifetime below zero":  with(func(i *Issuer) { i.MaxLifetime = -1 }),
		"lifetime of a moment": with(func(i *Issuer) { i.MaxLifetime = time.Millisecond }),
		"an empty audience":    with(func(i *Issuer) { i.Audience = []string{"x", ""} }),
		"admin of all alone":   with(func(i *Issuer) { i.AdminOfAll = true }),
		"type with a space":    with(func(i *Issuer) { i.Type = "at+jwt; x" }),
		"missing file":         with(func(i *Issuer) { i.Keys = []string{"/nowhere/key.jwk"} }),
		"same name twice":      {Issuers: []Issuer{good, good}},
		"flat with that name":  {Issuers: []Issuer{good}, Trusted: []Key{key}, Issuer: "a"},
		"flat without a name":  {Issuers: []Issuer{good}, Trusted: []Key{key}},
		"flat without a key":   {Issuers: []Issuer{good}, Issuer: "b"},
	} {
		o.Now = newClock().now
		if _, err := New(o); err == nil {
			t.Error(name, "was accepted")
		} else if len(o.Issuers) == 1 && name != "no name" && name != "flat without a name" && name != "missing file" && !strings.Contains(err.Error(), "issuer \"") {
			t.Errorf("%s: the issuer is not named: %v", name, err)
		}
	}
	if _, err := New(Options{Issuers: []Issuer{good}}); err != nil {
		t.Error(err)
	}
	if _, err := New(Options{Trusted: []Key{key}, Audience: []string{""}}); err == nil || !strings.HasPrefix(err.Error(), "issuer: an audience") {
		t.Error("one without a name:", err)
	}
}

// Keys of files are read again for every issuer, or for none.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	fileA, fileB := filepath.Join(dir, "a.jwk"), filepath.Join(dir, "b.jwk")
	a, b, memory := keyNamed(t, "HS256", "a1"), keyNamed(t, "ES256", "b1"), keyNamed(t, "HS256", "m")
	writeKey(t, fileA, a)
	writeKey(t, fileB, b)
	v := newTestVerifier(t, newClock(), Options{
		Issuers: []Issuer{{Name: "a", Keys: []string{fileA}, Trusted: []Key{memory}}, {Name: "b", Keys: []string{fileB}}},
	})
	verify := func(key Key, iss string) (*Token, wire.Code) {
		return v.Verify(tokenBy(t, key, `{"exp":1800000060,"iss":"`+iss+`"}`))
	}
	ofA, code := verify(a, "a")
	if code != wire.OK {
		t.Fatal(code)
	}
	ofMemory, code := verify(memory, "a")
	if code != wire.OK {
		t.Fatal(code)
	}
	nextA, nextB := keyNamed(t, "HS256", "a2"), keyNamed(t, "ES256", "b2")
	writeKey(t, fileA, nextA)
	if err := os.WriteFile(fileB, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Reload(); err == nil || !strings.Contains(err.Error(), fileB) {
		t.Error("half a file was read:", err)
	}
	if _, code := verify(nextA, "a"); code != wire.TokenInvalid || ofA.Check(start*1e9) != wire.OK {
		t.Error("an error changed the keys")
	}
	writeKey(t, fileB, nextB)
	if err := v.Reload(); err != nil {
		t.Fatal(err)
	}
	if ofA.Check(start*1e9) != wire.TokenInvalid || ofMemory.Check(start*1e9) != wire.OK {
		t.Error("what fell should have stayed, or the reverse")
	}
	for _, row := range []struct {
		key  Key
		iss  string
		want wire.Code
	}{{nextA, "a", wire.OK}, {nextB, "b", wire.OK}, {a, "a", wire.TokenInvalid}, {b, "b", wire.TokenInvalid}, {memory, "a", wire.OK}} {
		if _, code := verify(row.key, row.iss); code != row.want {
			t.Errorf("%s: %v, want %v", row.key.kid, code, row.want)
		}
	}
	if err := v.SetKeys([]Key{a}); err == nil {
		t.Error("SetKeys without an issuer to set them for")
	}
}
