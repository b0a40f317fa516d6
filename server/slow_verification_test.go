package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// masked is a text message as a client's frame.
func masked(t testing.TB, text string) string {
	t.Helper()
	b, err := ws.CompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(text))))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// hall is a server whose handshakes wait, once their tokens are verified, until
// the test lets them go on.
type hall struct {
	*node
	verified, gate chan bool
}

func newHall(t *testing.T, alg string, o server.Options) *hall {
	h := &hall{verified: make(chan bool), gate: make(chan bool)}
	failed := make(chan bool) // the server can stop then
	h.node = start(t, setup{alg: alg, server: o, fake: new(memBus), gate: func(int) {
		select {
		case h.verified <- true:
			<-h.gate
		case <-failed:
		}
	}})
	t.Cleanup(func() {
		close(failed)
		if t.Failed() {
			close(h.gate)
		}
	})
	return h
}

// held sends text and returns when the token in it has been verified.
func (h *hall) held(t *testing.T, text string) net.Conn {
	t.Helper()
	c := h.dialFrom(t, "127.0.0.1")
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	<-h.verified
	return c
}

func bearer(token string) string { return head("", "Authorization: Bearer "+token) }

// The handshake waits for its signature; what the client has sent behind it
// waits too, whether it came in the same segment or later, and nobody else does.
func TestHeldHandshake(t *testing.T) {
	for _, alg := range []string{"EdDSA", "ES256"} {
		t.Run(alg, func(t *testing.T) {
			h := newHall(t, alg, server.Options{RequireConnection: true})
			token := h.all(t)
			for _, later := range []bool{false, true} {
				frames := masked(t, `{"type":"ping","id":"1"}`) + masked(t, `{"type":"subscribe","id":"2","topic":"a"}`) + masked(t, `{"type":"ping"`)[:7]
				first, rest := frames, ""
				if later {
					first, rest = frames[:9], frames[9:]
				}
				c := h.held(t, bearer(h.all(t))+first)
				if _, err := io.WriteString(c, rest); err != nil {
					t.Fatal(err)
				}
				h.ask(t, head("", "Authorization: Other x")).wantStatus(401) // others go on
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Fatal("answered before the signature was verified")
				}
				h.gate <- true
				p := readReply(t, c).opened()
				p.wantExactly(`{"type":"pong","id":"1"}`)
				p.want(`{"type":"ack","id":"2","exp":`)
				go func() { <-h.verified; h.gate <- true }()
				q := readReply(t, h.write(t, bearer(h.all(t)))).opened()
				go func() { <-h.verified; h.gate <- true }()
				q.publish("a", h.all(t), "1")
				p.wantExactly(`{"type":"event","topic":"a","data":1}`)
				_ = p.conn.Close()
				_ = q.conn.Close()
			}
			// A bad one waits as well, and is refused.
			c := h.held(t, bearer(token[:len(token)-10]+"AAAAAAAAAA"))
			h.gate <- true
			readReply(t, c).wantStatus(401)
		})
	}
}

