//go:build linux

package abuse

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// The addresses of the honest clients and of attackers.
var (
	honestAddr   = netip.MustParseAddr("127.0.0.1")
	attackerAddr = netip.MustParseAddr("127.0.0.2")
)

// retryAfter is how long an attacker waits that could not do what it wanted.
const retryAfter = 10 * time.Millisecond

// attacker is what an attack is made of. All of its connections end with ctx. Any goroutine may call its methods.
type attacker struct {
	ctx   context.Context
	addr  string
	key   authz.Key
	short bool
	say   func() // that the attack is in full swing

	mu     sync.Mutex
	got    map[string]uint64 // guarded by mu
	wants  []string          // guarded by mu; what it has to get before it is in full swing
	ready  bool              // guarded by mu; prepared
	spoken bool              // guarded by mu
}

func newAttacker(ctx context.Context, addr string, key authz.Key, short bool, wants []string, say func()) *attacker {
	return &attacker{ctx: ctx, addr: addr, key: key, short: short, wants: slices.Clone(wants), say: say, got: map[string]uint64{}}
}

// begin says that the attack is prepared. It is in full swing when it also got what it wants.
func (a *attacker) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = true
	a.look()
}

// look says so once. a.mu is held.
func (a *attacker) look() {
	if a.ready && !a.spoken && len(a.wants) == 0 {
		a.spoken = true
		a.say()
	}
}

// size is how many there are of something: in a short attack fewer.
func (a *attacker) size(full, short int) int {
	if a.short {
		return short
	}
	return full
}

// note counts an answer.
func (a *attacker) note(answer string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got[answer]++
	if i := slices.Index(a.wants, answer); i >= 0 {
		a.wants = slices.Delete(a.wants, i, i+1)
		a.look()
	}
}

func (a *attacker) answers() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.got)
}

// fail counts what a connection ended with.
func (a *attacker) fail(err error) {
	var timeout net.Error
	switch {
	case a.ctx.Err() != nil, errors.Is(err, errAnswered):
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		a.note("cut off")
	case errors.As(err, &timeout) && timeout.Timeout():
		a.note("no answer")
	default:
		a.note(err.Error())
	}
}

// errAnswered is the end of a connection whose last answer was counted.
var errAnswered = errors.New("the server has answered")

// token is one that the attacker's issuer gives it, for topics of its own and for what rooms say.
func (a *attacker) token(change func(*authz.Claims)) (string, error) {
	now := time.Now()
	c := authz.Claims{
		Subject: "attacker", ID: rand.Text(), IssuedAt: now, Expires: now.Add(tokenTTL),
		Publish: []string{"abuse.>"}, Subscribe: []string{"abuse.>", "rooms.>"},
	}
	if change != nil {
		change(&c)
	}
	return authz.Sign(a.key, c)
}

// forge gives a token another signature, so that the server has to do all the arithmetic to find out.
func forge(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	signature, _ := base64.RawURLEncoding.DecodeString(token[at:]) // Sign's own
	_, _ = rand.Read(signature[8:24])                              // does not fail
	return token[:at] + base64.RawURLEncoding.EncodeToString(signature)
}

// crowd is n clients that do something again and again, from the beginning of the attack to its end.
func (a *attacker) crowd(n int, do func(i int) error) error {
	a.begin()
	a.clients(n, do)
	return nil
}

// clients is n of them. An error counts, and its client waits a moment.
func (a *attacker) clients(n int, do func(i int) error) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for a.ctx.Err() == nil {
				if err := do(i); err != nil {
					a.fail(err)
					a.sleep(retryAfter)
				}
			}
		})
	}
	all.Wait()
}

func (a *attacker) sleep(d time.Duration) {
	select {
	case <-a.ctx.Done():
	case <-time.After(d):
	}
}

// conn is a connection of an attacker. Its methods but next may be called by any goroutine.
type conn struct {
	net.Conn
	a       *attacker
	from    *bufio.Reader
	unwatch func() bool
}

// dial opens a TCP connection.
func (a *attacker) dial() (*conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(attackerAddr, 0)), Timeout: patience}
	c, err := d.DialContext(a.ctx, "tcp", a.addr)
	if err != nil {
		return nil, err
	}
	x := &conn{Conn: c, a: a, from: bufio.NewReaderSize(c, 16<<10)}
	x.unwatch = context.AfterFunc(a.ctx, func() {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	})
	return x, nil
}

