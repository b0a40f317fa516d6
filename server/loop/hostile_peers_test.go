//go:build linux

package loop

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// Half a frame on many connections holds what was received, not what was
// announced, and not for ever.
func TestHalfFrames(t *testing.T) {
	h := &hooks{message: echo}
	s := start(t, Options{IdleTimeout: time.Hour, PingInterval: time.Hour}, h)
	half := masked(ws.OpText, true, strings.Repeat("x", 65536))[:1000]
	var all []*client
	for range 300 {
		c := s.dial()
		c.send(half)
		all = append(all, c)
	}
	honest := s.dial()
	eventually(t, "all received", func() bool { return s.Stats().BytesIn >= 300*1000 })
	if in, _ := s.held(); in > 2*300*1000 {
		t.Errorf("%d bytes held for 300 kB", in)
	}
	s.advance(31 * time.Second)
	for _, c := range all {
		c.wantClose(1008)
		c.wantEOF()
	}
	honest.alive()
	if in, _ := s.held(); in != 0 {
		t.Errorf("%d bytes held for nothing", in)
	}
	if n := h.count("violation 1008"); n != 300 {
		t.Errorf("%d violations", n)
	}
}

// A message at a byte a second ends at the message deadline, in one frame or in
// many, with pings between or without.
func TestDribble(t *testing.T) {
	for name, stream := range map[string][]byte{
		"one frame":        text(strings.Repeat("x", 100)),
		"fragments":        slices.Concat(masked(ws.OpText, false, "a"), slices.Repeat(masked(ws.OpContinuation, false, "a"), 20)),
		"pings in between": slices.Concat(masked(ws.OpText, false, "a"), slices.Repeat(masked(ws.OpPong, true, ""), 20)),
	} {
		t.Run(name, func(t *testing.T) {
			h := &hooks{message: echo}
			s := start(t, Options{MessageTimeout: 10 * time.Second}, h)
			c := s.dial()
			for i := range 9 {
				c.send(stream[7*i : 7*i+7])
				s.advance(time.Second)
			}
			if got := h.noted(); !slices.Equal(got, []string{"open"}) {
				t.Fatalf("too early: %q", got)
			}
			s.advance(3 * time.Second)
			c.wantClose(1008)
		})
	}
}

// The message deadline is one message's: a busy connection that never stands
// between two messages when it is looked at lives on.
func TestDeadlineIsPerMessage(t *testing.T) {
	h := &hooks{}
	s := start(t, Options{MessageTimeout: 10 * time.Second, PingInterval: time.Hour}, h)
	c := s.dial()
	one := text("hello")
	c.send(one[:3])
	for range 20 {
		s.advance(4 * time.Second)
		c.send(append(slices.Clone(one[3:]), one[:3]...))
	}
	c.send(one[3:])
	eventually(t, "all messages", func() bool { return h.count("message 1 hello") == 21 })
	s.advance(20 * time.Second)
	c.alive()
}

// A peer that asks for pongs and reads none has a bounded amount waiting and is closed
// as slow. What it then reads is whole frames and the close frame.
func TestPingFlood(t *testing.T) {
	for name, payload := range map[string]string{"empty": "", "full": strings.Repeat("p", 125)} {
		t.Run(name, func(t *testing.T) {
			h := &hooks{message: echo, request: narrow}
			s := start(t, Options{PendingBytes: 64 << 10, SlowCode: 4410}, h)
			other := s.dial()
			c := s.dial()
			flood := slices.Repeat(masked(ws.OpPing, true, payload), 1000)
			for s.Stats().Slow == 0 {
				c.send(flood)
				if _, out := s.held(); out > 4*64<<10 {
					t.Fatalf("%d bytes held", out)
				}
			}
			other.alive()
			for {
				op, p := c.frame()
				if op == ws.OpPong && string(p) == payload {
					continue
				}
				if code, _ := closeStatus(p); op != ws.OpClose || code != 4410 {
					t.Fatalf("frame %d %q", op, p)
				}
				break
			}
			if got := h.noted(); !slices.Equal(got, []string{"open", "open", "closed 4410"}) {
				t.Errorf("%q", got)
			}
			if st := s.Stats(); st.Pending != 0 {
				t.Errorf("%d bytes pending", st.Pending)
			}
		})
	}
}

