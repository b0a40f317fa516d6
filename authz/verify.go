// Package authz decides whose token counts and what it permits: keys,
// verification of JSON Web Tokens, the cache of verified ones, and grants. It
// also makes keys and tokens, for the command line and for tests.
//
// A token is accepted when golang-jwt in its strictest form accepts it and the
// checks here, which close what that leaves open, do too:
//
//   - it is three segments of canonical base64url, at most MaxTokenBytes long;
//   - its header names the algorithm of a configured key, and that key's kid. A
//     header without a kid will do where one key alone has the algorithm. typ is
//     absent, JWT or at+jwt, or what the issuer's policy demands; crit, b64, zip
//     and cty are absent;
//   - where several issuers are configured, its iss is that of the key's. A kid
//     may stand for one key at each of them;
//   - its payload is one JSON object without duplicate names, whose exp is a
//     number of seconds above 0, and whose other claims have the right type;
//   - its grants hold valid patterns and nothing that is not understood. {sub} in
//     a pattern stands for the subject, which must then be one part of a topic:
//     not empty, no dot, no wildcard, no white space. With notify.once there is a
//     jti;
//   - the operator lets its issuer grant all of that, for so long.
//
// Keys come from files, from memory and from URLs that serve a JWK Set. The
// libraries keyfunc and jwkset fetch such sets too, and are not used here. They
// decode the answer with encoding/json, so that duplicate names and trailing text
// pass, and without a bound on its size; its keys would have to be read again by
// the rules of this package. And verifications of an unknown kid queue at their
// limiter for the next fetch, where they should be refused until the cooldown
// ends.
//
// No error and no String of this package holds a token or a part of one.
package authz

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
)

// Verifier verifies tokens and remembers those that are valid. Its methods may
// be called from any goroutine.
type Verifier struct {
	options     Options
	issuers     []*issuer
	flat        *issuer // the one that Options describes without Issuers, or nil
	cache       *cache
	revocations *revoked
	filePoll    time.Duration

	keys      atomic.Pointer[keySet]
	reload    sync.Mutex      // held while keys and what it is made from are being replaced
	fileError string          // of the last look at the files; guarded by reload
	skipped   map[string]bool // what was reported of entries that are not trusted; guarded by reload

	verified, stales  atomic.Uint64
	refused           [reasons]atomic.Uint64
	loads, loadErrors atomic.Uint64
}

// Stats are counters since New; Entries, Revocations and KeySetAge are gauges.
type Stats struct {
	Hits, Misses uint64 // of Find, and of the look-up with which Verify begins
	Verified     uint64 // by Verify, that were not remembered
	Refused      RefusalCounts
	Evicted      uint64 // remembered tokens that were still valid and made room for others
	Entries      int64  // remembered tokens, expired ones included
	KeyLoads     uint64 // changed files that were read, and URLs fetched, since New
	KeyErrors    uint64 // those of them that failed, so that the keys stayed as they were
	Stale        uint64 // valid tokens that Verify or Restore answered with Unavailable, because news of revocations was too old
	Revocations  int    // in force; some that have expired may be among them
	// KeySetAge is the time since the last fetch that succeeded, of the URL for which
	// it is longest: 0 without URLs, math.MaxInt64 where none has succeeded.
	KeySetAge time.Duration
}

// New loads the keys, those of URLs included, and makes a Verifier. It refuses
// weak keys, files that it cannot read, and options out of bounds; the error names
// the file or option and the remedy. A URL that does not answer is reported to
// OnKeyError, and is an error only when no key at all could be loaded.
func New(options Options) (*Verifier, error) { return NewContext(context.Background(), options) }

// NewContext is New, which ends with ctx's error when ctx ends before the URLs have answered.
func NewContext(ctx context.Context, options Options) (*Verifier, error) {
	if err := options.settle(); err != nil {
		return nil, err
	}
	issuers, flat, err := newIssuers(&options)
	if err != nil {
		return nil, err
	}
	v := &Verifier{options: options, issuers: issuers, flat: flat, cache: newCache(options.CacheEntries), revocations: newRevoked(), filePoll: filePoll}
	if err := v.load(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

// trust takes a key into use.
func (v *Verifier) trust(is *issuer, key Key) *trusted {
	options := v.strictest(is, key.alg)
	return &trusted{
		Key: key, issuer: is, revoked: v.revocations,
		parser: jwt.NewParser(options...), validator: jwt.NewValidator(options...), method: jwt.GetSigningMethod(key.alg),
	}
}

// strictest is golang-jwt at its strictest for the one algorithm of a key. It
// is not given WithJSONNumber: that makes it read the payload with a decoder
// which stops at the end of the first value, whatever follows.
func (v *Verifier) strictest(is *issuer, alg string) []jwt.ParserOption {
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{alg}),
		jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithIssuer(is.Name), // "" means any
		jwt.WithTimeFunc(v.options.Now),
	}
	if len(is.Audience) > 0 {
		options = append(options, jwt.WithAudience(is.Audience...)) // one of them is enough
	}
	return options
}

