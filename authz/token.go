package authz

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Token is one verified token: what it was, how long it lasts and what it
// permits. It is immutable, shared by all connections that present the same token, and its
// methods may be called from any goroutine. Those of the path do not allocate:
// all but OnceKey and Record.
type Token struct {
	raw         string
	key         *trusted
	from, until int64 // Unix nanoseconds, leeways included: from <= now < until
	starts, exp int64 // Unix seconds: the later of nbf and iat, or math.MinInt64; exp
	issued      int64 // iat in Unix seconds, rounded down; math.MinInt64 without
	issuer      string
	subject     string
	id          string
	publish     []string
	subscribe   []string
	admin       bool
	history     time.Duration // 0: no bound; below 0: none
	bound       *bound        // nil unless the token is for one message
	used        atomic.Bool   // found again since the cache last looked for room
	seen        atomic.Uint64 // epoch of the revocations last asked, and their answer
}

// newToken keeps what was verified. The claims are settled.
func newToken(raw string, key *trusted, c *claims) *Token {
	t := &Token{
		raw: raw, key: key, exp: c.exp.at, issued: c.issued, issuer: c.iss, subject: c.sub, id: c.jti,
		publish: c.grants.publish, subscribe: c.grants.subscribe, admin: c.grants.admin,
	}
	t.history = narrower(c.grants.history, key.issuer.History)
	t.starts = c.starts()
	t.from, t.until = unixNano(t.starts, -c.nbLeeway), unixNano(t.exp, c.leeway)
	if c.iss == key.issuer.Name {
		t.issuer = key.issuer.Name // one string for all
	}
	if b := c.grants.bound; b.once || b.hasDigest {
		t.bound, t.subscribe, t.admin = &b, nil, false
	}
	return t
}

// Same reports whether token is, byte for byte, the one that t was made from,
// and t still counts: after a change of keys it is false for a token whose key
// has gone, so that the caller looks further and gets the exact verdict. It is
// false, too, for a Token that was restored from a record, which holds no token.
func (t *Token) Same(token []byte) bool {
	return t.raw == string(token) && t.raw != "" && !t.key.fallen.Load()
}

// Check tells whether the token holds at now, in Unix nanoseconds: OK,
// TokenExpired, TokenRevoked, TokenNotYetValid, TokenInvalid when its key was
// removed or replaced, or Unavailable when its key has not been confirmed by its
// issuer for Options.JWKSMaxAge, or a revocation that cannot be put in force may be
// about it, or, with Options.RevocationStrict, one that this node does not know of. It is
// to be asked for every frame, in both directions.
func (t *Token) Check(now int64) wire.Code {
	if t.from <= now && now < t.until && now < t.key.expires.Load() && t.seen.Load() == t.key.revoked.epoch.Load()<<seenBits { // seenOK
		return wire.OK
	}
	return t.verdict(now)
}

// verdict is Check where something is wrong, or may have changed since the last frame.
func (t *Token) verdict(now int64) wire.Code {
	if t.key.fallen.Load() {
		return wire.TokenInvalid
	}
	if now >= t.until {
		return wire.TokenExpired
	}
	revoked := t.revoked()
	switch {
	case revoked == wire.TokenRevoked:
		return wire.TokenRevoked
	case now < t.from:
		return wire.TokenNotYetValid
	case now >= t.key.expires.Load():
		return wire.Unavailable
	}
	return revoked
}

// MayPublish reports whether the token permits publishing to topic, which must
// be valid (wire.ValidTopic). Time is the business of Check.
func (t *Token) MayPublish(topic []byte) bool { return covered(t.publish, topic) }

// MaySubscribe reports whether pattern lies wholly inside one of the token's
// subscribe patterns. It must be valid (wire.ValidPattern).
func (t *Token) MaySubscribe(pattern []byte) bool { return covered(t.subscribe, pattern) }

// History is how far back the token reads what streams keep: 0 is no bound, below 0 is
// not at all. It is the narrower of what the token and its issuer's policy say.
func (t *Token) History() time.Duration { return t.history }

// Expires is the first instant at which the token is refused, leeway included,
// in Unix nanoseconds. Past the year 2262 it is math.MaxInt64.
func (t *Token) Expires() int64 { return t.until }

// ExpSeconds is the exp claim in Unix seconds, rounded down.
func (t *Token) ExpSeconds() int64 { return t.exp }

// Life is how long the token lives in all, in nanoseconds: from iat, or nbf if
// that is later, to exp; math.MaxInt64 where neither says when it begins.
func (t *Token) Life() int64 {
	if begins := max(t.starts, t.issued); begins != math.MinInt64 {
		return max(0, unixNano(t.exp, 0)-unixNano(begins, 0))
	}
	return math.MaxInt64
}

// endSeconds is the Unix second from which the token is refused, leeway
// included, rounded up.
func (t *Token) endSeconds() int64 {
	if t.until == math.MaxInt64 {
		return maxNumericDate
	}
	return (t.until + int64(time.Second) - 1) / int64(time.Second)
}

// Issuer is the iss claim, or "" when there is none.
func (t *Token) Issuer() string { return t.issuer }

// Subject is the sub claim, or "" when there is none.
func (t *Token) Subject() string { return t.subject }

// ID is the jti claim, or "" when there is none.
func (t *Token) ID() string { return t.id }

// Admin reports whether the token has notify.admin, and may therefore revoke the tokens
// that MayRevoke says.
func (t *Token) Admin() bool { return t.admin }

// MayRevoke reports whether an administrator may revoke tokens of an issuer; "" stands
// for those of every issuer. An issuer's administrators revoke its own tokens alone,
// unless the operator lets them revoke everybody's.
func (t *Token) MayRevoke(issuer string) bool {
	return t.admin && (t.key.issuer.AdminOfAll || issuer == t.issuer)
}
