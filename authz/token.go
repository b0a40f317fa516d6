package authz

import (
	"sync/atomic"

	"github.com/notifyd/notifyd/wire"
)

// Token is one verified token: what it was, how long it lasts and what it
// permits. It is immutable, shared by all who present the same token, and its
// methods may be called from any goroutine. None of them allocates.
type Token struct {
	raw         string
	key         *trusted
	from, until int64 // Unix nanoseconds, leeways included: from <= now < until
	exp         int64 // Unix seconds
	subject     string
	grants      grants
	used        atomic.Bool // found again since the cache last looked for room
}

// Same reports whether token is, byte for byte, the one that t was made from,
// and t still counts: after a change of keys it is false for a token whose key
// has gone, so that the caller looks further and gets the exact verdict.
func (t *Token) Same(token []byte) bool {
	return t.raw == string(token) && !t.key.fallen.Load()
}

// Check tells whether the token holds at now, in Unix nanoseconds: OK,
// TokenExpired, TokenNotYetValid, or TokenInvalid when its key was removed or
// replaced. It is to be asked for every frame, in both directions.
func (t *Token) Check(now int64) wire.Code {
	switch {
	case t.key.fallen.Load():
		return wire.TokenInvalid
	case now >= t.until:
		return wire.TokenExpired
	case now < t.from:
		return wire.TokenNotYetValid
	}
	return wire.OK
}

// MayPublish reports whether the token permits publishing to topic, which must
// be valid (wire.ValidTopic). Time is the business of Check.
func (t *Token) MayPublish(topic []byte) bool { return covered(t.grants.publish, topic) }

// MaySubscribe reports whether pattern lies wholly inside one of the token's
// subscribe patterns. It must be valid (wire.ValidPattern).
func (t *Token) MaySubscribe(pattern []byte) bool { return covered(t.grants.subscribe, pattern) }

// Expires is the first instant at which the token is refused, leeway included,
// in Unix nanoseconds. Past the year 2262 it is math.MaxInt64.
func (t *Token) Expires() int64 { return t.until }

// ExpSeconds is the exp claim in Unix seconds, rounded down.
func (t *Token) ExpSeconds() int64 { return t.exp }

// Subject is the sub claim, or "" when there is none.
func (t *Token) Subject() string { return t.subject }
