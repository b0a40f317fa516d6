package loop

import (
	"bytes"
	"encoding/binary"
)

// The PROXY protocol, version 2 (HAProxy's proxy-protocol.txt, section 2.2): a
// signature, version and command, family, the length of what follows, the
// addresses, and extensions that are passed over.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyFixed     = len(proxySignature) + 4

	proxyLocal   = 0x20 // version 2, LOCAL: the proxy itself, such as a health check
	proxyProxied = 0x21 // version 2, PROXY
)

// proxyHeader reads the header that a proxy sends ahead of what it relays. It
// returns 0 and leaves the state alone while the header is incomplete.
func (l *Loop) proxyHeader(c *Conn, b []byte) int {
	n := min(len(b), len(proxySignature))
	if !bytes.Equal(b[:n], []byte(proxySignature[:n])) {
		l.refuse(c, responseBadRequest, RefusedProxy)
		return len(b)
	}
	if len(b) < proxyFixed {
		return 0
	}
	command, family := b[12], b[13]
	end := proxyFixed + int(binary.BigEndian.Uint16(b[14:]))
	if command != proxyLocal && command != proxyProxied || end > l.eng.opts.HeadBytes {
		l.refuse(c, responseBadRequest, RefusedProxy)
		return len(b)
	}
	if len(b) < end {
		return 0
	}
	body := b[proxyFixed:end]
	var addr [16]byte
	switch {
	case command == proxyLocal:
	case family>>4 == 1 && len(body) >= 12: // AF_INET: two addresses, two ports
		addr[10], addr[11] = 0xff, 0xff
		copy(addr[12:], body[:4])
	case family>>4 == 2 && len(body) >= 36: // AF_INET6
		copy(addr[:], body[:16])
	case family>>4 == 1 || family>>4 == 2:
		l.refuse(c, responseBadRequest, RefusedProxy)
		return len(b)
	}
	if !l.eng.limits.admitAddress(addr) {
		l.refuse(c, responseTooManyRequests, RefusedPerIP)
		return len(b)
	}
	c.addr = addr
	c.state = stateHead
	return end
}