// Find returns the remembered token, or nil when this one is not remembered. It
// does not look at the time. It does not allocate, and does not read more of
// the token than its length when that is over the bound.
func (v *Verifier) Find(token []byte) *Token {
	if len(token) > v.options.MaxTokenBytes {
		return nil
	}
	return v.cache.find(token)
}

// Cost is how long Verify takes for a token that is not remembered.
type Cost uint8

const (
	// Cheap is some microseconds. The signature is a shared secret's, or the token
	// is refused for its length or header before any signature is looked at.
	Cheap Cost = iota
	// Brief is one asymmetric signature, of less than 100 µs or so on today's machines.
	Brief
	// Slow is a signature that takes longer, or the fetch of a key that is not known.
	Slow
)

// Cost estimates what Verify of the token costs. It reads the header and not the
// claims, does not allocate, and may be called from any goroutine.
func (v *Verifier) Cost(token []byte) Cost {
	r := v.routeOf(token)
	switch {
	case r == nil || !r.slow:
		return Cheap
	case r.brief:
		return Brief
	}
	return Slow
}

// routeOf is where the header of a token leads that is not refused before.
func (v *Verifier) routeOf(token []byte) *route {
	if len(token) > v.options.MaxTokenBytes {
		return nil
	}
	head, _, found := bytes.Cut(token, []byte{'.'})
	if !found {
		return nil
	}
	r, _, _ := v.keys.Load().route(head)
	return r
}

// Verify checks the token now, and remembers it when it is valid: the Token is
// not nil exactly when the code is OK. It looks first whether the token has
// been remembered meanwhile, as when many connections bring the same new one
// and their verifications queue. token is neither kept nor changed. Unavailable
// says that the token may well be valid, but that nobody can say so now.
func (v *Verifier) Verify(token []byte) (*Token, wire.Code) {
	return v.VerifyFrom(token, netip.Addr{})
}

// VerifyFrom is Verify for a token that comes from a client's address. Tokens whose key
// is not known have it fetched; each address has a budget for that, so that strangers
// cannot use up what others need. All tokens for which none is given share one.
func (v *Verifier) VerifyFrom(token []byte, from netip.Addr) (*Token, wire.Code) {
	began := time.Now()
	a := attempt{token: token}
	t, code := v.verify(&a, from)
	if code != wire.OK {
		v.refused[a.reason].Add(1)
		if t = nil; v.options.OnRefused != nil {
			v.options.OnRefused(v.refusal(a), from)
		}
	}
	if v.options.OnVerify != nil {
		v.options.OnVerify(time.Since(began))
	}
	return t, code
}

// Explain is Verify for a person who wants to know why a token is refused; nil says that it is valid. A refusal is neither
// counted nor reported.
func (v *Verifier) Explain(token []byte) *Refusal {
	a := attempt{token: token}
	if _, code := v.verify(&a, netip.Addr{}); code != wire.OK {
		return v.refusal(a)
	}
	return nil
}