// One ping at a time, none of the pongs read: the queue is not of small batches.
func TestPingTrickle(t *testing.T) {
	h := &hooks{}
	l := idle(t, Options{PendingBytes: 1 << 20}, h)
	ours, _ := pair(t)
	c := l.member(ours)
	for c.out == nil {
		c.Send(ws.OpBinary, make([]byte, 60_000))
		l.cork.release()
	}
	for range 10_000 {
		c.Send(ws.OpPong, nil)
		l.cork.release()
	}
	if n := len(c.out.queue); n > 2 || c.Pending() < 20_000 || c.state != stateOpen {
		t.Errorf("%d batches for %d bytes, state %d", n, c.Pending(), c.state)
	}
	c.abort()
	l.reap()
	if l.stat.pending != 0 || l.stat.open != 0 {
		t.Errorf("%+v", l.stat)
	}
}

// narrow makes the server's send buffer small, so that a peer is slow sooner.
func narrow(c *Conn, _ *Request) error {
	return unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 8192)
}

// Connections that break off in the middle of anything leave nothing behind,
// by FIN or by RST; start checks descriptors and goroutines as well.
func TestBreakOff(t *testing.T) {
	h := &hooks{message: echo}
	s := start(t, Options{ConnectionsPerIP: 1000}, h)
	beginnings := [][]byte{
		nil, []byte("GET / HT"), []byte(request), []byte(request + "\x81"),
		append([]byte(request), text("hello")[:8]...), append([]byte(request), masked(ws.OpText, false, "part")...),
		append([]byte(request), masked(ws.OpClose, true, "\x03\xe8")...),
	}
	for range 10 {
		for _, b := range beginnings {
			fin, rst := s.connect(), s.connect()
			fin.send(b)
			rst.send(b)
			_ = fin.Conn.(*net.TCPConn).CloseWrite()
			_ = rst.Conn.(*net.TCPConn).SetLinger(0)
			if strings.HasPrefix(string(b), request) {
				rst.status("101")
			}
			_ = rst.Close()
			fin.gone()
		}
	}
	eventually(t, "all gone", func() bool { return s.Connections() == 0 && s.limits.open.Load() == 0 })
	if st := s.Stats(); st.Open != 0 || st.Accepted != 140 || h.count("open") != int(st.Upgraded) {
		t.Errorf("%+v", st)
	}
	if opened, closed := h.count("open"), len(h.noted())-h.count("open"); opened != closed {
		t.Errorf("%d opened, %d closed", opened, closed)
	}
	if n := h.count("closed 1006"); n < 60 { // 3 of 7 beginnings, twice, 10 times
		t.Errorf("%d broke off", n)
	}
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	if len(s.limits.byAddr) != 0 {
		t.Errorf("addresses still counted: %v", s.limits.byAddr)
	}
}

// A peer that is silent is pinged; one that does not answer either is closed,
// and then cut off, since nobody answers the close frame.
func TestHalfOpen(t *testing.T) {
	h := &hooks{message: echo}
	s := start(t, Options{}, h)
	dead, quiet := s.dial(), s.dial()
	for range 3 {
		s.advance(26 * time.Second)
		quiet.want(ws.OpPing, "")
		quiet.send(masked(ws.OpPong, true, ""))
		quiet.alive() // the pong has been read
	}
	dead.want(ws.OpPing, "")
	dead.want(ws.OpPing, "")
	dead.wantClose(1001)
	s.advance(7 * time.Second)
	dead.gone()
	quiet.alive()
	if got := h.noted(); !slices.Equal(got, []string{"open", "open", "closed 1001"}) {
		t.Errorf("%q", got)
	}
}

