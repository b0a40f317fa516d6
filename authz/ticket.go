package authz

import (
	"crypto/rand"
	"encoding/json"
	"math"
	"net/netip"
	"slices"

	"github.com/notifyd/notifyd/wire"
)

// ticketBytes is how much of a ticket is random: 192 bits.
const ticketBytes = 24

// NewTicket makes a ticket: 32 characters that nobody can guess, fit for a URL
// and for a WebSocket subprotocol.
func NewTicket() string {
	b := make([]byte, ticketBytes)
	_, _ = rand.Read(b) // never fails; it ends the process instead
	return encode(b)
}

// TicketKey is the name under which a bucket keeps what a ticket stands for.
// A reader of the bucket cannot work out the ticket from it. ticket may be anything
// that a client sent.
func TicketKey(ticket string) string { return keyName("ticket", ticket) }

// record is what is kept of a verified token: its claims, and which key it was
// verified with, so that removing or replacing the key reaches the record too.
type record struct {
	Issuer    string       `json:"iss,omitempty"`
	Subject   string       `json:"sub,omitempty"`
	ID        string       `json:"jti,omitempty"`
	IssuedAt  *int64       `json:"iat,omitempty"`
	NotBefore *int64       `json:"nbf,omitempty"`
	Expires   int64        `json:"exp"`
	Notify    mintedGrants `json:"notify"`
	Algorithm string       `json:"alg"`
	Kid       string       `json:"kid"`
	Key       string       `json:"key"` // thumbprint
}

// Record writes down what the token says, as JSON, for a ticket: subject,
// grants, expiry and all else that Restore needs on any node with the same
// configuration. It does not hold the token, and cannot be made into it. It is
// not signed, so it belongs where clients cannot write. A token that is bound to
// one message has none: nil.
func (t *Token) Record() []byte {
	if t.Bound() {
		return nil
	}
	r := record{
		Issuer: t.issuer, Subject: t.subject, ID: t.id, Expires: t.exp,
		Notify:    mintedGrants{Publish: t.publish, Subscribe: t.subscribe, Admin: t.admin, History: historyText(t.history)},
		Algorithm: t.key.alg, Kid: t.key.kid, Key: t.key.thumb,
	}
	if t.issued != math.MinInt64 {
		r.IssuedAt = &t.issued
	}
	if t.starts != math.MinInt64 {
		r.NotBefore = &t.starts
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and integers
	}
	return b
}

// Restore makes a Token of what Record wrote, on this node or another: if its
// key is still trusted, its issuer may still grant all that, and neither time
// nor a revocation has ended it. The code is as that of Verify, and TokenInvalid
// for a record in bad order; it may have to wait for a key as Verify does, so it
// is not for a loop. The Token is not remembered, and Same is false for every
// token of a client.
func (v *Verifier) Restore(b []byte) (*Token, wire.Code) {
	c := v.newClaims()
	h := header{hasKid: true}
	var thumb string
	sound := true
	err := readObject(b, func(d *document, name []byte) {
		var ok bool
		switch string(name) {
		case "iss", "sub", "jti", "iat", "nbf", "exp", "notify":
			ok = c.take(d, name)
		case "alg":
			h.alg, ok = d.string()
		case "kid":
			h.kid, ok = d.string()
		case "key":
			thumb, ok = d.string()
		}
		sound = sound && ok
	})
	bound := c.grants.bound.once || c.grants.bound.hasDigest
	if err != nil || !sound || !c.exp.set || bound {
		return nil, wire.TokenInvalid
	}
	i := slices.IndexFunc(v.issuers, func(is *issuer) bool { return is.Name == c.iss || is.Name == "" })
	if i < 0 {
		return nil, wire.TokenInvalid
	}
	is := v.issuers[i]
	h.typ, h.hasTyp = is.Type, is.Type != "" // was checked when there was a header
	_, key, code := v.findKey(is, h, func(c *candidate) bool { return c.thumb == thumb }, netip.Addr{})
	if code != wire.OK {
		return nil, code
	}
	if key.thumb != thumb || is.forbids(c) != "" {
		return nil, wire.TokenInvalid
	}
	t := newToken("", key.trusted, c)
	if code := v.holds(t, v.options.Now().UnixNano()); code != wire.OK {
		return nil, code
	}
	return t, wire.OK
}
