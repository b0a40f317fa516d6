//go:build linux

package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Strategy is a way to present a token for a connection (docs/authentication.md).
type Strategy uint8

// The strategies; an operator enables a set of them.
const (
	// Message: each subscribe carries its own token.
	Message Strategy = 1 << iota
	// FirstMessage: an auth envelope.
	FirstMessage
	// Header: Authorization: Bearer.
	Header
	// Subprotocol: an item bearer.JWT in Sec-WebSocket-Protocol.
	Subprotocol
	// Ticket: a one-use ticket in the query or in Sec-WebSocket-Protocol.
	Ticket
	// Query: access_token in the query, which ends up in the logs of proxies
	// (RFC 9700 §4.3.2).
	Query
)

var strategies = map[string]Strategy{
	"message": Message, "first-message": FirstMessage, "header": Header,
	"subprotocol": Subprotocol, "ticket": Ticket, "query": Query,
}

// DefaultStrategies are all but Query.
const DefaultStrategies = Message | FirstMessage | Header | Subprotocol | Ticket

// ParseStrategies makes a set of names.
func ParseStrategies(names []string) (set Strategy, err error) {
	for _, name := range names {
		s, ok := strategies[name]
		if !ok {
			return 0, fmt.Errorf("unknown strategy %q: message, first-message, header, subprotocol, ticket or query", name)
		}
		set |= s
	}
	return set, nil
}

// credential is the token that a connection was opened with, or was given by an
// auth envelope.
type credential struct {
	token  Token
	warned bool // the client knows that it expires soon
}

// handshake is what the server knows of a connection whose request it cannot
// answer yet. It is the connection's Data until Open.
type handshake struct {
	done  bool
	token Token
	code  wire.Code
	why   string // for the log: what is wrong with a ticket
}

// offer is a credential in an upgrade request; strategy is 0 when there is none.
type offer struct {
	strategy Strategy
	value    []byte
}

func reject(status int, reason string, headers ...string) error {
	o := []ws.RejectOption{ws.RejectionStatus(status), ws.RejectionReason(reason)}
	for _, h := range headers {
		o = append(o, ws.RejectionHeader(ws.HandshakeHeaderString(h+"\r\n")))
	}
	return ws.RejectConnectionError(o...)
}

var (
	errNotFound    = reject(http.StatusNotFound, "the WebSocket endpoint is "+wire.Path)
	errSubprotocol = reject(http.StatusBadRequest, "none of the offered subprotocols is "+wire.Subprotocol)
	errOrigin      = reject(http.StatusForbidden, "this origin is not allowed")
	errTwo         = reject(http.StatusBadRequest, "more than one credential")
	errQuery       = reject(http.StatusBadRequest, "malformed query")
	errNone        = reject(http.StatusUnauthorized, "a credential is required", "WWW-Authenticate: Bearer")
	errDisabled    = reject(http.StatusUnauthorized, "this way to authenticate is not enabled here", "WWW-Authenticate: Bearer")
	errCredential  = reject(http.StatusUnauthorized, "the credential is not valid", `WWW-Authenticate: Bearer error="invalid_token"`)
	errTryLater    = reject(http.StatusServiceUnavailable, "the credential cannot be checked now", "Retry-After: 2")
)

// Request implements [loop.Handler]: path, origin, subprotocol and credential. A
// wrong credential is refused, never treated as absent.
func (s *Server) Request(c *loop.Conn, r *loop.Request) error {
	path, query, _ := bytes.Cut(r.URI, []byte("?"))
	if string(path) != wire.Path {
		return errNotFound
	}
	if !s.allowed(string(r.Origin)) {
		return errOrigin
	}
	o, err := offered(string(query), r)
	if err != nil {
		return err
	}
	switch {
	case o.strategy == 0 && s.opts.RequireConnection && s.opts.Strategies&FirstMessage == 0:
		return errNone
	case o.strategy == 0:
		return nil
	case o.strategy&s.opts.Strategies == 0:
		return errDisabled
	}
	hs, _ := c.Data.(*handshake)
	if hs == nil {
		hs = &handshake{}
		c.Data = hs
		if s.redeem(c, hs, o, r) {
			return loop.ErrLater
		}
	} else if !hs.done {
		return loop.ErrLater
	}
	if hs.code == wire.OK {
		hs.code = usable(hs.token, c.Loop().Now())
	}
	if hs.code == wire.OK {
		return nil
	}
	s.log.Debug("handshake refused", zap.Stringer("addr", s.client(c, r)), zap.Stringer("code", hs.code), zap.String("why", hs.why))
	c.Loop().Data.(*loopState).refused[hs.code]++
	if hs.code == wire.Unavailable {
		return errTryLater
	}
	return errCredential
}

// usable says whether a token may be a connection's credential. One that is
// bound to a message may not.
func usable(t Token, now int64) wire.Code {
	if t.Bound() {
		return wire.Forbidden
	}
	return t.Check(now)
}

