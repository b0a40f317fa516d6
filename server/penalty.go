//go:build linux

package server

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// A bad signature takes its sender nothing and the node tens of microseconds.
// So whoever sends bad ones waits before its connection is read on: not after
// the first, which may be a mistake, then longer each time. It counts by
// address, or a new connection would be a new beginning. Those who share an
// address with a flood and send good tokens do not notice.
const (
	firstPenalty = 10 * time.Millisecond // after the second; each further one doubles it
	forgetAfter  = 30 * time.Second      // without another
	// offenders is how many addresses are kept. Who shares a place takes it from
	// the other, which a flood from many addresses may use; each then has to open a
	// connection for each bad token or two.
	offenders = 4096
)

// penalties are how often addresses sent bad signatures of late.
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
	key := addr.As16()
	if addr.Is6() && !addr.Is4In6() {
		clear(key[8:]) // one customer has a /64 at least
	}
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

// pause is what follows on the nth bad signature.
func pause(n int, longest time.Duration) time.Duration {
	if n < 2 {
		return 0
	}
	return min(firstPenalty<<min(n-2, 20), longest)
}

// penalise has c wait, if its token was refused for what took long to find out.
func (s *Server) penalise(c *loop.Conn, code wire.Code) {
	if code != wire.TokenInvalid || s.opts.Penalty == 0 {
		return
	}
	l := c.Loop()
	d := pause(s.penalties.add(c.Addr(), l.Now()), s.opts.Penalty)
	if d == 0 || !c.Open() {
		return
	}
	c.Pause()
	l.Data.(*loopState).held = true // nobody else is to resume it
	time.AfterFunc(d, func() {
		l.Post(func() {
			if c.Open() {
				c.Resume()
			}
		})
	})
}
