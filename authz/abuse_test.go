package authz

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/wire"
)

// abuse is one thing that attackers or accidents send.
type abuse struct {
	name  string
	token string
	want  wire.Code
}

// says checks that a refusal has words for the operator, and none of the token's own.
func says(t *testing.T, told *Refusal, code wire.Code, token string) {
	t.Helper()
	if told == nil || told.Reason.Code() != code || told.Error() == "" {
		t.Fatalf("the reason of %v: %v", code, told)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(told.Error(), part) {
			t.Errorf("a part of the token is quoted: %v", told)
		}
	}
	if len(told.Error()) > 2000 {
		t.Errorf("%d bytes of reason", len(told.Error()))
	}
}

// refuse checks that a token is refused, remembered as little as it is
// accepted, and refused again after a good token was remembered.
func refuse(t *testing.T, options Options, rows []abuse) {
	t.Helper()
	good := []byte(signed(t, "HS256", goodPayload))
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var told *Refusal
			options.OnRefused = func(r *Refusal, _ netip.Addr) { told = r }
			v := newTestVerifier(t, newClock(), options)
			bad := []byte(row.token)
			for _, when := range []string{"first sight", "second sight", "beside a remembered one"} {
				if when == "beside a remembered one" {
					if _, code := v.Verify(good); code != wire.OK {
						t.Fatal("the good token:", code)
					}
				}
				entries := v.Stats().Entries
				v.Cost(bad) // must stand it too
				token, code := v.Verify(bad)
				refused := v.Stats().Refused.Sum()
				v.Cost(bad) // is no refusal
				if _, _ = v.Verify(bad); v.Stats().Refused.Sum() != refused+1 {
					t.Errorf("%s: counted %d times", when, v.Stats().Refused.Sum()-refused)
				}
				if code != row.want || token != nil {
					t.Errorf("%s: %v, want %v", when, code, row.want)
				}
				says(t, told, row.want, row.token)
				if v.Find(bad) != nil || v.Stats().Entries != entries {
					t.Errorf("%s: a failure was remembered", when)
				}
			}
			if code := v.Find(good).Check(start * 1e9); code != wire.OK {
				t.Error("the good token afterwards:", code)
			}
		})
	}
}