// offered finds the credential of a request, of which there may be one.
func offered(query string, r *loop.Request) (o offer, err error) {
	found := 0
	add := func(strategy Strategy, value []byte) {
		found++
		o = offer{strategy, value}
	}
	if r.Authorization != nil {
		scheme, value, _ := bytes.Cut(r.Authorization, []byte(" "))
		switch {
		case bytes.IndexByte(r.Authorization, ',') >= 0: // several headers; no token has one
			return o, errTwo
		case !bytes.EqualFold(scheme, []byte("Bearer")):
			return o, errCredential
		}
		add(Header, bytes.TrimSpace(value))
	}
	if query != "" {
		values, err := url.ParseQuery(query)
		if err != nil {
			return o, errQuery
		}
		for _, v := range values["access_token"] {
			add(Query, []byte(v))
		}
		for _, v := range values["ticket"] {
			add(Ticket, []byte(v))
		}
	}
	if r.Protocols != nil {
		// RFC 6455 §4.2.2: answer with one of those offered or refuse. Nothing
		// else of the header is echoed: the rest may be a credential.
		for p := range bytes.SplitSeq(r.Protocols, []byte(",")) {
			p = bytes.TrimSpace(p)
			if string(p) == wire.Subprotocol {
				r.Protocol = wire.Subprotocol
			} else if v, ok := bytes.CutPrefix(p, []byte("bearer.")); ok {
				add(Subprotocol, v)
			} else if v, ok := bytes.CutPrefix(p, []byte("ticket.")); ok {
				add(Ticket, v)
			}
		}
		if r.Protocol == "" {
			return o, errSubprotocol
		}
	}
	if found > 1 {
		return o, errTwo
	}
	return o, nil
}

// redeem finds the token that an offer stands for. It returns true when a worker
// does so: the request is asked about again then.
func (s *Server) redeem(c *loop.Conn, hs *handshake, o offer, r *loop.Request) (waits bool) {
	answer := func() {
		hs.done = true
		c.Resume()
	}
	if o.strategy == Ticket {
		ticket, addr := string(o.value), s.client(c, r)
		waits = later(&s.blocking, c, func() {
			hs.token, hs.code, hs.why = s.takeTicket(ticket, addr)
		}, answer)
		return hs.orFull(waits)
	}
	if hs.token = s.auth.Find(o.value); hs.token != nil {
		return false
	}
	if s.auth.Slow(o.value) {
		value := bytes.Clone(o.value)
		waits = later(&s.verify, c, func() { hs.token, hs.code = s.auth.Verify(value) }, answer)
		return hs.orFull(waits)
	}
	hs.token, hs.code = s.auth.Verify(o.value)
	return false
}

// orFull answers a handshake for which no worker's queue had room.
func (hs *handshake) orFull(waits bool) bool {
	if !waits {
		hs.code, hs.why = wire.Unavailable, "too many wait to be checked"
	}
	return waits
}

// authenticated says whether a frame may be looked at: where the operator
// requires a credential for the connection, auth comes before all else.
func (s *Server) authenticated(c *loop.Conn, ses *session, env *wire.Envelope) bool {
	if !s.opts.RequireConnection || ses.credential != nil || env.Kind == wire.Auth {
		return true
	}
	s.refuse(c, ses, env, wire.TokenMissing, "this server requires auth before anything else")
	s.close(c, wire.CloseUnauthenticated)
	return false
}

// bind sets or refreshes a connection's credential (docs/protocol.md, section
// 2). Subscriptions that rely on it go on under the new token, as far as that
// permits them.
func (s *Server) bind(c *loop.Conn, ses *session, env *wire.Envelope, token Token) {
	switch {
	case token.Bound():
		s.refuse(c, ses, env, wire.Forbidden, "a token for one message is no credential")
		return
	case ses.credential == nil && s.opts.Strategies&FirstMessage == 0:
		s.refuse(c, ses, env, wire.Forbidden, "the strategy first-message is not enabled here")
		return
	case ses.credential != nil && (ses.credential.token.Subject() != token.Subject() || ses.credential.token.Issuer() != token.Issuer()):
		s.refuse(c, ses, env, wire.Forbidden, "a refresh must have the same sub, of the same iss")
		return
	}
	ses.authFailures = 0
	ses.credential = &credential{token: token}
	ses.due = min(ses.due, token.Expires()-int64(s.opts.ExpiryNotice))
	st := c.Loop().Data.(*loopState)
	ses.each(func(x *sub) {
		switch {
		case !x.relies:
		case token.MaySubscribe([]byte(x.topic.name)):
			x.token, x.Until, x.warned = token, token.Expires(), false
		default:
			s.drop(c, ses, x)
			s.tell(c, x.topic.name, wire.Forbidden, "the new credential does not permit it")
		}
	})
	if len(env.ID) > 0 {
		st.reply = wire.AppendSubscribeAck(st.reply[:0], env.ID, token.ExpSeconds())
		c.Send(ws.OpText, st.reply)
	}
}

// later has a worker of p do work and then the connection's loop done, which
// resumes the connection that the caller has paused.
func later(p *pool, c *loop.Conn, work, done func()) bool {
	return p.push(work, func() { c.Loop().Post(done) })
}

// deadlines looks at what a connection itself must do in time: authenticate, and
// refresh its credential. It returns when to look again, and false when the
// connection was closed.
func (s *Server) deadlines(c *loop.Conn, ses *session, now int64) (due int64, open bool) {
	cr := ses.credential
	if cr == nil {
		if !s.opts.RequireConnection {
			return never, true
		}
		by := int64(ses.opened+1)*1e9 + int64(s.opts.AuthDeadline)
		if now >= by {
			s.close(c, wire.CloseAuthTimeout)
		}
		return by, now < by
	}
	until := cr.token.Expires()
	if now >= until {
		s.close(c, wire.CloseUnauthenticated)
		return never, false
	}
	warn := until - int64(s.opts.ExpiryNotice)
	if cr.warned {
		return until, true
	}
	if now < warn {
		return warn, true
	}
	cr.warned = true
	st := c.Loop().Data.(*loopState)
	st.reply = wire.AppendExpiring(st.reply[:0], "", cr.token.ExpSeconds())
	c.Send(ws.OpText, st.reply)
	return until, true
}

// httpNow is for HTTP handlers, which run on no loop.
func httpNow() int64 { return time.Now().UnixNano() }