// write sends text.
func (n *node) write(t *testing.T, text string) net.Conn {
	t.Helper()
	c := n.dialFrom(t, "127.0.0.1")
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// What can happen to a connection while its handshake waits.
func TestMeanwhile(t *testing.T) {
	one := server.Options{Loop: loop.Options{HandshakeTimeout: time.Second}, VerifyWorkers: 1}
	none := func(t *testing.T, h *hall) {
		t.Helper()
		go func() { <-h.verified; h.gate <- true }()
		p := readReply(t, h.write(t, bearer(h.all(t)))).opened()
		p.fence()
		eventually(t, "nothing else is left", func() bool { return h.metrics(t)["notifyd_connections"] == 1 })
	}
	t.Run("the client resets", func(t *testing.T) {
		h := newHall(t, "EdDSA", one)
		c := h.held(t, bearer(h.all(t)))
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		h.gate <- true
		none(t, h)
	})
	t.Run("the client resets before a worker begins", func(t *testing.T) {
		h := newHall(t, "EdDSA", one)
		first := h.held(t, bearer(h.all(t))) // keeps the only worker
		c := h.write(t, bearer(h.all(t)))
		eventually(t, "it queues", func() bool { return h.metrics(t)["notifyd_verify_queue"] == 1 })
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		h.metrics(t) // asks the loop, which knows of the reset
		h.metrics(t) // in the turn after that one
		h.gate <- true
		_ = readReply(t, first).opened().conn.Close()
		none(t, h)
		if s := h.auth.Stats(); s.Verified != 2 {
			t.Errorf("%d signatures verified, want those of the two clients that are there", s.Verified)
		}
	})
	t.Run("the client ends its side", func(t *testing.T) {
		h := newHall(t, "EdDSA", one)
		c := h.held(t, bearer(h.all(t)))
		_ = c.(*net.TCPConn).CloseWrite()
		h.gate <- true
		readReply(t, c).wantStatus(http.StatusSwitchingProtocols)
		_, _ = io.Copy(io.Discard, c) // until the server ends it
		none(t, h)
	})
	t.Run("its time is up", func(t *testing.T) {
		t.Parallel()
		h := newHall(t, "EdDSA", one)
		c := h.held(t, bearer(h.all(t))+masked(t, `{"type":"ping"}`))
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); len(b) != 0 {
			t.Errorf("%q %v", b, err)
		}
		h.gate <- true
		none(t, h)
	})
	t.Run("the server drains", func(t *testing.T) {
		h := newHall(t, "EdDSA", one)
		c := h.held(t, bearer(h.all(t)))
		done := make(chan bool)
		go func() { defer close(done); h.stop() }()
		readReply(t, c).wantStatus(http.StatusServiceUnavailable)
		_ = c.Close()
		h.gate <- true
		<-done
	})
	t.Run("its key falls", func(t *testing.T) {
		h := newHall(t, "EdDSA", one)
		c := h.held(t, bearer(h.all(t)))
		if err := h.auth.SetKeys([]authz.Key{newKey(t, "EdDSA")}); err != nil {
			t.Fatal(err)
		}
		h.gate <- true
		readReply(t, c).wantStatus(401)
	})
	t.Run("its token expires", func(t *testing.T) {
		t.Parallel()
		h := newHall(t, "EdDSA", server.Options{})
		exp, token := h.soon(t)
		c := h.held(t, bearer(token))
		time.Sleep(time.Until(exp))
		h.gate <- true
		readReply(t, c).wantStatus(401)
	})
	t.Run("many wait", func(t *testing.T) {
		h := newHall(t, "ES256", one)
		token := h.all(t)
		conns := []net.Conn{h.held(t, bearer(token))}
		for range 50 { // half with one token, half each with its own
			conns = append(conns, h.write(t, bearer(token)), h.write(t, bearer(h.all(t))))
		}
		eventually(t, "they queue", func() bool { return h.metrics(t)["notifyd_verify_queue"] == 50 })
		go func() { // those whose token is remembered by now do not wait
			h.gate <- true
			for range 50 {
				<-h.verified
				h.gate <- true
			}
		}()
		var peers []*peer
		for _, c := range conns {
			peers = append(peers, readReply(t, c).opened())
		}
		for i, p := range peers {
			p.send(`{"type":"subscribe","id":"%d","topic":"a"}`, i)
			p.want(fmt.Sprintf(`{"type":"ack","id":"%d","exp":`, i))
		}
		if s := h.auth.Stats(); s.Verified != 51 {
			t.Errorf("%d signatures verified", s.Verified)
		}
	})
}

// A token too long for a request's head is refused before anything is done with
// it, and one that is merely long is not.
func TestLongCredential(t *testing.T) {
	n := one(t, server.Options{Strategies: server.DefaultStrategies | server.StrategyQuery})
	long := sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), Audience: []string{strings.Repeat("a", 4000)}})
	for _, w := range ways {
		if w.strategy != server.StrategyTicket {
			n.ask(t, w.head(long)).opened().fence()
		}
		n.ask(t, w.head(strings.Repeat("A", 32<<10))).wantStatus(http.StatusRequestHeaderFieldsTooLarge)
	}
}
