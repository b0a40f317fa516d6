package loop

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// proxied is a header of the PROXY protocol as HAProxy 2.x sends it.
func proxied(command, family byte, body string) string {
	return proxySignature + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

func TestProxyProtocol(t *testing.T) {
	const (
		v4 = "\xc0\x00\x02\x01\x7f\x00\x00\x01\x30\x39\x1f\x90" // 192.0.2.1:12345 to 127.0.0.1:8080
		v6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x30\x39\x1f\x90"
		upgrade = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	)
	for _, test := range []struct {
		name, header, status, addr string // addr is the reason where it is refused
	}{
		{"IPv4", proxied(0x21, 0x11, v4), "101", "192.0.2.1"},
		{"IPv6", proxied(0x21, 0x21, v6), "101", "2001:db8::7"},
		{"with extensions", proxied(0x21, 0x11, v4+"\x04\x00\x03abc"), "101", "192.0.2.1"},
		{"local", proxied(0x20, 0x00, ""), "101", "::"},
		{"unspecified family", proxied(0x21, 0x00, ""), "101", "::"},
		{"local with an address", proxied(0x20, 0x11, v4), "101", "::"},
		{"UNIX socket", proxied(0x21, 0x31, strings.Repeat("\x00", 216)), "101", "::"},
		{"UDP", proxied(0x21, 0x12, v4), "101", "192.0.2.1"},
		{"mapped IPv4", proxied(0x21, 0x21, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x09"+v6[16:]), "101", "192.0.2.9"},
		{"nothing", "", "400", RefusedNoProxy},
		{"a signature with a wrong byte", "\r\n\r\n\x00\r\nQUIT\r", "400", RefusedNoProxy},
		{"version 3", proxied(0x31, 0x11, v4), "400", RefusedProxy},
		{"unknown command", proxied(0x22, 0x11, v4), "400", RefusedProxy},
		{"short IPv4", proxied(0x21, 0x11, v4[:11]), "400", RefusedProxy},
		{"short IPv6", proxied(0x21, 0x21, v4), "400", RefusedProxy},
		{"longer than a head", proxied(0x21, 0x11, v4+strings.Repeat("x", 60_000)), "400", RefusedProxy},

		{"line, IPv4", "PROXY TCP4 192.0.2.1 127.0.0.1 12345 8080\r\n", "101", "192.0.2.1"},
		{"line, IPv6", "PROXY TCP6 2001:db8::7 ::1 12345 65535\r\n", "101", "2001:db8::7"},
		{"line, IPv6 at its longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "101", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0"},
		{"line, mapped IPv4", "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "101", "192.0.2.1"},
		{"line, unknown", "PROXY UNKNOWN\r\n", "101", "::"},
		{"line, unknown with more", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "101", "::"},
		{"line, unknown at its longest", "PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", "101", "::"},
		{"line, too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "400", RefusedProxy},
		{"line without end", strings.Repeat("PROXY ", 30), "400", RefusedProxy},
		{"line with a bare LF", "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n", "400", RefusedProxy},
		{"line without addresses", "PROXY TCP4\r\n", "400", RefusedProxy},
		{"line without a port", "PROXY TCP4 192.0.2.1 127.0.0.1 1\r\n", "400", RefusedProxy},
		{"line with a word too many", "PROXY TCP4 192.0.2.1 127.0.0.1 1 2 3\r\n", "400", RefusedProxy},
		{"line with two spaces", "PROXY TCP4  192.0.2.1 127.0.0.1 1 2\r\n", "400", RefusedProxy},
		{"line, wrong family", "PROXY TCP4 2001:db8::7 ::1 1 2\r\n", "400", RefusedProxy},
		{"line, wrong family of one", "PROXY TCP6 2001:db8::7 127.0.0.1 1 2\r\n", "400", RefusedProxy},
		{"line, unknown family", "PROXY UDP4 192.0.2.1 127.0.0.1 1 2\r\n", "400", RefusedProxy},
		{"line in small letters", "proxy TCP4 192.0.2.1 127.0.0.1 1 2\r\n", "400", RefusedNoProxy},
		{"line with a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "400", RefusedProxy},
		{"line with an odd address", "PROXY TCP4 192.0.2.01 127.0.0.1 1 2\r\n", "400", RefusedProxy},
		{"line with a port too high", "PROXY TCP4 192.0.2.1 127.0.0.1 65536 2\r\n", "400", RefusedProxy},
		{"line with a signed port", "PROXY TCP4 192.0.2.1 127.0.0.1 1 +2\r\n", "400", RefusedProxy},
	} {
		for _, cut := range []int{0, 1, 12, 15, 20, 44} {
			t.Run(test.name, func(t *testing.T) {
				got := make(chan string, 1)
				h := &hooks{open: func(c *Conn) { got <- c.Addr().String() }, message: echo}
				s := start(t, Options{ProxyProtocol: true, OnRefuse: func(addr netip.Addr, reason string) {
					if addr.String() != "127.0.0.1" {
						t.Errorf("refused %s, which is not the peer", addr)
					}
					got <- reason
				}}, h)
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				all := test.header + upgrade
				// In two segments, mostly.
				if _, err = io.WriteString(conn, all[:cut]); err == nil && cut > 0 {
					s.Do(func(*Loop) {})
				}
				if err == nil {
					_, _ = io.WriteString(conn, all[cut:]) // refused early, it may fail
				}
				answer := make([]byte, 12)
				if _, err = io.ReadFull(conn, answer); err != nil || string(answer[9:]) != test.status {
					t.Fatalf("%q, %v", answer, err)
				}
				if addr := <-got; addr != test.addr {
					t.Errorf("%s, want %s", addr, test.addr)
				}
			})
		}
	}
}

// A header where none is expected, or a second one, is named as what it is.
func TestStrayProxyHeader(t *testing.T) {
	why := make(chan string, 1)
	opts := Options{HTTP: NewHandoffListener(), OnRefuse: func(_ netip.Addr, reason string) { why <- reason }}
	const line = "PROXY TCP4 192.0.2.1 127.0.0.1 12345 8080\r\n"
	for _, expected := range []bool{false, true} {
		opts.ProxyProtocol = expected
		s := start(t, opts, &hooks{})
		for _, header := range []string{line, proxied(0x20, 0x00, "")} {
			c := s.connect()
			if expected {
				c.send([]byte(line))
			}
			c.send([]byte(header + request))
			c.status("400")
			if got := <-why; got != RefusedStrayProxy {
				t.Errorf("%q: refused for %s", header, got)
			}
		}
	}
}

// A header may come in two parts, cut anywhere.
func TestProxyHeaderInParts(t *testing.T) {
	for _, header := range []string{
		"PROXY TCP4 192.0.2.1 127.0.0.1 12345 8080\r\n",
		proxied(0x21, 0x11, "\xc0\x00\x02\x01\x7f\x00\x00\x01\x30\x39\x1f\x90"+"\x04\x00\x03abc"),
	} {
		for cut := range len(header) {
			if _, n, reason := parseProxyHeader([]byte(header[:cut]), 1000); n != 0 || reason != "" {
				t.Errorf("%q: %d bytes, refused for %q", header[:cut], n, reason)
			}
		}
		addr, n, reason := parseProxyHeader([]byte(header+"GET"), 1000)
		if got := netip.AddrFrom16(addr).Unmap().String(); got != "192.0.2.1" || n != len(header) || reason != "" {
			t.Errorf("%q: %s, %d bytes, refused for %q", header, got, n, reason)
		}
	}
}

// The limit by address counts the client's address, not the proxy's; net/http sees it too.
func TestProxyProtocolAddresses(t *testing.T) {
	header := func(last byte) string {
		return proxied(0x21, 0x11, "\xc0\x00\x02"+string([]byte{last})+"\x7f\x00\x00\x01\x30\x39\x1f\x90")
	}
	handoff := NewHandoffListener()
	opts := Options{ProxyProtocol: true, ConnectionsPerIP: 1, HTTP: handoff}
	h := &hooks{message: echo}
	s := start(t, opts, h)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })}
	done := make(chan struct{})
	go func() { _ = web.Serve(handoff); close(done) }()
	defer func() { _ = web.Close(); <-done }()

	dial := func(last byte) (net.Conn, error) {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, header(last)); err != nil {
			t.Fatal(err)
		}
		_, _, err = ws.Dialer{}.Upgrade(conn, &url.URL{Host: "x", Path: "/"})
		return conn, err
	}
	first, err := dial(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(1); err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("a second of that address: %v", err)
	}
	if _, err := dial(2); err != nil {
		t.Errorf("another address: %v", err)
	}
	_ = first.Close()
	eventually(t, "the address is free again", func() bool { _, err := dial(1); return err == nil })

	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, header(9)+"GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(conn); !strings.HasSuffix(string(body), "192.0.2.9:0") {
		t.Errorf("%q", body)
	}
}
