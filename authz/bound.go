package authz

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/notifyd/notifyd/wire"
)

// digestPrefix names the only algorithm for notify.digest.
const digestPrefix = "sha-256="

// bound is what ties a token to one message: notify.digest, notify.once or
// both.
type bound struct {
	digest    [sha256.Size]byte
	hasDigest bool
	once      bool
}

// DigestOf is the notify.digest of a message: "sha-256=" and the base64url of
// the SHA-256 over topic, LF and data. data is the exact bytes that will stand
// in the envelope; the server does not see other spellings of the same JSON as
// the same.
func DigestOf(topic string, data []byte) string {
	h := sha256.New()
	h.Write([]byte(topic + "\n"))
	h.Write(data)
	return digestPrefix + encode(h.Sum(nil))
}

// parseDigest reads a notify.digest; there is one spelling of each.
func parseDigest(text string) (digest [sha256.Size]byte, ok bool) {
	text, ok = strings.CutPrefix(text, digestPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	// Go's decoder skips CR and LF.
	ok = ok && err == nil && len(b) == sha256.Size && len(text) == base64.RawURLEncoding.EncodedLen(len(b))
	copy(digest[:], b)
	return digest, ok
}

var lineFeed = []byte{'\n'} // in no topic, so that topic and data cannot be shifted

// Bound reports whether the token is for one message alone, so that publishing
// needs Digest and Once too. Such a token permits nothing but that publish:
// MaySubscribe and Admin say no, and it makes no connection credential and no
// ticket.
func (t *Token) Bound() bool { return t.bound != nil }

// Digest tells whether the token was made for this topic and exactly this data:
// OK, also for a token without notify.digest, or DigestMismatch. It costs a
// SHA-256 over both.
func (t *Token) Digest(topic, data []byte) wire.Code {
	if t.bound == nil || !t.bound.hasDigest {
		return wire.OK
	}
	h := sha256.New()
	h.Write(topic)
	h.Write(lineFeed)
	h.Write(data)
	var sum [sha256.Size]byte
	if string(h.Sum(sum[:0])) != string(t.bound.digest[:]) {
		return wire.DigestMismatch
	}
	return wire.OK
}

// Once tells whether the token is good for one message in the whole cluster.
// Then its jti, which is not empty, is to be noted as used before the message
// goes out, together with its issuer, and until the Unix second from which
// Check refuses the token anyhow.
func (t *Token) Once() (jti string, until int64, once bool) {
	if t.bound == nil || !t.bound.once {
		return "", 0, false
	}
	return t.id, t.endSeconds(), true
}

// OnceKey is the name under which to note that a token with notify.once was
// used: the same for all tokens of one issuer and jti, and no others, and fit
// for a key of a NATS key-value bucket.
func (t *Token) OnceKey() string { return keyName("once", t.issuer, t.id) }
