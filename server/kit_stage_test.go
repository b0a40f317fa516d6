package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// nowhere is a bus that takes everything and brings nothing.
type nowhere struct{}

func (nowhere) Publish(_, _ []byte) wire.Code { return wire.OK }

func (nowhere) Flush() {}

func (nowhere) Busy() bool { return false }

func (nowhere) HasRoom() bool { return true }

func (nowhere) Subscribe(_ uint32, _ string, done func(wire.Code)) { go done(wire.OK) }

func (nowhere) Unsubscribe(uint32) {}

// startNowhere starts a server without NATS, and stops it when the test ends.
func startNowhere(t testing.TB, opts Options, auth *authz.Verifier) (s *Server, addr string) {
	t.Helper()
	s, err := New(opts, auth, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := loop.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ln, nowhere{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, ln.Addr().String()
}

// stage is a server with one client, whose stages a test calls itself.
type stage struct {
	*Server
	t      *testing.T
	key    authz.Key
	tokens [2]string
	url    string
	conn   net.Conn
	minted int
}

func newStage(t *testing.T, opts Options) *stage {
	t.Helper()
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	x := &stage{t: t, key: key}
	for i := range x.tokens {
		x.tokens[i], err = authz.Sign(key, authz.Claims{
			ID: fmt.Sprint(i), Expires: time.Now().Add(time.Hour), Publish: []string{"other", "rooms.*"}, Subscribe: []string{"rooms.>"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, code := auth.Verify([]byte(x.tokens[i])); code != wire.OK {
			t.Fatal(code)
		}
	}
	opts.Loop.Loops = 1
	var addr string
	x.Server, addr = startNowhere(t, opts, auth)
	x.url = "ws://" + addr + wire.Path
	x.conn = x.dial()
	return x
}

// dial opens a connection and reads what comes.
func (x *stage) dial() net.Conn {
	x.t.Helper()
	conn, _, _, err := ws.Dial(x.t.Context(), x.url)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = conn.Close() })
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
	return conn
}

// fresh is a token that the server has not seen.
func (x *stage) fresh(expires time.Time) string {
	x.t.Helper()
	x.minted++
	token, err := authz.Sign(x.key, authz.Claims{
		ID: fmt.Sprint("fresh", x.minted), Expires: expires, Publish: []string{">"}, Subscribe: []string{">"},
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return token
}

// with calls f on the loop, with the client's connection.
func (x *stage) with(f func(*loop.Conn)) {
	x.t.Helper()
	found := false
	x.engine.Do(func(l *loop.Loop) {
		l.Conns(func(c *loop.Conn) bool {
			found = true
			f(c)
			return false
		})
	})
	if !found {
		x.t.Fatal("the client is gone")
	}
}
