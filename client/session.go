package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

const (
	// sendQueue bounds the requests that wait for the connection's writer.
	sendQueue = 64
	// writeTimeout bounds one write: a server that takes nothing for so long is taken for lost.
	writeTimeout = 10 * time.Second
)

var (
	errSilent     = errors.New("nothing heard from the server for two ping intervals")
	errOver       = errors.New("the connection is over")
	errWriteStuck = errors.New("the server took no data in time")
)

// session is one connection, from its welcome to its end. Two goroutines serve it: read, which never waits for a
// handler, so that pings are always answered; and write, the only one that writes messages.
type session struct {
	c    *Client
	conn *websocket.Conn
	out  chan []byte
	down chan struct{} // closed when the connection is over and all calls are answered

	node       string        // that accepted the connection
	restarts   chan struct{} // closed when the node has said that it restarts
	restarting bool          // the same, for the goroutine that reads
	within     time.Duration // after which it closes connections; set before restarts is closed
	moved      chan struct{} // closed when another connection has taken its place

	pingInterval time.Duration // 0: the server sends no pings
	maxMessage   int           // bytes the server takes; 0: unknown
	heard        atomic.Bool   // since the last tick of write
	accepted     atomic.Bool   // the server has accepted a publish or a subscribe
	lastPublish  atomic.Int64  // when the last publish was answered, in Unix nanoseconds
	expiring     chan int64    // capacity 1: the server's notice, with the exp of the connection's credential

	mu      sync.Mutex
	calls   map[string]*call // by id; nil when the session is over
	leaving bool             // no more publishes
	err     error            // the first cause
}

// call is a request that waits for its answer. The code that takes it out of session.calls answers it.
type call struct {
	kind  wire.Kind
	done  chan struct{} // closed after what follows was set
	err   error
	ack   Stored // of a publish
	timer *time.Timer
	after func(ack *wire.Message) // run once, with the answer; nil: there is no ack. May be nil itself
}

// connect makes a connection and waits for the welcome.
func (c *Client) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	s := &session{
		c: c, out: make(chan []byte, sendQueue), down: make(chan struct{}), calls: map[string]*call{},
		expiring: make(chan int64, 1), restarts: make(chan struct{}), moved: make(chan struct{}),
	}
	offer, err := c.offer(ctx)
	if err != nil {
		return nil, dialError(c.url, err)
	}
	var secure tlsHandshake
	conn, resp, err := websocket.Dial(secure.watch(ctx), c.url, &websocket.DialOptions{
		HTTPClient:   c.opts.HTTPClient,
		HTTPHeader:   offer.header,
		Subprotocols: offer.subprotocols,
		OnPingReceived: func(context.Context, []byte) bool {
			s.heard.Store(true)
			return true
		},
	})
	if err != nil {
		err = handshakeError(err, resp, &secure)
		c.early.note(offer.token, err)
		return nil, dialError(c.url, err)
	}
	if offer.token != "" {
		c.early.note(offer.token, nil)
	}
	s.conn = conn
	conn.SetReadLimit(int64(c.opts.ReadLimit))
	if err := s.welcome(ctx); err != nil {
		_ = conn.CloseNow()
		return nil, dialError(c.url, err)
	}
	go s.read()
	go s.write()
	if err := s.authenticate(ctx); err != nil {
		s.fail(err)
		return nil, dialError(c.url, err)
	}
	return s, nil
}

func (s *session) welcome(ctx context.Context) error {
	if s.conn.Subprotocol() != wire.Subprotocol {
		return fmt.Errorf("not a notifyd server: it did not choose the subprotocol %s", wire.Subprotocol)
	}
	_, frame, err := s.conn.Read(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the welcome: %w", closeError(err))
	}
	var m wire.Message
	if err := wire.ParseMessage(frame, &m); err != nil {
		return fmt.Errorf("welcome: %w", err)
	}
	if m.Kind != wire.MessageWelcome {
		return errors.New("not a notifyd server: the first message is no welcome")
	}
	s.pingInterval = time.Duration(m.PingInterval) * time.Second
	s.maxMessage = m.MaxMessageBytes
	s.node = string(m.Node)
	return nil
}

// read handles all that comes in, until the connection is over; then it answers the calls that are left.
func (s *session) read() {
	var buf bytes.Buffer
	for {
		_, r, err := s.conn.Reader(context.Background())
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			s.fail(closeError(err))
			break
		}
		s.heard.Store(true)
		var m wire.Message
		if err := wire.ParseMessage(buf.Bytes(), &m); err != nil {
			s.fail(fmt.Errorf("message from the server: %w", err))
			break
		}
		s.handle(&m)
	}
	s.mu.Lock()
	calls, cause := s.calls, s.err
	s.calls = nil
	s.mu.Unlock()
	s.c.detach(s) // first: a caller that learns of the loss must not find this session again
	for _, call := range calls {
		call.answer(nil, fmt.Errorf("%w: %w", ErrDisconnected, cause))
	}
	close(s.down)
}

