package loop

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// A request that cannot be answered yet is asked about again after Resume, with
// all that it said; frames behind its head wait, and so does the loop for nobody.
func TestErrLater(t *testing.T) {
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
			return ErrLater
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
}
