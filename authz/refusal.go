package authz

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
)

// Reason is the check that a token failed. Operators see it in the log, in metrics and
// from Refusal; a client learns no more than its Code, as a forger needs no hints.
type Reason uint8

// The reasons, in the order in which Verify looks.
const (
	reasonNone        Reason = iota
	ReasonMissing            // there is no token
	ReasonMalformed          // it is too long, or not three segments that hold what they should
	ReasonHeader             // a member of the header is of the wrong type or not understood
	ReasonType               // typ is of another kind of token
	ReasonAlgorithm          // no key that it may be by is for alg
	ReasonKey                // no key has its kid
	ReasonKeyPending         // its key may be at a URL that could not be asked yet
	ReasonSignature          // the signature does not hold
	ReasonClaim              // a claim is missing, of the wrong type or out of bounds
	ReasonGrant              // a grant is malformed or not understood
	ReasonPolicy             // it says more than the operator lets its issuer say
	ReasonIssuer             // iss is not a configured one
	ReasonAudience           // no aud is a configured one
	ReasonNotYet             // nbf or iat is ahead
	ReasonExpired            // exp is past
	ReasonRevoked            // it was taken back
	ReasonKeyGone            // its key was removed or replaced just now
	ReasonKeyTooOld          // its key has not been confirmed by its issuer for Options.JWKSMaxAge
	ReasonRevocations        // nobody can say now whether it was revoked
	reasons
)

var reasonTable = [reasons]struct {
	name string
	code wire.Code
}{
	reasonNone:        {"", wire.OK},
	ReasonMissing:     {"missing", wire.TokenMissing},
	ReasonMalformed:   {"malformed", wire.TokenMalformed},
	ReasonHeader:      {"header", wire.TokenInvalid},
	ReasonType:        {"type", wire.TokenInvalid},
	ReasonAlgorithm:   {"algorithm", wire.TokenInvalid},
	ReasonKey:         {"key", wire.TokenInvalid},
	ReasonKeyPending:  {"key_pending", wire.Unavailable},
	ReasonSignature:   {"signature", wire.TokenInvalid},
	ReasonClaim:       {"claim", wire.TokenInvalid},
	ReasonGrant:       {"grant", wire.TokenInvalid},
	ReasonPolicy:      {"policy", wire.TokenInvalid},
	ReasonIssuer:      {"issuer", wire.TokenInvalid},
	ReasonAudience:    {"audience", wire.TokenInvalid},
	ReasonNotYet:      {"not_yet_valid", wire.TokenNotYetValid},
	ReasonExpired:     {"expired", wire.TokenExpired},
	ReasonRevoked:     {"revoked", wire.TokenRevoked},
	ReasonKeyGone:     {"key_gone", wire.TokenInvalid},
	ReasonKeyTooOld:   {"key_too_old", wire.Unavailable},
	ReasonRevocations: {"revocations", wire.Unavailable},
}

// String is the name of the reason in metrics.
func (r Reason) String() string { return reasonTable[r].name }

// Code is what the client gets.
func (r Reason) Code() wire.Code { return reasonTable[r].code }

// Reasons are all that there are.
func Reasons() []Reason {
	all := make([]Reason, 0, reasons-1)
	for r := ReasonMissing; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}

// RefusalCounts are refusals by Verify.
type RefusalCounts [reasons]uint64

// Of gives those for one reason.
func (c RefusalCounts) Of(r Reason) uint64 { return c[r] }

// Sum is how many there are in all.
func (c RefusalCounts) Sum() (n uint64) {
	for _, x := range c {
		n += x
	}
	return n
}

// Refusal says why a token was refused: which check it failed, what it says there, and
// what was wanted. It quotes names from the token (iss, aud, kid and the like) and none
// of its signature, and is for operators alone. It may be used from any goroutine.
type Refusal struct {
	Reason Reason
	text   func() string
}

// Error says the check, what was found and what was wanted.
func (r *Refusal) Error() string { return r.text() }

