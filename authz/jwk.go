package authz

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// jwk is a JSON Web Key (RFC 7517, RFC 7518 §6, RFC 8037 §2). Members that it
// does not name (x5c, x5u and the rest) are ignored.
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	Alg    string   `json:"alg,omitempty"`
	Kid    string   `json:"kid,omitempty"`
	Crv    string   `json:"crv,omitempty"`
	X      string   `json:"x,omitempty"`
	Y      string   `json:"y,omitempty"`
	N      string   `json:"n,omitempty"`
	E      string   `json:"e,omitempty"`
	D      string   `json:"d,omitempty"`
	P      string   `json:"p,omitempty"`
	Q      string   `json:"q,omitempty"`
	DP     string   `json:"dp,omitempty"`
	DQ     string   `json:"dq,omitempty"`
	QI     string   `json:"qi,omitempty"`
	K      string   `json:"k,omitempty"`
}

type jwkSet struct {
	Keys []jsontext.Value `json:"keys"`
}

// parseJSONKeys reads one JWK or a JWK Set. Keys of a set that are for another
// purpose are passed over (RFC 7517 §5), as an issuer publishes them side by side.
// Public ones that are weak or broken are skipped, with an error each that names
// the key: they are not trusted, and the others are what they were before. A
// broken private or secret key is an error, since it is somebody's to mend.
func parseJSONKeys(b []byte) (keys []Key, skipped []error, err error) {
	// Strict: a key with two values for one member is nobody's intention.
	var probe map[string]jsontext.Value
	if err := json.Unmarshal(b, &probe); err != nil {
		return nil, nil, errors.New("the file is not a JSON object in good order; it must be a JWK, a JWK Set or PEM")
	}
	if _, isSet := probe["keys"]; !isSet {
		key, err := parseJWK(b)
		if err != nil {
			return nil, nil, err
		}
		return []Key{key}, nil, nil
	}
	var set jwkSet
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, nil, errors.New(`"keys" of a JWK Set must be an array of JWKs`)
	}
	for i, raw := range set.Keys {
		key, err := parseJWK(raw)
		switch {
		case err == nil:
			keys = append(keys, key)
		case errors.Is(err, errUnsupported):
		case isSecret(raw):
			return nil, nil, fmt.Errorf("key %d of the set: %w", i, err)
		default:
			skipped = append(skipped, fmt.Errorf("key %d of the set: %w", i, err))
		}
	}
	if len(keys) == 0 {
		err := fmt.Errorf("the JWK Set holds no key for signatures by one of %v; add one", algorithms)
		return nil, nil, errors.Join(append(skipped, err)...)
	}
	return keys, skipped, nil
}

// isSecret reports whether an entry of a set holds a private or secret key, in
// whatever order it is otherwise.
func isSecret(raw jsontext.Value) bool {
	var members map[string]jsontext.Value
	if json.Unmarshal(raw, &members) != nil {
		return false
	}
	_, private := members["d"]
	_, secret := members["k"]
	return private || secret
}

func parseJWK(b []byte) (Key, error) {
	var j jwk
	if err := json.Unmarshal(b, &j); err != nil {
		// The library's message may quote the member, which may be secret.
		err = errors.New("a member of the JWK has the wrong type; see RFC 7517 §4")
		if kid := kidOf(b); kid != "" {
			err = fmt.Errorf("kid %q: %w", kid, err)
		}
		return Key{}, err
	}
	key, err := j.key()
	if err != nil && j.Kid != "" {
		return Key{}, fmt.Errorf("kid %q: %w", j.Kid, err)
	}
	return key, err
}

// kidOf is the kid of a JWK in bad order, or "".
func kidOf(b []byte) (kid string) {
	var members map[string]jsontext.Value
	if json.Unmarshal(b, &members) == nil {
		_ = json.Unmarshal(members["kid"], &kid) // may be missing or no string
	}
	return kid
}

func (j *jwk) key() (Key, error) {
	if j.Use != "" && j.Use != "sig" {
		return Key{}, fmt.Errorf(`%w: use %q, and "sig" is needed`, errUnsupported, j.Use)
	}
	if j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify") && !slices.Contains(j.KeyOps, "sign") {
		return Key{}, fmt.Errorf(`%w: key_ops has neither "verify" nor "sign"`, errUnsupported)
	}
	var verify, sign any
	var err error
	switch j.Kty {
	case "OKP":
		verify, sign, err = j.edwards()
	case "EC":
		verify, sign, err = j.ecdsa()
	case "RSA":
		verify, sign, err = j.rsa()
	case "oct":
		var secret []byte
		secret, err = decodeMember("k", j.K)
		verify, sign = secret, secret
	default:
		err = fmt.Errorf("%w: kty %q is none of OKP, EC, RSA, oct", errUnsupported, j.Kty)
	}
	if err != nil {
		return Key{}, err
	}
	return newKey(j.Kid, j.Alg, verify, sign)
}

