package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

// fake is a server over real WebSockets whose answers a test decides.
type fake struct {
	url    string
	client *http.Client
	peers  chan *peer         // one for each connection, after its welcome
	asked  chan *http.Request // each request, body and all

	mu     sync.Mutex
	greet  func() []byte           // the first message
	after  string                  // Retry-After of "not now"
	body   string                  // of a refused handshake
	refuse func(*http.Request) int // HTTP status instead of a handshake; 0: accept; below 0: with Retry-After
	call   http.HandlerFunc        // answers a POST
}

// peer is the server's end of one connection. got holds what the client sent.
type peer struct {
	conn *websocket.Conn
	got  chan request
}

type request struct {
	kind             wire.Kind
	id, topic, token string
	data, msgID      string
	ttl              uint32
	since            wire.Since
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{peers: make(chan *peer, 64), asked: make(chan *http.Request, 64), client: http.DefaultClient, after: "0"}
	f.welcome(25 * time.Second)
	f.refuseWith(func() int { return 0 })
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = "ws" + strings.TrimPrefix(server.URL, "http") + wire.Path
	return f
}

// newPipeFake is a fake without sockets, for tests in a synctest bubble.
func newPipeFake(t *testing.T) *fake {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	f := &fake{peers: make(chan *peer, 64), asked: make(chan *http.Request, 64), url: "ws://pipe" + wire.Path, after: "2"}
	f.welcome(25 * time.Second)
	f.refuseWith(func() int { return 0 })
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case l.conns <- theirs:
			return ours, nil
		case <-l.done:
			return nil, net.ErrClosed
		}
	}}
	f.client = &http.Client{Transport: transport}
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		transport.CloseIdleConnections()
	})
	return f
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// welcome sets the first message; the server takes messages of 1024 bytes.
func (f *fake) welcome(ping time.Duration) {
	f.greetWith(func() []byte { return wire.AppendWelcome(nil, "c1", "n1", time.Unix(0, 0), ping, 1024) })
}

func (f *fake) greetWith(greet func() []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.greet = greet
}

func (f *fake) refuseWith(refuse func() int) { f.judge(func(*http.Request) int { return refuse() }) }

func (f *fake) judge(refuse func(*http.Request) int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

func (f *fake) because(body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.body = body
}

func (f *fake) answerWith(call http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.call = call
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	status, greet, call, after, body := f.refuse(r), f.greet, f.call, f.after, f.body
	f.mu.Unlock()
	select {
	case f.asked <- r:
	default:
	}
	if r.Method == http.MethodPost {
		call(w, r)
		return
	}
	if status < 0 { // not now
		status = -status
		w.Header().Set("Retry-After", after)
	}
	if status != 0 {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	p := &peer{conn: conn, got: make(chan request, 4096)}
	if p.send(greet()) != nil {
		return
	}
	f.peers <- p
	defer close(p.got)
	for {
		_, frame, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		var env wire.Envelope
		if err := wire.Parse(frame, &env); err != nil {
			_ = conn.Close(websocket.StatusCode(wire.CloseBadEnvelopes), err.Error())
			return
		}
		r := request{env.Kind, string(env.ID), string(env.Topic), string(env.Token), string(env.Data), string(env.MsgID), env.TTL, env.Since}
		r.since.Epoch = bytes.Clone(r.since.Epoch)
		p.got <- r
	}
}

func (p *peer) send(frame []byte) error {
	return p.conn.Write(context.Background(), websocket.MessageText, frame)
}

func (p *peer) ack(t *testing.T, r request) {
	t.Helper()
	frame := wire.AppendAck(nil, []byte(r.id))
	if r.kind == wire.Subscribe {
		frame = wire.AppendSubscribeAck(nil, []byte(r.id), time.Now().Add(time.Hour).Unix())
	}
	if err := p.send(frame); err != nil {
		t.Errorf("ack: %v", err)
	}
}

// refuse answers r with an error.
func (p *peer) refuse(t *testing.T, r request, code wire.Code) {
	t.Helper()
	if err := p.send(wire.AppendError(nil, []byte(r.id), []byte(r.topic), code, "")); err != nil {
		t.Errorf("error: %v", err)
	}
}

// refuseAll answers every request so until done is closed, and gives their number.
func (p *peer) refuseAll(t *testing.T, code wire.Code, done <-chan struct{}) (n int) {
	t.Helper()
	for {
		select {
		case r := <-p.got:
			n++
			p.refuse(t, r, code)
		case <-done:
			return n
		case <-time.After(time.Hour): // the fake clock in a bubble
			t.Fatal("it never ended")
		}
	}
}

// next gives the next request and checks its kind.
func (p *peer) next(t *testing.T, kind wire.Kind) request {
	t.Helper()
	select {
	case r, ok := <-p.got:
		if !ok {
			t.Fatal("the connection ended before the request came")
		}
		if r.kind != kind {
			t.Fatalf("request of kind %d, want %d", r.kind, kind)
		}
		return r
	case <-time.After(time.Minute):
		t.Fatalf("no request of kind %d", kind)
	}
	panic("unreachable")
}

func (f *fake) peer(t *testing.T) *peer {
	t.Helper()
	return receive(t, f.peers, "connection")
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute): // the fake clock in a bubble; elsewhere only reached by a bug
		t.Fatalf("waited in vain for: %s", what)
	}
	panic("unreachable")
}

// stopwatch gives how long ago it was called, in a synctest bubble: the clock there moves only while everything waits, so
// that a duration is exact on any machine, however busy.
func stopwatch() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return -time.Until(began) }
}

func (f *fake) dial(t *testing.T, opts Options) *Client {
	t.Helper()
	opts.HTTPClient = f.client
	if opts.Token == nil {
		opts.Token = StaticToken("t0ken")
	}
	c, err := Dial(t.Context(), f.url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// published publishes an event, which the fake acks.
func published(t *testing.T, c *Client, p *peer) {
	t.Helper()
	result := background(func() error { return c.Publish(t.Context(), "a", []byte("1")) })
	p.ack(t, p.next(t, wire.Publish))
	if err := receive(t, result, "Publish"); err != nil {
		t.Fatal(err)
	}
}

// subscribe subscribes while the fake confirms.
func subscribe(t *testing.T, c *Client, p *peer, pattern string, handle func(Event)) *Subscription {
	t.Helper()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		p.ack(t, p.next(t, wire.Subscribe))
	}()
	sub, err := c.Subscribe(t.Context(), pattern, handle)
	if err != nil {
		t.Fatal(err)
	}
	<-answered
	return sub
}

func wantCode(t *testing.T, err error, code wire.Code) {
	t.Helper()
	var refusal *wire.Error
	if !errors.As(err, &refusal) || !errors.Is(err, code) {
		t.Fatalf("error %v, want a *wire.Error with code %s", err, code)
	}
}
