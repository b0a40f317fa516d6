package server

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/notifyd/notifyd/server/loop"
)

// The headers in which proxies say whom they speak for ([Options.ProxyHeader]).
const (
	HeaderForwarded    = "forwarded"       // RFC 7239
	HeaderForwardedFor = "x-forwarded-for" // what most write
)

// clientAddr is the address that an upgrade request came from.
func (s *Server) clientAddr(c *loop.Conn, r *loop.Request) netip.Addr {
	return s.behindProxies(c.Addr(), string(r.Forwarded), string(r.ForwardedFor))
}

// httpClientAddr is the address that an HTTP request came from.
func (s *Server) httpClientAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return s.behindProxies(peer.Addr().Unmap(), strings.Join(r.Header.Values("Forwarded"), ","), strings.Join(r.Header.Values("X-Forwarded-For"), ","))
}

// behindProxies finds the client behind the operator's proxies. Each proxy appends the
// address that it saw, so the list is read from its end, as long as the address
// to the right is a trusted proxy's; what others wrote is never looked at.
//
// A proxy that writes Forwarded (RFC 7239) or X-Forwarded-For may pass the other
// on as the client wrote it. So where there are both and they disagree, neither
// is believed, unless Options.ProxyHeader says which one is theirs.
func (s *Server) behindProxies(peer netip.Addr, forwarded, forwardedFor string) netip.Addr {
	a := s.followHops(peer, split(forwarded, ','), forParameter)
	b := s.followHops(peer, strings.Split(forwardedFor, ","), strings.TrimSpace)
	switch {
	case s.opts.ProxyHeader == HeaderForwarded:
		return a
	case s.opts.ProxyHeader == HeaderForwardedFor:
		return b
	case forwarded == "":
		return b
	case forwardedFor == "" || a == b:
		return a
	}
	return peer
}

// followHops follows one list of hops. address finds a hop's.
func (s *Server) followHops(peer netip.Addr, hops []string, address func(string) string) netip.Addr {
	for i := len(hops) - 1; i >= 0 && s.isTrusted(peer); i-- {
		addr, ok := parseHop(address(hops[i]))
		if !ok {
			break // hidden or malformed: the last address that is known
		}
		peer = addr
	}
	return peer
}

func (s *Server) isTrusted(a netip.Addr) bool {
	for _, p := range s.opts.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forParameter is the value of for= in one element of Forwarded.
func forParameter(element string) string {
	for _, pair := range split(element, ';') {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, "for") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// split cuts list at sep where that stands outside of quotes: a proxy quotes what
// its client chose, such as host="x, for=192.0.2.1". It returns nil when a quote
// is left open: then nobody can say which proxy wrote which part.
func split(list string, sep byte) (parts []string) {
	from, quoted := 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++ // RFC 9110 §5.6.4
		case c == sep && !quoted:
			parts = append(parts, list[from:i])
			from = i + 1
		}
	}
	if quoted {
		return nil
	}
	return append(parts, list[from:])
}

// parseHop reads an address with or without a port: 192.0.2.1, 192.0.2.1:80,
// [2001:db8::1], [2001:db8::1]:80, 2001:db8::1.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return a.Unmap(), true
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap(), true
	}
	return netip.Addr{}, false
}
