package authz

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// trusted is a key in use by a Verifier. It lives as long as its key stays
// configured, across reloads; tokens hold on to it.
type trusted struct {
	Key
	issuer  *issuer
	revoked *revoked // the Verifier's

	// golang-jwt for this key: all of it, and the parts that it is made of.
	parser    *jwt.Parser
	method    jwt.SigningMethod
	validator *jwt.Validator

	fallen  atomic.Bool  // removed or replaced: nothing verified with it counts any more
	expires atomic.Int64 // Unix nanoseconds from which it is too old to count, until it is fetched again, or has fallen
}

// fall ends the key. It expires, too, so that Check looks at one thing only while all
// is well.
func (k *trusted) fall() {
	k.fallen.Store(true)
	k.expires.Store(math.MinInt64)
}

// slow reports whether checking a signature costs tens of microseconds.
func (k *trusted) slow() bool { return k.alg != "HS256" }

// maxBriefRSABits: with a public exponent of 65537, 3,072 bits take twice as long
// as 2,048, and about what ES256 takes.
const maxBriefRSABits = 3072

// brief reports whether it costs no more than some tens. ES384 takes ten times
// what ES256 does, and a modulus or exponent may be of any size.
func (k *trusted) brief() bool {
	switch verify := k.verify.(type) {
	case *rsa.PublicKey:
		return verify.N.BitLen() <= maxBriefRSABits && verify.E <= 1<<16+1
	default:
		return k.alg != "ES384"
	}
}

// material hands golang-jwt the key, which was chosen before it is asked.
func (k *trusted) material(*jwt.Token) (any, error) { return k.verify, nil }

// examine has golang-jwt check the signature of a token and its registered
// claims, which c holds. Its parser does so for the first token with a header.
// Where a token with the very bytes of this header has passed it before, what
// the parser would make of the header is known, and of the payload it only takes
// c: then its method and its validator are asked, as it would ask them.
func (k *trusted) examine(raw string, c *claims, headerPassed bool) error {
	if !headerPassed {
		_, err := k.parser.ParseWithClaims(raw, c, k.material)
		return err
	}
	input := raw[:strings.LastIndexByte(raw, '.')]
	signature, err := k.parser.DecodeSegment(raw[len(input)+1:])
	if err != nil {
		return jwt.ErrTokenMalformed
	}
	if err := k.method.Verify(input, signature, k.verify); err != nil {
		return jwt.ErrTokenSignatureInvalid
	}
	if err := k.validator.Validate(c); err != nil {
		return errors.Join(jwt.ErrTokenInvalidClaims, err)
	}
	return nil
}

// keySet is what a Verifier trusts at one time.
type keySet struct {
	issuers []*issuer
	all     []*candidate
	byKid   map[string][]*candidate
	byAlg   map[string][]*candidate
}

// candidate is a trusted key within one key set.
type candidate struct {
	*trusted
	until int64 // what expires is to be: the latest of its sources'
	// route is that of the last token that verified. Tokens of one issuer share
	// their header, and where it leads is a function of its bytes and of the key
	// set, so that it need not be read again.
	route atomic.Pointer[route]
}

// route is where one header leads.
type route struct {
	segment string
	header  header
	keys    []*candidate // of each issuer that it may be; as a rule one of each
	slow    bool         // for some issuer it takes long to verify, or to find the key
	brief   bool         // it is not long, whoever the issuer is
}

// maxTries bounds the keys of one issuer that are tried for one token. More than
// one fits where the issuer gives its keys no kid, or one kid to several.
const maxTries = 8

// of gives the issuer's key, or nil. Where several may be meant, it is the one
// that fits or, if none does, any of them.
func (r *route) of(is *issuer, fits func(*candidate) bool) *candidate {
	var first *candidate
	several, tries := false, 0
	for _, c := range r.keys {
		if c.issuer == is {
			several = first != nil
			if first == nil {
				first = c
			}
		}
	}
	if !several {
		return first
	}
	for _, c := range r.keys {
		if c.issuer != is {
			continue
		}
		if tries++; tries > maxTries {
			break
		}
		if fits(c) {
			return c
		}
	}
	return first
}

// signed reports whether the signature of a token holds.
func (k *trusted) signed(raw string) bool {
	input := raw[:strings.LastIndexByte(raw, '.')]
	signature, err := k.parser.DecodeSegment(raw[len(input)+1:])
	return err == nil && k.method.Verify(input, signature, k.verify) == nil
}