func TestAbuseOfHeader(t *testing.T) {
	keys := testKeys()
	secret := keys["HS256"].sign
	// by makes a token that HS256 signs correctly under any header.
	by := func(header string) string { return forge(t, "HS256", secret, header, goodPayload) }
	unsigned := func(header string) string {
		return encode([]byte(header)) + "." + encode([]byte(goodPayload)) + "."
	}
	public, err := x509.MarshalPKIXPublicKey(keys["RS256"].verify)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	mallory, err := GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	malloryJWK, err := json.Marshal(mallory.publicJWK())
	if err != nil {
		t.Fatal(err)
	}

	refuse(t, Options{}, []abuse{
		{"alg none", unsigned(`{"alg":"none","kid":"hs256"}`), wire.TokenInvalid},
		{"alg None", unsigned(`{"alg":"None","kid":"hs256"}`), wire.TokenInvalid},
		{"alg NONE without kid", unsigned(`{"alg":"NONE"}`), wire.TokenInvalid},
		{"alg nOnE with a signature", by(`{"alg":"nOnE","kid":"hs256"}`), wire.TokenInvalid},
		{"alg missing", by(`{"typ":"JWT","kid":"hs256"}`), wire.TokenInvalid},
		{"alg empty", by(`{"alg":"","kid":"hs256"}`), wire.TokenInvalid},
		{"alg number", by(`{"alg":256,"kid":"hs256"}`), wire.TokenInvalid},
		{"alg array", by(`{"alg":["HS256"],"kid":"hs256"}`), wire.TokenInvalid},
		{"alg object", by(`{"alg":{"HS256":1},"kid":"hs256"}`), wire.TokenInvalid},
		{"alg null", by(`{"alg":null,"kid":"hs256"}`), wire.TokenInvalid},
		{"alg in lower case", by(`{"alg":"hs256","kid":"hs256"}`), wire.TokenInvalid},
		{"alg with a space", by(`{"alg":"HS256 ","kid":"hs256"}`), wire.TokenInvalid},
		{"member ALG alone", by(`{"ALG":"HS256","kid":"hs256"}`), wire.TokenInvalid},
		{"member ALG too", by(`{"alg":"HS256","ALG":"none","kid":"hs256"}`), wire.TokenInvalid},
		{"alg twice", by(`{"alg":"none","alg":"HS256","kid":"hs256"}`), wire.TokenMalformed},
		{"alg twice, once escaped", by(`{"\u0061lg":"none","alg":"HS256","kid":"hs256"}`), wire.TokenMalformed},
		{"unknown alg", by(`{"alg":"HS1024","kid":"hs256"}`), wire.TokenInvalid},

		{"HS256 with the RSA public PEM as secret", forge(t, "HS256", rsaPEM, `{"alg":"HS256","kid":"rs256"}`, goodPayload), wire.TokenInvalid},
		{"HS256 with the RSA public DER as secret", forge(t, "HS256", public, `{"alg":"HS256","kid":"rs256"}`, goodPayload), wire.TokenInvalid},
		{"the same without kid", forge(t, "HS256", rsaPEM, `{"alg":"HS256"}`, goodPayload), wire.TokenInvalid},
		{"HS256 with an empty secret", forge(t, "HS256", []byte{}, `{"alg":"HS256","kid":"hs256"}`, goodPayload), wire.TokenInvalid},
		{"HS512 with the right secret", forge(t, "HS512", secret, `{"alg":"HS512","kid":"hs256"}`, goodPayload), wire.TokenInvalid},
		{"HS384 without kid", forge(t, "HS384", secret, `{"alg":"HS384"}`, goodPayload), wire.TokenInvalid},
		{"PS256 with the RS256 key", forge(t, "PS256", keys["RS256"].sign, `{"alg":"PS256","kid":"rs256"}`, goodPayload), wire.TokenInvalid},
		{"RS256 with the PS256 key", forge(t, "RS256", keys["PS256"].sign, `{"alg":"RS256","kid":"ps256"}`, goodPayload), wire.TokenInvalid},
		{"RS512 with the RS256 key", forge(t, "RS512", keys["RS256"].sign, `{"alg":"RS512","kid":"rs256"}`, goodPayload), wire.TokenInvalid},
		{"kid of another key", forge(t, "ES256", keys["ES256"].sign, `{"alg":"ES256","kid":"es384"}`, goodPayload), wire.TokenInvalid},
		{"header says ES256, signed by EdDSA", forge(t, "EdDSA", keys["EdDSA"].sign, `{"alg":"ES256","kid":"eddsa"}`, goodPayload), wire.TokenInvalid},
		{"signed by an unknown key", forge(t, "ES256", mallory.sign, `{"alg":"ES256","kid":"es256"}`, goodPayload), wire.TokenInvalid},

		{"kid unknown", by(`{"alg":"HS256","kid":"other"}`), wire.TokenInvalid},
		{"kid empty", by(`{"alg":"HS256","kid":""}`), wire.TokenInvalid},
		{"kid in capitals", by(`{"alg":"HS256","kid":"HS256"}`), wire.TokenInvalid},
		{"kid a path", by(`{"alg":"HS256","kid":"../../etc/passwd"}`), wire.TokenInvalid},
		{"kid an absolute path", by(`{"alg":"HS256","kid":"/dev/null"}`), wire.TokenInvalid},
		{"kid with NUL", by(`{"alg":"HS256","kid":"hs256\u0000"}`), wire.TokenInvalid},
		{"kid SQL", by(`{"alg":"HS256","kid":"x' UNION SELECT 'key"}`), wire.TokenInvalid},
		{"kid a number", by(`{"alg":"HS256","kid":1}`), wire.TokenInvalid},
		{"kid null", by(`{"alg":"HS256","kid":null}`), wire.TokenInvalid},
		{"kid twice", by(`{"alg":"HS256","kid":"x","kid":"hs256"}`), wire.TokenMalformed},
		{"Kid alone", by(`{"alg":"HS256","Kid":"hs256"}`), wire.TokenInvalid},
		{"embedded jwk", forge(t, "ES256", mallory.sign, `{"alg":"ES256","kid":"es256","jwk":`+string(malloryJWK)+`}`, goodPayload), wire.TokenInvalid},
		{"embedded jwk without kid", forge(t, "ES256", mallory.sign, `{"alg":"ES256","jwk":`+string(malloryJWK)+`}`, goodPayload), wire.TokenInvalid},
		{"jku", forge(t, "ES256", mallory.sign, `{"alg":"ES256","jku":"http://127.0.0.1:1/keys"}`, goodPayload), wire.TokenInvalid},
		{"x5u", forge(t, "ES256", mallory.sign, `{"alg":"ES256","x5u":"http://127.0.0.1:1/cert"}`, goodPayload), wire.TokenInvalid},
		{"x5c", forge(t, "ES256", mallory.sign, `{"alg":"ES256","x5c":["MIIB"]}`, goodPayload), wire.TokenInvalid},

		{"crit", by(`{"alg":"HS256","kid":"hs256","crit":["exp"],"exp":1}`), wire.TokenInvalid},
		{"crit empty", by(`{"alg":"HS256","kid":"hs256","crit":[]}`), wire.TokenInvalid},
		{"b64 false", by(`{"alg":"HS256","kid":"hs256","b64":false}`), wire.TokenInvalid},
		{"b64 false and crit", by(`{"alg":"HS256","kid":"hs256","b64":false,"crit":["b64"]}`), wire.TokenInvalid},
		{"Crit", by(`{"alg":"HS256","kid":"hs256","Crit":["b64"]}`), wire.TokenInvalid},
		{"cty JWT", by(`{"alg":"HS256","kid":"hs256","cty":"JWT"}`), wire.TokenInvalid},
		{"zip", by(`{"alg":"HS256","kid":"hs256","zip":"DEF"}`), wire.TokenInvalid},
		{"typ of another kind", by(`{"alg":"HS256","kid":"hs256","typ":"dpop+jwt"}`), wire.TokenInvalid},
		{"typ logout", by(`{"alg":"HS256","kid":"hs256","typ":"logout+jwt"}`), wire.TokenInvalid},
		{"typ JOSE", by(`{"alg":"HS256","kid":"hs256","typ":"JOSE"}`), wire.TokenInvalid},
		{"typ empty", by(`{"alg":"HS256","kid":"hs256","typ":""}`), wire.TokenInvalid},
		{"typ number", by(`{"alg":"HS256","kid":"hs256","typ":1}`), wire.TokenInvalid},
		{"typ with two prefixes", by(`{"alg":"HS256","kid":"hs256","typ":"application/application/jwt"}`), wire.TokenInvalid},

		{"header null", by(`null`), wire.TokenMalformed},
		{"header array", by(`[]`), wire.TokenMalformed},
		{"header string", by(`"HS256"`), wire.TokenMalformed},
		{"header empty object", by(`{}`), wire.TokenInvalid},
		{"header empty", by(``), wire.TokenMalformed},
		{"header cut", by(`{"alg":"HS256","kid":"hs256"`), wire.TokenMalformed},
		{"header with trailing text", by(`{"alg":"HS256","kid":"hs256"}x`), wire.TokenMalformed},
		{"two headers", by(`{"alg":"HS256","kid":"hs256"}{"alg":"none"}`), wire.TokenMalformed},
		{"header with a BOM", by("\xef\xbb\xbf" + `{"alg":"HS256","kid":"hs256"}`), wire.TokenMalformed},
		{"header with bad UTF-8", by("{\"alg\":\"HS256\",\"kid\":\"hs256\",\"x\":\"\xff\"}"), wire.TokenMalformed},
		{"kid with half a surrogate pair", by(`{"alg":"HS256","kid":"hs256\ud800"}`), wire.TokenInvalid},
		{"header with a duplicate deep inside", by(`{"alg":"HS256","kid":"hs256","x":{"a":1,"a":2}}`), wire.TokenMalformed},
	})
}

