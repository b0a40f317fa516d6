//go:build linux

package server_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// node is a whole server in this process: real loops, real tokens, real NATS.
type node struct {
	*server.Server
	auth *authz.Verifier
	bus  *bus.Bus
	addr string
	key  authz.Key
}

type verifier struct{ *authz.Verifier }

func (v verifier) Find(token []byte) server.Token {
	if t := v.Verifier.Find(token); t != nil {
		return t
	}
	return nil
}

func (v verifier) Verify(token []byte) (server.Token, wire.Code) {
	t, code := v.Verifier.Verify(token)
	return t, code
}

type setup struct {
	server  server.Options
	bus     bus.Options
	alg     string
	url     string
	observe *zap.Logger
}

func start(t testing.TB, with setup) *node {
	t.Helper()
	if with.alg == "" {
		with.alg = "EdDSA"
	}
	key, err := authz.GenerateKey(with.alg)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	log := with.observe
	if log == nil {
		log = zap.NewNop()
		if os.Getenv("NOTIFYD_TEST_LOG") != "" {
			log = zaptest.NewLogger(t)
		}
	}
	with.server.Node = "test"
	s, err := server.New(with.server, verifier{auth}, max(1, with.bus.Shards), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if with.bus.DataDir == "" {
		with.bus.DataDir = filepath.Join(t.TempDir(), "nats")
	}
	b, err := bus.Open(ctx, with.bus, s, log)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Server: s, auth: auth, bus: b, addr: ln.Addr().String(), key: key}
	if err := s.Start(ln, b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := b.Close(ctx); err != nil {
			t.Errorf("bus: %v", err)
		}
	})
	return n
}

// token mints one that expires after ttl.
func (n *node) token(t testing.TB, ttl time.Duration, publish, subscribe []string) string {
	t.Helper()
	tok, err := authz.Sign(n.key, authz.Claims{Subject: "tester", Expires: time.Now().Add(ttl), Publish: publish, Subscribe: subscribe})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// peer is a WebSocket client that sees raw envelopes.
type peer struct {
	t    testing.TB
	conn net.Conn
	rw   interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}
}

type buffered struct {
	net.Conn
	r interface{ Read([]byte) (int, error) }
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (n *node) dial(t testing.TB) *peer {
	t.Helper()
	d := ws.Dialer{Timeout: 10 * time.Second, Protocols: []string{wire.Subprotocol}}
	conn, br, hs, err := d.Dial(context.Background(), "ws://"+n.addr+wire.Path)
	if err != nil {
		t.Fatal(err)
	}
	if hs.Protocol != wire.Subprotocol {
		t.Fatalf("subprotocol %q", hs.Protocol)
	}
	p := &peer{t: t, conn: conn, rw: conn}
	if br != nil {
		p.rw = buffered{conn, br}
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.want(`"type":"welcome"`)
	return p
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	if err := wsutil.WriteClientText(p.conn, fmt.Appendf(nil, format, args...)); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next text message, or the close code as "close NNNN".
func (p *peer) next() string {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := ws.ReadFrame(p.rw)
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		switch f.Header.OpCode {
		case ws.OpText:
			return string(f.Payload)
		case ws.OpClose:
			code, _ := ws.ParseCloseFrameData(f.Payload)
			return fmt.Sprint("close ", uint16(code))
		}
	}
}

// want reads the next message and requires that it contains each part.
func (p *peer) want(parts ...string) string {
	p.t.Helper()
	m := p.next()
	for _, part := range parts {
		if !strings.Contains(m, part) {
			p.t.Fatalf("got %s, want one with %s", m, part)
		}
	}
	return m
}

func (p *peer) subscribe(pattern, token string) {
	p.t.Helper()
	p.send(`{"type":"subscribe","id":"s","topic":%q,"token":%q}`, pattern, token)
	p.want(`"type":"ack"`, `"id":"s"`)
}
