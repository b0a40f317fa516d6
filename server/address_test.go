package server

import (
	"net/netip"
	"testing"
)

func TestBehind(t *testing.T) {
	s := &Server{opts: Options{TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8:1::/48"),
	}}}
	for _, x := range []struct {
		name, peer, forwarded, forwardedFor, want string
	}{
		{"nothing", "10.0.0.1", "", "", "10.0.0.1"},
		{"one proxy", "10.0.0.1", "", "198.51.100.1", "198.51.100.1"},
		{"not a proxy", "203.0.113.1", "for=198.51.100.1", "198.51.100.1", "203.0.113.1"},
		{"nobody's address in front", "10.0.0.1", "", "8.8.8.8, 198.51.100.1", "198.51.100.1"},
		{"two proxies", "10.0.0.1", "", "8.8.8.8, 198.51.100.1,192.0.2.7", "198.51.100.1"},
		{"only proxies", "10.0.0.1", "", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"a proxy's neighbour", "10.0.0.1", "", "198.51.100.1, 192.0.2.8", "192.0.2.8"},
		{"malformed at the end", "10.0.0.1", "", "198.51.100.1, x", "10.0.0.1"},
		{"malformed behind a good one", "10.0.0.1", "", "x, 10.0.0.2", "10.0.0.2"},
		{"an empty element", "10.0.0.1", "", "198.51.100.1,,10.0.0.2", "10.0.0.2"},
		{"white space", "10.0.0.1", "", " ", "10.0.0.1"},
		{"a port", "10.0.0.1", "", "198.51.100.1:1234", "198.51.100.1"},
		{"IPv6", "2001:db8:1::1", "", "2001:db8:2::1", "2001:db8:2::1"},
		{"mapped", "10.0.0.1", "", "::ffff:198.51.100.1, ::ffff:10.0.0.9", "198.51.100.1"},
		{"Forwarded", "10.0.0.1", `for=198.51.100.1;proto=https;by=10.0.0.1`, "", "198.51.100.1"},
		{"Forwarded, two", "10.0.0.1", `for=8.8.8.8, For="198.51.100.1:80" , proto=http;FOR=10.0.0.2`, "", "198.51.100.1"},
		{"Forwarded, IPv6", "10.0.0.1", `for="[2001:db8:2::1]:4711"`, "", "2001:db8:2::1"},
		{"Forwarded, unknown", "10.0.0.1", `for=198.51.100.1, for=unknown`, "", "10.0.0.1"},
		{"Forwarded, obfuscated", "10.0.0.1", `for=198.51.100.1, for="_secret"`, "", "10.0.0.1"},
		{"Forwarded, without for", "10.0.0.1", `for=198.51.100.1, proto=http`, "", "10.0.0.1"},
		{"Forwarded, a comma in quotes", "10.0.0.1", `for="8.8.8.8, for=198.51.100.1"`, "", "10.0.0.1"},
		{"Forwarded, a quote left open before", "10.0.0.1", `for="8.8.8.8, for=198.51.100.1`, "", "10.0.0.1"},
		{"Forwarded, a quote left open before quotes", "10.0.0.1", `for="8.8.8.8, for="198.51.100.1"`, "", "10.0.0.1"},
		{"Forwarded, a host that says for", "10.0.0.1", `for=198.51.100.1;host="x, for=8.8.8.8"`, "", "198.51.100.1"},
		{"Forwarded, a host that says for, first", "10.0.0.1", `host="x;for=8.8.8.8";for=198.51.100.1`, "", "198.51.100.1"},
		{"Forwarded, a host with a quote", "10.0.0.1", `for=198.51.100.1;host="x\", for=8.8.8.8;\\"`, "", "198.51.100.1"},
		{"Forwarded, a backslash at the end", "10.0.0.1", `for=198.51.100.1;host="\`, "", "10.0.0.1"},
		{"both agree", "10.0.0.1", `for=198.51.100.1`, "198.51.100.1", "198.51.100.1"},
		{"the client wrote Forwarded", "10.0.0.1", `for=8.8.8.8`, "198.51.100.1", "10.0.0.1"},
		{"the client wrote X-Forwarded-For", "10.0.0.1", `for=198.51.100.1`, "8.8.8.8", "10.0.0.1"},
		{"the client wrote nonsense", "10.0.0.1", `x`, "198.51.100.1", "10.0.0.1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := s.behindProxies(netip.MustParseAddr(x.peer), x.forwarded, x.forwardedFor).String(); got != x.want {
				t.Errorf("%s, want %s", got, x.want)
			}
		})
	}
}

// Where the operator says which header the proxies write, the other one is the client's and not looked at.
func TestProxyHeader(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, x := range []struct{ header, forwarded, forwardedFor, want string }{
		{HeaderForwardedFor, "for=8.8.8.8", "198.51.100.1", "198.51.100.1"},
		{HeaderForwardedFor, "for=8.8.8.8", "", "10.0.0.1"},
		{HeaderForwardedFor, "", "198.51.100.1", "198.51.100.1"},
		{HeaderForwarded, "for=198.51.100.1", "8.8.8.8", "198.51.100.1"},
		{HeaderForwarded, "", "8.8.8.8", "10.0.0.1"},
		{HeaderForwarded, "x", "8.8.8.8", "10.0.0.1"},
		{"", "for=8.8.8.8", "198.51.100.1", "10.0.0.1"},
	} {
		s := &Server{opts: Options{TrustedProxies: trusted, ProxyHeader: x.header}}
		if got := s.behindProxies(netip.MustParseAddr("10.0.0.1"), x.forwarded, x.forwardedFor).String(); got != x.want {
			t.Errorf("%+v: %s", x, got)
		}
	}
}

func TestHops(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "192.0.2.1:80": "192.0.2.1", "[2001:db8::1]": "2001:db8::1", "[2001:db8::1]:80": "2001:db8::1",
		"2001:db8::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"": "", "unknown": "", "_x": "", "192.0.2": "", "192.0.2.1:": "", "192.0.2.1:x": "", "192.0.2.1:99999": "", "192.0.2.256": "",
		"192.0.2.01": "", "host.example": "", "192.0.2.1 ": "", "192.0.2.1/24": "", "[]": "", "2001:db8::1:80:x": "",
	} {
		if a, ok := parseHop(in); ok != (want != "") || ok && a.String() != want {
			t.Errorf("%q: %v %v, want %q", in, a, ok, want)
		}
	}
	for in, want := range map[string]string{
		"for=192.0.2.1": "192.0.2.1", "For=a;by=b": "a", "by=b; FOR=a;proto=http": "a", `for="[2001:db8::1]"`: "[2001:db8::1]",
		"": "", "for": "", "for=": "", "by=b": "", "forx=a": "", "xfor=a": "", "by=b;for=a;for=c": "a", `by="for=b;for=c`: "", `by=";for=b"`: "",
	} {
		if got := forParameter(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
