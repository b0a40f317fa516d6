package authz

import (
	"context"
	"net/netip"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// maxFetchWait is how long one verification waits for keys. It bounds how long
// tokens with invented kids can keep verifiers busy when an issuer begins to
// hang. While it goes on nobody waits.
const maxFetchWait = 2 * time.Second

// keyFor finds the key that a token names by its header, which leads to r, and
// its iss. If its issuer publishes keys at a URL and the kid is not known, they are
// fetched first, so that a token by a key which was changed just now does not
// have to come twice. Unavailable says that no fetch has looked for the kid yet,
// or that none could.
func (v *Verifier) keyFor(r *route, iss, raw string, from netip.Addr) (*route, *candidate, wire.Code) {
	is := v.issuerOf(iss)
	if is == nil {
		return nil, nil, wire.TokenInvalid
	}
	fits := func(c *candidate) bool { return c.signed(raw) }
	if c := r.of(is, fits); c != nil {
		return r, c, wire.OK
	}
	return v.findKey(is, r.header, fits, from)
}

// findKey finds the issuer's key for a header, the one that fits where there are
// several, and waits for it where it has to be fetched.
func (v *Verifier) findKey(is *issuer, h header, fits func(*candidate) bool, from netip.Addr) (*route, *candidate, wire.Code) {
	set := v.keys.Load()
	r := set.lead(h)
	if c := r.of(is, fits); c != nil {
		return r, c, wire.OK
	}
	if !set.lacks(is, h) {
		return nil, nil, wire.TokenInvalid
	}
	return v.awaitKey(is, h, func(r *route) *candidate { return r.of(is, fits) }, h.kid, from)
}

// newKeyFor fetches the keys of an issuer that gives them no kid, for a token whose
// signature none of those that are known has made: it may be by one that was published
// just now. Where the token comes from stands for the kid.
func (v *Verifier) newKeyFor(is *issuer, h header, raw string, from netip.Addr) (*route, *candidate, wire.Code) {
	find := func(r *route) *candidate {
		c := r.of(is, func(c *candidate) bool { return c.signed(raw) })
		if c == nil || !c.signed(raw) {
			return nil
		}
		return c
	}
	return v.awaitKey(is, h, find, "\x00"+from.String(), from)
}

// issuerOf is the issuer whose keys count for a token: the one it names, where
// there are several. Nothing of the payload is verified yet: the name only
// selects, and the key's validator demands the same iss of what was signed.
func (v *Verifier) issuerOf(iss string) *issuer {
	if len(v.issuers) == 1 {
		return v.issuers[0]
	}
	for _, is := range v.issuers {
		if is.Name == iss {
			return is
		}
	}
	return nil
}

// awaitKey fetches the issuer's keys until there is one for the header. The token
// is invalid only when every URL of the issuer has been asked since the name, which
// stands for its key, first came: before that, it may be one that was published just
// now.
func (v *Verifier) awaitKey(is *issuer, h header, find func(*route) *candidate, name string, addr netip.Addr) (*route, *candidate, wire.Code) {
	timer := time.NewTimer(min(v.options.JWKSTimeout, maxFetchWait))
	defer timer.Stop()
	for {
		var flights []<-chan struct{}
		looked, waits := true, false
		for _, from := range is.remote {
			failed, _ := from.endpoint.state()
			has, flight := from.endpoint.seek(name, func() <-chan struct{} { return from.endpoint.beginFor(addr, v.fetch(from)) })
			looked = looked && has
			// Nobody waits for an issuer that did not answer last time.
			if flight != nil && !failed {
				flights, waits = append(flights, flight), true
			}
		}
		for _, flight := range flights {
			select {
			case <-flight:
			case <-timer.C:
				return nil, nil, wire.Unavailable
			}
		}
		r := v.keys.Load().lead(h)
		if c := find(r); c != nil {
			return r, c, wire.OK
		}
		switch {
		case looked && name != "":
			return nil, nil, wire.TokenInvalid
		case !waits:
			return nil, nil, wire.Unavailable
		}
	}
}

// beginFetch fetches a source in a goroutine of its own and installs its keys.
// After an error those that were there before stay.
func (v *Verifier) beginFetch(from *source) <-chan struct{} {
	return from.endpoint.begin(v.fetch(from))
}

// fetch is what beginFetch does.
func (v *Verifier) fetch(from *source) func() error {
	return func() error {
		now, err := from.endpoint.get(context.Background()) // the client has a timeout
		fell := false
		if err == nil {
			v.reload.Lock()
			before, read := from.keys, map[*source]reading{from: now}
			loaded := changes(read, from.asked)
			if fell, err = v.install(read); err == nil {
				from.endpoint.removed(before, now.keys)
				from.asked = false
			}
			v.reload.Unlock()
			if err == nil {
				v.reportLoaded(loaded)
			}
		}
		v.loaded(fell, err)
		return err
	}
}

// loaded counts and tells how reading keys again ended. No lock is held.
func (v *Verifier) loaded(fell bool, err error) {
	v.loads.Add(1)
	if err != nil {
		v.loadErrors.Add(1)
		if v.options.OnKeyError != nil {
			v.options.OnKeyError(err)
		}
	}
	if fell {
		v.changed()
	}
}
