package authz

import (
	"math"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claims is the payload of one token while it is being verified. golang-jwt
// checks the registered claims through the Get methods.
type claims struct {
	leeway   time.Duration // on exp
	nbLeeway time.Duration // on nbf and iat

	exp, nbf, iat date
	issued        int64 // iat rounded down, or math.MinInt64
	iss, sub, jti string
	aud           jwt.ClaimStrings
	grants        grants
	bad           Reason // a claim that counts here has the wrong type or value
	fault         string // the first of them
}

func (v *Verifier) newClaims() *claims {
	return &claims{leeway: v.options.Leeway, nbLeeway: v.options.NotBeforeLeeway, issued: math.MinInt64}
}

// date is a time in Unix seconds, or none.
type date struct {
	at  int64
	set bool
	// shifted is what golang-jwt is given; it is here so that it need not be
	// allocated.
	shifted jwt.NumericDate
}

var claimNames = []string{"exp", "nbf", "iat", "iss", "sub", "aud", "jti", "notify", "authorization_details"}

// read reads a payload segment strictly. Only one that is not an object in good
// order is an error; what is wrong with a claim is kept in bad and reported after the
// signature, as a forger needs no hints.
func (c *claims) read(segment []byte) error {
	return readSegment(segment, c.member)
}

// UnmarshalJSON is read, for golang-jwt's parser. c may have been read before.
func (c *claims) UnmarshalJSON(b []byte) error {
	*c = claims{leeway: c.leeway, nbLeeway: c.nbLeeway, issued: math.MinInt64}
	return readObject(b, c.member)
}

func (c *claims) member(d *document, name []byte) {
	if !c.take(d, name) {
		c.blame(c.faultOf(string(name)))
	}
}

// blame notes the first thing that is wrong.
func (c *claims) blame(reason Reason, fault string) {
	if c.bad == reasonNone {
		c.bad, c.fault = reason, fault
	}
}

// faultOf says what is wrong with a claim that was refused.
func (c *claims) faultOf(name string) (Reason, string) {
	switch name {
	case "exp":
		return ReasonClaim, "exp is not a number of seconds above 0 and before the year 10000"
	case "nbf", "iat":
		return ReasonClaim, name + " is not a number of seconds from 0 to the year 9999"
	case "iss", "sub", "jti":
		return ReasonClaim, name + " is not a string of at most 1,024 bytes"
	case "aud":
		return ReasonClaim, "aud is neither a string nor an array of strings"
	case "notify", "authorization_details":
		return ReasonGrant, c.grants.fault
	}
	return ReasonClaim, "there is a claim " + brief(name) + ", which differs from a registered one only in case"
}

func (c *claims) take(d *document, name []byte) (ok bool) {
	var at float64
	switch string(name) {
	case "exp":
		// Rounded down: with a fraction, the token ends a little early.
		at, ok = d.date()
		c.exp.is(math.Floor(at), ok)
		return ok && c.exp.at > 0
	case "nbf":
		at, ok = d.date()
		c.nbf.is(math.Ceil(at), ok)
	case "iat":
		at, ok = d.date()
		c.iat.is(math.Ceil(at), ok)
		if ok {
			c.issued = int64(math.Floor(at))
		}
	case "iss":
		c.iss, ok = d.shortString()
	case "sub":
		c.sub, ok = d.shortString()
	case "jti":
		c.jti, ok = d.shortString()
	case "aud": // RFC 7519 §4.1.3: one string or an array of them
		c.aud, ok = d.stringOrStrings()
	case "notify":
		ok = c.grants.addNotify(d)
	case "authorization_details":
		ok = c.grants.addDetails(d)
	default:
		ok = !misspelt(name, claimNames)
	}
	return ok
}

// shortString reads a claim by which tokens can be revoked. It is no longer than that of a
// revocation may be: nobody could take back a token with a longer one.
func (d *document) shortString() (string, bool) {
	text, ok := d.string()
	return text, ok && len(text) <= maxNameBytes
}

func (x *date) is(seconds float64, ok bool) { x.at, x.set = int64(seconds), ok }

// The Get methods implement jwt.Claims. golang-jwt knows one leeway for all
// dates; ours are two, so that the dates are moved by theirs before it looks.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) {
	return c.exp.shift(c.leeway), nil
}

func (c *claims) GetNotBefore() (*jwt.NumericDate, error) {
	return c.nbf.shift(-c.nbLeeway), nil
}

func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) {
	return c.iat.shift(-c.nbLeeway), nil
}

func (c *claims) GetIssuer() (string, error)             { return c.iss, nil }
func (c *claims) GetSubject() (string, error)            { return c.sub, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.aud, nil }

func (x *date) shift(by time.Duration) *jwt.NumericDate {
	if !x.set {
		return nil
	}
	x.shifted.Time = time.Unix(x.at, 0).Add(by)
	return &x.shifted
}

// starts is the Unix second of the later of nbf and iat, or math.MinInt64.
func (c *claims) starts() int64 {
	at := int64(math.MinInt64)
	if c.nbf.set {
		at = c.nbf.at
	}
	if c.iat.set {
		at = max(at, c.iat.at)
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