func (j *jwk) edwards() (verify, sign any, err error) {
	if j.Crv != "Ed25519" {
		return nil, nil, fmt.Errorf("%w: crv %q is not Ed25519", errUnsupported, j.Crv)
	}
	x, err := decodeMember("x", j.X)
	if err != nil || j.D == "" {
		return ed25519.PublicKey(x), nil, err
	}
	d, err := decodeMember("d", j.D)
	if err != nil {
		return nil, nil, err
	}
	if len(d) != ed25519.SeedSize {
		return nil, nil, errors.New(`"d" must have 32 bytes; export the key again`)
	}
	private := ed25519.NewKeyFromSeed(d)
	if !bytes.Equal(private.Public().(ed25519.PublicKey), x) {
		return nil, nil, errContradiction
	}
	return ed25519.PublicKey(x), private, nil
}

var errContradiction = errors.New("the private part does not belong to the public part; export the key again")

func (j *jwk) ecdsa() (verify, sign any, err error) {
	var curve elliptic.Curve
	switch j.Crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	default:
		return nil, nil, fmt.Errorf("%w: crv %q is neither P-256 nor P-384", errUnsupported, j.Crv)
	}
	x, errX := decodeMember("x", j.X)
	y, errY := decodeMember("y", j.Y)
	if err := errors.Join(errX, errY); err != nil {
		return nil, nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size { // RFC 7518 §6.2.1.2
		return nil, nil, fmt.Errorf(`"x" and "y" must have %d bytes each; export the key again`, size)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, nil, fmt.Errorf("(x, y) is not a point on %s; export the key again", j.Crv)
	}
	if j.D == "" {
		return public, nil, nil
	}
	d, err := decodeMember("d", j.D)
	if err != nil {
		return nil, nil, err
	}
	private, err := ecdsa.ParseRawPrivateKey(curve, d)
	if err != nil || !private.PublicKey.Equal(public) {
		return nil, nil, errContradiction
	}
	return public, private, nil
}

func (j *jwk) rsa() (verify, sign any, err error) {
	n, errN := decodeMember("n", j.N)
	e, errE := decodeMember("e", j.E)
	if err := errors.Join(errN, errE); err != nil {
		return nil, nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 { // the bound of crypto/rsa
		return nil, nil, errors.New(`"e" must be below 2³¹; export the key again`)
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	if j.D == "" {
		return public, nil, nil
	}
	d, errD := decodeMember("d", j.D)
	p, errP := decodeMember("p", j.P)
	q, errQ := decodeMember("q", j.Q)
	if err := errors.Join(errD, errP, errQ); err != nil {
		return nil, nil, err
	}
	private := &rsa.PrivateKey{
		PublicKey: *public,
		D:         new(big.Int).SetBytes(d),
		Primes:    []*big.Int{new(big.Int).SetBytes(p), new(big.Int).SetBytes(q)},
	}
	// A modulus that is too small has its own message, from newKey.
	if public.N.BitLen() >= minRSABits {
		if err := private.Validate(); err != nil {
			return nil, nil, errContradiction
		}
		private.Precompute()
	}
	return public, private, nil
}

// decodeMember decodes a required base64url member. The error does not hold
// the value, which may be secret.
func decodeMember(name, value string) ([]byte, error) {
	if value == "" {
		return nil, fmt.Errorf("member %q is missing", name)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil {
		return nil, fmt.Errorf("member %q is not base64url without padding", name)
	}
	return b, nil
}

// publicJWK is the key without its private part; of a secret key, nothing but
// the names stays.
func (k Key) publicJWK() jwk {
	j := jwk{Use: "sig", Alg: k.alg, Kid: k.kid}
	switch key := k.verify.(type) {
	case ed25519.PublicKey:
		j.Kty, j.Crv, j.X = "OKP", "Ed25519", encode(key)
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			panic(err) // newKey let it in, so that it is on its curve
		}
		half := len(point) / 2
		j.Kty, j.Crv = "EC", key.Params().Name
		j.X, j.Y = encode(point[1:1+half]), encode(point[1+half:])
	case *rsa.PublicKey:
		j.Kty, j.N, j.E = "RSA", encode(key.N.Bytes()), encode(big.NewInt(int64(key.E)).Bytes())
	case []byte:
		j.Kty = "oct"
	}
	return j
}

// MarshalJSON gives the whole key as a JWK, private part included where the
// key has one. It is for the owner's file, never for a log.
func (k Key) MarshalJSON() ([]byte, error) {
	j := k.publicJWK()
	switch key := k.sign.(type) {
	case ed25519.PrivateKey:
		j.D = encode(key.Seed())
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		j.D = encode(d)
	case *rsa.PrivateKey:
		j.D = encode(key.D.Bytes())
		j.P, j.Q = encode(key.Primes[0].Bytes()), encode(key.Primes[1].Bytes())
		j.DP, j.DQ = encode(key.Precomputed.Dp.Bytes()), encode(key.Precomputed.Dq.Bytes())
		j.QI = encode(key.Precomputed.Qinv.Bytes())
	case []byte:
		j.K = encode(key)
	}
	return json.Marshal(j)
}

// Public gives a JWK Set that holds the public part of the key, to be handed
// to those who verify. A secret key has no public part and is refused.
func (k Key) Public() ([]byte, error) {
	if _, secret := k.verify.([]byte); secret {
		return nil, errors.New("an HS256 key has no public part; give verifiers the key file itself, in secret")
	}
	return json.Marshal(map[string][]jwk{"keys": {k.publicJWK()}})
}
