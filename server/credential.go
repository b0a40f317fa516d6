package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Strategy is a way to present a token for a connection (docs/authentication.md).
type Strategy uint8

// The strategies; an operator enables a set of them.
const (
	// StrategyMessage: each subscribe carries its own token.
	StrategyMessage Strategy = 1 << iota
	// StrategyFirstMessage: an auth envelope.
	StrategyFirstMessage
	// StrategyHeader: Authorization: Bearer.
	StrategyHeader
	// StrategySubprotocol: an item bearer.JWT in Sec-WebSocket-Protocol.
	StrategySubprotocol
	// StrategyTicket: a one-use ticket in the query or in Sec-WebSocket-Protocol.
	StrategyTicket
	// StrategyQuery: access_token in the query, which ends up in the logs of proxies
	// (RFC 9700 §4.3.2).
	StrategyQuery
)

var strategies = map[string]Strategy{
	"message": StrategyMessage, "first-message": StrategyFirstMessage, "header": StrategyHeader,
	"subprotocol": StrategySubprotocol, "ticket": StrategyTicket, "query": StrategyQuery,
}

// Names lists them in the order of docs/protocol.md.
func (s Strategy) Names() (names []string) {
	for _, name := range []string{"message", "first-message", "header", "subprotocol", "ticket", "query"} {
		if s&strategies[name] != 0 {
			names = append(names, name)
		}
	}
	return names
}

// DefaultStrategies are all but StrategyQuery.
const DefaultStrategies = StrategyMessage | StrategyFirstMessage | StrategyHeader | StrategySubprotocol | StrategyTicket

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
	token  *authz.Token
	warned bool // the client knows that it expires soon
}

// handshake is what the server knows of a connection whose request it cannot
// answer yet. It is the connection's Data until Open.
type handshake struct {
	done  bool
	gone  atomic.Bool // the connection has ended; a worker need not begin
	timer *time.Timer // holds the answer back; the loop's
	token *authz.Token
	code  wire.Code
	why   string // for the log: what is wrong with a ticket
}

// offer is a credential in an upgrade request; strategy is 0 when there is none.
type offer struct {
	strategy Strategy
	value    []byte
}

// refusal is an answer to an upgrade request other than 101.
type refusal struct {
	answer error
	reason string // for log and metrics
}

// because is the same answer for a more precise reason, which is not for its receiver.
func (x *refusal) because(code wire.Code) *refusal { return &refusal{x.answer, code.String()} }

func reject(reason string, status int, text string, headers ...string) *refusal {
	var all strings.Builder
	for _, h := range headers {
		all.WriteString(h + "\r\n")
	}
	return &refusal{ws.RejectConnectionError(ws.RejectionStatus(status), ws.RejectionReason(text),
		ws.RejectionHeader(ws.HandshakeHeaderString(all.String()))), reason}
}

var (
	errPending     = &refusal{answer: loop.ErrPending}
	errNotFound    = reject("path", http.StatusNotFound, "the WebSocket endpoint is "+wire.Path+", behind the prefix that the operator has set", loop.ReadableByAll)
	errTooMany     = reject(loop.RefusedPerIP, http.StatusTooManyRequests, "too many connections of this address", "Retry-After: 10", loop.ReadableByAll)
	errSubprotocol = reject("subprotocol", http.StatusBadRequest, "none of the offered subprotocols is "+wire.Subprotocol)
	errOrigin      = reject("origin", http.StatusForbidden, "this origin is not allowed")
	errTwo         = reject("two_credentials", http.StatusBadRequest, "more than one credential")
	errQuery       = reject("query", http.StatusBadRequest, "malformed query")
	errNone        = reject("no_credential", http.StatusUnauthorized, "a credential is required", "WWW-Authenticate: Bearer")
	errDisabled    = reject("strategy_disabled", http.StatusUnauthorized, "this way to authenticate is not enabled here", "WWW-Authenticate: Bearer")
	errCredential  = reject("authorization", http.StatusUnauthorized, "the credential is not valid", `WWW-Authenticate: Bearer error="invalid_token"`)
	errNotYet      = reject(wire.TokenNotYetValid.String(), http.StatusUnauthorized, "the credential is not valid yet", `WWW-Authenticate: Bearer error="invalid_token"`, "Retry-After: 2")
	errTryLater    = reject(wire.Unavailable.String(), http.StatusServiceUnavailable, "the credential cannot be checked now", "Retry-After: 2")
)

// Request implements [loop.Handler]: path, origin, subprotocol and credential. A
// wrong credential is refused, never treated as absent.
func (s *Server) Request(c *loop.Conn, r *loop.Request) error {
	refused, why := s.judge(c, r)
	if refused == nil {
		return nil
	}
	if refused.reason == "" {
		return refused.answer // not yet
	}
	s.refusedHandshake(c.Addr(), refused.reason, why)
	return refused.answer
}

