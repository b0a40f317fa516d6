package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

// socket is a WebSocket to the server. One goroutine reads it.
type socket struct {
	conn     *websocket.Conn
	messages chan []byte // closed at the end
	err      error       // why it ended; set before messages is closed
	pings    atomic.Int64
	began    time.Time
	welcome  wire.Message
	lastID   int
	events   []*wire.Message // of doctors, that came while something else was waited for
}

// opening is how a WebSocket is asked for. A zero one presents no credential and no origin.
type opening struct {
	header      http.Header
	subprotocol string // beside notifyd.v1
	query       url.Values
}

// open makes a WebSocket and waits for the welcome. When there is no WebSocket, but an answer, it returns that.
func (x *examination) open(ctx context.Context, o opening) (*socket, *httpAnswer, error) {
	u := *x.url
	u.RawQuery = o.query.Encode()
	header := o.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	subprotocols := []string{wire.Subprotocol}
	if o.subprotocol != "" {
		subprotocols = append(subprotocols, o.subprotocol)
	}
	s := &socket{messages: make(chan []byte, 1024), began: x.now()}
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient: x.client, HTTPHeader: header, Subprotocols: subprotocols,
		OnPingReceived: func(context.Context, []byte) bool {
			s.pings.Add(1)
			return true
		},
	})
	if err != nil {
		if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
			err = quoting.Err
		}
		if resp == nil {
			return nil, nil, x.transportFault(ctx, err)
		}
		body, _ := io.ReadAll(resp.Body) // the library has read it
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, nil, &fault{
				seen:   "101 Switching Protocols, but no WebSocket: " + err.Error(),
				cause:  "Something on the way changes the headers of the handshake.",
				remedy: "Have the proxy pass Upgrade, Connection and Sec-WebSocket-* on as they are, in both directions.",
			}
		}
		return nil, &httpAnswer{resp.StatusCode, resp.Header, string(body), s.began}, nil
	}
	s.conn = conn
	conn.SetReadLimit(2 << 20)
	go s.read()
	if err := s.greet(ctx, x); err != nil {
		s.close()
		return nil, nil, err
	}
	return s, nil, nil
}

// greet reads the welcome, and looks at the subprotocol.
func (s *socket) greet(ctx context.Context, x *examination) error {
	if got := s.conn.Subprotocol(); got != wire.Subprotocol {
		return &fault{
			seen:   "connected, without the subprotocol " + wire.Subprotocol,
			cause:  "It is no notifyd that accepted the WebSocket, or a proxy takes Sec-WebSocket-Protocol away.",
			remedy: "Have the proxy pass Sec-WebSocket-Protocol on, in both directions; or correct the URL.",
		}
	}
	m, err := s.next(ctx)
	if timedOut(ctx, err) && s.err == nil {
		return &fault{
			seen:   "connected, and no message comes",
			cause:  "Something on the way accepts WebSockets and passes no messages on.",
			remedy: "Look at what stands in front of notifyd: does it wait for a whole answer (buffering)?",
		}
	}
	if err != nil {
		return s.lost(err)
	}
	if m.Kind != wire.MessageWelcome {
		return &fault{seen: "the first message is no welcome", cause: "It is no notifyd that accepted the WebSocket.", remedy: "Correct host, port or path of the URL."}
	}
	s.welcome = *m
	if at, err := time.Parse(time.RFC3339, string(m.Time)); err == nil {
		x.readClock(s.began, at, time.Millisecond)
	}
	return nil
}

func (s *socket) read() {
	defer close(s.messages)
	for {
		_, frame, err := s.conn.Read(context.Background())
		if err != nil {
			s.err = err
			return
		}
		s.messages <- frame
	}
}

