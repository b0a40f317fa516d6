package authz

import (
	"math"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

// claims is the payload of one token while it is being verified. golang-jwt
// fills it through UnmarshalJSON, checks the signature and then the registered
// claims through the Get methods.
type claims struct {
	leeway   time.Duration // on exp
	nbLeeway time.Duration // on nbf and iat

	exp, nbf, iat *int64 // Unix seconds
	issued        int64  // iat rounded down, or math.MinInt64
	iss, sub, jti string
	aud           jwt.ClaimStrings
	grants        grants
	bad           bool // a claim that counts here has the wrong type or value
}

var claimNames = []string{"exp", "nbf", "iat", "iss", "sub", "aud", "jti", "notify", "authorization_details"}

// UnmarshalJSON reads the payload strictly. Only a payload that is not an
// object in good order is an error; what is wrong with a claim is kept in bad
// and told after the signature, as a forger needs no hints.
func (c *claims) UnmarshalJSON(b []byte) error {
	c.issued = math.MinInt64
	return eachMember(b, func(name string, value jsontext.Value) {
		if !c.take(name, value) {
			c.bad = true
		}
	})
}

func (c *claims) take(name string, value jsontext.Value) (ok bool) {
	switch name {
	case "exp":
		// Rounded down: with a fraction, the token ends a little early.
		c.exp, ok = seconds(value, math.Floor)
		return ok && *c.exp > 0
	case "nbf":
		c.nbf, ok = seconds(value, math.Ceil)
	case "iat":
		if c.iat, ok = seconds(value, math.Floor); ok {
			c.issued = *c.iat
		}
		c.iat, ok = seconds(value, math.Ceil)
	case "iss":
		c.iss, ok = asString(value)
	case "sub":
		c.sub, ok = asString(value)
	case "jti":
		c.jti, ok = asString(value)
	case "aud": // RFC 7519 §4.1.3: one string or an array of them
		var one string
		if one, ok = asString(value); ok {
			c.aud = jwt.ClaimStrings{one}
		} else {
			c.aud, ok = asStrings(value)
		}
	case "notify":
		ok = c.grants.addNotify(value)
	case "authorization_details":
		ok = c.grants.addDetails(value)
	default:
		ok = !misspelt(name, claimNames)
	}
	return ok
}

func seconds(value jsontext.Value, round func(float64) float64) (*int64, bool) {
	f, ok := asNumericDate(value)
	if !ok {
		return nil, false
	}
	s := int64(round(f))
	return &s, true
}

// The Get methods implement jwt.Claims. golang-jwt knows one leeway for all
// dates; ours are two, so that the dates are moved by theirs before it looks.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) {
	return shifted(c.exp, c.leeway), nil
}

func (c *claims) GetNotBefore() (*jwt.NumericDate, error) {
	return shifted(c.nbf, -c.nbLeeway), nil
}

func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) {
	return shifted(c.iat, -c.nbLeeway), nil
}

func (c *claims) GetIssuer() (string, error)             { return c.iss, nil }
func (c *claims) GetSubject() (string, error)            { return c.sub, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.aud, nil }

func shifted(at *int64, by time.Duration) *jwt.NumericDate {
	if at == nil {
		return nil
	}
	return &jwt.NumericDate{Time: time.Unix(*at, 0).Add(by)}
}

// starts is the Unix second of the later of nbf and iat, or math.MinInt64.
func (c *claims) starts() int64 {
	at := int64(math.MinInt64)
	for _, claim := range []*int64{c.nbf, c.iat} {
		if claim != nil {
			at = max(at, *claim)
		}
	}
	return at
}

// unixNano saturates: the range of nanoseconds ends in the year 2262, that of
// NumericDate in 9999. math.MinInt64 stays what it is.
func unixNano(seconds int64, shift time.Duration) int64 {
	if seconds == math.MinInt64 {
		return seconds
	}
	if seconds >= math.MaxInt64/int64(time.Second)-int64(maxLeeway/time.Second)-1 {
		return math.MaxInt64
	}
	return seconds*int64(time.Second) + int64(shift)
}
