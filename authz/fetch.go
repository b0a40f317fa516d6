package authz

import (
	"context"
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
// have to come twice. Unavailable says that they could not be fetched, or, after
// an outage, that they are being fetched just now.
func (v *Verifier) keyFor(r *route, iss string) (*route, *candidate, wire.Code) {
	is := v.issuerOf(iss)
	if is == nil {
		return nil, nil, wire.TokenInvalid
	}
	if c := r.of(is); c != nil {
		return r, c, wire.OK
	}
	return v.findKey(is, r.header)
}

// findKey finds the issuer's key for a header, and waits for it where it has to
// be fetched.
func (v *Verifier) findKey(is *issuer, h header) (*route, *candidate, wire.Code) {
	set := v.keys.Load()
	r := set.lead(h)
	if c := r.of(is); c != nil {
		return r, c, wire.OK
	}
	if !set.lacks(is, h) {
		return nil, nil, wire.TokenInvalid
	}
	return v.awaitKey(is, h)
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

// awaitKey fetches the issuer's keys until there is one for the header, or
// nothing is left to fetch before the cooldown ends.
func (v *Verifier) awaitKey(is *issuer, h header) (*route, *candidate, wire.Code) {
	timer := time.NewTimer(min(v.options.JWKSTimeout, maxFetchWait))
	defer timer.Stop()
	for {
		var flights []<-chan struct{}
		down := false
		for _, from := range is.remote {
			failed, _ := from.endpoint.state()
			// A fetch that had begun before may have been too early for this kid.
			// It ends, and the next turn begins another.
			flight := v.beginFetch(from, true)
			// Nobody waits for an issuer that did not answer last time.
			if down = down || failed; flight != nil && !failed {
				flights = append(flights, flight)
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
		if c := r.of(is); c != nil {
			return r, c, wire.OK
		}
		switch {
		case down:
			return nil, nil, wire.Unavailable
		case len(flights) == 0:
			return nil, nil, wire.TokenInvalid
		}
	}
}

// beginFetch fetches a source in a goroutine of its own and installs its keys.
// After an error those that were there before stay.
func (v *Verifier) beginFetch(from *source, forKid bool) <-chan struct{} {
	return from.endpoint.begin(forKid, func() error {
		keys, err := from.endpoint.get(context.Background()) // the client has a timeout
		fell := false
		if err == nil {
			v.reload.Lock()
			fell, err = v.install(map[*source]reading{from: {keys: keys}})
			v.reload.Unlock()
		}
		v.loaded(fell, err)
		return err
	})
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
