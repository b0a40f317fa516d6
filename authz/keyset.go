package authz

import (
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/wire"
)

// trusted is a key in use by a Verifier. It lives as long as its key stays
// configured, across reloads; tokens hold on to it.
type trusted struct {
	Key
	parser *jwt.Parser
	fallen atomic.Bool // removed or replaced: nothing verified with it counts any more
}

// slow reports whether checking a signature costs tens of microseconds.
func (k *trusted) slow() bool { return k.alg != "HS256" }

// material hands golang-jwt the key, which was chosen before it is asked.
func (k *trusted) material(*jwt.Token) (any, error) { return k.verify, nil }

// keySet is what a Verifier trusts at one time.
type keySet struct {
	all   []*candidate
	byKid map[string]*candidate
	byAlg map[string]*candidate // nil where several keys have that algorithm
}

// candidate is a trusted key within one key set.
type candidate struct {
	*trusted
	// header is the header segment of the last token that verified. Tokens of
	// one issuer share theirs, and which key it chooses is a function of its
	// bytes and of the key set, so that it need not be read again.
	header atomic.Pointer[string]
}

// newKeySet keeps those members of old that are still there, with all that was
// verified with them.
func newKeySet(keys []Key, old *keySet, newParser func(alg string) *jwt.Parser) (*keySet, error) {
	if len(keys) == 0 {
		return nil, errors.New("auth.keys is empty; name at least one JWK, JWK Set or PEM file")
	}
	set := &keySet{byKid: map[string]*candidate{}, byAlg: map[string]*candidate{}}
	for _, key := range keys {
		if twin := set.byKid[key.kid]; twin != nil {
			return nil, fmt.Errorf("kid %q stands for a key of %s and for one of %s; give each key its own kid, and name each file once", key.kid, twin.origin(), key.origin())
		}
		k := old.find(key)
		if k == nil {
			k = &trusted{Key: key, parser: newParser(key.alg)}
		}
		c := &candidate{trusted: k}
		set.all = append(set.all, c)
		set.byKid[key.kid] = c
		if _, several := set.byAlg[key.alg]; several {
			set.byAlg[key.alg] = nil
		} else {
			set.byAlg[key.alg] = c
		}
	}
	return set, nil
}

// find returns the member that is the same key, or nil. A nil set is empty.
func (s *keySet) find(key Key) *trusted {
	if s == nil {
		return nil
	}
	if c := s.byKid[key.kid]; c != nil && c.same(key) {
		return c.trusted
	}
	return nil
}

// retire marks the members that next has not as fallen.
func (s *keySet) retire(next *keySet) {
	for _, c := range s.all {
		if next.find(c.Key) == nil {
			c.fallen.Store(true)
		}
	}
}

// choose finds the key for a token by its header segment. The header only
// selects among configured keys: kid is a name in a map, never a path or an
// address, and the algorithm is the key's own (RFC 8725 §3.1, §3.10). Without a
// kid, the key is the only one configured for the token's algorithm.
func (s *keySet) choose(segment []byte) (*candidate, wire.Code) {
	for _, c := range s.all {
		if known := c.header.Load(); known != nil && *known == string(segment) {
			return c, wire.OK
		}
	}
	decoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, segment)
	if err != nil {
		return nil, wire.TokenMalformed
	}
	h, code := parseHeader(decoded)
	if code != wire.OK {
		return nil, code
	}
	c := s.byAlg[h.alg]
	if h.hasKid {
		c = s.byKid[h.kid]
	}
	if c == nil || c.alg != h.alg {
		return nil, wire.TokenInvalid
	}
	return c, wire.OK
}

// learn notes the header segment of a token that verified.
func (c *candidate) learn(segment []byte) {
	if known := c.header.Load(); known == nil || *known != string(segment) {
		text := string(segment)
		c.header.Store(&text)
	}
}