func TestHeadersThatAreFine(t *testing.T) {
	for _, header := range []string{
		`{"alg":"HS256"}`,
		`{"alg":"HS256","kid":"hs256"}`,
		` { "alg" : "HS256" } `,
		`{"\u0061lg":"HS256"}`,
		`{"alg":"HS256","typ":"JWT"}`,
		`{"alg":"HS256","typ":"jwt"}`,
		`{"alg":"HS256","typ":"at+jwt"}`,
		`{"alg":"HS256","typ":"AT+JWT"}`,
		`{"alg":"HS256","typ":"application/at+jwt"}`,
		`{"alg":"HS256","typ":"Application/JWT"}`,
		`{"alg":"HS256","x5t":"abc","jku":"http://127.0.0.1:1/","x-own":{"a":[1]}}`,
	} {
		v := newTestVerifier(t, newClock(), Options{})
		raw := []byte(forge(t, "HS256", testKeys()["HS256"].sign, header, goodPayload))
		if _, code := v.Verify(raw); code != wire.OK {
			t.Error(header, code)
		}
	}
}

// Without a kid, two keys for one algorithm leave no choice.
func TestTokenWithoutKid(t *testing.T) {
	other, err := GenerateKey("HS256")
	if err != nil {
		t.Fatal(err)
	}
	raw := []byte(forge(t, "HS256", testKeys()["HS256"].sign, `{"alg":"HS256"}`, goodPayload))
	v := newTestVerifier(t, newClock(), Options{})
	if _, code := v.Verify(raw); code != wire.OK {
		t.Fatal("with one key:", code)
	}
	if err := v.SetKeys(append(allKeys(), other)); err != nil {
		t.Fatal(err)
	}
	// Signed by a key that stays, so that it is still remembered.
	if _, code := v.Verify(raw); code != wire.OK {
		t.Error("remembered:", code)
	}
	next := []byte(forge(t, "HS256", testKeys()["HS256"].sign, `{"alg":"HS256"}`, `{"exp":1800000061}`))
	if _, code := v.Verify(next); code != wire.OK {
		t.Error("with two keys:", code)
	}
	if _, code := v.Verify([]byte(forge(t, "HS256", other.sign, `{"alg":"HS256"}`, `{"exp":1800000062}`))); code != wire.OK {
		t.Error("by the other of two keys:", code)
	}
	stranger, err := GenerateKey("HS256")
	if err != nil {
		t.Fatal(err)
	}
	if _, code := v.Verify([]byte(forge(t, "HS256", stranger.sign, `{"alg":"HS256"}`, `{"exp":1800000063}`))); code != wire.TokenInvalid {
		t.Error("by neither:", code)
	}
	// The number of keys that are tried is bounded.
	keys := []Key{}
	for range maxTries + 1 {
		key, err := GenerateKey("HS256")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if err := v.SetKeys(keys); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]wire.Code{0: wire.OK, maxTries - 1: wire.OK, maxTries: wire.TokenInvalid} {
		if _, code := v.Verify([]byte(forge(t, "HS256", keys[i].sign, `{"alg":"HS256"}`, `{"exp":1800000064}`))); code != want {
			t.Errorf("by key %d: %v, want %v", i, code, want)
		}
	}
}

