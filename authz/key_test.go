package authz

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Every generated key survives its file, and its public half verifies what the
// private one signed.
func TestKeyRoundTrip(t *testing.T) {
	for _, alg := range algorithms {
		t.Run(alg, func(t *testing.T) {
			key, err := GenerateKey(alg)
			if err != nil {
				t.Fatal(err)
			}
			if key.ID() != key.thumb || key.Algorithm() != alg || !key.CanSign() {
				t.Error(key)
			}
			file, err := json.Marshal(key)
			if err != nil {
				t.Fatal(err)
			}
			private, err := ParseKey(file)
			if err != nil {
				t.Fatal(err)
			}
			if !private.same(key) || !private.CanSign() {
				t.Error("the file holds another key")
			}
			token, err := Sign(private, Claims{Expires: time.Unix(start+60, 0)})
			if err != nil {
				t.Fatal(err)
			}
			set, err := key.Public()
			if alg == "HS256" {
				if err == nil {
					t.Fatal("a secret was published")
				}
				set = file
			} else if err != nil {
				t.Fatal(err)
			}
			public, err := ParseKey(set)
			if err != nil {
				t.Fatal(err)
			}
			if alg != "HS256" {
				if public.CanSign() || strings.Contains(string(set), `"d"`) {
					t.Error("the public key holds the private one")
				}
				if _, err := Sign(public, Claims{Expires: time.Unix(start+60, 0)}); err == nil {
					t.Error("a public key signed")
				}
			}
			v := newTestVerifier(t, newClock(), Options{Trusted: []Key{public}})
			if _, code := v.Verify([]byte(token)); code != wire.OK {
				t.Error(code)
			}
		})
	}
	for _, alg := range []string{"", "none", "HS512", "eddsa"} {
		if _, err := GenerateKey(alg); err == nil {
			t.Errorf("generated a key for %q", alg)
		}
	}
}

// A key that is printed by accident shows no material.
func TestKeyPrintsNoMaterial(t *testing.T) {
	for _, key := range allKeys() {
		file, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]string
		if err := json.Unmarshal(file, &members); err != nil {
			t.Fatal(err)
		}
		printed := fmt.Sprintf("%v %+v %#v %s %v", key, key, key, key, []Key{key})
		for _, name := range []string{"d", "k", "p", "q"} {
			if secret := members[name]; secret != "" && strings.Contains(printed, secret) {
				t.Error(key.alg, "prints", name)
			}
		}
		if want := fmt.Sprintf("%s key %q", key.alg, key.kid); printed != strings.Join([]string{want, want, want, want, "[" + want + "]"}, " ") {
			t.Error(printed)
		}
	}
}

// A private key may stand in place of a public one, in JWK and in all the PEM
// forms that openssl has written over the years.
func TestKeyForms(t *testing.T) {
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block := func(kind string, b []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
	}
	for _, alg := range []string{"EdDSA", "ES256", "ES384", "RS256"} {
		key := testKeys()[alg]
		forms := map[string][]byte{
			"PKIX":        block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key.verify))),
			"PKCS8":       block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key.sign))),
			"private JWK": must(json.Marshal(key)),
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		forms["certificate"] = block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, key.verify, key.sign)))
		switch private := key.sign.(type) {
		case *ecdsa.PrivateKey:
			forms["SEC1"] = append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
				block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(private)))...)
		case *rsa.PrivateKey:
			forms["PKCS1"] = block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private))
			forms["PKCS1 public"] = block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&private.PublicKey))
		}
		for form, file := range forms {
			got, err := ParseKey(file)
			if err != nil {
				t.Errorf("%s as %s: %v", alg, form, err)
				continue
			}
			if got.alg != alg || got.thumb != key.thumb {
				t.Errorf("%s as %s became %v", alg, form, got)
			}
			if wantKid := map[bool]string{true: key.kid, false: key.thumb}[form == "private JWK"]; got.kid != wantKid {
				t.Errorf("%s as %s has kid %q", alg, form, got.kid)
			}
		}
	}
}

