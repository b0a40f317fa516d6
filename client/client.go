package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Client is a connection to a server that is made again whenever it is lost. Its methods may be called from any
// goroutine.
type Client struct {
	opts   Options
	url    string
	ctx    context.Context // ends with the client
	cancel context.CancelFunc
	done   chan struct{}

	retiring sync.WaitGroup // connections that another one has replaced

	inFlight chan struct{} // one element for each publish that waits for its answer
	early    earlyToken    // for the next connection; of the goroutine that connects

	mu      sync.Mutex // guards what follows; never held while anything blocks
	session *session   // nil while there is no connection
	up      chan struct{}
	subs    map[string]*Subscription // by pattern
	nextID  uint64
	err     error // why the client ended
}

// Dial connects to rawURL (ws, wss, http or https) and waits for the server's welcome. ctx bounds that only, not the
// client's life. Dial tries again only when the server says that its refusal heals, and only within
// Options.DialTimeout; any other failure of the first attempt is Dial's. From then on the client reconnects by itself.
func Dial(ctx context.Context, rawURL string, opts Options) (*Client, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	if _, err := url.Parse(rawURL); err != nil {
		return nil, errors.New("client: the URL does not parse")
	}
	life, cancel := context.WithCancel(context.Background())
	c := &Client{
		opts: opts, url: rawURL, ctx: life, cancel: cancel,
		done:     make(chan struct{}),
		inFlight: make(chan struct{}, opts.InFlight),
		up:       make(chan struct{}),
		subs:     map[string]*Subscription{},
	}
	s, err := c.connectFirst(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c.attach(s)
	go c.run(s)
	return c, nil
}

// connectFirst is connect, again after refusals that heal before the time for it is over.
func (c *Client) connectFirst(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		s, err := c.connect(ctx)
		if err == nil || !heals(err) {
			return s, err
		}
		wait := c.pauseOf(attempt, err, min(c.opts.MaxBackoff, c.opts.DialTimeout/10))
		if end, _ := ctx.Deadline(); wait >= time.Until(end) || !sleep(ctx, wait) {
			return nil, err
		}
	}
}

// Close ends the client: publishes in flight fail, subscriptions end, queued events are dropped. It makes the closing
// handshake, and waits for the server's part of it for at most 5 s. It does not wait for handlers.
func (c *Client) Close() {
	s := c.end(ErrClosed)
	if s != nil {
		s.close()
	}
}

// Done is closed when the client has ended, by Close or by a close code that forbids to reconnect.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the client ended; nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// run owns the connection's life: wait for its end, connect again, until the client ends.
func (c *Client) run(s *session) {
	defer close(c.done)
	defer c.retiring.Wait()
	c.state(StateConnected, nil)
	var refused refusals
	for attempt := 0; ; {
		began := time.Now()
		select {
		case <-s.down:
		case <-s.restarts:
			if next := c.elsewhere(s); next != nil {
				if !c.move(s, next) {
					next.close()
				}
				s = next
				continue
			}
			<-s.down
		}
		err := s.cause()
		held := time.Since(began) >= c.opts.MaxBackoff
		if held {
			attempt = 0 // this is a new outage, not the same one
		}
		if held || s.accepted.Load() { // not by the handshake alone: a server may accept that and close at once
			refused = refusals{}
		}
		for s = nil; s == nil; attempt++ {
			if unauthenticated(err) {
				refused.add()
			}
			if c.ctx.Err() == nil && c.final(err, refused) {
				c.end(err)
			}
			if c.ctx.Err() != nil {
				c.state(StateClosed, c.Err())
				return
			}
			c.state(StateReconnecting, err)
			if sleep(c.ctx, c.pause(attempt, err)) {
				s, err = c.connect(c.ctx)
			}
		}
		if !c.attach(s) { // Close came while the connection was made
			s.close()
			continue
		}
		c.state(StateConnected, nil)
	}
}

// attach makes s the connection; false if the client has ended.
func (c *Client) attach(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	if !s.over() { // else run finds it down at once
		c.session = s
		close(c.up)
	}
	return true
}

// detach is called by a session that is over.
func (c *Client) detach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == s {
		c.session = nil
		c.up = make(chan struct{})
	}
}

// end marks the client as ended, once, and gives the connection that is to be closed.
func (c *Client) end(err error) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil
	}
	c.err = err
	c.cancel()
	return c.session
}

// live waits for a connection.
func (c *Client) live(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		s, up, err := c.session, c.up, c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-up:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a connection: %w", ctx.Err())
		}
	}
}

func (c *Client) state(s State, err error) {
	if c.opts.OnState != nil {
		c.opts.OnState(s, err)
	}
}

func (c *Client) report(err error) {
	if c.opts.OnError != nil {
		c.opts.OnError(err)
	}
}

// earlyToken is a token that was refused since it is not valid yet. It is tried again: from an issuer whose clock is
// ahead, each new token would be as early as the one before.
type earlyToken struct{ token string }

// use gives the token to present: the early one, or a new one from the source.
func (e *earlyToken) use(ctx context.Context, c *Client, r Request) (token string, err error) {
	if e.token != "" {
		return e.token, nil
	}
	return c.token(ctx, r)
}

// note keeps token if err says that it is early, and forgets what was kept otherwise.
func (e *earlyToken) note(token string, err error) {
	e.token = ""
	if errors.Is(err, wire.TokenNotYetValid) {
		e.token = token
	}
}

// token asks the source; its errors say for what.
func (c *Client) token(ctx context.Context, r Request) (string, error) {
	token, err := c.opts.Token(ctx, r)
	if err == nil && token == "" {
		err = &wire.Error{Code: wire.TokenMissing, Detail: "the token source gave none"}
	}
	if err != nil {
		return "", fmt.Errorf("token to %s: %w", strings.TrimSpace(string(r.Action)+" "+r.Topic), err)
	}
	return token, nil
}