// One connection too many, in all or from one address, is told so; HTTP and
// handshakes count as well as WebSockets, and an end makes room.
func TestConnectionLimits(t *testing.T) {
	for status, opts := range map[string]Options{"503": {Connections: 3}, "429": {ConnectionsPerIP: 3}} {
		t.Run(status, func(t *testing.T) {
			opts.HTTP = NewHandoffListener()
			s := start(t, opts, &hooks{message: echo})
			s.t = t
			open := s.dial()
			web := s.connect()
			web.send([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
			conn, err := opts.HTTP.Accept()
			if err != nil {
				t.Fatal(err)
			}
			handshake := s.connect()
			handshake.send([]byte("GET"))
			for range 3 {
				head := s.refused(status)
				if !strings.Contains(head, "Retry-After") || !strings.Contains(head, pagesMayRead) {
					t.Errorf("%q", head)
				}
			}
			_ = conn.Close()
			_ = conn.Close() // counted out once
			eventually(t, "room", func() bool { return s.limits.open.Load() == 2 })
			again := s.dial()
			again.alive()
			s.refused(status)
			_ = handshake.Close()
			eventually(t, "room", func() bool { return s.limits.open.Load() == 2 })
			s.dial().alive()
			open.alive()
			if st := s.Stats(); st.Refused != 4 {
				t.Errorf("%d refused", st.Refused)
			}
		})
	}
}

// A connection over a limit is answered when its request has come, as a proxy expects it, may go on sending, and reads
// its answer all the same. When there are too many they are answered and closed at once.
func TestTurnedAway(t *testing.T) {
	for status, opts := range map[string]Options{"503": {Connections: 1}, "429": {ConnectionsPerIP: 1}} {
		t.Run(status, func(t *testing.T) {
			s := start(t, opts, &hooks{message: echo})
			s.t = t
			open := s.dial()
			late := s.connect()
			eventually(t, "it is counted", func() bool { return s.Stats().Refused == 1 })
			half := len(request) / 2
			late.send([]byte(request[:half]))
			s.Do(func(*Loop) {})
			late.unanswered()
			for range 3 {
				late.send([]byte(request[half:]))
				s.Do(func(*Loop) {})
			}
			late.status(status)
			late.wantEOF()

			var silent []*client
			for range 2 * lingering {
				silent = append(silent, s.connect())
			}
			eventually(t, "all are counted", func() bool { return s.Stats().Refused == 1+2*lingering })
			if n := s.limits.lingering.Load(); n != lingering {
				t.Errorf("%d linger, want %d", n, lingering)
			}
			silent[len(silent)-1].status(status)
			silent[0].unanswered()
			s.advance(12 * time.Second)
			eventually(t, "none lingers for ever", func() bool { return s.limits.lingering.Load() == 0 })
			if n := s.Connections(); n != 1 {
				t.Errorf("the loops have %d connections", n)
			}
			open.alive()
			_ = open.Close()
			eventually(t, "the place is free", func() bool { return s.limits.open.Load() == 0 })
			s.dial().alive()
		})
	}
}

// Nobody comes from the address that stands for those who were turned away.
func TestAddressOfTheTurnedAway(t *testing.T) {
	s := start(t, Options{ProxyProtocol: true}, &hooks{message: echo})
	for _, addr := range []string{"100::1", "100::2"} {
		c := s.connect()
		c.send([]byte("PROXY TCP6 " + addr + " ::1 1 2\r\n" + request))
		c.status("429")
		_ = c.Close()
		eventually(t, "it is counted out", func() bool { return s.limits.open.Load() == 0 && s.limits.lingering.Load() == 0 })
	}
}

// Behind a proxy that names the client first, an answer waits for the client's request too.
func TestTurnedAwayBehindAProxy(t *testing.T) {
	for status, opts := range map[string]Options{"503": {Connections: 1}, "429": {ConnectionsPerIP: 1}} {
		t.Run(status, func(t *testing.T) {
			opts.ProxyProtocol = true
			var mu sync.Mutex
			var named []string
			opts.OnRefuse = func(addr netip.Addr, reason string) {
				mu.Lock()
				defer mu.Unlock()
				named = append(named, addr.String()+" "+reason)
			}
			s := start(t, opts, &hooks{message: echo})
			const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
			open := s.connect()
			open.send([]byte(header + request))
			open.status("101")
			var late []*client
			for range lingering + 1 {
				c := s.connect()
				c.send([]byte(header))
				late = append(late, c)
				eventually(t, "it is counted", func() bool { return s.Stats().Refused == uint64(len(late)) })
			}
			if n, open := s.limits.lingering.Load(), s.limits.open.Load(); n != lingering || open > 2 {
				t.Errorf("%d linger, %d are open", n, open)
			}
			late[lingering].status(status) // one too many
			late[0].unanswered()
			late[0].send([]byte(request))
			late[0].status(status)
			for _, c := range append(late, open) {
				_ = c.Close()
			}
			eventually(t, "all are counted out", func() bool { return s.limits.open.Load() == 0 && s.limits.lingering.Load() == 0 })
			again := s.connect()
			again.send([]byte(header + request))
			again.status("101")
			mu.Lock()
			defer mu.Unlock()
			want := map[string]string{"503": ":: " + RefusedConnections, "429": "192.0.2.1 " + RefusedPerIP}[status]
			for _, got := range named {
				if got != want {
					t.Errorf("named %q, want %q", got, want)
				}
			}
		})
	}
}

// pagesMayRead stands in each answer of the engine's own: fetch shows a page no other.
const pagesMayRead = "\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\n"

// Those that the upgrader writes of what it cannot make sense of are among them.
func TestPagesMayReadRefusals(t *testing.T) {
	s := start(t, Options{HeadBytes: 1000}, &hooks{})
	without := func(header string) string {
		before, rest, _ := strings.Cut(request, header+": ")
		_, after, _ := strings.Cut(rest, "\r\n")
		return before + after
	}
	instead := func(line, other string) string { return strings.Replace(request, line, other, 1) }
	for _, row := range []struct{ name, status, send string }{
		{"a body", "400", instead("\r\n", "\r\nContent-Length: 1\r\n")},
		{"no upgrade", "426", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"a long head", "431", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("h", 1000) + "\r\n\r\n"},
		{"no Host", "400", without("Host")},
		{"no Connection", "400", without("Connection")},
		{"another Connection", "400", instead("Connection: Upgrade", "Connection: close")},
		{"no key", "400", without("Sec-WebSocket-Key")},
		{"a short key", "400", instead("AAAAAAAAAAAAAAAAAAAAAA==", "AAAA")},
		{"no version", "400", without("Sec-WebSocket-Version")},
		{"another version", "426", instead("Version: 13", "Version: 8")},
		{"HTTP/1.0", "505", instead("HTTP/1.1", "HTTP/1.0")},
		{"HTTP/2.0", "505", instead("HTTP/1.1", "HTTP/2.0")},
		{"no path", "400", instead("/v1/ws?x=1 ", "")},
		{"a space in a name", "400", instead("Host: h", "Host : h")},
	} {
		c := s.connect()
		c.send([]byte(row.send))
		answer := c.status(row.status)
		if strings.Count(answer, pagesMayRead) != 1 || strings.Count(answer, "\r\nConnection: close\r\n") != 1 {
			t.Errorf("%s: %q", row.name, answer)
		}
	}
	c := s.connect()
	c.send([]byte(request))
	if answer := c.status("101"); strings.Contains(answer, "Access-Control") {
		t.Errorf("%q", answer)
	}
}

// An IPv6 client has 2^64 addresses to come from; they count as one.
func TestLimitKey(t *testing.T) {
	a4, b4 := addrOf(&unix.SockaddrInet4{Addr: [4]byte{10, 0, 0, 1}}), addrOf(&unix.SockaddrInet4{Addr: [4]byte{10, 0, 0, 2}})
	a6, b6 := addrOf(&unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 15: 1}}), addrOf(&unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 15: 2}})
	c6 := addrOf(&unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 7: 9, 15: 1}})
	mapped := addrOf(&unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 1}})
	if limitKey(a4) == limitKey(b4) || limitKey(a6) != limitKey(b6) || limitKey(a6) == limitKey(c6) || limitKey(mapped) != limitKey(a4) {
		t.Error(limitKey(a4), limitKey(b4), limitKey(a6), limitKey(b6), limitKey(c6), limitKey(mapped))
	}
}