// attempt is one verification: what has been found out about the token so far. It is
// filled on the way, and turned into words only when somebody asks.
type attempt struct {
	reason Reason
	token  []byte
	header header
	fault  string // what is wrong with the header, or with a claim
	claims *claims
	issuer *issuer // whose token it is, once that is known
	keys   *keySet
	key    *candidate
	found  *Token // what was verified, but does not hold
}

// refuse notes the reason and gives the code.
func (a *attempt) refuse(r Reason) wire.Code {
	a.reason = r
	return r.Code()
}

// noKey is why no key was found for a token. code is what the search for it says.
func (a *attempt) noKey(v *Verifier, iss string, code wire.Code) Reason {
	a.issuer = v.issuerOf(iss)
	switch {
	case code == wire.Unavailable:
		return ReasonKeyPending
	case a.issuer == nil:
		return ReasonIssuer
	case !a.issuer.takes(a.header):
		return ReasonType
	}
	named := false
	for _, c := range a.keys.all {
		if c.issuer == a.issuer && c.alg == a.header.alg {
			named = named || c.kid != a.header.kid
		}
	}
	if named && a.header.hasKid && !a.knownKid() {
		return ReasonKey
	}
	return ReasonAlgorithm
}

// knownKid reports whether the issuer has a key with the token's kid, for another
// algorithm.
func (a *attempt) knownKid() bool {
	return slices.ContainsFunc(a.keys.byKid[a.header.kid], func(c *candidate) bool { return c.issuer == a.issuer })
}

// reason is what Check says of a token that has been verified, as a reason.
func (t *Token) reason(code wire.Code, now int64) Reason {
	switch code {
	case wire.TokenExpired:
		return ReasonExpired
	case wire.TokenRevoked:
		return ReasonRevoked
	case wire.TokenNotYetValid:
		return ReasonNotYet
	case wire.TokenInvalid:
		return ReasonKeyGone
	case wire.Unavailable:
		if now >= t.key.expires.Load() {
			return ReasonKeyTooOld
		}
		return ReasonRevocations
	}
	return reasonNone
}

// verdict says what golang-jwt's answer, and a claim that it does not look at, mean. A
// token that is wrong in several ways is expired only when nothing else is wrong, as
// that is the one thing a fresh token mends.
func verdict(err error, c *claims, by *issuer) Reason {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case err == nil:
		return c.bad
	case is(jwt.ErrTokenMalformed):
		return ReasonMalformed
	case !is(jwt.ErrTokenInvalidClaims):
		return ReasonSignature
	case c.bad != reasonNone:
		return c.bad
	case is(jwt.ErrTokenInvalidIssuer), is(jwt.ErrTokenRequiredClaimMissing) && by.Name != "" && c.iss == "":
		return ReasonIssuer
	case is(jwt.ErrTokenInvalidAudience), is(jwt.ErrTokenRequiredClaimMissing):
		return ReasonAudience
	case is(jwt.ErrTokenExpired):
		return ReasonExpired
	case is(jwt.ErrTokenNotValidYet), is(jwt.ErrTokenUsedBeforeIssued):
		return ReasonNotYet
	}
	return ReasonClaim
}

// refusal is for the owner. The token itself is the caller's, and not kept.
func (v *Verifier) refusal(a attempt) *Refusal {
	a.token = nil
	return &Refusal{a.reason, func() string { return a.explain(&v.options) }}
}

