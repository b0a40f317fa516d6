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

// lingering is how many sockets over a limit may wait for their request, and linger
// until their peers have the answer.
const lingering = 32

// Such a socket counts towards no limit. One of these stands for its address, and says
// what the answer is. They are of the discard prefix (RFC 6666), so nobody comes from
// there.
var (
	overTotal = netip.MustParseAddr("100::1").As16()
	overPerIP = netip.MustParseAddr("100::2").As16()
)

// turnedAway returns the answer for a socket that is over a limit, and "" for others.
func turnedAway(addr [16]byte) (response string) {
	switch addr {
	case overTotal:
		return responseUnavailable
	case overPerIP:
		return responseTooManyRequests
	}
	return ""
}

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

// admit counts a new socket in, unless that is over a limit; then it returns what
// stands for its address.
func (x *limits) admit(addr [16]byte) (over [16]byte, ok bool) {
	if x.open.Add(1) > int64(x.total) && x.total > 0 {
		x.open.Add(-1)
		return overTotal, false
	}
	if !x.admitAddress(addr) {
		x.open.Add(-1)
		return overPerIP, false
	}
	return over, true
}

// turnAway counts a socket without an address out as one that is over its address's
// limit, and in again as one that lingers, unless there are too many already.
func (x *limits) turnAway() bool {
	if !x.mayLinger() {
		return false
	}
	x.open.Add(-1)
	return true
}

// admitAddress counts a socket in at its address, unless that is over the limit.
func (x *limits) admitAddress(addr [16]byte) bool {
	if turnedAway(addr) != "" {
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
	if turnedAway(addr) != "" {
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
