package authz

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Defaults and bounds of Options.
const (
	DefaultNotBeforeLeeway = 5 * time.Second
	DefaultCacheEntries    = 1 << 16
	DefaultMaxTokenBytes   = 8 << 10
	DefaultJWKSRefresh     = 5 * time.Minute
	DefaultJWKSCooldown    = 30 * time.Second
	DefaultJWKSTimeout     = 5 * time.Second
	DefaultJWKSMaxAge      = 24 * time.Hour

	maxLeeway       = time.Hour
	maxCacheEntries = 1 << 24
	filePoll        = 5 * time.Second
)

// Options say which tokens a Verifier accepts.
type Options struct {
	// Keys, Trusted, Issuer and Audience describe one issuer, which may grant
	// everything. Beside Issuers it has to have a name, as they do.
	Keys     []string // files: JWK, JWK Set, PEM; URLs: JWK Set
	Trusted  []Key    // keys that are in memory already, besides those of Keys
	Issuer   string   // required value of iss; "" accepts any or none
	Audience []string // one of these is required among aud; none accepts any or none

	Issuers []Issuer // those with a policy of their own

	// JWKSRefresh is how often Run fetches URLs again (default 5 min); how long a
	// key that its issuer has removed counts at most. A token by an unknown key makes
	// VerifyFrom fetch at other times too: at most once a JWKSCooldown (default 30 s)
	// for each address, and once in a tenth of it for all. A
	// fetch takes at most JWKSTimeout (default 5 s).
	JWKSRefresh, JWKSCooldown, JWKSTimeout time.Duration
	// JWKSMaxAge is how long the keys of a URL count after the last fetch that
	// succeeded. After that their tokens are wire.Unavailable until one does, so that
	// blocking the fetch cannot keep a withdrawn key in use for ever. Default 24 h,
	// negative for no bound; longer than JWKSRefresh and JWKSTimeout together.
	JWKSMaxAge time.Duration

	Leeway          time.Duration // how long after exp a token still counts; default 0, at most 1 h
	NotBeforeLeeway time.Duration // how long before nbf and iat it counts already; default 5 s, negative for none, at most 1 h

	// CacheEntries is how many verified tokens are remembered (default 65,536,
	// rounded up to a power of two). An entry holds the token and its decoded
	// grants: some 700 bytes for an ordinary token. The most is about thirteen
	// times MaxTokenBytes, for a token of nothing but one-letter topics.
	CacheEntries int
	// MaxTokenBytes is the length over which a token is refused before anything
	// else is done with it. Default 8 KiB.
	MaxTokenBytes int

	// RevocationMaxAge is how old the last SetRevocationsFresh may be. After that
	// a valid token that is not remembered is answered with wire.Unavailable;
	// those that are remembered go on, as they were checked in time. 0 lets new
	// tokens in however old it is.
	RevocationMaxAge time.Duration
	// RevocationStrict makes RevocationMaxAge count for tokens that are remembered as
	// well: while the last SetRevocationsFresh is older, Check answers Unavailable. Run
	// notices it within a second. Without RevocationMaxAge it does nothing.
	RevocationStrict bool
	// OnChange, if not nil, is called from any goroutine after remembered tokens
	// may have fallen, by a revocation or a change of keys: time to Check those
	// that are held, as by live subscriptions.
	OnChange func()
	// OnKeyError, if not nil, is called from any goroutine when keys could not be
	// read again, with the file or URL and the remedy.
	OnKeyError func(error)
	// OnKeysLoaded, if not nil, is called from any goroutine when a file or a URL was
	// read again, with success, and holds other keys than before, or the same although
	// Reload asked.
	OnKeysLoaded func(KeysLoaded)
	// OnKeySetTooOld, if not nil, is called by Run when a URL could not be fetched for
	// JWKSMaxAge, once until a fetch succeeds.
	OnKeySetTooOld func(error)
	// OnKeySkipped, if not nil, is called from any goroutine for each entry of a key
	// set that is not trusted because it is weak or broken, with the key, its place
	// and what is wrong with it.
	OnKeySkipped func(error)
	// OnRefused, if not nil, is called from any goroutine for each token that Verify
	// refuses, with the reason and the address that VerifyFrom was given. It costs an
	// allocation, and nothing else until the Refusal is asked for words.
	OnRefused func(*Refusal, netip.Addr)
	// OnVerify, if not nil, is called from any goroutine at the end of each Verify,
	// with how long it took.
	OnVerify func(took time.Duration)

	Now func() time.Time // default time.Now; called by Verify from any goroutine
}

// KeysLoaded says what became of the keys of one file or URL.
type KeysLoaded struct {
	Source         string   // the file, the URL without its query, or "memory" where there is neither
	Added, Removed []string // kids; thumbprints of public keys without, "(no kid)" for a secret; a key that was replaced under its kid is in both
}

// settle puts defaults where nothing was said, and refuses what is out of
// bounds.
func (o *Options) settle() error {
	o.NotBeforeLeeway = max(cmp.Or(o.NotBeforeLeeway, DefaultNotBeforeLeeway), 0)
	o.CacheEntries = cmp.Or(o.CacheEntries, DefaultCacheEntries)
	o.MaxTokenBytes = cmp.Or(o.MaxTokenBytes, DefaultMaxTokenBytes)
	o.JWKSRefresh = cmp.Or(o.JWKSRefresh, DefaultJWKSRefresh)
	o.JWKSCooldown = cmp.Or(o.JWKSCooldown, DefaultJWKSCooldown)
	o.JWKSTimeout = cmp.Or(o.JWKSTimeout, DefaultJWKSTimeout)
	o.JWKSMaxAge = cmp.Or(o.JWKSMaxAge, DefaultJWKSMaxAge)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Leeway < 0 || o.Leeway > maxLeeway || o.NotBeforeLeeway > maxLeeway {
		return fmt.Errorf("auth.leeway %v and the leeway %v on nbf must lie between 0 and %v", o.Leeway, o.NotBeforeLeeway, maxLeeway)
	}
	if o.CacheEntries < 0 || o.CacheEntries > maxCacheEntries {
		return fmt.Errorf("the token cache must have 1 to %d entries, not %d", maxCacheEntries, o.CacheEntries)
	}
	if o.MaxTokenBytes < 0 {
		return fmt.Errorf("the longest token must have a positive number of bytes, not %d", o.MaxTokenBytes)
	}
	if o.RevocationMaxAge < 0 {
		return fmt.Errorf("auth.revocation_max_age %v must not be below 0", o.RevocationMaxAge)
	}
	if min(o.JWKSRefresh, o.JWKSCooldown, o.JWKSTimeout) < 0 {
		return errors.New("auth.jwks_refresh, auth.jwks_cooldown and auth.jwks_timeout must be above 0")
	}
	if o.JWKSMaxAge > 0 && o.JWKSMaxAge <= o.JWKSRefresh+o.JWKSTimeout {
		return fmt.Errorf("auth.jwks_max_age %v must be longer than auth.jwks_refresh %v and auth.jwks_timeout %v together", o.JWKSMaxAge, o.JWKSRefresh, o.JWKSTimeout)
	}
	return nil
}
