package authz

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestDigest(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	// printf 'rooms.42\n{"a": 1}' | openssl dgst -sha256 -binary | basenc --base64url
	const digest = "sha-256=tsu7qygirnqif7C5CL38zBEeRmMB00SHeAdzedVtNK4"
	if got := DigestOf("rooms.42", []byte(`{"a": 1}`)); got != digest {
		t.Fatal(got)
	}
	token, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,"notify":{"publish":["rooms.*"],"subscribe":["rooms.*"],"admin":true,"digest":"`+digest+`"}}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	if !token.Bound() {
		t.Error("not bound")
	}
	for _, row := range []struct {
		topic, data string
		want        wire.Code
	}{
		{"rooms.42", `{"a": 1}`, wire.OK},
		{"rooms.42", `{"a":1}`, wire.DigestMismatch},
		{"rooms.42", `{"a": 1} `, wire.DigestMismatch},
		{"rooms.42", `{"a": 2}`, wire.DigestMismatch},
		{"rooms.42", ``, wire.DigestMismatch},
		{"rooms.43", `{"a": 1}`, wire.DigestMismatch},
		{"rooms.4", `2` + "\n" + `{"a": 1}`, wire.DigestMismatch},
		{"", `rooms.42` + "\n" + `{"a": 1}`, wire.DigestMismatch},
		{"rooms.42", `{"a": 1}`, wire.OK},
	} {
		if got := token.Digest([]byte(row.topic), []byte(row.data)); got != row.want {
			t.Errorf("%s %s: %v, want %v", row.topic, row.data, got, row.want)
		}
	}
	if _, _, once := token.Once(); once {
		t.Error("once without being told")
	}
	if !token.MayPublish([]byte("rooms.42")) || token.MaySubscribe([]byte("rooms.42")) || token.Admin() {
		t.Error("a bound token is for publishing alone")
	}
}

func TestOnce(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{Leeway: 2 * time.Second})
	verify := func(payload string) *Token {
		t.Helper()
		token, code := v.Verify([]byte(signed(t, "HS256", payload)))
		if code != wire.OK {
			t.Fatal(code)
		}
		return token
	}
	token := verify(`{"iss":"i","jti":"j/1 ü","exp":1800000060.5,"notify":{"publish":["a"],"subscribe":["a"],"admin":true,"once":true}}`)
	jti, until, once := token.Once()
	if !token.Bound() || !once || jti != "j/1 ü" || until != start+62 || token.ID() != jti {
		t.Error(jti, until, once)
	}
	if token.Digest([]byte("a"), []byte("1")) != wire.OK {
		t.Error("a digest out of nothing")
	}
	if !token.MayPublish([]byte("a")) || token.MaySubscribe([]byte("a")) || token.Admin() {
		t.Error("a bound token is for publishing alone")
	}
	if token.Check(until*1e9-1) != wire.OK || token.Check(until*1e9) != wire.TokenExpired {
		t.Error("until is not when the token ends")
	}
	if _, until, _ := verify(`{"jti":"j","exp":253402300799,"notify":{"once":true}}`).Once(); until != maxNumericDate {
		t.Error("far exp:", until)
	}

	plain := verify(`{"iss":"i","jti":"j","sub":"s","exp":1800000060,"notify":{"publish":["a"],"subscribe":["a"],"admin":true,"once":false}}`)
	if jti, until, once := plain.Once(); plain.Bound() || once || jti != "" || until != 0 {
		t.Error("once: false is not once")
	}
	if !plain.Admin() || !plain.MaySubscribe([]byte("a")) || plain.Issuer() != "i" || plain.ID() != "j" || plain.Subject() != "s" {
		t.Error("claims are wrong")
	}
	if verify(`{"exp":1800000060,"notify":{"admin":false}}`).Admin() || verify(`{"exp":1800000060}`).Admin() {
		t.Error("admin out of nothing")
	}
}