// explain puts the attempt into words.
func (a *attempt) explain(o *Options) string {
	switch a.reason {
	case ReasonMissing:
		return "there is no token"
	case ReasonMalformed, ReasonHeader, ReasonClaim, ReasonGrant, ReasonPolicy:
		return a.fault
	case ReasonType:
		if a.issuer.Type == "" {
			return fmt.Sprintf("typ is %s, configured none: JWT, at+jwt or no typ is accepted", brief(a.header.typ))
		}
		return fmt.Sprintf("typ is %s, %v is configured with type %s", present(a.header.typ, a.header.hasTyp), a.issuer, brief(a.issuer.Type))
	case ReasonAlgorithm:
		return a.explainAlgorithm()
	case ReasonKey:
		return fmt.Sprintf("kid %s is not among %s", brief(a.header.kid), list(a.kids()))
	case ReasonKeyPending:
		return fmt.Sprintf("kid %s is not known yet, and its issuer's URL could not be asked for it so far", present(a.header.kid, a.header.hasKid))
	case ReasonSignature:
		return fmt.Sprintf("the signature is not by the key %s (%s), so the token was changed or another key signed it", brief(a.key.kid), a.key.alg)
	case ReasonIssuer:
		return fmt.Sprintf("iss is %s, configured %s", present(a.claims.iss, a.claims.iss != ""), a.explainIssuers())
	case ReasonAudience:
		if len(a.claims.aud) == 0 {
			return "there is no aud, configured " + list(a.issuer.Audience)
		}
		return fmt.Sprintf("aud is %s, configured %s", list(a.claims.aud), list(a.issuer.Audience))
	case ReasonNotYet:
		return a.explainNotYet(o)
	case ReasonExpired:
		return fmt.Sprintf("exp is %s, which is past (auth.leeway is %v)", instant(a.exp()), o.Leeway)
	case ReasonRevoked:
		return fmt.Sprintf("it was revoked, by its jti (%s) or its sub (%s)", present(a.found.id, a.found.id != ""), present(a.found.subject, a.found.subject != ""))
	case ReasonKeyGone:
		return "its key was removed or replaced while it was looked at"
	case ReasonKeyTooOld:
		return fmt.Sprintf("its key %s is from a URL that could not be fetched for auth.jwks_max_age (%v)", brief(a.found.key.kid), o.JWKSMaxAge)
	case ReasonRevocations:
		return "whether it was revoked cannot be told: there is no news from NATS, or a revocation could not be put in force"
	}
	return "it is valid"
}

func (a *attempt) explainAlgorithm() string {
	var algs []string
	for _, c := range a.keys.all {
		if c.issuer == a.issuer && !slices.Contains(algs, c.alg) && (c.kid == a.header.kid || !a.knownKid()) {
			algs = append(algs, c.alg)
		}
	}
	alg := present(a.header.alg, a.header.alg != "")
	switch {
	case len(algs) == 0:
		return fmt.Sprintf("there is no key for alg %s", alg)
	case a.header.hasKid && a.knownKid():
		return fmt.Sprintf("alg is %s, the key %s is for %s", alg, brief(a.header.kid), list(algs))
	}
	return fmt.Sprintf("alg is %s, the configured keys are for %s", alg, list(algs))
}

func (a *attempt) explainIssuers() string {
	var names []string
	for _, is := range a.keys.issuers {
		names = append(names, is.Name)
	}
	return list(names)
}

func (a *attempt) explainNotYet(o *Options) string {
	at := int64(0)
	if a.found != nil {
		at = a.found.starts
	} else {
		at = a.claims.starts()
	}
	return fmt.Sprintf("the later of nbf and iat is %s, which is ahead (auth.not_before_leeway is %v)", instant(at), o.NotBeforeLeeway)
}

func (a *attempt) exp() int64 {
	if a.found != nil {
		return a.found.exp
	}
	return a.claims.exp.at
}

// kids are those of the issuer's keys.
func (a *attempt) kids() (all []string) {
	for _, c := range a.keys.all {
		if c.issuer == a.issuer {
			all = append(all, c.kid)
		}
	}
	return all
}

// Bounds of what is quoted.
const (
	maxQuoted = 100 // bytes of one name
	maxListed = 10  // names
)

// brief quotes a name, and no more of it than fits a line.
func brief(name string) string {
	if len(name) > maxQuoted {
		return strconv.QuoteToASCII(name[:maxQuoted]) + "…"
	}
	return strconv.QuoteToASCII(name)
}

func present(name string, is bool) string {
	if !is {
		return "missing"
	}
	return brief(name)
}

func list[S ~[]string](names S) string {
	var quoted []string
	for i, name := range names {
		if i == maxListed {
			quoted = append(quoted, fmt.Sprintf("%d more", len(names)-i))
			break
		}
		quoted = append(quoted, brief(name))
	}
	if len(quoted) == 0 {
		return "none"
	}
	return strings.Join(quoted, ", ")
}

func instant(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }
