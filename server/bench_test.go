package server

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// benchServer runs at addr. It has a bus that takes everything and brings
// nothing, and two tokens that it remembers.
func benchServer(b *testing.B) (s *Server, addr string, tokens [2]string) {
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		b.Fatal(err)
	}
	auth, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range tokens {
		tokens[i], err = authz.Sign(key, authz.Claims{ID: fmt.Sprint(i), Expires: time.Now().Add(time.Hour), Publish: []string{"other", "rooms.*"}})
		if err != nil {
			b.Fatal(err)
		}
		if _, code := auth.Verify([]byte(tokens[i])); code != wire.OK {
			b.Fatal(code)
		}
	}
	opts := Options{}
	opts.Loop.Loops = 1
	s, addr = startNowhere(b, opts, auth)
	return s, addr, tokens
}

// onLoop calls f on the loop, with a connection to s.
func onLoop(b *testing.B, s *Server, addr string, f func(*loop.Conn)) {
	conn, _, _, err := ws.Dial(b.Context(), "ws://"+addr+wire.Path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
	s.engine.Do(func(l *loop.Loop) {
		l.Conns(func(c *loop.Conn) bool {
			f(c)
			return false
		})
	})
}

// BenchmarkMessage is a publish from the frame's payload to the bus: parse,
// authorize, grants. With the memo the connection has just used the token; with
// the cache another token of the node's takes turns with it.
func BenchmarkMessage(b *testing.B) {
	for _, c := range []struct {
		name  string
		other int
	}{{"memo", 0}, {"cache", 1}} {
		b.Run(c.name, func(b *testing.B) {
			s, addr, tokens := benchServer(b)
			var frames [2][]byte
			for i, token := range []string{tokens[0], tokens[c.other]} {
				frames[i] = wire.AppendPublish(nil, "", "rooms.42", token, []byte(`{"any":"JSON"}`), "")
			}
			b.ReportAllocs()
			n := 0
			onLoop(b, s, addr, func(conn *loop.Conn) {
				for b.Loop() {
					s.Message(conn, ws.OpText, frames[n&1])
					n++
				}
				if got := stateOf(conn.Loop()).counts.published[wire.OK]; got != uint64(n) {
					b.Errorf("%d of %d published", got, n)
				}
			})
			if n == 0 {
				b.Error("no connection")
			}
		})
	}
}

// BenchmarkPost is a publish by HTTP on a connection that is kept, from the socket to the
// answer: a plain one, which its loop answers, and one that net/http answers, for a header
// that is its own.
func BenchmarkPost(b *testing.B) {
	for name, header := range map[string]string{"loop": "", "net-http": "Content-Encoding: identity\r\n"} {
		b.Run(name, func(b *testing.B) {
			s, addr, tokens := benchServer(b)
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			body := `{"topic":"rooms.42","data":{"any":"JSON"}}`
			request := fmt.Appendf(nil, "POST /v1/publish HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n%sAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
				header, tokens[0], len(body), body)
			answer := make([]byte, 4096)
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				if _, err := conn.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Read(answer); err != nil {
					b.Fatal(err)
				}
				n++
			}
			if got := s.sum().published[wire.OK]; got != n {
				b.Errorf("%d of %d published", got, n)
			}
		})
	}
}

// BenchmarkEvent is an event from the bus until it stands encoded in the batch
// of its topic, in rounds of 32, for subscribers to the topic and to a pattern.
func BenchmarkEvent(b *testing.B) {
	for _, pattern := range []string{"rooms.42", "rooms.*"} {
		b.Run(pattern, func(b *testing.B) {
			s, _, _ := benchServer(b)
			handles := []uint32{s.topics.acquire([]byte(pattern)).handle}
			data := []byte(`{"any":"JSON","number":[1,2,3],"text":"some of it, and an escape: \n"}`)
			events := 0
			b.ReportAllocs()
			for b.Loop() {
				s.Event(0, handles, "rooms.42", data)
				if events++; events%32 == 0 {
					s.Flush(0)
				}
			}
			if n := s.shards[0].invalid.Load(); n != 0 {
				b.Errorf("%d were dropped", n)
			}
		})
	}
}