// reset ends it with RST, so that its port is free at once.
func (c *conn) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.end()
}

// end closes it: the server sees FIN, or RST if something was not read.
func (c *conn) end() {
	c.unwatch()
	_ = c.Close()
}

// shake is the head of a handshake, with more header lines.
func shake(query string, lines ...string) string {
	return "GET " + wire.Path + query + " HTTP/1.1\r\nHost: notifyd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// connect opens a WebSocket. A refusal is counted, and errAnswered.
func (a *attacker) connect(lines ...string) (*conn, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	err = c.ask(shake("", lines...))
	if errors.Is(err, errUpgraded) {
		return c, nil
	}
	c.reset()
	return nil, cmp.Or(err, errAnswered)
}

// dialed gives use a TCP connection of its own, and resets it afterwards.
func (a *attacker) dialed(use func(c *conn) error) func(int) error {
	return with(a.dial, use)
}

// connected gives use a WebSocket of its own, and resets it afterwards.
func (a *attacker) connected(use func(c *conn) error) func(int) error {
	return with(func() (*conn, error) { return a.connect() }, use)
}

func with(open func() (*conn, error), use func(c *conn) error) func(int) error {
	return func(int) error {
		c, err := open()
		if err != nil {
			return err
		}
		defer c.reset()
		return use(c)
	}
}

// errUpgraded is how a handshake ends that succeeds.
var errUpgraded = errors.New("101")

// ask writes a request and reads and counts the answer. After it the connection is good for nothing more if the error is
// not nil, except for errUpgraded.
func (c *conn) ask(request string) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	return c.answer()
}

func (c *conn) answer() error {
	r, err := http.ReadResponse(c.from, nil)
	if err != nil {
		return err
	}
	if r.StatusCode == http.StatusSwitchingProtocols {
		return errUpgraded
	}
	c.a.note(fmt.Sprint("HTTP ", r.StatusCode))
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.Close {
		return errAnswered
	}
	return nil
}

// First bytes of frames.
const (
	fin  = 0x80
	text = fin | byte(ws.OpText)
)

// send writes an envelope.
func (c *conn) send(envelope []byte) error {
	_, err := c.Write(rig.AppendFrame(nil, text, envelope))
	return err
}

// next reads a message and says what it is: event, ack, pong, expired, other, or the code of an error. A close frame counts and is
// errAnswered.
func (c *conn) next() (string, error) {
	h, err := ws.ReadHeader(c.from)
	if err != nil {
		return "", err
	}
	if h.Length > 1<<20 {
		return "", fmt.Errorf("a frame of %d bytes", h.Length)
	}
	if start, err := c.from.Peek(int(min(h.Length, 16))); err == nil && h.OpCode == ws.OpText && bytes.HasPrefix(start, []byte(`{"type":"event"`)) {
		_, err = c.from.Discard(int(h.Length))
		return "event", err
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(c.from, payload); err != nil {
		return "", err
	}
	switch h.OpCode {
	case ws.OpClose:
		code, _ := ws.ParseCloseFrameData(payload)
		c.a.note(fmt.Sprint("close ", code))
		return "", errAnswered
	case ws.OpPing:
		_, err := c.Write(rig.AppendFrame(nil, fin|byte(ws.OpPong), payload))
		return "other", err
	case ws.OpPong:
		return "pong", nil
	}
	var m wire.Message
	if err := wire.ParseMessage(payload, &m); err != nil {
		return "", err
	}
	switch m.Kind {
	case wire.MessageError:
		return m.Code.String(), nil
	case wire.MessageAck:
		return "ack", nil
	case wire.MessageExpired:
		return "expired", nil
	case wire.MessagePong:
		return "pong", nil
	default:
		return "other", nil
	}
}

// hear counts what comes, until the connection ends or n requests were answered, where n is not 0.
func (c *conn) hear(n int) error {
	for answered := 0; n == 0 || answered < n; {
		m, err := c.next()
		if err != nil {
			return err
		}
		if m == "other" {
			continue
		}
		c.a.note(m)
		if m != "event" && m != "expired" {
			answered++
		}
	}
	return nil
}