// verify notes in the attempt what it finds out, and the reason where it refuses.
func (v *Verifier) verify(a *attempt, from netip.Addr) (*Token, wire.Code) {
	token := a.token
	if len(token) == 0 {
		return nil, a.refuse(ReasonMissing)
	}
	if len(token) > v.options.MaxTokenBytes {
		a.fault = "it is longer than auth.token_bytes"
		return nil, a.refuse(ReasonMalformed)
	}
	if !isCompact(token) {
		a.fault = "it is not three segments of base64url with dots between them"
		return nil, a.refuse(ReasonMalformed)
	}
	if t := v.cache.find(token); t != nil {
		now := v.options.Now().UnixNano()
		return t, a.hold(t, t.Check(now), now)
	}
	head, rest, _ := bytes.Cut(token, []byte{'.'})
	payload, _, _ := bytes.Cut(rest, []byte{'.'})
	a.keys = v.keys.Load()
	r, reason, fault := a.keys.route(head)
	if reason != reasonNone {
		a.fault = fault
		return nil, a.refuse(reason)
	}
	c := v.newClaims()
	a.header, a.claims = r.header, c
	if err := c.read(payload); err != nil {
		a.fault = "the payload is " + err.Error()
		return nil, a.refuse(ReasonMalformed)
	}
	raw := string(token)
	r, key, code := v.keyFor(r, c.iss, raw, from)
	if code != wire.OK {
		return nil, a.refuse(a.noKey(v, c.iss, code))
	}
	a.key, a.issuer = key, key.issuer
	err := key.examine(raw, c, r.segment != "")
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) && mayRotate(key.issuer, r.header) {
		switch r, key, code = v.newKeyFor(key.issuer, r.header, raw, from); code {
		case wire.OK:
		case wire.TokenInvalid:
			return nil, a.refuse(ReasonSignature)
		default:
			return nil, a.refuse(ReasonKeyPending)
		}
		a.key = key
		err = key.examine(raw, c, false)
	}
	now := v.options.Now()
	if err == nil || errors.Is(err, jwt.ErrTokenInvalidClaims) { // the signature held
		v.admit(c, key.issuer)
	}
	if reason := verdict(err, c, key.issuer); reason != reasonNone {
		if a.fault = c.fault; reason == ReasonMalformed { // all else was read before
			a.fault = "the signature is not base64url without padding"
		}
		return nil, a.refuse(reason)
	}
	key.learn(head, r)
	t := newToken(raw, key.trusted, c)
	if code := a.hold(t, v.holds(t, now.UnixNano()), now.UnixNano()); code != wire.OK {
		return nil, code
	}
	v.verified.Add(1)
	return v.cache.add(t, now.UnixNano()), wire.OK
}

// hold asks a token that was verified whether it holds now.
func (a *attempt) hold(t *Token, code wire.Code, now int64) wire.Code {
	if code == wire.OK {
		return code
	}
	a.found = t
	return a.refuse(t.reason(code, now))
}

// holds is the last check of a token that is new here: it may be revoked, and
// its key may have fallen or exp come just now.
func (v *Verifier) holds(t *Token, now int64) wire.Code {
	if code := t.Check(now); code != wire.OK {
		return code
	}
	if v.stale(now) {
		v.stales.Add(1)
		return wire.Unavailable
	}
	return wire.OK
}

// admit looks whether the claims are sound as a whole, and whether the operator lets
// their issuer say them.
func (v *Verifier) admit(c *claims, is *issuer) {
	if c.bad != reasonNone {
		return
	}
	if !c.exp.set {
		c.blame(ReasonClaim, "exp is missing")
	} else if fault := c.grants.settle(c.sub, c.jti, v.options.MaxTokenBytes); fault != "" {
		c.blame(ReasonGrant, fault)
	} else if fault := is.forbids(c); fault != "" {
		c.blame(ReasonPolicy, fault)
	}
}

// isCompact reports whether token is three segments of the base64url alphabet
// (RFC 7515 §7.1). Go's decoder skips CR and LF, so that without this check one
// token could be spelt in many ways.
func isCompact(token []byte) bool {
	dots := 0
	for _, b := range token {
		switch {
		case 'A' <= b && b <= 'Z', 'a' <= b && b <= 'z', '0' <= b && b <= '9', b == '-', b == '_':
		case b == '.':
			dots++
		default:
			return false
		}
	}
	return dots == 2
}

// Stats reads the counters. It touches every processor's, so it is for a scrape
// and not for the path.
func (v *Verifier) Stats() Stats {
	s := Stats{
		Verified: v.verified.Load(),
		Evicted:  v.cache.evicted.Load(),
		Entries:  v.cache.entries.Load(),
		Stale:    v.stales.Load(),

		KeyLoads:    v.loads.Load(),
		KeyErrors:   v.loadErrors.Load(),
		Revocations: v.revocations.size(),
		KeySetAge:   v.keySetAge(),
	}
	for r := range v.refused {
		s.Refused[r] = v.refused[r].Load()
	}
	for i := range v.cache.counts {
		s.Hits += v.cache.counts[i].hits.Load()
		s.Misses += v.cache.counts[i].misses.Load()
	}
	return s
}
