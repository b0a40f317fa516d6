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
	gate  func(nth int)
	brief bool
	n     atomic.Int64
}

// Brief implements [server.Authorizer]: a loop must not stand at the gate.
func (g *gated) Brief([]byte) bool { return g.brief }

func (g *gated) Verify(token []byte) (server.Token, wire.Code) {
	t, code := g.verifier.Verify(token)
	g.gate(int(g.n.Add(1)))
	return t, code
}