// A slow subscriber is closed with the code for it. The frame that was half
// sent is completed, the close frame stands behind it, and others get all.
func TestSlowSubscriber(t *testing.T) {
	for name, size := range map[string]int{"small frames": 100, "large frames": 60_000} {
		t.Run(name, func(t *testing.T) {
			var g Group
			h := &hooks{request: narrow}
			h.open = func(c *Conn) {
				m := &Member{Conn: c, Until: 1<<63 - 1}
				c.Data = m
				g.Join(m)
			}
			h.closed = func(c *Conn, _ ws.StatusCode) { c.Data.(*Member).Leave() }
			s := start(t, Options{PendingBytes: 200_000, SlowCode: 4410}, h)
			slow, fast := s.dial(), s.dial()
			payload := strings.Repeat("e", size)
			n := 0
			for ; s.Stats().Slow == 0; n++ {
				b := NewBatch()
				b.b, b.n = append(appendHeader(b.b, ws.OpText, size), payload...), 1
				s.loops[0].Deliver(&g, b)
				fast.want(ws.OpText, payload)
			}
			events := 0
			for {
				op, p := slow.frame()
				if op == ws.OpText && string(p) == payload {
					events++
					continue
				}
				if code, _ := closeStatus(p); op != ws.OpClose || code != 4410 {
					t.Fatalf("frame %d %.100q", op, p)
				}
				break
			}
			if events == 0 || events >= n {
				t.Errorf("the slow one got %d of %d", events, n)
			}
			slow.send(masked(ws.OpClose, true, "\x11\x3a"))
			slow.wantEOF()
			if h.count("closed 4410") != 1 || h.count("violation 4410") != 0 {
				t.Errorf("%q", h.noted())
			}
			var members int
			s.Do(func(*Loop) { members = g.Len() })
			if st := s.Stats(); st.Pending != 0 || st.Slow != 1 || members != 1 {
				t.Errorf("%+v, %d members", st, members)
			}
		})
	}
}

