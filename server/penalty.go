package server

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// A bad signature costs its sender nothing and the node tens of microseconds. So
// a client that sends bad ones is read again only after a pause: not after the
// first, which may be a mistake, then longer each time. They are counted by
// address, or a new connection would be a new beginning. A client that shares an
// address with a flood and sends good tokens does not notice.
const (
	firstPenalty = 10 * time.Millisecond // after the second; each further one doubles it
	forgetAfter  = 30 * time.Second      // without another
	// offenders is how many addresses are kept. Two that share a place take it from
	// each other, which a flood from many addresses may use; each address then has to
	// open a connection for each bad token or two.
	offenders = 4096
)

// penalties count the bad signatures of addresses, until forgetAfter has passed.
type penalties struct {
	seed maphash.Seed // random, so that nobody can aim at a place (CWE-407)

	mu     sync.Mutex
	places [offenders]offender // guarded by mu
}

type offender struct {
	addr  [16]byte
	last  int64 // Unix nanoseconds
	count uint8
}

// add counts one more and returns how many there are.
func (p *penalties) add(addr netip.Addr, now int64) int {
	key := addressKey(addr).As16()
	place := &p.places[maphash.Bytes(p.seed, key[:])%offenders]
	p.mu.Lock()
	defer p.mu.Unlock()
	if place.addr != key || now-place.last > int64(forgetAfter) {
		*place = offender{addr: key}
	}
	place.last = now
	place.count = min(place.count+1, 100)
	return int(place.count)
}

// pause counts a bad signature from addr and returns how long its sender has to
// wait for it, at most longest.
func (p *penalties) pause(addr netip.Addr, now int64, longest time.Duration) time.Duration {
	if longest == 0 {
		return 0
	}
	n := p.add(addr, now)
	if n < 2 {
		return 0
	}
	return min(firstPenalty<<min(n-2, 20), longest)
}

// holdBack holds the answer to an HTTP request from addr back whose token was
// refused for what took long to find out.
func (s *Server) holdBack(ctx context.Context, addr netip.Addr) {
	wait(ctx, s.holdBackFor(addr, httpNow()))
}

func (s *Server) holdBackFor(addr netip.Addr, now int64) time.Duration {
	return min(s.penalties.pause(addr, now, s.opts.Penalty), s.opts.Loop.MessageTimeout/2)
}

// penalise pauses the connection, if its token was refused for what took long to
// find out.
func (r *request) penalise(code wire.Code) {
	if code != wire.TokenInvalid || r.ses.post != nil { // its answer is held back instead
		return
	}
	d := r.penalties.pause(r.conn.Addr(), r.now(), r.opts.Penalty)
	if d > 0 && r.conn.Open() {
		r.awaitPenalty(d)
	}
}
