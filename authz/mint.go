package authz

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
)

// Claims are what a token to be signed says. Zero values are left out, except
// Expires, which is required. Times lose their fraction of a second.
type Claims struct {
	Issuer    string
	Subject   string
	Audience  []string
	ID        string // jti
	IssuedAt  time.Time
	NotBefore time.Time
	Expires   time.Time
	Type      string // typ of the header; "" means JWT

	// The notify claim.
	Publish   []string // patterns
	Subscribe []string
	Admin     bool
	Digest    string // what DigestOf gives for the one message
	Once      bool   // for one message alone; needs ID
	History   string // how far back it reads what streams keep: "1h" or "none"; "": no bound
}

type mintedClaims struct {
	jwt.RegisteredClaims
	Notify mintedGrants `json:"notify"`
}

type mintedGrants struct {
	Publish   []string `json:"publish,omitempty"`
	Subscribe []string `json:"subscribe,omitempty"`
	Admin     bool     `json:"admin,omitempty"`
	Digest    string   `json:"digest,omitempty"`
	Once      bool     `json:"once,omitempty"`
	History   string   `json:"history,omitempty"`
}

// Sign makes a token with a private or secret key. It refuses what no Verifier
// would accept: no expiry, an invalid pattern or digest, Once without ID.
func Sign(key Key, c Claims) (string, error) {
	if !key.CanSign() {
		return "", errors.New("the key is public; sign with the private key")
	}
	if c.Expires.Unix() <= 0 || c.Expires.Unix() > maxNumericDate {
		return "", errors.New("a token needs an expiry between 1970 and 9999")
	}
	for _, claim := range []struct{ name, text string }{{"iss", c.Issuer}, {"sub", c.Subject}, {"jti", c.ID}} {
		if n := len(claim.text); n > maxNameBytes {
			return "", fmt.Errorf("%s has %d bytes, and %d are the most: nobody could revoke the token", claim.name, n, maxNameBytes)
		}
	}
	for _, patterns := range [][]string{c.Publish, c.Subscribe} {
		for _, p := range patterns {
			if !wire.ValidPattern(p) {
				return "", fmt.Errorf("%q is not a topic or pattern", p)
			}
		}
	}
	if _, ok := parseDigest(c.Digest); !ok && c.Digest != "" {
		return "", errors.New("the digest is not sha-256= and base64url without padding; DigestOf makes it")
	}
	if _, ok := parseHistory(c.History); !ok && c.History != "" {
		return "", fmt.Errorf("history %q is neither none nor a time such as 1h", c.History)
	}
	if c.Once && c.ID == "" {
		return "", errors.New("a token for one use needs an ID, by which its use is noted")
	}
	registered := jwt.RegisteredClaims{
		Issuer:    c.Issuer,
		Subject:   c.Subject,
		Audience:  c.Audience,
		ID:        c.ID,
		IssuedAt:  numericDate(c.IssuedAt),
		NotBefore: numericDate(c.NotBefore),
		ExpiresAt: numericDate(c.Expires),
	}
	t := jwt.NewWithClaims(jwt.GetSigningMethod(key.alg), mintedClaims{registered, mintedGrants{c.Publish, c.Subscribe, c.Admin, c.Digest, c.Once, c.History}})
	t.Header["kid"] = key.kid
	if c.Type != "" {
		t.Header["typ"] = c.Type
	}
	return t.SignedString(key.sign)
}

func numericDate(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return jwt.NewNumericDate(t)
}
