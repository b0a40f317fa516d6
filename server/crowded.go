package server

import (
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// crowdedInterval is how often the log says that an address has too many connections.
const crowdedInterval = time.Minute

// crowdedLog lets one line through in each interval.
type crowdedLog struct{ next atomic.Int64 } // Unix nanoseconds

func (c *crowdedLog) allow(now time.Time) bool {
	next := c.next.Load()
	return now.UnixNano() >= next && c.next.CompareAndSwap(next, now.Add(crowdedInterval).UnixNano())
}

// warnCrowded says that an address is refused for what many clients behind a proxy look like.
func (s *Server) warnCrowded(addr netip.Addr) {
	if s.crowded.allow(time.Now()) {
		s.log.Warn("an address has as many connections as limits.connections_per_ip permits; if it is a proxy, name it in trusted_proxies",
			zap.Stringer("addr", addr), zap.Int("limit", s.opts.Loop.ConnectionsPerIP))
	}
}