// newKeySet gathers the keys of all issuers. It keeps those members of old that
// are still there, with all that was verified with them.
func newKeySet(issuers []*issuer, old *keySet, maxAge time.Duration, trust func(*issuer, Key) *trusted) (*keySet, error) {
	set := &keySet{issuers: issuers, byKid: map[string][]*candidate{}, byAlg: map[string][]*candidate{}}
	for _, is := range issuers {
		own := 0
		for _, from := range is.sources {
			until := from.expires(maxAge)
			for _, key := range from.keys {
				if c := set.find(is, key); c != nil { // the same key, from another file or URL
					c.until = max(c.until, until)
					continue
				}
				own++
				c := &candidate{until: until}
				if was := old.find(is, key); was != nil {
					c.trusted = was.trusted
				} else {
					c.trusted = trust(is, key)
				}
				set.all = append(set.all, c)
				set.byKid[key.kid] = append(set.byKid[key.kid], c)
				set.byAlg[key.alg] = append(set.byAlg[key.alg], c)
			}
		}
		if own == 0 && len(is.remote) == 0 {
			return nil, fmt.Errorf("auth.keys of %v is empty; name at least one JWK, JWK Set or PEM file", is)
		}
	}
	return set, nil
}

// find returns the member that is the same key of the same issuer, or nil. A
// nil set is empty.
func (s *keySet) find(is *issuer, key Key) *candidate {
	if s == nil {
		return nil
	}
	for _, c := range s.byKid[key.kid] {
		if c.issuer == is && c.same(key) {
			return c
		}
	}
	return nil
}

// retire marks the members that next has not as fallen, and reports whether
// there were any. A nil set is empty.
func (s *keySet) retire(next *keySet) (fell bool) {
	if s == nil {
		return false
	}
	for _, c := range s.all {
		if next.find(c.issuer, c.Key) == nil {
			c.fall()
			fell = true
		}
	}
	return fell
}

// route finds the keys for a token by its header segment, of every issuer that
// may be meant; there may be none. The header only
// selects among configured keys: kid is a name in a map, never a path or an
// address, and the algorithm is the key's own (RFC 8725 §3.1, §3.10). Without a
// kid, every key of the issuer for the token's algorithm may be meant. A kid that
// names none of an issuer's keys may mean those that were configured without one
// (a PEM file, a shared secret).
func (s *keySet) route(segment []byte) (r *route, reason Reason, fault string) {
	for _, c := range s.all {
		if known := c.route.Load(); known != nil && known.segment == string(segment) {
			return known, reasonNone, ""
		}
	}
	h, reason, fault := parseHeader(segment)
	if reason != reasonNone {
		return nil, reason, fault
	}
	return s.lead(h), reasonNone, ""
}

// lead is the route of a header that was read.
func (s *keySet) lead(h header) *route {
	r := &route{header: h, brief: true}
	for _, is := range s.issuers {
		if !is.takes(h) {
			continue
		}
		before := len(r.keys)
		for _, c := range s.byAlg[h.alg] {
			if c.issuer == is && (!h.hasKid || c.kid == h.kid) {
				r.keys = append(r.keys, c)
			}
		}
		if h.hasKid && len(r.keys) == before && !s.lacks(is, h) {
			for _, c := range s.byAlg[h.alg] {
				if c.issuer == is && !c.named {
					r.keys = append(r.keys, c)
				}
			}
		}
		for _, c := range r.keys[before:] {
			r.slow = r.slow || c.slow()
			r.brief = r.brief && c.brief() && len(r.keys) == before+1
		}
		if s.lacks(is, h) || mayRotate(is, h) {
			r.slow, r.brief = true, false // it may have to be fetched
		}
	}
	return r
}

// lacks reports whether the issuer may have published a key for the header that
// is not known here. A URL serves no secrets, so that HS256 is not among them.
func (s *keySet) lacks(is *issuer, h header) bool {
	if len(is.remote) == 0 || h.alg == "HS256" || !slices.Contains(algorithms, h.alg) || !is.takes(h) {
		return false
	}
	known := s.byKid[h.kid]
	if !h.hasKid { // any key may do, once there are some
		known = s.all
	}
	return !slices.ContainsFunc(known, func(c *candidate) bool { return c.issuer == is })
}

// mayRotate reports whether a token with such a header may be by a key that the issuer
// has just begun to use, though it has keys for it: without a kid nobody can tell.
func mayRotate(is *issuer, h header) bool {
	return !h.hasKid && len(is.remote) > 0 && h.alg != "HS256"
}

// learn notes where the header segment of a token that verified led.
func (c *candidate) learn(segment []byte, r *route) {
	if known := c.route.Load(); known == nil || known.segment != string(segment) {
		learnt := *r
		learnt.segment = string(segment)
		c.route.Store(&learnt)
	}
}
