package authz

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// maxNameBytes bounds jti, sub and iss, of a token and of a revocation.
const maxNameBytes = 1 << 10

// Revocation takes back one token by its jti, or the tokens of a subject that
// were issued before some time.
type Revocation struct {
	JTI     string `json:"jti,omitempty"` // this or Subject
	Subject string `json:"sub,omitempty"`
	// Issuer narrows it to tokens with that iss; "" means everybody's.
	Issuer string `json:"iss,omitempty"`
	// Before, in Unix seconds, goes with Subject: tokens whose iat is earlier
	// are revoked, and all that have none. An iat counts with its fraction cut
	// off, so that tokens of the very second before which it is are safe from it.
	Before int64 `json:"before,omitempty"`
	// Expires, in Unix seconds, is when no such token can be valid any more: for
	// a jti the exp of its token, if that is known.
	Expires int64 `json:"expires,omitempty"`
}

// DecodeRevocation reads what Encode wrote, or what an administrator sent: one
// JSON object with jti or sub, and perhaps iss, before (with sub) and expires,
// numbers of seconds. Anything else is an error, which does not quote it: what
// is not understood may be meant to revoke more.
func DecodeRevocation(b []byte) (Revocation, error) {
	var r Revocation
	known := true
	err := readObject(b, func(d *document, name []byte) {
		var ok bool
		switch string(name) {
		case "jti":
			r.JTI, ok = d.string()
			ok = ok && r.JTI != ""
		case "sub":
			r.Subject, ok = d.string()
			ok = ok && r.Subject != ""
		case "iss":
			r.Issuer, ok = d.string()
		case "before":
			r.Before, ok = wholeSeconds(d)
		case "expires":
			r.Expires, ok = wholeSeconds(d)
		}
		known = known && ok
	})
	if err != nil {
		return Revocation{}, err
	}
	r.JTI, r.Subject, r.Issuer = strings.Clone(r.JTI), strings.Clone(r.Subject), strings.Clone(r.Issuer) // the text may be longer
	if !known {
		return Revocation{}, errors.New(`a revocation has "jti" or "sub", and may have "iss", "before" and "expires" (seconds since 1970), and nothing else`)
	}
	return r, r.check()
}

// wholeSeconds reads a time above 0; a fraction counts as the second that it
// is part of the way to, so that more is revoked rather than less.
func wholeSeconds(d *document) (int64, bool) {
	s, ok := d.date()
	return int64(math.Ceil(s)), ok && s > 0
}

// Encode writes the revocation as JSON, as for a bucket.
func (r Revocation) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and integers
	}
	return b
}

// Key is the name under which a bucket keeps the revocation: one for each jti,
// and for each subject, of an issuer.
func (r Revocation) Key() string {
	if r.JTI != "" {
		return keyName("jti", r.Issuer, r.JTI)
	}
	return keyName("sub", r.Issuer, r.Subject)
}

// Merge joins two revocations with the same Key into one that revokes what
// either does, for as long as either does.
func (r Revocation) Merge(other Revocation) Revocation {
	r.Before = max(r.Before, other.Before)
	r.Expires = max(r.Expires, other.Expires)
	return r
}

func (r Revocation) check() error {
	switch {
	case (r.JTI == "") == (r.Subject == ""):
		return errors.New("a revocation is of a jti or of a sub: give one of them")
	case r.JTI != "" && r.Before != 0:
		return errors.New("before goes with sub; a jti stands for one token, whenever it was issued")
	case max(len(r.JTI), len(r.Subject), len(r.Issuer)) > maxNameBytes:
		return fmt.Errorf("jti, sub and iss of a revocation may have %d bytes", maxNameBytes)
	case r.Before < 0 || r.Before > maxNumericDate || r.Expires < 0 || r.Expires > maxNumericDate:
		return errors.New("the times of a revocation lie between 1970 and 9999")
	}
	return nil
}

// Complete checks the revocation and fills in what was left out, so that it
// means the same on every node. Before becomes the second after the last that the
// iat of a token which counts now can have: as an issuer's clock may be ahead, that
// is Options.NotBeforeLeeway after the next full second. Expires of
// a jti becomes the latest time at which a token that exists by now can end; that
// of a subject is never earlier than the end of tokens issued by Before. Where
// some issuer has no MaxLifetime, both are the year 9999.
func (v *Verifier) Complete(r Revocation) (Revocation, error) {
	if err := r.check(); err != nil {
		return Revocation{}, err
	}
	from := v.issuedBy(v.options.Now())
	if r.Subject != "" {
		r.Before = cmp.Or(r.Before, from)
		from = r.Before
	}
	if r.Subject != "" || r.Expires == 0 {
		r.Expires = max(r.Expires, v.longest(from))
	}
	return r, nil
}

// issuedBy is the second after the last that the iat of a token which exists at a
// time can have.
func (v *Verifier) issuedBy(at time.Time) int64 {
	leeway := v.options.NotBeforeLeeway + time.Second - 1 // a part of a second counts as one
	return at.Unix() + 1 + int64(leeway/time.Second)
}

// longest is when the last token ends whose iat is before the second from.
func (v *Verifier) longest(from int64) int64 {
	var lifetime time.Duration
	for _, is := range v.issuers {
		if is.MaxLifetime == 0 {
			return maxNumericDate
		}
		lifetime = max(lifetime, is.MaxLifetime)
	}
	return min(from+int64(lifetime/time.Second), maxNumericDate)
}

// End is when every token that a completed revocation is about has ended, leeway
// included: it has to be kept until then.
func (v *Verifier) End(r Revocation) time.Time {
	return time.Unix(r.Expires, 0).Add(v.options.Leeway)
}
