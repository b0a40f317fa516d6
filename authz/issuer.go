package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Issuer is one that may make tokens, and what the operator lets its tokens
// say. A token that says more is refused as a whole, not trimmed: its holder
// would otherwise learn only from missing events that it lacks what it was
// promised.
type Issuer struct {
	Name    string   // the iss of its tokens; not empty, and no other issuer's
	Keys    []string // as Options.Keys
	Trusted []Key    // as Options.Trusted

	Audience []string // one of these is required among aud; none accepts any or none

	// Publish and Subscribe are the patterns that it may grant. Each grant of a
	// token must lie wholly inside one of them. None permits no grant of that
	// kind; ">" permits every one.
	Publish, Subscribe []string
	// Admin is whether its tokens may have notify.admin, and so revoke tokens of this
	// issuer. With AdminOfAll too they may revoke everybody's.
	Admin, AdminOfAll bool

	// MaxLifetime bounds exp − iat, so that iat is required: a token that does not say
	// when it was issued could outlive its revocation. 0 is no bound; otherwise at
	// least 1 s.
	MaxLifetime time.Duration
	// History bounds how far back its tokens read what streams keep. 0 is no bound, below
	// 0 is not at all. A token that says nothing of it, or more, is held to this.
	History time.Duration
	// Type is the typ that its tokens must have, such as "at+jwt" (RFC 9068
	// §4). "" accepts none, JWT and at+jwt.
	Type string
}

// issuer is an Issuer with the keys that it has now.
type issuer struct {
	Issuer            // Keys and Trusted are only where they came from
	sources []*source // guarded by Verifier.reload
	remote  []*source // those of them that are URLs; they stay the same
}

// newIssuers collects the issuers that may make tokens: those of options.Issuers, and the one
// that the other fields describe, if they do. That one, or nil, comes back too.
func newIssuers(o *Options) (all []*issuer, flat *issuer, err error) {
	policies := slices.Clone(o.Issuers)
	if len(policies) == 0 || len(o.Keys)+len(o.Trusted) > 0 || o.Issuer != "" {
		policies = append(policies, Issuer{
			Name: o.Issuer, Keys: o.Keys, Trusted: o.Trusted, Audience: o.Audience,
			Publish: []string{">"}, Subscribe: []string{">"}, Admin: true, AdminOfAll: true,
		})
	}
	for i, policy := range policies {
		is := &issuer{Issuer: policy}
		all = append(all, is)
		if i == len(o.Issuers) {
			flat = is
		}
		switch {
		case policy.Name == "" && len(o.Issuers) > 0:
			return nil, nil, errors.New("with a list of issuers, each of them, and auth.keys beside it, needs a name (auth.issuer for the latter): the iss of its tokens")
		case slices.ContainsFunc(policies[:i], func(other Issuer) bool { return other.Name == policy.Name }):
			return nil, nil, fmt.Errorf("%v is listed twice; put all of its keys into one entry", is)
		}
		if err := is.check(); err != nil {
			return nil, nil, fmt.Errorf("%v: %w", is, err)
		}
	}
	return all, flat, nil
}

func (i *issuer) String() string {
	if i.Name == "" {
		return "issuer"
	}
	return fmt.Sprintf("issuer %q", i.Name)
}

func (i *issuer) check() error {
	for _, p := range slices.Concat(i.Publish, i.Subscribe) {
		if !wire.ValidPattern(p) {
			return fmt.Errorf("%q is not a pattern that it could grant", p)
		}
		if strings.Contains(p, subjectMark) {
			return fmt.Errorf("%q: %s is for the grants in tokens; use * here", p, subjectMark)
		}
	}
	if slices.Contains(i.Audience, "") {
		return errors.New("an audience is empty; remove it, or leave audience out so that aud is not checked")
	}
	if i.AdminOfAll && !i.Admin {
		return errors.New("it is to revoke everybody's tokens, and yet may not have administrators")
	}
	if i.MaxLifetime != 0 && i.MaxLifetime < time.Second {
		return fmt.Errorf("the longest lifetime %v must be at least 1s, or 0 for no bound", i.MaxLifetime)
	}
	if strings.ContainsAny(i.Type, " \t\r\n;") {
		return fmt.Errorf("type %q is not a media type such as at+jwt", i.Type)
	}
	return nil
}

// takes reports whether a token of this type, as its header spells it, is for
// us. Other kinds of JWT (logout tokens, DPoP proofs) have a typ of their own,
// so that they cannot pass for one of these (RFC 8725 §3.11).
func (i *issuer) takes(h header) bool {
	if i.Type != "" {
		return h.hasTyp && mediaType(h.typ) == mediaType(i.Type)
	}
	// RFC 7519 §5.1, RFC 9068 §2.1
	return !h.hasTyp || mediaType(h.typ) == "jwt" || mediaType(h.typ) == "at+jwt"
}

// mediaType makes two spellings of one type equal: case and the prefix do not
// count (RFC 7515 §4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// forbids says what the operator does not let this issuer put into a token, or "". The
// claims are settled and have an exp.
func (i *issuer) forbids(c *claims) string {
	for _, p := range c.grants.publish {
		if !covered(i.Publish, p) {
			return fmt.Sprintf("it grants publish %s, %v may grant %s", brief(p), i, list(i.Publish))
		}
	}
	for _, p := range c.grants.subscribe {
		if !covered(i.Subscribe, p) {
			return fmt.Sprintf("it grants subscribe %s, %v may grant %s", brief(p), i, list(i.Subscribe))
		}
	}
	if c.grants.admin && !i.Admin {
		return fmt.Sprintf("it has notify.admin, %v may have no administrators", i)
	}
	if i.MaxLifetime == 0 {
		return ""
	}
	if !c.iat.set {
		return fmt.Sprintf("it has no iat, which max_lifetime of %v needs", i)
	}
	if life := c.exp.at - c.issued; life > int64(i.MaxLifetime/time.Second) {
		return fmt.Sprintf("it lives for %d s from iat to exp, max_lifetime of %v is %v", life, i, i.MaxLifetime)
	}
	return ""
}
