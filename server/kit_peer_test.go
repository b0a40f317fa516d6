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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/wire"
)

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
