package loop

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// A request that cannot be answered yet is asked about again after Resume, with
// all that it said; frames behind its head wait, and so does the loop for nobody.
func TestErrPending(t *testing.T) {
	type asked struct {
		conn *Conn
		uri  string
	}
	first := make(chan asked, 1)
	var again, refuse bool // the loop's
	h := &hooks{message: echo, request: func(c *Conn, r *Request) error {
		if !strings.HasPrefix(string(r.URI), "/later") {
			return nil
		}
		if !again {
			again = true
			first <- asked{c, string(r.URI) + string(r.Authorization) + string(r.Origin) + string(r.ForwardedFor) + string(r.Forwarded)}
			return ErrPending
		}
		again = false
		if refuse {
			return ws.RejectConnectionError(ws.RejectionStatus(http.StatusUnauthorized))
		}
		return nil
	}}
	s := start(t, Options{}, h)
	const head = "GET /later?q HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
		"Authorization: Bearer a\r\norigin: o\r\nX-Forwarded-For: f\r\nX-Forwarded-For: g\r\nForwarded: for=h\r\n\r\n"
	for _, status := range []string{"101", "401"} {
		c := s.connect()
		c.send([]byte(head))
		c.send(text("behind the head"))
		a := <-first
		if a.uri != "/later?qBearer aof,gfor=h" {
			t.Errorf("asked about %q", a.uri)
		}
		s.dial().alive() // others go on
		a.conn.Loop().Post(func() {
			refuse = status == "401"
			a.conn.Resume()
		})
		c.status(status)
		if status == "401" {
			c.wantEOF()
			_ = c.Close()
		} else {
			c.want(ws.OpText, "behind the head")
		}
	}

	// A peer that goes away meanwhile is forgotten, whenever the answer comes.
	eventually(t, "the refused one is gone", func() bool { return s.Connections() == 3 })
	c := s.connect()
	c.send([]byte(head))
	a := <-first
	_ = c.Close()
	a.conn.Loop().Post(func() { refuse = false; a.conn.Resume() })
	eventually(t, "it is gone", func() bool { return s.Connections() == 3 })
	if n := h.count("abandoned"); n != 0 {
		t.Errorf("%d requests that were asked about again are abandoned", n)
	}
}

// The handler learns once that a connection has ended whose request it left
// unanswered, however it ended.
func TestAbandoned(t *testing.T) {
	for name, end := range map[string]func(*server, *client){
		"reset": func(_ *server, c *client) {
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		},
		"time is up": func(s *server, _ *client) { s.advance(time.Minute) },
		"drained": func(s *server, c *client) {
			done := make(chan error, 1)
			go func() { done <- s.Drain(s.t.Context(), 0) }()
			c.status("503")
			_ = c.Close() // its FIN is noticed, although the connection was paused
			if err := <-done; err != nil {
				s.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan *Conn, 1)
			h := &hooks{request: func(c *Conn, _ *Request) error {
				asked <- c
				return ErrPending
			}}
			s := start(t, Options{CloseTimeout: time.Hour}, h)
			c := s.connect()
			c.send([]byte(request))
			conn := <-asked
			end(s, c)
			eventually(t, "the connection ends", func() bool { return s.Connections() == 0 })
			s.Do(func(*Loop) { conn.Resume() }) // the answer comes too late
			if n := h.count("abandoned"); n != 1 {
				t.Errorf("abandoned %d times", n)
			}
			if n := len(asked); n != 0 {
				t.Error("asked again")
			}
		})
	}
}