// What is wrong with a key file is said with the file, the kid and the remedy,
// and never with the key.
func TestKeysThatAreRefused(t *testing.T) {
	weakRSA := func() string {
		p, _ := new(big.Int).SetString(strings.Repeat("f", 256), 16) // 1024 bits; no key is needed to see it
		return encode(p.Bytes())
	}()
	goodN := encode(testKeys()["RS256"].verify.(*rsa.PublicKey).N.Bytes())
	ec := testKeys()["ES256"].publicJWK()
	ed := testKeys()["EdDSA"].publicJWK()
	es384 := testKeys()["ES384"].publicJWK()
	secret := encode([]byte("0123456789abcdef0123456789abcdef"))
	edD := encode(testKeys()["EdDSA"].sign.(ed25519.PrivateKey).Seed())
	otherD := encode([]byte(strings.Repeat("\x07", 32)))
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224DER, err := x509.MarshalPKIXPublicKey(&p224.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKIXPublicKey(testKeys()["EdDSA"].verify)
	if err != nil {
		t.Fatal(err)
	}
	onePEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: edDER}))
	// y = 2 belongs to no point of edwards25519.
	noPoint := encode(append([]byte{2}, make([]byte, 31)...))
	// Points of order 1, 2, 4 and 8 (RFC 7748 §6.1 speaks of their kind).
	identity := encode(append([]byte{1}, make([]byte, 31)...))
	minusOne := encode(append(append([]byte{0xec}, bytesOf(0xff, 30)...), 0x7f))
	orderFour := encode(make([]byte, 32))
	orderEight := "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o"
	notCanonical := encode(append(append([]byte{0xf0}, bytesOf(0xff, 30)...), 0x7f)) // p + 3

	for _, row := range []struct{ name, file, want string }{
		{"empty file", "", "neither a JWK, a JWK Set nor PEM"},
		{"not a key", "hello", "neither a JWK, a JWK Set nor PEM"},
		{"broken JSON", `{"kty":"oct"`, "JSON"},
		{"JSON twice", `{"kty":"oct","k":"` + secret + `"}{}`, "JSON"},
		{"duplicate member", `{"kty":"oct","k":"` + secret + `","k":"` + secret + `"}`, "JSON"},
		{"member of the wrong type", `{"kty":"oct","k":["` + secret + `"]}`, "wrong type"},
		{"no kty", `{"k":"` + secret + `"}`, "kty"},
		{"kty in capitals", `{"kty":"OCT","k":"` + secret + `"}`, "kty"},
		{"KTY", `{"KTY":"oct","k":"` + secret + `"}`, "kty"},
		{"empty secret", `{"kty":"oct","k":"","kid":"x"}`, `kid "x": member "k" is missing`},
		{"short secret", `{"kty":"oct","k":"` + encode([]byte("0123456789abcdef0123456789abcde")) + `","kid":"x"}`, `kid "x": the HMAC secret has 31 bytes and needs at least 32; make one with: notifyd keys generate --alg HS256`},
		{"secret with padding", `{"kty":"oct","k":"` + secret + `="}`, "base64url"},
		{"secret in the standard alphabet", `{"kty":"oct","k":"++++` + secret + `"}`, "base64url"},
		{"oct for HS512", `{"kty":"oct","k":"` + secret + `","alg":"HS512"}`, `alg "HS512" is none of`},
		{"oct for RS256", `{"kty":"oct","k":"` + secret + `","alg":"RS256"}`, "contradicts"},
		{"alg none", `{"kty":"oct","k":"` + secret + `","alg":"none"}`, `alg "none" is none of`},
		{"use enc", `{"kty":"oct","k":"` + secret + `","use":"enc"}`, `use "enc"`},
		{"key_ops encrypt", `{"kty":"oct","k":"` + secret + `","key_ops":["encrypt"]}`, "key_ops"},
		{"key_ops empty", `{"kty":"oct","k":"` + secret + `","key_ops":[]}`, "key_ops"},

		{"RSA with 1024 bits", `{"kty":"RSA","n":"` + weakRSA + `","e":"AQAB","kid":"old"}`, `kid "old": the RSA key has 1024 bits and needs at least 2048; make one with: notifyd keys generate --alg RS256`},
		{"RSA with e = 1", `{"kty":"RSA","n":"` + goodN + `","e":"AQ"}`, "exponent"},
		{"RSA with e even", `{"kty":"RSA","n":"` + goodN + `","e":"BA"}`, "exponent"},
		{"RSA with a long e", `{"kty":"RSA","n":"` + goodN + `","e":"AQAAAAAB"}`, `"e"`},
		{"RSA without n", `{"kty":"RSA","e":"AQAB"}`, `"n" is missing`},
		{"RSA for ES256", `{"kty":"RSA","n":"` + goodN + `","e":"AQAB","alg":"ES256"}`, "contradicts"},
		{"RSA for RSA-OAEP", `{"kty":"RSA","n":"` + goodN + `","e":"AQAB","alg":"RSA-OAEP"}`, `alg "RSA-OAEP"`},
		{"RSA private without primes", `{"kty":"RSA","n":"` + goodN + `","e":"AQAB","d":"AQAB"}`, `"p" is missing`},
		{"RSA private of another", `{"kty":"RSA","n":"` + goodN + `","e":"AQAB","d":"AQAB","p":"Aw","q":"BQ"}`, "private part"},

		{"EC off the curve", `{"kty":"EC","crv":"P-256","x":"` + ec.X + `","y":"` + ec.X + `","kid":"e"}`, `kid "e": (x, y) is not a point on P-256`},
		{"EC at 0,0", `{"kty":"EC","crv":"P-256","x":"` + encode(make([]byte, 32)) + `","y":"` + encode(make([]byte, 32)) + `"}`, "not a point"},
		{"EC with a short x", `{"kty":"EC","crv":"P-256","x":"AQ","y":"` + ec.Y + `"}`, "32 bytes"},
		{"EC without y", `{"kty":"EC","crv":"P-256","x":"` + ec.X + `"}`, `"y" is missing`},
		{"EC of P-256 called P-384", `{"kty":"EC","crv":"P-384","x":"` + ec.X + `","y":"` + ec.Y + `"}`, "48 bytes"},
		{"EC of P-256 for ES384", `{"kty":"EC","crv":"P-256","x":"` + ec.X + `","y":"` + ec.Y + `","alg":"ES384"}`, "contradicts"},
		{"EC of P-384 for ES256", `{"kty":"EC","crv":"P-384","x":"` + es384.X + `","y":"` + es384.Y + `","alg":"ES256"}`, "contradicts"},
		{"EC of P-521", `{"kty":"EC","crv":"P-521","x":"AQ","y":"AQ"}`, "P-521"},
		{"EC private of another", `{"kty":"EC","crv":"P-256","x":"` + ec.X + `","y":"` + ec.Y + `","d":"` + otherD + `"}`, "private part"},

		{"Ed25519 short", `{"kty":"OKP","crv":"Ed25519","x":"AQ"}`, "32 bytes"},
		{"Ed25519 no point", `{"kty":"OKP","crv":"Ed25519","x":"` + noPoint + `"}`, "not a point"},
		{"Ed25519 identity", `{"kty":"OKP","crv":"Ed25519","x":"` + identity + `"}`, "small order"},
		{"Ed25519 of order 2", `{"kty":"OKP","crv":"Ed25519","x":"` + minusOne + `"}`, "small order"},
		{"Ed25519 of order 4", `{"kty":"OKP","crv":"Ed25519","x":"` + orderFour + `"}`, "small order"},
		{"Ed25519 of order 8", `{"kty":"OKP","crv":"Ed25519","x":"` + orderEight + `"}`, "small order"},
		{"Ed25519 not canonical", `{"kty":"OKP","crv":"Ed25519","x":"` + notCanonical + `"}`, "canonical"},
		{"Ed25519 for ES256", `{"kty":"OKP","crv":"Ed25519","x":"` + ed.X + `","alg":"ES256"}`, "contradicts"},
		{"Ed25519 private of another", `{"kty":"OKP","crv":"Ed25519","x":"` + ed.X + `","d":"` + otherD + `"}`, "private part"},
		{"Ed25519 private too short", `{"kty":"OKP","crv":"Ed25519","x":"` + ed.X + `","d":"AQ"}`, "32 bytes"},
		{"X25519", `{"kty":"OKP","crv":"X25519","x":"` + ed.X + `"}`, "X25519"},
		{"Ed448", `{"kty":"OKP","crv":"Ed448","x":"AQ"}`, "Ed448"},

		{"set not an array", `{"keys":{}}`, "array"},
		{"set empty", `{"keys":[]}`, "no key"},
		{"set of keys for encryption", `{"keys":[{"kty":"oct","k":"` + secret + `","use":"enc"}]}`, "no key"},
		{"set with a weak key", `{"keys":[{"kty":"oct","k":"` + secret + `","kid":"a"},{"kty":"oct","k":"AQ","kid":"b"}]}`, `key 1 of the set: kid "b": the HMAC secret has 1 bytes`},

		{"PEM with two keys", onePEM + onePEM, "more than one key"},
		{"PEM of P-224", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p224DER})), "P-256"},
		{"PEM of something else", "-----BEGIN CERTIFICATE REQUEST-----\nAQ==\n-----END CERTIFICATE REQUEST-----\n", "CERTIFICATE REQUEST"},
		{"PEM broken", "-----BEGIN PUBLIC KEY-----\nAQ==\n-----END PUBLIC KEY-----\n", "PUBLIC KEY"},
		{"PEM empty", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", "neither a JWK"},
		{"PEM encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAQ==\n-----END ENCRYPTED PRIVATE KEY-----\n", "encrypted"},
		{"file too large", strings.Repeat(" ", maxKeyFileBytes+1), "over"},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(file, []byte(row.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := New(Options{Keys: []string{file}})
			if err == nil {
				t.Fatal("accepted")
			}
			// The file's name holds the row's.
			if !strings.Contains(strings.ReplaceAll(err.Error(), file, ""), row.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("%v\nwants %q and the file", err, row.want)
			}
			for _, material := range []string{secret, edD, otherD} {
				if strings.Contains(err.Error(), material) {
					t.Error("the message holds key material:", err)
				}
			}
		})
	}
	for _, ops := range []string{"", `,"key_ops":["sign"]`, `,"key_ops":["verify"]`, `,"key_ops":["sign","verify"]`} {
		if _, err := ParseKey([]byte(`{"kty":"oct","k":"` + secret + `"` + ops + `}`)); err != nil {
			t.Error(ops, err)
		}
	}
	if _, err := New(Options{Trusted: append(allKeys(), testKeys()["ES256"])}); err != nil {
		t.Error("one key twice:", err)
	}
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "auth.keys") {
		t.Error("no key:", err)
	}
	if _, err := New(Options{Keys: []string{"/nonexistent/keys.json"}}); err == nil || !strings.Contains(err.Error(), "/nonexistent/keys.json") {
		t.Error("no file:", err)
	}
}