// A peer too slow already for what Open sends: the answer to the handshake
// stands before the first frame.
func TestSlowFromTheStart(t *testing.T) {
	h := &hooks{request: narrow, open: func(c *Conn) {
		for range 400 {
			c.Send(ws.OpBinary, make([]byte, 60_000))
		}
	}}
	s := start(t, Options{PendingBytes: 1 << 20, SlowCode: 4410}, h)
	c := s.connect()
	c.send([]byte(request))
	eventually(t, "too slow", func() bool { return s.Stats().Slow == 1 })
	c.status("101")
	c.wantClose(4410)
}

// Reading on while a close frame waits behind a full socket: the peer's end is
// noticed, nothing leaks.
func TestSlowNeverReads(t *testing.T) {
	h := &hooks{request: narrow, message: func(c *Conn, _ ws.OpCode, _ []byte) {
		for c.Open() {
			c.Send(ws.OpBinary, make([]byte, 60_000))
		}
	}}
	s := start(t, Options{PendingBytes: 1 << 20}, h)
	c := s.dial()
	c.send(text("flood me"))
	eventually(t, "too slow", func() bool { return s.Stats().Slow == 1 })
	if _, out := s.held(); out > 70_000 {
		t.Errorf("%d bytes held for one frame", out)
	}
	s.advance(7 * time.Second)
	eventually(t, "cut off", func() bool { return s.Connections() == 0 })
	if _, err := c.Write(text("hello?")); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	if got := h.noted(); !slices.Equal(got, []string{"open", "closed 1008"}) {
		t.Errorf("%q", got)
	}
}

// A peer that sends is pinged as well: what stands between us may close a connection whose other side is silent.
func TestPingWhileThePeerSends(t *testing.T) {
	l := idle(t, Options{PingInterval: 10 * time.Second, IdleTimeout: 30 * time.Second}, &hooks{})
	fd, theirs := pair(t)
	c := l.member(fd)
	l.sec, c.heard, c.pinged = 1000, 1000, 1000
	pings := 0
	for range 60 {
		l.sec++
		c.heard = l.sec // it has sent something
		l.sweepAll()
		l.cork.release()
		buf := make([]byte, 100)
		if n, _ := unix.Read(theirs, buf); n > 0 {
			if buf[0] != 0x80|byte(ws.OpPing) {
				t.Errorf("sent %q", buf[:n])
			}
			pings++
		}
	}
	if pings != 6 || !c.Open() {
		t.Errorf("%d pings in a minute, open: %v", pings, c.Open())
	}
	c.abort()
	l.reap()
}

// A peer that was closed because it did not read finds out why when it reads again, up to IdleTimeout later; one that has
// been told has CloseTimeout, as any.
func TestSlowPeerComesBack(t *testing.T) {
	for _, after := range []uint32{3, 20, 29, 31} {
		l := idle(t, Options{SlowCode: 4410, PendingBytes: 1000, CloseTimeout: 2 * time.Second, IdleTimeout: 30 * time.Second}, &hooks{})
		fd, theirs := pair(t)
		c := l.member(fd)
		l.sec = 1000
		for c.Open() {
			c.sendFrame(batch(strings.Repeat("x", 1<<17)).b)
			l.cork.release()
		}
		l.reap()
		l.sec += after
		l.sweepAll()
		l.reap()
		var got []byte
		for n, buf := 1, make([]byte, 1<<20); n > 0; {
			if c.state != stateDead {
				c.sendPending()
			}
			if n, _ = unix.Read(theirs, buf); n > 0 {
				got = append(got, buf[:n]...)
			}
		}
		told := strings.HasSuffix(string(got), string(appendClose(nil, 4410, slowReason)))
		if want := after <= 30; told != want {
			t.Errorf("after %d s: told %v, want %v", after, told, want)
		}
		l.sec += 3
		l.sweepAll()
		l.reap()
		if c.state != stateDead {
			t.Errorf("after %d s and 3 more: state %d", after, c.state)
		}
	}
}