func TestAbuseOfSerialization(t *testing.T) {
	good := signed(t, "HS256", goodPayload)
	parts := strings.Split(good, ".")
	head, body, signature := parts[0], parts[1], parts[2]
	es := signed(t, "ES256", goodPayload)
	esText := es[:strings.LastIndex(es, ".")+1]
	esSignature, err := base64.RawURLEncoding.DecodeString(es[len(esText):])
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1Signature(esSignature)
	if err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	order, beyond := n.Bytes(), new(big.Int).Add(n, big.NewInt(1)).Bytes()
	rows := []abuse{
		{"empty", "", wire.TokenMissing},
		{"no segment", "abc", wire.TokenMalformed},
		{"two segments", head + "." + body, wire.TokenMalformed},
		{"four segments", good + ".abc", wire.TokenMalformed},
		{"five segments", good + ".abc.def", wire.TokenMalformed},
		{"trailing dot", good + ".", wire.TokenMalformed},
		{"leading dot", "." + good, wire.TokenMalformed},
		{"dots alone", "..", wire.TokenMalformed},
		{"1 MiB of dots", strings.Repeat(".", 1<<20), wire.TokenMalformed},
		{"8 KiB of dots", strings.Repeat(".", 8<<10), wire.TokenMalformed},
		{"over the length", good + strings.Repeat("A", DefaultMaxTokenBytes+1-len(good)), wire.TokenMalformed},
		{"padding", good + "=", wire.TokenMalformed},
		{"padding in the header", head + "=." + body + "." + signature, wire.TokenMalformed},
		{"leading space", " " + good, wire.TokenMalformed},
		{"trailing space", good + " ", wire.TokenMalformed},
		{"trailing LF", good + "\n", wire.TokenMalformed},
		{"CR LF inside the signature", head + "." + body + "." + signature[:4] + "\r\n" + signature[4:], wire.TokenMalformed},
		{"LF inside the payload", head + "." + body[:4] + "\n" + body[4:] + "." + signature, wire.TokenMalformed},
		{"tab", good + "\t", wire.TokenMalformed},
		{"NUL", good + "\x00", wire.TokenMalformed},
		{"Bearer", "Bearer " + good, wire.TokenMalformed},
		{"quotes", `"` + good + `"`, wire.TokenMalformed},
		{"percent encoded dot", head + "%2E" + body + "." + signature, wire.TokenMalformed},
		{"standard base64 alphabet", head + "." + body + "." + "+/" + signature[2:], wire.TokenMalformed},
		{"JSON serialization", `{"protected":"` + head + `","payload":"` + body + `","signature":"` + signature + `"}`, wire.TokenMalformed},
		{"a character that ends a byte alone", head + "." + body + "." + signature + "A", wire.TokenInvalid},
		{"signature missing", head + "." + body + ".", wire.TokenInvalid},
		{"signature cut by a byte", head + "." + body + "." + signature[:len(signature)-2], wire.TokenMalformed},
		{"payload of another token", head + "." + strings.Split(signed(t, "HS256", `{"exp":1900000000}`), ".")[1] + "." + signature, wire.TokenInvalid},
		{"ES256 of r = s = 0", esText + encode(make([]byte, 64)), wire.TokenInvalid},
		{"ES256 of r = 1, s = 0", esText + encode(slices.Concat(make([]byte, 31), []byte{1}, make([]byte, 32))), wire.TokenInvalid},
		{"ES256 of r = s = n", esText + encode(slices.Concat(order, order)), wire.TokenInvalid},
		{"ES256 of r = s = n + 1", esText + encode(slices.Concat(beyond, beyond)), wire.TokenInvalid},
		{"ES256 with 65 bytes", esText + encode(slices.Concat(esSignature, []byte{0})), wire.TokenInvalid},
		{"ES256 with 63 bytes", esText + encode(esSignature[:63]), wire.TokenInvalid},
		{"ES256 in DER", esText + encode(der), wire.TokenInvalid},
	}
	refuse(t, Options{}, rows)

	// RFC 4648 §3.5: the last character's spare bits. An HS256 signature has 32
	// bytes, so that 2 bits are spare, and 4 spellings decode to the same.
	t.Run("spare bits", func(t *testing.T) {
		v := newTestVerifier(t, newClock(), Options{})
		if _, code := v.Verify([]byte(good)); code != wire.OK {
			t.Fatal(code)
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, good[len(good)-1])
		for spare := 1; spare < 4; spare++ {
			other := good[:len(good)-1] + string(alphabet[last|spare])
			if v.Find([]byte(other)) != nil {
				t.Error("another spelling was found")
			}
			if _, code := v.Verify([]byte(other)); code != wire.TokenMalformed {
				t.Error("another spelling:", code)
			}
		}
		if n := v.Stats().Entries; n != 1 {
			t.Error("the cache grew to", n)
		}
	})
}

