package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// Requests that are no WebSocket handshake reach net/http with all that was
// read, and count as connections until they end.
func TestOtherRequestsReachHTTP(t *testing.T) {
	handoff := NewHandoffListener()
	served := http.NewServeMux()
	served.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s from %s", b, strings.Split(r.RemoteAddr, ":")[0])
	})
	served.HandleFunc("GET /up", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Upgrade"))
	})
	s := start(t, Options{HTTP: handoff}, &hooks{message: echo})
	srv := &http.Server{Handler: served, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(handoff) }()
	t.Cleanup(func() {
		_ = srv.Shutdown(context.Background())
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	read := func(c *client, want string) {
		t.Helper()
		r, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != want {
			t.Fatalf("%q, %v; want %q", b, err, want)
		}
	}
	c := s.connect()
	// Head, body and a second request in one segment; then a third.
	c.send([]byte("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /up HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n"))
	read(c, "hello from 127.0.0.1")
	read(c, "h2c")
	c.send([]byte("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("y", 100000)))
	read(c, strings.Repeat("y", 100000)+" from 127.0.0.1")

	big := s.connect() // a body longer than one read
	big.send([]byte("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("z", 200000)))
	read(big, strings.Repeat("z", 200000)+" from 127.0.0.1")

	post := s.connect() // an upgrade must be a GET (RFC 6455 §4.1)
	post.send([]byte(strings.Replace(request, "GET", "PUT", 1)))
	post.status("404")

	s.dial().alive()
	if st := s.Stats(); st.HTTP != 3 || st.Open != 1 {
		t.Errorf("%d to HTTP, %d open", st.HTTP, st.Open)
	}
	if n := s.limits.open.Load(); n != 4 {
		t.Errorf("%d connections counted, want 4", n)
	}
	_, _, _ = c.Close(), big.Close(), post.Close()
	eventually(t, "HTTP connections counted out", func() bool { return s.limits.open.Load() == 1 })
}

// A connection takes a place until it is accepted; one that finds the listener closed is closed.
func TestHandoffListener(t *testing.T) {
	h := NewHandoffListener()
	var closed int
	for i := range handoffRoom {
		if !h.takePlace() {
			t.Fatalf("no place for connection %d", i)
		}
		h.handOff(closer{n: &closed})
	}
	if h.takePlace() {
		t.Error("a place too many")
	}
	if _, err := h.Accept(); err != nil {
		t.Error(err)
	}
	if !h.takePlace() {
		t.Error("an accepted connection keeps its place")
	}
	h.handOff(nil) // it has failed
	if !h.takePlace() {
		t.Error("a connection that has failed keeps its place")
	}
	_ = h.Close()
	if _ = h.Close(); closed != handoffRoom-1 {
		t.Errorf("%d closed, want all but the one accepted", closed)
	}
	if _, err := h.Accept(); err == nil {
		t.Error("accepted behind Close")
	}
	if h.handOff(closer{n: &closed}); closed != handoffRoom {
		t.Error("taken behind Close")
	}
	if h.takePlace() {
		t.Error("a place behind Close")
	}
}

type closer struct {
	net.Conn
	n *int
}

func (c closer) Close() error { *c.n++; return nil }

// A request that finds too many waiting for net/http is answered, all of what it sends is read, and when there is
// room again requests are served.
func TestTooManyWaitForHTTP(t *testing.T) {
	handoff := NewHandoffListener()
	why := make(chan string, 1)
	s := start(t, Options{HTTP: handoff, OnRefuse: func(_ netip.Addr, reason string) { why <- reason }}, &hooks{})
	for range handoffRoom {
		s.connect().send([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	}
	eventually(t, "all places are taken", func() bool { return s.Stats().HTTP == handoffRoom })
	c := s.connect()
	c.send([]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("y", 100000)))
	answer := c.status("503")
	for _, want := range []string{"\r\nRetry-After: 10\r\n", "\r\nAccess-Control-Allow-Origin: *\r\n"} {
		if !strings.Contains(answer, want) {
			t.Errorf("answer %q", answer)
		}
	}
	c.wantEOF()
	if got := <-why; got != RefusedHTTP {
		t.Errorf("refused for %q", got)
	}
	conn, err := handoff.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	s.connect().send([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	eventually(t, "there is a place again", func() bool { return s.Stats().HTTP == handoffRoom+1 })
	_ = handoff.Close()
}

// A connection that net/http has had comes back to the loops: the request that it is
// adopted with is its first, what came behind that request is read, and it counts as
// one connection all the way.
func TestAdopt(t *testing.T) {
	for _, behindProxy := range []bool{false, true} {
		t.Run(fmt.Sprint("proxy=", behindProxy), func(t *testing.T) {
			handoff := NewHandoffListener()
			addrs := make(chan string, 1)
			h := &hooks{message: echo, open: func(c *Conn) { addrs <- c.Addr().String() }}
			s := start(t, Options{HTTP: handoff, ProxyProtocol: behindProxy, ConnectionsPerIP: 1}, h)
			s.t = t
			c := s.connect()
			want := "127.0.0.1"
			if behindProxy {
				want = "192.0.2.7"
				c.send([]byte(proxied(0x21, 0x11, "\xc0\x00\x02\x07\x7f\x00\x00\x01\x30\x39\x1f\x90")))
			}
			const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
			c.send(append([]byte(get), text("received by the loop")...))
			conn, err := handoff.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, len(get))); err != nil {
				t.Fatal(err)
			}
			c.send(text("in the socket"))
			if err := s.Adopt(conn, append([]byte(request), text("read by net/http")...)); err != nil {
				t.Fatal(err)
			}
			c.status("101")
			for _, want := range []string{"read by net/http", "received by the loop", "in the socket"} {
				c.want(ws.OpText, want)
			}
			if got := <-addrs; got != want {
				t.Errorf("from %s, want %s", got, want)
			}
			_ = conn.Close() // net/http may close what it gave up
			c.alive()
			if n := s.limits.open.Load(); n != 1 {
				t.Errorf("%d connections counted, want 1", n)
			}
			if n := s.Connections(); n != 1 {
				t.Errorf("the loops count %d connections, want 1", n)
			}
			_ = c.Close()
			eventually(t, "the connection counted out", func() bool { return s.limits.open.Load() == 0 })
		})
	}
}

// The loops take back only what they gave, and a connection that they cannot take any
// more is closed and counted out.
func TestAdoptRefuses(t *testing.T) {
	handoff := NewHandoffListener()
	s := start(t, Options{HTTP: handoff}, &hooks{})
	ours, theirs := net.Pipe()
	if err := s.Adopt(ours, nil); err == nil {
		t.Error("a connection of another origin was adopted")
	}
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it was not closed: %v", err)
	}

	c := s.connect()
	c.send([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	conn, err := handoff.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(conn, []byte(request)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("adopted by an engine that has stopped: %v", err)
	}
	c.gone()
	if n, m := s.limits.open.Load(), s.Connections(); n != 0 || m != 0 {
		t.Errorf("%d and %d connections are still counted", n, m)
	}
}

// A refusal of net/http's that was made readable counts as written as it came, and one that was not sent as not written.
func TestRefusalIsWritten(t *testing.T) {
	ours, theirs := net.Pipe()
	c := &httpConn{Conn: ours}
	refusal := []byte("HTTP/1.1 400 Bad Request" + ownHeaders + "400 Bad Request")
	got := make(chan string)
	go func() {
		text, _ := io.ReadAll(theirs)
		got <- string(text)
	}()
	if n, err := c.Write(refusal); n != len(refusal) || err != nil {
		t.Errorf("%d of %d, %v", n, len(refusal), err)
	}
	_ = ours.Close()
	if text := <-got; !strings.Contains(text, "\r\nAccess-Control-Allow-Origin: *\r\n") {
		t.Errorf("%q", text)
	}
	if n, err := c.Write(refusal); n != 0 || err == nil {
		t.Errorf("%d, %v after the end", n, err)
	}
}
