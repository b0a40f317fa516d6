package authz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// endpoint is a URL that serves a JWK Set (RFC 7517 §5).
type endpoint struct {
	url    string
	name   string // for messages: without the query, which may hold a secret
	client *http.Client
	// An address has one fetch a cooldown for keys that are not known, and all of them
	// together have one a spacing. Others happen every interval, and every cooldown
	// while they fail.
	interval, cooldown, spacing time.Duration
	now                         func() time.Time

	mu     sync.Mutex
	flight chan struct{}            // closed when the fetch under way ends; nil when there is none
	again  time.Time                // before that, an unknown key starts no fetch
	spent  map[netip.Addr]time.Time // addresses that had a fetch begun, and until when they may have no other
	begun  uint64                   // fetches
	ended  uint64                   // fetches that brought a set
	sought map[string]soughtKey     // names of keys that are not known
	due    time.Time                // of the next fetch in the background
	failed bool                     // the last fetch
}

// soughtKey is a key that is not known, while a fetch is to look for it and afterwards.
type soughtKey struct {
	begun uint64    // how many fetches had begun when it came
	again time.Time // when it may be looked for again
}

// isURL tells the URLs in a list of keys from the files.
func isURL(name string) bool { return strings.Contains(name, "://") }

// CheckKeyURL reports what is wrong with the URL of a JWK Set. It has to be an
// https one, or an http one of this machine, as whoever can change the answer on
// its way can make tokens.
func CheckKeyURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("the URL of a JWK Set cannot be parsed") // the error would quote it
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("JWK Set %s: scheme %q is neither https nor http", printable(u), u.Scheme)
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("JWK Set %s: the URL has no host", printable(u))
	case u.User != nil:
		return fmt.Errorf("JWK Set %s: a password does not belong in the URL; public keys need none", printable(u))
	case u.Fragment != "":
		return fmt.Errorf("JWK Set %s: remove the part behind #", printable(u))
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return fmt.Errorf("JWK Set %s: http is for this machine alone; use https", printable(u))
	}
	return nil
}

func printable(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// newEndpoint makes a client that goes to this URL and nowhere else.
func newEndpoint(text string, o *Options) (*endpoint, error) {
	if err := CheckKeyURL(text); err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives:      true, // minutes lie between two fetches
		MaxResponseHeaderBytes: 64 << 10,
		TLSHandshakeTimeout:    o.JWKSTimeout,
	}
	if u.Scheme == "http" {
		// localhost is what the resolver says it is.
		transport.DialContext = (&net.Dialer{Control: onlyLoopback}).DialContext
	} else {
		transport.Proxy = http.ProxyFromEnvironment
	}
	client := &http.Client{
		Transport: transport,
		Timeout:   o.JWKSTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it redirects, and keys are taken from configured addresses alone; configure where it leads")
		},
	}
	return &endpoint{
		url: text, name: printable(u), client: client,
		interval: o.JWKSRefresh, cooldown: o.JWKSCooldown, spacing: o.JWKSCooldown / spacings,
		now: o.Now, due: o.Now().Add(o.JWKSRefresh), spent: map[netip.Addr]time.Time{},
	}, nil
}

// onlyLoopback is asked about the address, already resolved, of each connection.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if host, _, err := net.SplitHostPort(address); err != nil || !isLoopback(host) {
		return errors.New("http is for this machine alone, and the name leads elsewhere; use https")
	}
	return nil
}

// FetchKeys fetches a JWK Set once, as a Verifier does. skipped are the entries that are not trusted, each with the
// reason. ctx has to have a deadline.
func FetchKeys(ctx context.Context, url string) (keys []Key, skipped []error, err error) {
	e, err := newEndpoint(url, &Options{Now: time.Now})
	if err != nil {
		return nil, nil, err
	}
	r, err := e.get(ctx)
	return r.keys, r.skipped, err
}

// get fetches the keys once. A key that is no secret any more refuses the whole set: whoever has read it can make
// tokens, so that somebody has to look.
func (e *endpoint) get(ctx context.Context) (r reading, err error) {
	r.fetched = e.now()
	if r.keys, r.skipped, err = e.read(ctx); err != nil {
		return reading{}, fmt.Errorf("JWK Set %s: %w", e.name, err)
	}
	for _, key := range r.keys {
		if key.CanSign() {
			return reading{}, fmt.Errorf("JWK Set %s: %v is a private or secret key, and everybody can read it; publish public keys", e.name, key)
		}
	}
	for i, err := range r.skipped {
		r.skipped[i] = fmt.Errorf("JWK Set %s: %w", e.name, err)
	}
	return r, nil
}

