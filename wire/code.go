package wire

import "slices"

// Code says why a request was refused. It is an error, so that
// errors.Is(err, wire.TokenExpired) works; OK is never wrapped in one.
type Code uint8

// The codes of docs/protocol.md, section 6.
const (
	OK Code = iota
	BadEnvelope
	BadTopic
	TokenMissing
	TokenMalformed
	TokenInvalid
	TokenExpired
	TokenNotYetValid
	TokenRevoked
	TokenReplayed
	DigestMismatch
	Forbidden
	TooLarge
	RateLimited
	Unavailable
	HistoryUnavailable
	TooManySubscriptions
	// UnknownCode is what ParseMessage yields for a name that a newer server
	// sent. A server never sends it.
	UnknownCode
)

// NumCodes is the number of codes that a server uses, OK included: an array of
// that length has a place for each.
const NumCodes = int(UnknownCode)

type codeInfo struct {
	name, text  string
	retry, auth bool
}

// codes is the one table of error codes; docs/protocol.md is tested against it.
// A text helps a developer and tells an attacker nothing about keys.
var codes = [...]codeInfo{
	OK:                   {name: "ok", text: "done"},
	BadEnvelope:          {name: "bad_envelope", text: "the message is not an envelope of this protocol"},
	BadTopic:             {name: "bad_topic", text: "the topic breaks the grammar: 1 to 255 bytes, 1 to 16 tokens between dots, no white space or control characters, not beginning with $ or _, wildcards only in subscriptions and as whole tokens"},
	TokenMissing:         {name: "token_missing", text: "send a token with this request", auth: true},
	TokenMalformed:       {name: "token_malformed", text: "the token is not a JWT in compact form", auth: true},
	TokenInvalid:         {name: "token_invalid", text: "the token was not accepted: check its key, algorithm, issuer, audience and type", auth: true},
	TokenExpired:         {name: "token_expired", text: "the token has expired: send a fresh one", auth: true},
	TokenNotYetValid:     {name: "token_not_yet_valid", text: "the token is not valid yet: try again, or check nbf, iat and the issuer's clock", retry: true, auth: true},
	TokenRevoked:         {name: "token_revoked", text: "the token was revoked: send a fresh one", auth: true},
	TokenReplayed:        {name: "token_replayed", text: "the token was good for one message and has been used", auth: true},
	DigestMismatch:       {name: "digest_mismatch", text: "the token was made for another topic or other data", auth: true},
	Forbidden:            {name: "forbidden", text: "the token does not grant this on this topic"},
	TooLarge:             {name: "too_large", text: "the message is larger than the server takes: see max_message_bytes in welcome"},
	RateLimited:          {name: "rate_limited", text: "too many requests: slow down and try again", retry: true},
	Unavailable:          {name: "unavailable", text: "the server cannot do this now: try again", retry: true},
	HistoryUnavailable:   {name: "history_unavailable", text: "this topic keeps no history: subscribe without since"},
	TooManySubscriptions: {name: "too_many_subscriptions", text: "this connection holds as many subscriptions as it may: unsubscribe from some, or use patterns"},
	UnknownCode:          {name: "unknown", text: "an error that this version does not know"},
}

func (c Code) info() codeInfo {
	if int(c) >= len(codes) {
		c = UnknownCode
	}
	return codes[c]
}

// String is the code's name on the wire, such as "bad_envelope".
func (c Code) String() string { return c.info().name }

// Error is String.
func (c Code) Error() string { return c.String() }

// Text is the message for a developer that is sent when nothing more exact is
// known.
func (c Code) Text() string { return c.info().text }

// Retry reports whether the same request may succeed when it is sent again,
// after a pause.
func (c Code) Retry() bool { return c.info().retry }

// Auth reports whether the code counts towards limits.auth_failures.
func (c Code) Auth() bool { return c.info().auth }

// ParseCode finds the code with that name. OK and UnknownCode are not on the
// wire and so not found.
func ParseCode(name string) (Code, bool) {
	for _, c := range wireCodes {
		if codes[c].name == name {
			return c, true
		}
	}
	return UnknownCode, false
}

var wireCodes = func() (all []Code) {
	for c := OK + 1; c < UnknownCode; c++ {
		all = append(all, c)
	}
	return all
}()

// Codes lists every code that an error envelope can hold, in table order. The
// caller owns the slice.
func Codes() []Code { return slices.Clone(wireCodes) }

// Error is a refusal: a code and, in Detail, what to fix. Detail never quotes
// what a peer sent. Those that this package returns are shared and must not be
// changed.
type Error struct {
	Code   Code
	Detail string // "" stands for Code.Text()
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.String() + ": " + e.Code.Text()
	}
	return e.Code.String() + ": " + e.Detail
}

// Unwrap makes errors.Is find the Code.
func (e *Error) Unwrap() error { return e.Code }