// judge is Request. why is for the log alone.
func (s *Server) judge(c *loop.Conn, r *loop.Request) (refused *refusal, why string) {
	if addr := s.clientAddr(c, r); !c.SetAddr(addr) {
		return errTooMany, "client " + addr.String()
	}
	path, query, _ := bytes.Cut(pathAndQuery(r.URI), []byte("?"))
	if string(path) != s.opts.PathPrefix+wire.Path {
		return errNotFound, "path " + strconv.QuoteToASCII(string(path[:min(len(path), 100)]))
	}
	if !s.originAllowed(string(r.Origin), string(r.Host)) {
		return errOrigin, "origin " + strconv.QuoteToASCII(string(r.Origin[:min(len(r.Origin), 100)]))
	}
	o, refused := offered(string(query), r)
	switch {
	case refused != nil:
		return refused, ""
	case o.strategy == 0 && s.opts.RequireConnection && s.opts.Strategies&StrategyFirstMessage == 0:
		return errNone, ""
	case o.strategy == 0:
		return nil, ""
	case o.strategy&s.opts.Strategies == 0:
		return errDisabled, ""
	}
	hs, _ := c.Data.(*handshake)
	if hs == nil {
		hs = &handshake{}
		c.Data = hs
		if s.redeem(c, hs, o, r) {
			return errPending, ""
		}
	} else if !hs.done {
		return errPending, ""
	}
	if hs.code == wire.OK {
		hs.code = usable(hs.token, c.Loop().Now())
	}
	if hs.code == wire.OK {
		return nil, ""
	}
	stateOf(c.Loop()).counts.refused[hs.code]++
	switch hs.code {
	case wire.Unavailable:
		return errTryLater, hs.why
	case wire.TokenNotYetValid: // heals by itself, and tells a forger nothing
		return errNotYet, hs.why
	}
	return errCredential.because(hs.code), hs.why
}

// refusedHandshake counts and logs a handshake that was refused.
func (s *Server) refusedHandshake(addr netip.Addr, reason, why string) {
	s.answers.handshakes.WithLabelValues(reason).Inc()
	s.log.Debug("handshake refused", zap.Stringer("addr", addr), zap.String("reason", reason), zap.String("why", why))
}

// usable says whether a token may be a connection's credential. One that is
// bound to a message may not.
func usable(t *authz.Token, now int64) wire.Code {
	if t.Bound() {
		return wire.Forbidden
	}
	return t.Check(now)
}

