//go:build linux

package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// patience is when a test gives up. Nothing is expected to take long.
const patience = 30 * time.Second

// node is a whole server in this process: real loops, real tokens, real NATS
// unless the test has brought a bus of its own.
type node struct {
	*server.Server
	auth *authz.Verifier
	bus  *bus.Bus // nil with setup.fake
	addr string
	key  authz.Key
	stop func() // Shutdown and close the bus, once
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
	server server.Options
	bus    bus.Options
	alg    string        // of the key that signs; default EdDSA
	more   []authz.Key   // trusted as well
	fake   *memBus       // instead of NATS
	gate   func(nth int) // called when the nth token has been verified, from 1 on
	log    *zap.Logger
}

func start(t testing.TB, with setup) *node {
	t.Helper()
	if with.alg == "" {
		with.alg = "EdDSA"
	}
	n := &node{key: newKey(t, with.alg)}
	var err error
	if n.auth, err = authz.New(authz.Options{Trusted: append([]authz.Key{n.key}, with.more...)}); err != nil {
		t.Fatal(err)
	}
	var auth server.Authorizer = verifier{n.auth}
	if with.gate != nil {
		auth = &gated{verifier: verifier{n.auth}, gate: with.gate}
	}
	log := with.log
	if log == nil {
		log = zap.NewNop()
		if os.Getenv("NOTIFYD_TEST_LOG") != "" {
			log = zaptest.NewLogger(t)
		}
	}
	with.server.Node = "test"
	if n.Server, err = server.New(with.server, auth, max(1, with.bus.Shards), log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var b server.Bus = with.fake
	if with.fake == nil {
		if with.bus.DataDir == "" {
			with.bus.DataDir = filepath.Join(t.TempDir(), "nats")
		}
		if with.bus.Linger == 0 {
			with.bus.Linger = -1
		}
		if n.bus, err = bus.Open(ctx, with.bus, n.Server, log); err != nil {
			t.Fatal(err)
		}
		b = n.bus
	} else {
		with.fake.start(n.Server)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	if err := n.Start(ln, b); err != nil {
		t.Fatal(err)
	}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if n.bus == nil {
			with.fake.stop()
		} else if err := n.bus.Close(ctx); err != nil {
			t.Errorf("bus: %v", err)
		}
	}
	t.Cleanup(n.stop)
	return n
}

// loops runs a test on one loop and on two.
func loops(t *testing.T, f func(t *testing.T, with setup)) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", n), func(t *testing.T) {
			var with setup
			with.server.Loop.Loops = n
			f(t, with)
		})
	}
}

func newKey(t testing.TB, alg string) authz.Key {
	t.Helper()
	key, err := authz.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, key authz.Key, c authz.Claims) string {
	t.Helper()
	tok, err := authz.Sign(key, c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// token mints one that expires after ttl.
func (n *node) token(t testing.TB, ttl time.Duration, publish, subscribe []string) string {
	t.Helper()
	return sign(t, n.key, authz.Claims{Subject: "tester", Expires: time.Now().Add(ttl), Publish: publish, Subscribe: subscribe})
}

// all is a token for everything that is valid for a while. No two are equal.
func (n *node) all(t testing.TB) string {
	t.Helper()
	every := []string{">"}
	return sign(t, n.key, authz.Claims{ID: fmt.Sprint(serial.Add(1)), Expires: time.Now().Add(time.Hour), Publish: every, Subscribe: every})
}

var serial atomic.Int64 // of tokens

// peer is a WebSocket client that sees raw envelopes.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	ids  int
}

func (n *node) dial(t testing.TB) *peer {
	t.Helper()
	p := n.dialWith(t, nil)
	p.want(`"type":"welcome"`)
	return p
}

// dialWith does not read the welcome. netDial makes the socket; nil: as usual.
func (n *node) dialWith(t testing.TB, netDial func(context.Context, string, string) (net.Conn, error)) *peer {
	t.Helper()
	d := ws.Dialer{Timeout: patience, Protocols: []string{wire.Subprotocol}, NetDial: netDial}
	conn, br, hs, err := d.Dial(context.Background(), "ws://"+n.addr+wire.Path)
	if err != nil {
		t.Fatal(err)
	}
	if hs.Protocol != wire.Subprotocol {
		t.Fatalf("subprotocol %q", hs.Protocol)
	}
	if br == nil {
		br = bufio.NewReader(conn) // otherwise it holds what came with the answer
	}
	p := &peer{t: t, conn: conn, r: br}
	t.Cleanup(func() { _ = conn.Close() })
	return p
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	p.raw(ws.OpText, fmt.Appendf(nil, format, args...))
}

func (p *peer) raw(op ws.OpCode, payload []byte) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	if err := wsutil.WriteClientMessage(p.conn, op, payload); err != nil {
		p.t.Fatal(err)
	}
}

