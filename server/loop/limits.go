package loop

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// limits counts the open sockets, in all and by address, and bounds them
// ([Options.Connections], [Options.ConnectionsPerIP]). Any goroutine may call its
// methods. The zero address is one that is not known yet; it counts towards the
// total alone.
type limits struct {
	total, perIP int                   // 0: no bound
	exempt       func(netip.Addr) bool // its address does not count; nil: none

	open      atomic.Int64
	lingering atomic.Int64 // sockets that were turned away, beside open

	mu     sync.Mutex
	byAddr map[[16]byte]int // guarded by mu; used when perIP is set
}

// lingering is how many sockets over a limit may linger until their peers have the answer.
const lingering = 32

// turnedAway stands for the address of such a socket, which counts towards no limit. It
// is of the discard prefix (RFC 6666), so nobody comes from there.
var turnedAway = netip.MustParseAddr("100::1").As16()

// mayLinger counts one in, unless there are too many already.
func (x *limits) mayLinger() bool {
	if x.lingering.Add(1) > lingering {
		x.lingering.Add(-1)
		return false
	}
	return true
}

// limitKey is what ConnectionsPerIP counts by: an IPv4 address, or the /64 of an
// IPv6 one, all of which one subscriber line usually has to itself.
func limitKey(addr [16]byte) [16]byte {
	if !netip.AddrFrom16(addr).Is4In6() {
		clear(addr[8:])
	}
	return addr
}

// admit counts a new socket in, unless that is over a limit; then it returns
// the response to refuse it with.
func (x *limits) admit(addr [16]byte) (response string) {
	if x.open.Add(1) > int64(x.total) && x.total > 0 {
		x.open.Add(-1)
		return responseUnavailable
	}
	if !x.admitAddress(addr) {
		x.open.Add(-1)
		return responseTooManyRequests
	}
	return ""
}

// admitAddress counts a socket in at its address, unless that is over the limit.
func (x *limits) admitAddress(addr [16]byte) bool {
	if addr == turnedAway {
		return false
	}
	if !x.counts(addr) {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	key := limitKey(addr)
	if x.byAddr[key] >= x.perIP {
		return false
	}
	x.byAddr[key]++
	return true
}

// move counts a socket that was counted at one address at another, unless that is
// over the limit.
func (x *limits) move(from, to [16]byte) bool {
	if !x.admitAddress(to) {
		return false
	}
	x.releaseAddress(from)
	return true
}

func (x *limits) counts(addr [16]byte) bool {
	return x.perIP > 0 && addr != [16]byte{} && (x.exempt == nil || !x.exempt(netip.AddrFrom16(addr).Unmap()))
}

// release counts a socket out.
func (x *limits) release(addr [16]byte) {
	if addr == turnedAway {
		x.lingering.Add(-1)
		return
	}
	x.open.Add(-1)
	x.releaseAddress(addr)
}

func (x *limits) releaseAddress(addr [16]byte) {
	if !x.counts(addr) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	key := limitKey(addr)
	if x.byAddr[key]--; x.byAddr[key] == 0 {
		delete(x.byAddr, key)
	}
}