// handle must not block. m's slices live until it returns.
func (s *session) handle(m *wire.Message) {
	switch m.Kind {
	case wire.MessageAck:
		s.answer(string(m.ID), m, nil)
	case wire.MessageError:
		if len(m.ID) > 0 {
			s.answer(string(m.ID), nil, &wire.Error{Code: m.Code, Detail: string(m.Detail)})
			break
		}
		// All requests of this client have an id, so the server has dropped a subscription by itself, such as when the
		// key of its token was withdrawn. The next token may do.
		s.dropped(m.Topic)
	case wire.MessageEvent:
		key := m.Topic
		if len(m.Pattern) > 0 {
			key = m.Pattern
		}
		if sub := s.c.subscription(key); sub != nil {
			sub.push(s, sub.event(m))
		}
	case wire.MessageGap:
		if sub := s.c.subscription(m.Topic); sub != nil {
			sub.gap(s, m)
		}
	case wire.MessageExpiring:
		if len(m.Topic) == 0 {
			replace(s.expiring, m.Exp)
		} else if sub := s.c.subscription(m.Topic); sub != nil {
			replace(sub.expiring, m.Exp)
		}
	case wire.MessageRestart:
		if !s.restarting {
			s.restarting, s.within = true, time.Duration(m.Within)*time.Second
			close(s.restarts)
		}
	case wire.MessageExpired:
		s.dropped(m.Topic)
	}
}

func (s *session) dropped(pattern []byte) {
	if sub := s.c.subscription(pattern); sub != nil {
		sub.lose(s)
		replace(sub.dropped, struct{}{})
	}
}

// write sends what is queued and notices when the server has fallen silent.
func (s *session) write() {
	stuck := time.AfterFunc(writeTimeout, func() { s.fail(errWriteStuck) })
	stuck.Stop()
	var tick <-chan time.Time
	if s.pingInterval > 0 {
		ticker := time.NewTicker(s.pingInterval)
		defer ticker.Stop()
		tick = ticker.C
	}
	for silent := 0; ; {
		select {
		case frame := <-s.out:
			stuck.Reset(writeTimeout)
			err := s.conn.Write(context.Background(), websocket.MessageText, frame)
			stuck.Stop()
			if err != nil {
				s.fail(closeError(err))
				return
			}
		case <-tick:
			silent++
			if s.heard.Swap(false) {
				silent = 0
			}
			if silent == 2 {
				s.fail(errSilent)
				return
			}
		case <-s.down:
			return
		}
	}
}

// fail notes the first cause and makes read end.
func (s *session) fail(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
	}
	s.mu.Unlock()
	if first {
		_ = s.conn.CloseNow()
	}
}

func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close makes the closing handshake (RFC 6455 §7.1.2).
func (s *session) close() { _ = s.conn.Close(websocket.StatusNormalClosure, "") }

func (s *session) isDown() bool {
	select {
	case <-s.down:
		return true
	default:
		return false
	}
}

// over reports whether the session takes no more calls.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls == nil
}

// send queues the request that encode makes and registers a call for its answer. An error means that nothing was sent,
// and errOver that nothing can be.
func (s *session) send(ctx context.Context, kind wire.Kind, after func(ack *wire.Message), encode func(id string) []byte) (*call, error) {
	id := s.c.newID()
	call := &call{kind: kind, done: make(chan struct{}), after: after}
	frame := encode(id)
	if s.maxMessage > 0 && len(frame) > s.maxMessage {
		// The server would close the connection (1009).
		return nil, &wire.Error{Code: wire.TooLarge, Detail: fmt.Sprintf("the message has %d bytes, the server takes %d", len(frame), s.maxMessage)}
	}
	s.mu.Lock()
	if s.calls == nil || s.leaving && kind == wire.Publish {
		s.mu.Unlock()
		return nil, errOver
	}
	s.calls[id] = call
	call.timer = time.AfterFunc(s.c.opts.AckTimeout, func() { s.answer(id, nil, ErrTimeout) })
	s.mu.Unlock()
	select {
	case s.out <- frame:
	case <-s.down: // read has answered the call
	case <-ctx.Done():
		s.answer(id, nil, ctx.Err())
	}
	return call, nil
}

// answer ends the call with an ack or an error.
func (s *session) answer(id string, ack *wire.Message, err error) {
	s.mu.Lock()
	call := s.calls[id]
	delete(s.calls, id)
	s.mu.Unlock()
	if call == nil {
		return
	}
	if call.kind == wire.Publish {
		s.lastPublish.Store(time.Now().UnixNano())
	}
	if err == nil && (call.kind == wire.Publish || call.kind == wire.Subscribe) {
		s.accepted.Store(true)
	}
	call.answer(ack, err)
}

func (c *call) answer(ack *wire.Message, err error) {
	c.timer.Stop()
	c.err = err
	if ack != nil {
		c.ack = Stored{Seq: ack.Seq, Duplicate: ack.Duplicate}
	}
	if c.after != nil {
		c.after(ack)
	}
	close(c.done)
}

func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the server's answer: %w", ctx.Err())
	}
}

// closeError turns the library's error for a close frame into ours.
func closeError(err error) error {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return &CloseError{Code: wire.CloseCode(closed.Code), Reason: closed.Reason}
	}
	return err
}

// dialError says which server, without what a URL may hold of secrets (user, query), which net/http's error quotes.
func dialError(rawURL string, err error) error {
	err = withoutURL(err)
	place := "server"
	if u, parseErr := url.Parse(rawURL); parseErr == nil {
		place = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	}
	return fmt.Errorf("connect to %s: %w", place, err)
}

// replace puts v into a channel of capacity 1, in place of what nobody has taken yet. It does not block.
func replace[T any](ch chan T, v T) {
	for {
		select {
		case ch <- v:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}
