//go:build linux

package auth

import (
	"time"

	"github.com/notifyd/notifyd/authz"
)

const (
	topic = "bench.auth"
	// silent is published to and has no subscribers, so that what is measured is
	// the check and the way to NATS.
	silent = "bench.silent"
)

// message is 128 bytes, as in the other benchmarks.
var message = []byte(`{"order":"7f9c2ba4-e88f-4a27-9d6b-0c1d3e5f7a9b","state":"shipped","at":"2026-01-02T03:04:05Z","note":"two parcels, one address"}`)

// claims are those of a token that may do what the benchmark does. The jti makes
// each one new to the server.
func claims() authz.Claims {
	now := time.Now()
	return authz.Claims{
		Subject: "svc-orders", ID: authz.NewTicket(), IssuedAt: now, Expires: now.Add(time.Hour),
		Publish: []string{"bench.>"}, Subscribe: []string{"bench.>"},
	}
}

// mint makes n different tokens; bind, if not nil, changes what each says.
func (b *bench) mint(alg string, n int, bind func(*authz.Claims)) ([]string, error) {
	tokens := make([]string, n)
	for i := range tokens {
		c := claims()
		if bind != nil {
			bind(&c)
		}
		var err error
		if tokens[i], err = authz.Sign(b.keys[alg], c); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}