// An issuer's key set holds keys for other purposes, which are passed over, and
// an RSA key without alg, which is for RS256.
func TestKeySetOfAnIssuer(t *testing.T) {
	rsaKey := testKeys()["RS256"].publicJWK()
	ec := testKeys()["ES256"].publicJWK()
	keys, err := ParseKeys([]byte(`{"keys":[
		{"kty":"RSA","kid":"enc","use":"enc","alg":"RSA-OAEP","n":"` + rsaKey.N + `","e":"AQAB"},
		{"kty":"RSA","kid":"rs512","use":"sig","alg":"RS512","n":"` + rsaKey.N + `","e":"AQAB"},
		{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AQ"},
		{"kty":"EC","kid":"521","crv":"P-521","x":"AQ","y":"AQ"},
		{"kty":"RSA","kid":"rsa","n":"` + rsaKey.N + `","e":"AQAB","x5c":["MIIB"],"x5t":"abc"},
		{"kty":"RSA","kid":"pss","alg":"PS256","key_ops":["verify"],"n":"` + rsaKey.N + `","e":"AQAB"},
		{"kty":"EC","crv":"P-256","use":"sig","x":"` + ec.X + `","y":"` + ec.Y + `"}
	],"issuer":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`RS256 key "rsa"`, `PS256 key "pss"`, fmt.Sprintf("ES256 key %q", testKeys()["ES256"].thumb)}
	if fmt.Sprint(keys) != "["+strings.Join(want, " ")+"]" {
		t.Error(keys)
	}
	if _, err := ParseKey([]byte(`{"keys":[` + strings.Repeat(`{"kty":"EC","crv":"P-256","x":"`+ec.X+`","y":"`+ec.Y+`"},`, 2) + `{"kty":"x"}]}`)); err == nil {
		t.Error("ParseKey took one of several")
	}
}

// The examples of the standards: RFC 7515 appendices A.1 to A.3, RFC 8037
// appendices A.3 and A.4, RFC 7638 §3.1.
func TestExamplesOfTheStandards(t *testing.T) {
	const payload = ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
	const edwards = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for _, row := range []struct{ name, key, token string }{
		{
			"A.1 HS256",
			`{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" + payload + "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		},
		{
			"A.2 RS256",
			`{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
			"eyJhbGciOiJSUzI1NiJ9" + payload + "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
		},
		{
			"A.3 ES256",
			`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`,
			"eyJhbGciOiJFUzI1NiJ9" + payload + "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			key, err := ParseKey([]byte(row.key))
			if err != nil {
				t.Fatal(err)
			}
			c := newClock()
			c.nanos.Store(1300819379e9)
			v := newTestVerifier(t, c, Options{Trusted: []Key{key}, Issuer: "joe"})
			if token, code := v.Verify([]byte(row.token)); code != wire.OK || token.ExpSeconds() != 1300819380 {
				t.Error(code)
			}
			c.advance(time.Second)
			if _, code := v.Verify([]byte(row.token)); code != wire.TokenExpired {
				t.Error("a second later:", code)
			}
		})
	}
	t.Run("RFC 8037", func(t *testing.T) {
		key, err := ParseKey([]byte(edwards))
		if err != nil {
			t.Fatal(err)
		}
		if key.thumb != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
			t.Error("thumbprint", key.thumb)
		}
		// The payload is no JSON, so that only the signature can be looked at.
		text := "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
		signature, err := base64.RawURLEncoding.DecodeString("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
		if err != nil {
			t.Fatal(err)
		}
		if !ed25519.Verify(key.verify.(ed25519.PublicKey), []byte(text), signature) {
			t.Error("the signature does not verify")
		}
		v := newTestVerifier(t, newClock(), Options{Trusted: []Key{key}})
		if _, code := v.Verify([]byte(text + "." + encode(signature))); code != wire.TokenMalformed {
			t.Error(code)
		}
	})
	t.Run("RFC 7638", func(t *testing.T) {
		key, err := ParseKey([]byte(`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`))
		if err != nil {
			t.Fatal(err)
		}
		if key.thumb != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" || key.kid != "2011-04-29" {
			t.Error(key.thumb, key)
		}
	})
}

func bytesOf(b byte, n int) []byte { return []byte(strings.Repeat(string([]byte{b}), n)) }