// offered finds the credential of a request, of which there may be one.
func offered(query string, r *loop.Request) (o offer, refused *refusal) {
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
		case bytes.EqualFold(scheme, []byte("Bearer")):
			add(StrategyHeader, bytes.TrimSpace(value))
		case !isProxyScheme(scheme):
			return o, errCredential
		}
	}
	// Other parameters are not ours, in whatever order they are.
	for pair := range strings.SplitSeq(query, "&") {
		strategy, value, ours := queryCredential(pair)
		v, err := url.QueryUnescape(value)
		switch {
		case !ours:
		case strategy == 0 || err != nil:
			return o, errQuery
		default:
			add(strategy, []byte(v))
		}
	}
	if len(bytes.Trim(r.Protocols, ", \t")) > 0 { // an empty list offers nothing
		// RFC 6455 §4.2.2: answer with one of those offered or refuse. Nothing
		// else of the header is echoed: the rest may be a credential.
		for p := range bytes.SplitSeq(r.Protocols, []byte(",")) {
			p = bytes.TrimSpace(p)
			if string(p) == wire.Subprotocol {
				r.Protocol = wire.Subprotocol
			} else if v, ok := bytes.CutPrefix(p, []byte("bearer.")); ok {
				add(StrategySubprotocol, v)
			} else if v, ok := bytes.CutPrefix(p, []byte("ticket.")); ok {
				add(StrategyTicket, v)
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

// queryCredential is the credential in one parameter of a query. ours is false for
// a parameter of somebody else's; strategy is 0 where two readers would disagree
// about one of ours: some take a semicolon for an ampersand.
func queryCredential(pair string) (strategy Strategy, value string, ours bool) {
	for part := range strings.SplitSeq(pair, ";") {
		var name string
		name, value, _ = strings.Cut(part, "=")
		switch name, _ := url.QueryUnescape(name); name {
		case "access_token":
			strategy, ours = StrategyQuery, true
		case "ticket":
			strategy, ours = StrategyTicket, true
		}
	}
	if strings.Contains(pair, ";") {
		strategy = 0
	}
	return strategy, value, ours
}

// pathAndQuery is a request target as most clients send it: without the scheme and
// the authority of the absolute form, which a server has to accept too (RFC 9112
// §3.2.2).
func pathAndQuery(target []byte) []byte {
	if len(target) > 0 && target[0] == '/' {
		return target
	}
	_, rest, found := bytes.Cut(target, []byte("://"))
	if !found {
		return target
	}
	if at := bytes.IndexAny(rest, "/?"); at >= 0 {
		return rest[at:]
	}
	return nil
}

// isProxyScheme says whether an Authorization of this scheme is a proxy's on the
// way, such as that of a staging site, and not for us.
func isProxyScheme(scheme []byte) bool {
	for _, other := range []string{"Basic", "Digest", "Negotiate", "NTLM"} {
		if strings.EqualFold(string(scheme), other) {
			return true
		}
	}
	return false
}

// redeem finds the token that an offer stands for. It returns true when a worker
// does so: the request is asked about again then.
func (s *Server) redeem(c *loop.Conn, hs *handshake, o offer, r *loop.Request) (waits bool) {
	if o.strategy == StrategyTicket {
		ticket, addr := string(o.value), s.clientAddr(c, r)
		return s.redeemByWorker(&s.tickets, c, hs, len(ticket), func() (pause time.Duration) {
			if hs.token, hs.code, hs.why = s.takeTicket(ticket, addr); hs.code == wire.TokenReplayed || hs.code == wire.TokenInvalid {
				pause = s.penalties.pause(addr, time.Now().UnixNano(), s.opts.Penalty)
			}
			return min(pause, s.opts.Loop.HandshakeTimeout/2)
		})
	}
	if hs.token = s.auth.Find(o.value); hs.token != nil {
		return false
	}
	if s.auth.Cost(o.value) != authz.Cheap {
		value, addr := bytes.Clone(o.value), s.clientAddr(c, r)
		return s.redeemByWorker(&s.verify, c, hs, len(value), func() (pause time.Duration) {
			if hs.token, hs.code = s.auth.VerifyFrom(value, addressKey(addr)); hs.code == wire.TokenInvalid {
				pause = s.penalties.pause(addr, time.Now().UnixNano(), s.opts.Penalty)
			}
			return min(pause, s.opts.Loop.HandshakeTimeout/2)
		})
	}
	hs.token, hs.code = s.auth.Verify(o.value)
	return false
}

// Abandoned implements [loop.Handler]: a connection has ended while a worker was to
// find out about its credential.
func (s *Server) Abandoned(c *loop.Conn) {
	if hs, ok := c.Data.(*handshake); ok {
		hs.gone.Store(true)
		if hs.timer != nil {
			hs.timer.Stop() // or it would keep the connection's memory
		}
	}
}

// redeemByWorker has a worker of p do work, and the request asked about again after
// the pause that work returns. When the queue is full the handshake is answered now.
func (s *Server) redeemByWorker(p *pool, c *loop.Conn, hs *handshake, size int, work func() (pause time.Duration)) (waits bool) {
	answer := func() {
		hs.done = true
		c.Resume()
	}
	waits = p.push(job{size: size, gone: &hs.gone, run: func() {
		pause := work()
		c.Loop().Post(func() {
			switch {
			case hs.gone.Load():
			case pause > 0:
				hs.timer = time.AfterFunc(pause, func() { c.Loop().Post(answer) })
			default:
				answer()
			}
		})
	}})
	if !waits {
		hs.code, hs.why = wire.Unavailable, "too many wait to be checked"
	}
	return waits
}

// setCredential sets or refreshes a connection's credential (docs/protocol.md,
// section 2). Subscriptions that rely on it go on under the new token, as far as
// that permits them.
func (r *request) setCredential() {
	old := r.ses.credential
	switch {
	case r.token.Bound():
		r.refuse(wire.Forbidden, "a token for one message is no credential")
		return
	case old == nil && r.opts.Strategies&StrategyFirstMessage == 0:
		r.refuse(wire.Forbidden, "the strategy first-message is not enabled here")
		return
	case old != nil && (old.token.Subject() != r.token.Subject() || old.token.Issuer() != r.token.Issuer()):
		r.refuse(wire.Forbidden, "a refresh must have the same sub, of the same iss")
		return
	}
	r.accepted()
	r.ses.credential = &credential{token: r.token}
	r.ses.due = min(r.ses.due, r.noticeAt(r.token))
	r.ses.each(func(x *sub) {
		switch {
		case !x.onCredential:
		case r.token.MaySubscribe([]byte(x.topic.name)):
			x.setToken(r.token, r.now())
		default:
			r.end(x, wire.Forbidden, "the new credential does not permit it")
		}
	})
	r.ackUntil(r.token)
}

// deadlines looks at what a connection itself must do in time: authenticate, and
// refresh its credential. It returns when to look again, and false when the
// connection was closed.
func (s *Server) deadlines(c *loop.Conn, ses *session, now int64) (due int64, open bool) {
	cr := ses.credential
	if cr == nil {
		if !s.opts.RequireConnection || c.IsStream() {
			return never, true
		}
		late := time.Duration(c.Loop().Seconds()-ses.opened)*time.Second > s.opts.AuthDeadline
		if late {
			s.close(c, wire.CloseAuthTimeout)
		}
		return now, !late // looked at each second: the clock may be set, and this is a length of time
	}
	until := cr.token.Expires()
	if now >= until {
		s.close(c, wire.CloseUnauthenticated)
		return never, false
	}
	warn := s.noticeAt(cr.token)
	if cr.warned {
		return until, true
	}
	if now < warn {
		return warn, true
	}
	cr.warned = true
	st := stateOf(c.Loop())
	st.send(c, wire.AppendExpiring(st.reply[:0], "", cr.token.ExpSeconds()))
	return until, true
}