// next is the next message.
func (s *socket) next(ctx context.Context) (*wire.Message, error) {
	select {
	case frame, ok := <-s.messages:
		if !ok {
			return nil, s.err
		}
		m := new(wire.Message)
		if err := wire.ParseMessage(frame, m); err != nil {
			return nil, err
		}
		if m.Kind == wire.MessageEvent && bytes.HasPrefix(m.Data, []byte(`{"doctor":`)) {
			s.events = append(s.events, m)
		}
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// request sends what encode makes, and waits for the answer. Other messages are dropped, but for events of a doctor.
func (s *socket) request(ctx context.Context, encode func(id string) []byte) (*wire.Message, error) {
	s.lastID++
	id := fmt.Sprint(s.lastID)
	if err := s.conn.Write(ctx, websocket.MessageText, encode(id)); err != nil {
		s.close()
		return nil, s.err // which may hold a close frame
	}
	for {
		m, err := s.next(ctx)
		if err != nil || string(m.ID) == id {
			return m, err
		}
	}
}

// close makes no closing handshake: nothing waits for it.
func (s *socket) close() {
	_ = s.conn.CloseNow()
	for range s.messages { // so that read ends
	}
}

// lost says why a connection ended, or did not answer.
func (s *socket) lost(err error) *fault {
	age := time.Since(s.began).Round(100 * time.Millisecond)
	var closed websocket.CloseError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &fault{
			seen: "no answer on the connection", cause: "The node does not answer in time, or messages do not come through.",
			remedy: "Ask /readyz and /healthz of the node (--admin); look at the load of its machine.",
		}
	case !errors.As(err, &closed):
		return &fault{
			seen:   fmt.Sprintf("the connection was cut after %v: %v", age, reason(err)),
			cause:  "Something on the way cuts WebSockets: a proxy that reloads, or whose timeout is short; or the node ended.",
			remedy: "Look at the proxy's timeouts (docs/proxies.md) and at the node's log.",
		}
	case wire.CloseCode(closed.Code) == wire.CloseRestart:
		return &fault{
			seen: fmt.Sprintf("closed after %v: %d %s", age, closed.Code, closed.Reason), cause: "The node restarts: it drains.",
			remedy: "Nothing: clients connect again by themselves. Try again in some seconds.",
		}
	}
	return &fault{
		seen:   fmt.Sprintf("closed after %v: %d %s", age, closed.Code, closed.Reason),
		cause:  fmt.Sprintf("The server closed the connection: %d %s.", closed.Code, closed.Reason),
		remedy: "Section 6 of docs/protocol.md has the close codes.",
	}
}

// shakeHands makes a WebSocket without a credential.
func (x *examination) shakeHands(ctx context.Context) (string, error) {
	s, a, err := x.open(ctx, opening{})
	switch {
	case err != nil:
		return "", err
	case a != nil && a.status == http.StatusUnauthorized && strings.Contains(a.body, errNoCredential):
		return "the server wants a credential in it (auth.require)", nil
	case a != nil:
		return "", x.handshakeFault(ctx, a)
	}
	x.socket = s
	return fmt.Sprintf("101, subprotocol %s, node %s, a ping every %d s", wire.Subprotocol, s.welcome.Node, s.welcome.PingInterval), nil
}

// What the server says of handshakes that it refuses.
const (
	errNoCredential = "a credential is required"
	errNotEnabled   = "this way to authenticate is not enabled here"
)

// comeAsPage makes a WebSocket as a page would.
func (x *examination) comeAsPage(ctx context.Context) (string, error) {
	if x.Origin == "" {
		return "", skip("without --origin: pages of other hosts than " + x.url.Host + " need to be in the server's origins")
	}
	s, a, err := x.open(ctx, opening{header: http.Header{"Origin": {x.Origin}}})
	switch {
	case err != nil:
		return "", err
	case a != nil && a.status == http.StatusForbidden:
		return "", &fault{
			seen:   a.said(),
			cause:  fmt.Sprintf("The server lets no page of the origin %s connect.", x.Origin),
			remedy: fmt.Sprintf("Put it into the server's origins: origins: [%s].", x.Origin),
		}
	case a != nil && a.status == http.StatusUnauthorized && strings.Contains(a.body, errNoCredential):
		return x.Origin + " may connect", nil
	case a != nil:
		return "", x.handshakeFault(ctx, a)
	}
	s.close()
	return x.Origin + " may connect", nil
}

// present connects with the token, by a strategy.
func (x *examination) present(ctx context.Context, strategy string) (string, error) {
	if x.token == "" {
		return "", skip("without a token")
	}
	var o opening
	switch strategy {
	case "message":
		if x.socket == nil {
			return "", credentialFirst()
		}
		return "each request carries the token, below", nil
	case "header":
		o.header = x.bearer()
	case "subprotocol":
		o.subprotocol = "bearer." + x.token
	case "query":
		o.query = url.Values{"access_token": {x.token}}
	case "ticket":
		ticket, err := x.ticket(ctx)
		if err != nil {
			return "", err
		}
		o.subprotocol = "ticket." + ticket
	}
	s, a, err := x.open(ctx, o)
	switch {
	case err != nil:
		return "", err
	case a != nil:
		return "", x.presentFault(ctx, strategy, a)
	}
	if strategy == "first-message" {
		if err := x.authenticate(ctx, s); err != nil {
			s.close()
			return "", err
		}
	}
	// The first connection with a credential serves what follows, unless requests are to carry the token.
	if x.carried || slices.Contains(x.Strategy, "message") {
		s.close()
		return "the server takes the token", nil
	}
	if x.socket != nil {
		x.socket.close()
	}
	x.socket, x.carried = s, true
	return "the server takes the token", nil
}

func (x *examination) ticket(ctx context.Context) (string, error) {
	a, err := x.send(ctx, http.MethodPost, x.call("tickets"), x.bearer())
	if err != nil {
		return "", x.transportFault(ctx, err)
	}
	var body struct{ Ticket string }
	if a.status == http.StatusCreated && json.Unmarshal([]byte(a.body), &body) == nil && body.Ticket != "" {
		return body.Ticket, nil
	}
	code, message, ok := a.problem()
	switch {
	case !ok:
		return "", &fault{
			seen:   "ticket: " + a.said(),
			cause:  fmt.Sprintf("It is not notifyd that answers at %s: %s.", x.call("tickets"), a.said()),
			remedy: "Have the proxy pass " + x.call("") + " on to notifyd, and not " + wire.Path + " alone.",
		}
	case a.status == http.StatusNotFound && code == wire.Forbidden:
		return "", disabled("ticket", a)
	case code == wire.RateLimited:
		return "", &fault{
			seen: "ticket: " + a.said(), cause: "This subject, or this address, has got too many tickets just now.",
			remedy: "Wait for auth.ticket_ttl (30 s), or raise limits.tickets_per_subject or limits.tickets_per_ip. Behind a proxy set trusted_proxies, or all clients are one address.",
		}
	}
	return "", x.refused(code, message)
}

func (x *examination) authenticate(ctx context.Context, s *socket) error {
	m, err := s.request(ctx, func(id string) []byte {
		frame, err := json.Marshal(map[string]string{"type": "auth", "id": id, "token": x.token})
		if err != nil {
			panic(err) // strings
		}
		return frame
	})
	switch {
	case err != nil:
		return s.lost(err)
	case m.Kind != wire.MessageError:
		return nil
	case m.Code == wire.Forbidden && strings.Contains(string(m.Detail), "not enabled"):
		return disabled("first-message", nil)
	}
	return x.refused(m.Code, string(m.Detail))
}

func credentialFirst() *fault {
	return &fault{
		seen:   "the server wants a credential for the connection",
		cause:  "The server has auth.require: connection, so a token in each request is not enough.",
		remedy: "Present the token by another strategy: --strategy header, first-message, subprotocol or ticket.",
	}
}

func disabled(strategy string, a *httpAnswer) *fault {
	f := &fault{
		seen:   "not enabled",
		cause:  fmt.Sprintf("The strategy %s is not enabled on this server.", strategy),
		remedy: fmt.Sprintf("Add %s to auth.strategies, or present the token in another way; docs/authentication.md says which fits.", strategy),
	}
	if a != nil {
		f.seen = a.said()
	}
	return f
}

// presentFault says why a handshake with a credential was refused.
func (x *examination) presentFault(ctx context.Context, strategy string, a *httpAnswer) *fault {
	switch {
	case a.status == http.StatusUnauthorized && strings.Contains(a.body, errNotEnabled):
		return disabled(strategy, a)
	case a.status == http.StatusUnauthorized && strings.Contains(a.body, errNoCredential):
		if strategy == "first-message" {
			return disabled(strategy, a)
		}
		return &fault{
			seen:   a.said(),
			cause:  fmt.Sprintf("The credential does not arrive by the strategy %s: something on the way takes it away.", strategy),
			remedy: "Have the proxy pass the header Authorization, Sec-WebSocket-Protocol and the query on as they are.",
		}
	case a.status == http.StatusUnauthorized && a.header.Get("Retry-After") != "":
		return x.refused(wire.TokenNotYetValid, a.said())
	case a.status == http.StatusUnauthorized && strategy == "ticket":
		return &fault{
			seen:   a.said(),
			cause:  "The ticket that was made just now is refused: it is good for the address that asked for it, and the two requests seem to come from different ones.",
			remedy: "Let both requests take the same way, and set trusted_proxies and proxy_header in notifyd.",
		}
	case a.status == http.StatusUnauthorized:
		return x.refused(wire.TokenInvalid, a.said())
	case a.status == http.StatusServiceUnavailable && strings.Contains(a.body, "cannot be checked"):
		return x.refused(wire.Unavailable, a.said())
	case a.status == http.StatusRequestHeaderFieldsTooLarge, a.status == http.StatusRequestURITooLong:
		return &fault{
			seen:   a.said(),
			cause:  fmt.Sprintf("A token of %d bytes is too long for something on the way.", len(x.token)),
			remedy: "Raise the proxy's limit on headers (docs/proxies.md), or use first-message or ticket.",
		}
	}
	return x.handshakeFault(ctx, a)
}

// subscribe subscribes to a topic, on the connection with the credential or with the token itself.
func (x *examination) subscribe(ctx context.Context) (string, error) {
	if x.token == "" {
		return "", skip("without a token")
	}
	if !x.carried && !slices.Contains(x.Strategy, "message") || x.socket == nil {
		return "", skip("because there is no connection with the token")
	}
	topic, why := x.chooseTopic()
	if topic == "" {
		return "", skip(why)
	}
	token := x.token
	if x.carried {
		token = ""
	}
	m, err := x.socket.request(ctx, func(id string) []byte { return wire.AppendSubscribe(nil, id, topic, token) })
	switch {
	case err != nil:
		return "", x.socket.lost(err)
	case m.Kind == wire.MessageError && m.Code == wire.Forbidden && strings.Contains(string(m.Detail), "not enabled"):
		return "", disabled("message", nil)
	case m.Kind == wire.MessageError && m.Code == wire.Forbidden:
		return "", x.notGranted("subscribe to", topic)
	case m.Kind == wire.MessageError:
		return "", x.refused(m.Code, string(m.Detail))
	}
	x.topic, x.durable = topic, len(m.Stream) > 0
	if x.durable {
		return fmt.Sprintf("%s, of the stream %s", topic, m.Stream), nil
	}
	return topic, nil
}

// publish publishes one event.
func (x *examination) publish(ctx context.Context) (string, error) {
	if x.topic == "" {
		return "", skip("because there is no subscription to receive it")
	}
	if why := x.mayPublish(); why != "" {
		return "", skip(why)
	}
	nonce := fmt.Appendf(nil, `{"doctor":%d}`, x.now().UnixNano())
	sent := time.Now()
	m, err := x.socket.request(ctx, func(id string) []byte { return wire.AppendPublish(nil, id, x.topic, x.token, nonce, "") })
	switch {
	case err != nil:
		return "", x.socket.lost(err)
	case m.Kind == wire.MessageError && m.Code == wire.Forbidden:
		return "", x.notGranted("publish to", x.topic)
	case m.Kind == wire.MessageError:
		return "", x.refused(m.Code, string(m.Detail))
	}
	x.nonce, x.published = nonce, sent
	return "acknowledged after " + took(sent), nil
}

// awaitEvent waits for what was published.
func (x *examination) awaitEvent(ctx context.Context) (string, error) {
	if x.nonce == nil {
		return "", skip("because nothing was published")
	}
	for {
		for _, m := range x.socket.events {
			if bytes.Equal(m.Data, x.nonce) {
				return "the event came after " + took(x.published), nil
			}
		}
		x.socket.events = nil
		_, err := x.socket.next(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return "", &fault{
				seen:   "acknowledged, and the event does not come",
				cause:  "The node handed the event to NATS, and NATS does not bring it back.",
				remedy: "Look at NATS: permissions of the account, partitions of the cluster, nats.prefix; /readyz of the node (--admin).",
			}
		case err != nil:
			return "", x.socket.lost(err)
		}
	}
}

// keepStill keeps a connection open without sending anything, and sees whether it lasts.
func (x *examination) keepStill(ctx context.Context) (string, error) {
	if x.Idle == 0 {
		return "", skip("without --idle: --idle 90s tells whether a proxy ends quiet connections")
	}
	s := x.socket
	if s == nil {
		return "", skip("because there is no connection")
	}
	began, before := time.Now(), s.pings.Load()
	still, cancel := context.WithTimeout(ctx, x.Idle)
	defer cancel()
	for {
		_, err := s.next(still)
		s.events = nil
		pings := s.pings.Load() - before
		switch {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Sprintf("the connection lasts; %d pings of the server came", pings), nil
		case still.Err() != nil:
			return "", err
		default:
			f := s.lost(err)
			if pings == 0 && websocket.CloseStatus(err) == -1 {
				after, interval := time.Since(began).Round(time.Second), time.Duration(s.welcome.PingInterval)*time.Second
				f.cause = fmt.Sprintf("Something on the way ends connections that are quiet for %v, and the server pings every %v.", after, interval)
				f.remedy = "Raise the idle timeout of the proxy above ping_interval, or lower ping_interval below it."
			}
			return "", f
		}
	}
}

// took is the time since then, in milliseconds.
func took(since time.Time) string { return fmt.Sprintf("%d ms", time.Since(since).Milliseconds()) }