func (e *endpoint) read(ctx context.Context) (keys []Key, skipped []error, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := e.client.Do(request)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // it quotes the URL
		}
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }() // only read
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("status %d instead of 200", response.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, maxKeyFileBytes+1))
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxKeyFileBytes {
		return nil, nil, fmt.Errorf("over %d bytes; is it the right address?", maxKeyFileBytes)
	}
	return parseJSONKeys(b)
}

// missed notes that the first fetch did not succeed: the next one is due soon.
func (e *endpoint) missed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed, e.due = true, e.now().Add(min(e.cooldown, e.interval))
}

// begin starts a fetch, or joins the one under way; the channel is closed at its
// end.
func (e *endpoint) begin(fetch func() error) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.start(fetch)
}

// beginFor is begin for a token from an address whose key is not known. It returns nil
// when the address has had its fetch in this cooldown, or the last one for anybody is
// too recent.
func (e *endpoint) beginFor(from netip.Addr, fetch func() error) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.flight != nil {
		return e.flight
	}
	now := e.now()
	maps.DeleteFunc(e.spent, func(_ netip.Addr, until time.Time) bool { return !now.Before(until) })
	if _, spent := e.spent[from]; spent || now.Before(e.again) {
		return nil
	}
	e.again, e.spent[from] = now.Add(e.spacing), now.Add(e.cooldown)
	return e.start(fetch)
}

// start is begin; e.mu is held.
func (e *endpoint) start(fetch func() error) <-chan struct{} {
	if e.flight != nil {
		return e.flight
	}
	flight := make(chan struct{})
	e.flight = flight
	e.begun++
	number := e.begun
	go func() {
		err := fetch()
		e.mu.Lock()
		e.flight, e.failed = nil, err != nil
		if !e.failed {
			e.ended = number
		}
		e.due = e.now().Add(e.interval)
		if e.failed {
			e.due = e.now().Add(min(e.cooldown, e.interval))
		}
		e.mu.Unlock()
		close(flight)
	}()
	return flight
}

const (
	// spacings is how many fetches a cooldown may have for unknown keys, whatever the
	// number of addresses that they come from.
	spacings = 10
	// maxSought bounds the kids that are remembered as sought. Those of strangers
	// push others out, which are then unavailable once more before they are invalid.
	maxSought = 1024
	// maxKidBytes bounds a kid that is worth a fetch, as those of issuers are short.
	maxKidBytes = 256
)

// seek reports whether a fetch that began after kid, or another name for a key, first
// came has brought a set, which then did not hold it. If not, begin begins one, or joins the one that is
// under way; that may be too early for kid, and then it is to be sought again.
func (e *endpoint) seek(kid string, begin func() <-chan struct{}) (looked bool, flight <-chan struct{}) {
	if len(kid) > maxKidBytes {
		return true, nil
	}
	e.mu.Lock()
	now := e.now()
	was, known := e.sought[kid]
	if !known && len(e.sought) >= maxSought {
		for other := range e.sought {
			delete(e.sought, other)
			break
		}
	}
	// One that was not there may be published later, and is looked for again then,
	// unless somebody has just done so.
	stale := known && e.ended > was.begun && !now.Before(was.again) && !now.Before(e.again)
	if !known || stale {
		was = soughtKey{e.begun, now.Add(e.cooldown)}
		e.note(kid, was)
	}
	looked = e.ended > was.begun
	e.mu.Unlock()
	if looked {
		return true, nil
	}
	return false, begin()
}

// note remembers a key that is sought; e.mu is held.
func (e *endpoint) note(name string, key soughtKey) {
	if e.sought == nil {
		e.sought = map[string]soughtKey{}
	}
	e.sought[name] = key
}

// removed notes the kids that the fetch under way has not found any more: it has
// looked for them.
func (e *endpoint) removed(before, now []Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, key := range before {
		if len(e.sought) < maxSought && !slices.ContainsFunc(now, func(other Key) bool { return other.kid == key.kid }) {
			e.note(key.kid, soughtKey{e.begun - 1, e.now().Add(e.cooldown)})
		}
	}
}

// state reports whether the last fetch did not succeed, and whether it is time
// for one in the background.
func (e *endpoint) state() (failed, due bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed, e.flight == nil && !e.now().Before(e.due)
}
