package authz

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// Lower bounds of key strength. They stop guessing a secret offline (RFC 7518
// §3.2: an HMAC key is at least as long as the hash) and factoring a modulus
// (RFC 7518 §3.3).
const (
	minSecretBytes = 32
	minRSABits     = 2048
)

// algorithms are the JWS algorithms that a key can be for, in the order in
// which messages name them.
var algorithms = []string{"EdDSA", "ES256", "ES384", "RS256", "PS256", "HS256"}

// fullySpecified is the name that RFC 9864 gives to EdDSA with Ed25519, the only
// EdDSA here: both names mean one algorithm, in keys and in tokens.
const fullySpecified = "Ed25519"

func init() {
	// golang-jwt looks a token's method up by the name in its header.
	jwt.RegisterSigningMethod(fullySpecified, func() jwt.SigningMethod { return jwt.SigningMethodEdDSA })
}

// algorithmName is the one name that an algorithm has here.
func algorithmName(alg string) string {
	if alg == fullySpecified {
		return "EdDSA"
	}
	return alg
}

// errUnsupported marks a key that is sound but not for us: another type,
// curve, algorithm or use. A JWK Set may hold such keys (RFC 7517 §5).
var errUnsupported = errors.New("unsupported key")

// Key is one key: a public one, which can only verify, or a private or secret
// one, which can sign as well. Its algorithm is part of the key (RFC 8725
// §3.1). A Key is immutable and may be used from any goroutine. It prints as
// its algorithm and kid, never as its material; only MarshalJSON gives that.
type Key struct {
	kid, alg string
	named    bool   // kid was given; otherwise it is the thumbprint
	thumb    string // RFC 7638 thumbprint: what makes two keys the same key
	verify   any    // ed25519.PublicKey, *ecdsa.PublicKey, *rsa.PublicKey or []byte
	sign     any    // the private counterpart; nil for a public key
}

// newKey checks the strength of a key and settles its algorithm. An empty alg
// means the key type's own one (RS256 for RSA), an empty kid its thumbprint.
func newKey(kid, alg string, verify, sign any) (Key, error) {
	var own []string
	switch k := verify.(type) {
	case []byte:
		own = []string{"HS256"}
		if len(k) < minSecretBytes {
			return Key{}, fmt.Errorf("the HMAC secret has %d bytes and needs at least %d; make one with: notifyd keys generate --alg HS256", len(k), minSecretBytes)
		}
	case *rsa.PublicKey:
		own = []string{"RS256", "PS256"}
		if k.N.BitLen() < minRSABits {
			return Key{}, fmt.Errorf("the RSA key has %d bits and needs at least %d; make one with: notifyd keys generate --alg RS256", k.N.BitLen(), minRSABits)
		}
		// With e = 1 every message is its own signature.
		if k.E < 3 || k.E&1 == 0 {
			return Key{}, errors.New("the RSA public exponent must be odd and at least 3; make a new key with: notifyd keys generate --alg RS256")
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			own = []string{"ES256"}
		case elliptic.P384():
			own = []string{"ES384"}
		default:
			return Key{}, fmt.Errorf("%w: use the curve P-256 or P-384", errUnsupported)
		}
	case ed25519.PublicKey:
		own = []string{"EdDSA"}
		if err := checkEdwards(k); err != nil {
			return Key{}, err
		}
	default:
		return Key{}, fmt.Errorf("%w: use Ed25519, P-256, P-384, RSA or oct", errUnsupported)
	}
	alg = algorithmName(alg)
	switch {
	case alg == "":
		alg = own[0]
	case !slices.Contains(algorithms, alg):
		return Key{}, fmt.Errorf("%w: alg %q is none of %v", errUnsupported, alg, algorithms)
	case !slices.Contains(own, alg):
		return Key{}, fmt.Errorf("alg %q contradicts the key, which is for %v; correct or remove alg", alg, own)
	}
	key := Key{kid: kid, alg: alg, named: kid != "", verify: verify, sign: sign}
	key.thumb = key.thumbprint()
	if kid == "" {
		key.kid = key.thumb
	}
	return key, nil
}

// GenerateKey makes a private or secret key for alg: EdDSA, ES256, ES384,
// RS256, PS256 (2048 bits) or HS256 (256 bits). Its kid is its thumbprint.
func GenerateKey(alg string) (Key, error) {
	key, err := generate(alg)
	key.named = true // tokens that it signs have its kid
	return key, err
}

func generate(alg string) (Key, error) {
	switch alg {
	case "EdDSA":
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return Key{}, err
		}
		return newKey("", alg, public, private)
	case "ES256":
		return generateECDSA(alg, elliptic.P256())
	case "ES384":
		return generateECDSA(alg, elliptic.P384())
	case "RS256", "PS256":
		private, err := rsa.GenerateKey(rand.Reader, minRSABits)
		if err != nil {
			return Key{}, err
		}
		return newKey("", alg, &private.PublicKey, private)
	case "HS256":
		secret := make([]byte, minSecretBytes)
		if _, err := rand.Read(secret); err != nil {
			return Key{}, err
		}
		return newKey("", alg, secret, secret)
	}
	return Key{}, fmt.Errorf("alg %q is none of %v", alg, algorithms)
}

func generateECDSA(alg string, curve elliptic.Curve) (Key, error) {
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return Key{}, err
	}
	return newKey("", alg, &private.PublicKey, private)
}

// ID is the key's kid: the one it was given, or else its thumbprint.
func (k Key) ID() string { return k.kid }

// Algorithm is the one JWS algorithm that the key is for.
func (k Key) Algorithm() string { return k.alg }

// CanSign reports whether the key is private or secret.
func (k Key) CanSign() bool { return k.sign != nil }

// String names the key without its material.
func (k Key) String() string { return fmt.Sprintf("%s key %q", k.alg, k.kid) }

// GoString keeps the material out of %#v too.
func (k Key) GoString() string { return k.String() }

// same reports whether both are the same key under the same name, so that what
// was verified with one stays verified with the other.
func (k Key) same(other Key) bool {
	return k.kid == other.kid && k.alg == other.alg && k.thumb == other.thumb
}

// thumbprint is the RFC 7638 SHA-256 thumbprint, base64url. The members stand
// in lexicographic order without white space (§3.3); their values need no
// escaping. For a secret it tells no more than any token made with it does.
func (k Key) thumbprint() string {
	p := k.publicJWK()
	var canonical string
	switch p.Kty {
	case "OKP": // RFC 8037 §2
		canonical = `{"crv":"` + p.Crv + `","kty":"OKP","x":"` + p.X + `"}`
	case "EC":
		canonical = `{"crv":"` + p.Crv + `","kty":"EC","x":"` + p.X + `","y":"` + p.Y + `"}`
	case "RSA":
		canonical = `{"e":"` + p.E + `","kty":"RSA","n":"` + p.N + `"}`
	case "oct":
		canonical = `{"k":"` + encode(k.verify.([]byte)) + `","kty":"oct"}`
	}
	sum := sha256.Sum256([]byte(canonical))
	return encode(sum[:])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
