package authz

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
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

	fallen atomic.Bool // removed or replaced: nothing verified with it counts any more
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
	byKid   map[string][]*candidate // at most one of each issuer
	byAlg   map[string][]*candidate // of issuers with one key for that algorithm
}

// candidate is a trusted key within one key set.
type candidate struct {
	*trusted
	// route is that of the last token that verified. Tokens of one issuer share
	// their header, and where it leads is a function of its bytes and of the key
	// set, so that it need not be read again.
	route atomic.Pointer[route]
}

// route is where one header leads.
type route struct {
	segment string
	header  header
	keys    []*candidate // at most one of each issuer
	slow    bool         // for some issuer it takes long to verify, or to find the key
	brief   bool         // it is not long, whoever the issuer is
}

// of gives the issuer's key, or nil.
func (r *route) of(is *issuer) *candidate {
	for _, c := range r.keys {
		if c.issuer == is {
			return c
		}
	}
	return nil
}

// newKeySet gathers the keys of all issuers. It keeps those members of old that
// are still there, with all that was verified with them.
func newKeySet(issuers []*issuer, old *keySet, trust func(*issuer, Key) *trusted) (*keySet, error) {
	set := &keySet{issuers: issuers, byKid: map[string][]*candidate{}, byAlg: map[string][]*candidate{}}
	for _, is := range issuers {
		own := map[string]*candidate{}
		count := map[string]int{}
		for _, from := range is.sources {
			for _, key := range from.keys {
				if twin := own[key.kid]; twin != nil {
					return nil, fmt.Errorf("kid %q stands for a key of %s and for one of %s; give each key its own kid, and name each file once", key.kid, twin.origin(), key.origin())
				}
				k := old.find(is, key)
				if k == nil {
					k = trust(is, key)
				}
				c := &candidate{trusted: k}
				own[key.kid] = c
				count[key.alg]++
				set.all = append(set.all, c)
				set.byKid[key.kid] = append(set.byKid[key.kid], c)
			}
		}
		if len(own) == 0 {
			return nil, fmt.Errorf("auth.keys of %v is empty; name at least one JWK, JWK Set or PEM file", is)
		}
		for _, c := range own {
			if count[c.alg] == 1 {
				set.byAlg[c.alg] = append(set.byAlg[c.alg], c)
			}
		}
	}
	return set, nil
}

// find returns the member that is the same key of the same issuer, or nil. A
// nil set is empty.
func (s *keySet) find(is *issuer, key Key) *trusted {
	if s == nil {
		return nil
	}
	for _, c := range s.byKid[key.kid] {
		if c.issuer == is && c.same(key) {
			return c.trusted
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
			c.fallen.Store(true)
			fell = true
		}
	}
	return fell
}

// route finds the keys for a token by its header segment, of every issuer that
// may be meant; there may be none. The header only
// selects among configured keys: kid is a name in a map, never a path or an
// address, and the algorithm is the key's own (RFC 8725 §3.1, §3.10). Without a
// kid, the key is the only one of its issuer for the token's algorithm.
func (s *keySet) route(segment []byte) (*route, wire.Code) {
	for _, c := range s.all {
		if known := c.route.Load(); known != nil && known.segment == string(segment) {
			return known, wire.OK
		}
	}
	h, code := parseHeader(segment)
	if code != wire.OK {
		return nil, code
	}
	return s.lead(h), wire.OK
}

// lead is the route of a header that was read.
func (s *keySet) lead(h header) *route {
	keys := s.byAlg[h.alg]
	if h.hasKid {
		keys = s.byKid[h.kid]
	}
	r := &route{header: h, brief: true}
	for _, c := range keys {
		if c.alg == h.alg && c.issuer.takes(h) {
			r.keys = append(r.keys, c)
			r.slow = r.slow || c.slow()
			r.brief = r.brief && c.brief()
		}
	}
	for _, is := range s.issuers {
		if s.lacks(is, h) {
			r.slow, r.brief = true, false
		}
	}
	return r
}

// lacks reports whether the issuer may have published a key for the header that
// is not known here. A URL serves no secrets, so that HS256 is not among them.
func (s *keySet) lacks(is *issuer, h header) bool {
	return len(is.remote) > 0 && h.hasKid && h.alg != "HS256" && slices.Contains(algorithms, h.alg) && is.takes(h) &&
		!slices.ContainsFunc(s.byKid[h.kid], func(c *candidate) bool { return c.issuer == is })
}

// learn notes where the header segment of a token that verified led.
func (c *candidate) learn(segment []byte, r *route) {
	if known := c.route.Load(); known == nil || known.segment != string(segment) {
		learnt := *r
		learnt.segment = string(segment)
		c.route.Store(&learnt)
	}
}