func TestAbuseOfEd25519Signature(t *testing.T) {
	token := signed(t, "EdDSA", goodPayload)
	text := token[:strings.LastIndex(token, ".")+1]
	signature, err := base64.RawURLEncoding.DecodeString(token[len(text):])
	if err != nil {
		t.Fatal(err)
	}
	// S + L signs as well as S does where S is not checked (RFC 8032 §8.4).
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := make([]byte, 32)
	for i := range s {
		s[31-i] = signature[32+i]
	}
	big.NewInt(0).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	malleable := append([]byte{}, signature[:32]...)
	for i := range s {
		malleable = append(malleable, s[31-i])
	}
	refuse(t, Options{}, []abuse{
		{"S + L", text + encode(malleable), wire.TokenInvalid},
		{"zeros", text + encode(make([]byte, 64)), wire.TokenInvalid},
		{"65 bytes", text + encode(slices.Concat(signature, []byte{0})), wire.TokenInvalid},
		{"empty", text, wire.TokenInvalid},
	})
}

func TestAbuseOfPayload(t *testing.T) {
	row := func(name, payload string, want wire.Code) abuse {
		return abuse{name, signed(t, "HS256", payload), want}
	}
	const rest = `"iss":"https://id.example","aud":"notifyd"`
	refuse(t, Options{Issuer: "https://id.example", Audience: []string{"notifyd"}}, []abuse{
		row("null", `null`, wire.TokenMalformed),
		row("array", `[]`, wire.TokenMalformed),
		row("string", `"x"`, wire.TokenMalformed),
		row("number", `1`, wire.TokenMalformed),
		row("empty", ``, wire.TokenMalformed),
		row("empty object", `{}`, wire.TokenInvalid),
		row("trailing text", goodPayload+`x`, wire.TokenMalformed),
		row("trailing brace", goodPayload+`}`, wire.TokenMalformed),
		row("two objects", goodPayload+goodPayload, wire.TokenMalformed),
		row("BOM", "\xef\xbb\xbf"+goodPayload, wire.TokenMalformed),
		row("cut", goodPayload[:len(goodPayload)-1], wire.TokenMalformed),
		row("bad UTF-8", "{"+rest+",\"exp\":1800000060,\"x\":\"\xff\"}", wire.TokenMalformed),
		row("half a surrogate pair in sub", `{`+rest+`,"exp":1800000060,"sub":"\ud800"}`, wire.TokenInvalid),
		row("half a surrogate pair in aud", `{`+rest+`,"exp":1800000060,"aud":["notifyd","\ud83d"]}`, wire.TokenMalformed),
		row("half a surrogate pair in a grant", `{`+rest+`,"exp":1800000060,"notify":{"publish":["a.\ud83d"]}}`, wire.TokenInvalid),
		row("half a surrogate pair in a name", `{`+rest+`,"exp":1800000060,"\ud83d":1,"\ud83e":1}`, wire.TokenMalformed),
		row("deep", `{`+rest+`,"exp":1800000060,"x":`+strings.Repeat("[", 2500)+`}`, wire.TokenMalformed),
		row("duplicate deep inside", `{`+rest+`,"exp":1800000060,"x":[{"a":1,"a":1}]}`, wire.TokenMalformed),

		row("no exp", `{`+rest+`}`, wire.TokenInvalid),
		row("exp 0", `{`+rest+`,"exp":0}`, wire.TokenInvalid),
		row("exp -0", `{`+rest+`,"exp":-0}`, wire.TokenInvalid),
		row("exp 0.5", `{`+rest+`,"exp":0.5}`, wire.TokenInvalid),
		row("exp a string", `{`+rest+`,"exp":"1800000060"}`, wire.TokenInvalid),
		row("exp true", `{`+rest+`,"exp":true}`, wire.TokenInvalid),
		row("exp null", `{`+rest+`,"exp":null}`, wire.TokenInvalid),
		row("exp array", `{`+rest+`,"exp":[]}`, wire.TokenInvalid),
		row("exp array of one", `{`+rest+`,"exp":[1800000060]}`, wire.TokenInvalid),
		row("exp object", `{`+rest+`,"exp":{}}`, wire.TokenInvalid),
		row("exp NaN", `{`+rest+`,"exp":NaN}`, wire.TokenMalformed),
		row("exp Infinity", `{`+rest+`,"exp":Infinity}`, wire.TokenMalformed),
		row("exp hexadecimal", `{`+rest+`,"exp":0x7fffffff}`, wire.TokenMalformed),
		row("exp +", `{`+rest+`,"exp":+1800000060}`, wire.TokenMalformed),
		row("exp 1e400", `{`+rest+`,"exp":1e400}`, wire.TokenInvalid),
		row("exp -1e400", `{`+rest+`,"exp":-1e400}`, wire.TokenInvalid),
		row("exp 1e300", `{`+rest+`,"exp":1e300}`, wire.TokenInvalid),
		row("exp 1e19", `{`+rest+`,"exp":1e19}`, wire.TokenInvalid),
		row("exp 10000000000000000000", `{`+rest+`,"exp":10000000000000000000}`, wire.TokenInvalid),
		row("exp largest int64", `{`+rest+`,"exp":9223372036854775807}`, wire.TokenInvalid),
		row("exp year 10000", `{`+rest+`,"exp":253402300800}`, wire.TokenInvalid),
		row("exp in milliseconds", `{`+rest+`,"exp":1800000060000}`, wire.TokenInvalid),
		row("exp -1", `{`+rest+`,"exp":-1}`, wire.TokenInvalid),
		row("exp tiny", `{`+rest+`,"exp":1e-400}`, wire.TokenInvalid),
		row("exp past", `{`+rest+`,"exp":1799999999}`, wire.TokenExpired),
		row("exp exactly now", `{`+rest+`,"exp":1800000000}`, wire.TokenExpired),
		row("exp now and a fraction", `{`+rest+`,"exp":1800000000.9}`, wire.TokenExpired),
		row("exp twice, past and future", `{`+rest+`,"exp":1,"exp":1800000060}`, wire.TokenMalformed),
		row("exp twice, future and past", `{`+rest+`,"exp":1800000060,"exp":1}`, wire.TokenMalformed),
		row("exp twice, once escaped", `{`+rest+`,"exp":1800000060,"\u0065xp":1}`, wire.TokenMalformed),
		row("escaped exp past", `{`+rest+`,"\u0065xp":1799999999}`, wire.TokenExpired),
		row("Exp alone", `{`+rest+`,"Exp":1800000060}`, wire.TokenInvalid),
		row("Exp beside exp", `{`+rest+`,"exp":1800000060,"Exp":1}`, wire.TokenInvalid),
		row("EXP escaped", `{`+rest+`,"\u0045XP":1800000060}`, wire.TokenInvalid),
		row("\u017fub beside sub", `{`+rest+`,"exp":1800000060,"sub":"a","`+"\u017f"+`ub":"b"}`, wire.TokenInvalid),

		row("nbf in the future", `{`+rest+`,"exp":1800000060,"nbf":1800000006}`, wire.TokenNotYetValid),
		row("nbf a string", `{`+rest+`,"exp":1800000060,"nbf":"1"}`, wire.TokenInvalid),
		row("nbf null", `{`+rest+`,"exp":1800000060,"nbf":null}`, wire.TokenInvalid),
		row("nbf negative", `{`+rest+`,"exp":1800000060,"nbf":-1}`, wire.TokenInvalid),
		row("nbf 1e300", `{`+rest+`,"exp":1800000060,"nbf":1e300}`, wire.TokenInvalid),
		row("nbf twice", `{`+rest+`,"exp":1800000060,"nbf":1900000000,"nbf":1}`, wire.TokenMalformed),
		row("Nbf", `{`+rest+`,"exp":1800000060,"Nbf":1}`, wire.TokenInvalid),
		row("iat in the future", `{`+rest+`,"exp":1800000060,"iat":1800000006}`, wire.TokenNotYetValid),
		row("iat a string", `{`+rest+`,"exp":1800000060,"iat":"1"}`, wire.TokenInvalid),
		row("iat negative", `{`+rest+`,"exp":1800000060,"iat":-1}`, wire.TokenInvalid),
		row("expired and not yet valid", `{`+rest+`,"exp":1799999999,"nbf":1800000006}`, wire.TokenExpired),

		row("iss missing", `{"aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss of another", `{"iss":"https://evil.example","aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss with a trailing slash", `{"iss":"https://id.example/","aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss in capitals", `{"iss":"https://ID.example","aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss empty", `{"iss":"","aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss an array", `{"iss":["https://id.example"],"aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss null", `{"iss":null,"aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("ISS alone", `{"ISS":"https://id.example","aud":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("iss twice", `{"iss":"x","iss":"https://id.example","aud":"notifyd","exp":1800000060}`, wire.TokenMalformed),
		row("aud wrong and expired", `{"iss":"https://id.example","aud":"x","exp":1}`, wire.TokenInvalid),
		row("aud missing and expired", `{"iss":"https://id.example","exp":1}`, wire.TokenInvalid),
		row("iss wrong and expired", `{"iss":"x","aud":"notifyd","exp":1}`, wire.TokenInvalid),
		row("aud missing", `{"iss":"https://id.example","exp":1800000060}`, wire.TokenInvalid),
		row("aud of another", `{"iss":"https://id.example","aud":"other","exp":1800000060}`, wire.TokenInvalid),
		row("aud with a trailing slash", `{"iss":"https://id.example","aud":"notifyd/","exp":1800000060}`, wire.TokenInvalid),
		row("aud a number", `{"iss":"https://id.example","aud":1,"exp":1800000060}`, wire.TokenInvalid),
		row("aud object", `{"iss":"https://id.example","aud":{"notifyd":1},"exp":1800000060}`, wire.TokenInvalid),
		row("aud null", `{"iss":"https://id.example","aud":null,"exp":1800000060}`, wire.TokenInvalid),
		row("aud empty array", `{"iss":"https://id.example","aud":[],"exp":1800000060}`, wire.TokenInvalid),
		row("aud array with a number", `{"iss":"https://id.example","aud":["notifyd",1],"exp":1800000060}`, wire.TokenInvalid),
		row("aud array in an array", `{"iss":"https://id.example","aud":[["notifyd"]],"exp":1800000060}`, wire.TokenInvalid),
		row("AUD alone", `{"iss":"https://id.example","AUD":"notifyd","exp":1800000060}`, wire.TokenInvalid),
		row("sub a number", `{`+rest+`,"exp":1800000060,"sub":1}`, wire.TokenInvalid),
		row("jti a number", `{`+rest+`,"exp":1800000060,"jti":1}`, wire.TokenInvalid),
	})
}

func TestPayloadsThatAreFine(t *testing.T) {
	for _, payload := range []string{
		`{"exp":1800000060}`,
		`{"exp":1800000001.5}`,
		`{"exp":1.8000001e9}`,
		"\n{ \"exp\" : 1800000060 }\r\n",
		`{"exp":1800000060,"nbf":0,"iat":0}`,
		`{"exp":1800000060,"nbf":1800000005,"iat":1800000005}`,
		`{"exp":1800000060,"iss":"any","aud":["a","b"]}`,
		`{"exp":1800000060,"expires":"x","scope":"a b","nested":{"exp":1}}`,
	} {
		v := newTestVerifier(t, newClock(), Options{})
		if _, code := v.Verify([]byte(signed(t, "HS256", payload))); code != wire.OK {
			t.Error(payload, code)
		}
	}
	v := newTestVerifier(t, newClock(), Options{Audience: []string{"else", "notifyd"}})
	if _, code := v.Verify([]byte(signed(t, "HS256", `{"exp":1800000060,"aud":["other","notifyd"]}`))); code != wire.OK {
		t.Error("one audience of several:", code)
	}
}

// The bound on length comes before everything else, remembered or not.
func TestTokenLength(t *testing.T) {
	good := []byte(signed(t, "HS256", goodPayload))
	v := newTestVerifier(t, newClock(), Options{MaxTokenBytes: len(good)})
	if _, code := v.Verify(good); code != wire.OK {
		t.Fatal("at the bound:", code)
	}
	v = newTestVerifier(t, newClock(), Options{MaxTokenBytes: len(good) - 1})
	if _, code := v.Verify(good); code != wire.TokenMalformed {
		t.Error("over the bound:", code)
	}
	huge := []byte(strings.Repeat("A", 1<<20))
	misses := v.Stats().Misses
	if v.Find(huge) != nil || v.Cost(huge) != Cheap {
		t.Error("a megabyte was looked at")
	}
	if got := v.Stats().Misses; got != misses {
		t.Error("a megabyte was hashed")
	}
}

// asn1Signature spells an ECDSA signature as X.509 does, not as JWS does.
func asn1Signature(raw []byte) ([]byte, error) {
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}
