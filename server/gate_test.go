//go:build linux

package server_test

import (
	"sync/atomic"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// gated is a real verifier behind a gate that a test opens.
type gated struct {
	verifier
	gate func(nth int)
	n    atomic.Int64
}

func (g *gated) Verify(token []byte) (server.Token, wire.Code) {
	t, code := g.verifier.Verify(token)
	g.gate(int(g.n.Add(1)))
	return t, code
}
