package loop

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol (HAProxy's proxy-protocol.txt). Version 1 (section 2.1) is a
// line of text:
//
//	PROXY TCP4 192.0.2.1 192.0.2.2 12345 443 CR LF
//
// Version 2 (section 2.2) is a signature, version and command, family, the length of
// what follows, the addresses, and extensions that are passed over.
const (
	proxyPrefix1 = "PROXY "
	proxyLine    = 107 // bytes of the longest line, its end included

	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyFixed     = len(proxySignature) + 4

	proxyLocal   = 0x20 // version 2, LOCAL: the proxy itself, such as a health check
	proxyProxied = 0x21 // version 2, PROXY
)

// proxyHeader reads the header that a proxy sends ahead of what it relays. It
// returns 0 and leaves the state alone while the header is incomplete.
func (l *Loop) proxyHeader(c *Conn, b []byte) int {
	addr, n, reason := parseProxyHeader(b, l.eng.opts.HeadBytes)
	switch {
	case reason != "":
		// The log names the peer, since there is no client to name: nobody else
		// knows which proxy is set wrong.
		l.refuseFrom(c, peerAddress(c.fd), responseBadRequest, reason)
		return len(b)
	case n == 0:
		return 0
	case turnedAway(c.addr) != "":
	case !l.eng.limits.admitAddress(addr):
		if !l.eng.limits.turnAway() {
			l.refuseFrom(c, addr, responseTooManyRequests, RefusedPerIP)
			return len(b)
		}
		l.refused(addr, RefusedPerIP)
		c.addr = overPerIP
	default:
		c.addr = addr
	}
	c.state = stateHead
	return n
}

// parseProxyHeader returns the client's address, zero where the header names none,
// and the header's length, 0 while it is incomplete; or why it is refused. One longer
// than longest is.
func parseProxyHeader(b []byte, longest int) (addr [16]byte, n int, reason string) {
	switch {
	case beginsLike(b, proxySignature):
		return parseProxyV2(b, longest)
	case beginsLike(b, proxyPrefix1):
		return parseProxyV1(b)
	}
	return addr, 0, RefusedNoProxy
}

// beginsLike reports whether b, as far as it has come, begins with prefix.
func beginsLike(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

func parseProxyV1(b []byte) (addr [16]byte, n int, reason string) {
	end := bytes.IndexByte(b[:min(len(b), proxyLine)], '\n')
	switch {
	case end < 0 && len(b) < proxyLine:
		return addr, 0, ""
	case end < 0 || b[end-1] != '\r':
		return addr, 0, RefusedProxy
	}
	n = end + 1
	line := string(b[len(proxyPrefix1) : end-1])
	fields := strings.Split(line, " ")
	if fields[0] == "UNKNOWN" { // the proxy itself; what follows has no meaning
		return addr, n, ""
	}
	if len(fields) != 5 || fields[0] != "TCP4" && fields[0] != "TCP6" {
		return addr, 0, RefusedProxy
	}
	var ends [2]netip.Addr
	for i := range ends {
		a, err := netip.ParseAddr(fields[1+i])
		_, wrongPort := strconv.ParseUint(fields[3+i], 10, 16)
		if err != nil || wrongPort != nil || a.Zone() != "" || a.Is4() != (fields[0] == "TCP4") {
			return addr, 0, RefusedProxy
		}
		ends[i] = a
	}
	return ends[0].As16(), n, ""
}

func parseProxyV2(b []byte, longest int) (addr [16]byte, n int, reason string) {
	if len(b) < proxyFixed {
		return addr, 0, ""
	}
	command, family := b[12], b[13]
	n = proxyFixed + int(binary.BigEndian.Uint16(b[14:]))
	if command != proxyLocal && command != proxyProxied || n > longest {
		return addr, 0, RefusedProxy
	}
	if len(b) < n {
		return addr, 0, ""
	}
	body := b[proxyFixed:n]
	switch {
	case command == proxyLocal:
	case family>>4 == 1 && len(body) >= 12: // AF_INET: two addresses, two ports
		addr[10], addr[11] = 0xff, 0xff
		copy(addr[12:], body[:4])
	case family>>4 == 2 && len(body) >= 36: // AF_INET6
		copy(addr[:], body[:16])
	case family>>4 == 1 || family>>4 == 2:
		return addr, 0, RefusedProxy
	}
	return addr, n, ""
}