// frame reads one frame. Servers neither mask (RFC 6455 §5.1) nor, this one,
// fragment.
func (p *peer) frame() (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeader(p.r)
	if err != nil {
		return 0, nil, err
	}
	if h.Masked || !h.Fin || h.Rsv != 0 || h.Length > 8<<20 {
		return 0, nil, fmt.Errorf("frame with header %+v", h)
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(p.r, payload)
	return h.OpCode, payload, err
}

// read returns the next text message, or the close code as "close NNNN".
func (p *peer) read() (string, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		op, payload, err := p.frame()
		if err != nil {
			return "", err
		}
		switch op {
		case ws.OpText:
			return string(payload), nil
		case ws.OpClose:
			code, _ := ws.ParseCloseFrameData(payload)
			return fmt.Sprint("close ", uint16(code)), nil
		}
	}
}

func (p *peer) next() string {
	p.t.Helper()
	m, err := p.read()
	if err != nil {
		p.t.Fatalf("read: %v", err)
	}
	return m
}

// want reads the next message and requires that it contains each part.
func (p *peer) want(parts ...string) {
	p.t.Helper()
	m := p.next()
	for _, part := range parts {
		if !strings.Contains(m, part) {
			p.t.Fatalf("got %.300s, want one with %.300s", m, part)
		}
	}
}

// wantExactly reads the next message and requires that it is this one.
func (p *peer) wantExactly(message string) {
	p.t.Helper()
	if m := p.next(); m != message {
		p.t.Fatalf("got %.300s, want %.300s", m, message)
	}
}

// wantError reads the next message and requires that it is an error with this
// code and id, the latter "" for none.
func (p *peer) wantError(code wire.Code, id string) {
	p.t.Helper()
	m := p.next()
	var e struct{ Type, ID, Code, Message string }
	if err := json.Unmarshal([]byte(m), &e); err != nil || e.Type != "error" || e.Code != code.String() || e.ID != id || e.Message == "" {
		p.t.Fatalf("got %.300s, want error %v with id %q", m, code, id)
	}
}

// wantEnd requires a close frame with this code, and that nothing follows.
func (p *peer) wantEnd(code wire.CloseCode) {
	p.t.Helper()
	p.wantExactly(fmt.Sprint("close ", uint16(code)))
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	_ = wsutil.WriteClientMessage(p.conn, ws.OpClose, ws.NewCloseFrameBody(ws.StatusCode(code), ""))
	if op, payload, err := p.frame(); err == nil {
		p.t.Fatalf("after the close frame: %x %.100q", op, payload)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal("the server does not end the connection")
	}
	_ = p.conn.Close()
}

// fence requires that the server has sent nothing since, and that it answers.
func (p *peer) fence() {
	p.t.Helper()
	p.ids++
	p.send(`{"type":"ping","id":"fence%d"}`, p.ids)
	p.wantExactly(fmt.Sprintf(`{"type":"pong","id":"fence%d"}`, p.ids))
}

func (p *peer) subscribe(pattern, token string) {
	p.t.Helper()
	p.send(`{"type":"subscribe","id":"s","topic":%q,"token":%q}`, pattern, token)
	p.want(`"type":"ack"`, `"id":"s"`)
}

// publish publishes and waits for the ack.
func (p *peer) publish(topic, token, data string) {
	p.t.Helper()
	p.send(`{"type":"publish","id":"p","topic":%q,"token":%q,"data":%s}`, topic, token, data)
	p.wantExactly(`{"type":"ack","id":"p"}`)
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

const hour = time.Hour

// jsonString is what a JSON string with this inside says.
func jsonString(inside string) (s string, err error) {
	err = json.Unmarshal([]byte(`"`+inside+`"`), &s)
	return s, err
}

// loopWithMessages are the options of loops that take messages of n bytes.
func loopWithMessages(n int) loop.Options { return loop.Options{MessageBytes: n} }

// pipeline sends frames from a goroutine, without waiting for answers.
func (p *peer) pipeline(frames []string) {
	done := make(chan bool)
	go func() {
		defer close(done)
		for _, f := range frames {
			if wsutil.WriteClientText(p.conn, []byte(f)) != nil {
				return // who waits for the answers will tell
			}
		}
	}()
	p.t.Cleanup(func() {
		_ = p.conn.Close()
		<-done
	})
}

// flood publishes 0, 1, 2 … from a goroutine, each after the ack of the one
// before, until stop is called, which says how many were acked.
func (p *peer) flood(topic, token string) (stop func() int) {
	quit, done := make(chan bool), make(chan bool)
	acked := 0
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			err := wsutil.WriteClientText(p.conn, fmt.Appendf(nil, `{"type":"publish","id":"f","topic":%q,"token":%q,"data":%d}`, topic, token, acked))
			m := ""
			if err == nil {
				m, err = p.read()
			}
			if err != nil || m != `{"type":"ack","id":"f"}` {
				p.t.Errorf("publish %d: %s %v", acked, m, err)
				return
			}
			acked++
		}
	}()
	stop = sync.OnceValue(func() int {
		close(quit)
		<-done
		return acked
	})
	p.t.Cleanup(func() { stop() })
	return stop
}