// One name for one issuer and jti, whatever else the token says.
func TestOnceKey(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	seen := map[string]string{}
	for _, row := range []struct{ same, iss, jti, more string }{
		{"a", "i", "j", ""},
		{"a", "i", "j", `,"sub":"x"`},
		{"b", "i", "k", ""},
		{"d", "", "ij", ""},
		{"e", "j", "i", ""},
		{"f", "i", strings.Repeat("j", maxNameBytes), ""},
		{"g", "i", " .*>/\n\u0000", ""},
	} {
		token, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,"notify":{"once":true},"iss":"`+row.iss+`","jti":`+quote(t, row.jti)+row.more+`}`)))
		if code != wire.OK {
			t.Fatal(row, code)
		}
		key := token.OnceKey()
		checkBucketKey(t, key)
		if known, has := seen[key]; has && known != row.same {
			t.Errorf("%v shares a key with %s", row, known)
		}
		seen[key] = row.same
	}
	if len(seen) != 6 {
		t.Errorf("%d keys for 6 uses", len(seen))
	}
}

func TestAbuseOfBinding(t *testing.T) {
	good := DigestOf("a", []byte("1"))
	var rows []abuse
	row := func(name, notify string) {
		rows = append(rows, abuse{name, signed(t, "HS256", `{"jti":"j","exp":1800000060,"notify":{"publish":["a"],`+notify+`}}`), wire.TokenInvalid})
	}
	digest := func(name, value string) { row("digest "+name, `"digest":`+value) }
	digest("empty", `""`)
	digest("prefix alone", `"sha-256="`)
	digest("without prefix", `"`+good[8:]+`"`)
	digest("another hash", `"sha-512=`+good[8:]+`"`)
	digest("prefix in capitals", `"SHA-256=`+good[8:]+`"`)
	digest("prefix with a colon", `"sha-256:`+good[8:]+`"`)
	digest("padded", `"`+good+`="`)
	digest("cut", `"`+good[:len(good)-1]+`"`)
	digest("of 33 bytes", `"sha-256=`+encode(make([]byte, 33))+`"`)
	digest("of 31 bytes", `"sha-256=`+encode(make([]byte, 31))+`"`)
	digest("with spare bits", `"sha-256=`+strings.Repeat("A", 42)+`B"`)
	digest("in standard base64", `"sha-256=`+strings.Repeat("+", 42)+`A"`)
	digest("with a line feed", `"`+good+`\n"`)
	digest("with a space", `" `+good+`"`)
	digest("hexadecimal", `"sha-256=`+strings.Repeat("ab", 32)+`"`)
	digest("null", `null`)
	digest("array", `["`+good+`"]`)
	digest("object", `{"sha-256":"`+good[8:]+`"}`)
	row("Digest", `"Digest":"`+good+`"`)
	row("once a string", `"once":"true"`)
	row("once 1", `"once":1`)
	row("once null", `"once":null`)
	row("Once", `"Once":true`)
	row("good digest, bad once", `"digest":"`+good+`","once":0`)
	row("good once, bad digest", `"once":true,"digest":"x"`)
	plain := func(name, claims string, want wire.Code) {
		rows = append(rows, abuse{name, signed(t, "HS256", `{"exp":1800000060,`+claims+`}`), want})
	}
	plain("once with an empty jti", `"jti":"","notify":{"once":true}`, wire.TokenInvalid)
	plain("once without jti", `"notify":{"once":true}`, wire.TokenInvalid)
	plain("once with JTI", `"JTI":"j","notify":{"once":true}`, wire.TokenInvalid)
	plain("jti twice", `"jti":"j","jti":"k","notify":{"once":true}`, wire.TokenMalformed)
	plain("once twice", `"jti":"j","notify":{"once":true,"once":false}`, wire.TokenMalformed)
	plain("digest twice", `"notify":{"digest":"`+good+`","digest":"`+good+`"}`, wire.TokenMalformed)
	refuse(t, Options{}, rows)
}

func TestSignBound(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	claims := Claims{ID: "j", Expires: time.Unix(start+60, 0), Publish: []string{"a"}, Once: true, Digest: DigestOf("a", []byte("1"))}
	raw, err := Sign(testKeys()["EdDSA"], claims)
	if err != nil {
		t.Fatal(err)
	}
	token, code := v.Verify([]byte(raw))
	if code != wire.OK {
		t.Fatal(code)
	}
	if _, _, once := token.Once(); !once || token.Digest([]byte("a"), []byte("1")) != wire.OK || token.Digest([]byte("a"), []byte("2")) != wire.DigestMismatch {
		t.Error("not bound as it was told")
	}
	raw, err = Sign(testKeys()["HS256"], Claims{Expires: time.Unix(start+60, 0), Admin: true})
	if err != nil {
		t.Fatal(err)
	}
	if token, code := v.Verify([]byte(raw)); code != wire.OK || !token.Admin() || token.Bound() {
		t.Error("no administrator's token:", code)
	}
	for name, change := range map[string]func(*Claims){
		"once without ID": func(c *Claims) { c.ID = "" },
		"bad digest":      func(c *Claims) { c.Digest = "sha-256=abc" },
	} {
		bad := claims
		change(&bad)
		if _, err := Sign(testKeys()["HS256"], bad); err == nil {
			t.Error(name, "was signed")
		}
	}
}

func TestDigestDoesNotAllocate(t *testing.T) {
	v := newTestVerifier(t, newClock(), Options{})
	topic, data := []byte("rooms.42"), []byte(strings.Repeat("x", 4096))
	token, code := v.Verify([]byte(signed(t, "HS256", `{"jti":"j","exp":1800000060,"notify":{"once":true,"digest":"`+DigestOf("rooms.42", data)+`"}}`)))
	if code != wire.OK {
		t.Fatal(code)
	}
	ok := true
	n := testing.AllocsPerRun(100, func() {
		_, _, once := token.Once()
		ok = ok && token.Bound() && once && token.Digest(topic, data) == wire.OK && token.Digest(data, topic) == wire.DigestMismatch
	})
	if n != 0 || !ok {
		t.Error(n, "allocations; right answers:", ok)
	}
}

// BenchmarkDigest is what a message-bound token costs more than another.
func BenchmarkDigest(b *testing.B) {
	v := newTestVerifier(b, newClock(), Options{})
	topic, data := []byte("rooms.42"), []byte(strings.Repeat("x", 128))
	token, code := v.Verify([]byte(signed(b, "HS256", `{"exp":1800000060,"notify":{"digest":"`+DigestOf("rooms.42", data)+`"}}`)))
	if code != wire.OK {
		b.Fatal(code)
	}
	b.ReportAllocs()
	for b.Loop() {
		if token.Digest(topic, data) != wire.OK {
			b.Fatal("mismatch")
		}
	}
}

func quote(t testing.TB, text string) string {
	t.Helper()
	b, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkBucketKey fails for what a NATS key-value bucket does not take as a key.
func checkBucketKey(t testing.TB, key string) {
	t.Helper()
	if len(key) == 0 || len(key) > 100 || strings.Trim(key, ".") != key || strings.Trim(key, "-_/=.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		t.Errorf("%q is no key for a bucket", key)
	}
}
