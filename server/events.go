package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Events for clients without WebSocket: GET /v1/events is answered with Server-Sent
// Events, the same envelopes. The request is judged here; then its connection is a
// loop's, with a subscription for each topic, and costs what a WebSocket costs.

// stream is a request for events. It is the connection's Data until Open.
type stream struct {
	token  *authz.Token
	topics []string
	since  wire.Since // for those that a stream keeps
}

// eventsHandler answers GET /v1/events.
func (s *Server) eventsHandler(w http.ResponseWriter, r *http.Request) {
	addr := s.httpClientAddr(r)
	refused := func(code wire.Code, detail string) {
		s.log.Debug("events refused", zap.Stringer("addr", addr), zap.Stringer("code", code), zap.String("detail", detail))
		refuse(w, code, detail)
	}
	x := &stream{}
	var code wire.Code
	if x.token, code = s.streamToken(r, addr); code != wire.OK {
		refused(code, "")
		return
	}
	query := r.URL.Query() // parameters that do not parse are not ours
	x.topics = query["topic"]
	slices.Sort(x.topics)
	x.topics = slices.Compact(x.topics)
	switch {
	case len(x.topics) == 0:
		refused(wire.BadTopic, "say topic=rooms.42, once for each topic or pattern")
		return
	case len(x.topics) > s.opts.Subscriptions:
		refused(wire.TooManySubscriptions, "")
		return
	}
	for _, name := range x.topics {
		switch {
		case !wire.ValidPattern([]byte(name)):
			refused(wire.BadTopic, "")
			return
		case !x.token.MaySubscribe([]byte(name)):
			refused(wire.Forbidden, "")
			return
		}
	}
	var detail string
	if x.since, code, detail = s.streamSince(r, query, x); code != wire.OK {
		refused(code, detail)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx passes events on as they come
	if r.Method == http.MethodHead {
		return
	}
	s.beginStream(w, x, addr)
}

// streamSince is from where on a request for events wants its topics: what Last-Event-ID
// says, or else the query. A position is one of one stream, and not all topics have a
// history, nor may all tokens read it. The query is refused then; Last-Event-ID is what an
// EventSource sends by itself whenever it comes back, and a refusal would end it for good,
// so its topics begin now where they cannot resume.
func (s *Server) streamSince(r *http.Request, query url.Values, x *stream) (since wire.Since, code wire.Code, detail string) {
	text, resumes := r.Header.Get("Last-Event-ID"), true
	if text == "" {
		if !query.Has("since") {
			return since, wire.OK, ""
		}
		text, resumes = query.Get("since"), false
	}
	since, ok := parseSince(text)
	if !ok {
		return since, wire.BadEnvelope, "since, or Last-Event-ID, is EPOCH.SEQ, SEQ, last:N or an RFC 3339 time"
	}
	var first *home
	for _, name := range x.topics {
		home, _ := s.homeOf([]byte(name))
		if home == nil && resumes {
			continue
		}
		if code, detail := s.mayRead(x.token, []byte(name), since); code != wire.OK && !resumes {
			return since, code, detail
		} else if code != wire.OK {
			return wire.Since{OrNow: true}, wire.OK, ""
		}
		if first == nil {
			first = home
		}
		if home != first && since.Kind == wire.SinceSeq {
			if !resumes {
				return since, wire.HistoryUnavailable, "a position is one of one stream, and the topics lie in several: ask for those of one"
			}
			since.OrNow = true
		}
	}
	return since, wire.OK, ""
}

// streamToken is the token of a request for events: in the Authorization header, or as
// a ticket or access_token in the query, where those are enabled, since a page's
// EventSource can send no header.
func (s *Server) streamToken(r *http.Request, addr netip.Addr) (token *authz.Token, code wire.Code) {
	head := &loop.Request{}
	if lines := r.Header.Values("Authorization"); len(lines) > 0 {
		head.Authorization = []byte(strings.Join(lines, ","))
	}
	o, wrong := offered(r.URL.RawQuery, head)
	switch {
	case wrong == errCredential:
		return nil, wire.TokenInvalid
	case wrong != nil:
		return nil, wire.TokenMalformed
	case o.strategy == 0:
		return nil, wire.TokenMissing
	case o.strategy != StrategyHeader && o.strategy&s.opts.Strategies == 0:
		return nil, wire.TokenInvalid
	case o.strategy == StrategyTicket:
		if token, code = s.redeemTicket(r.Context(), string(o.value), addr); code == wire.TokenReplayed {
			code = wire.TokenInvalid
		}
	default:
		token, code = s.verifyHTTP(r.Context(), addr, o.value)
	}
	if code == wire.OK {
		code = usable(token, httpNow())
	}
	return token, code
}

// redeemTicket is takeTicket by a worker.
func (s *Server) redeemTicket(ctx context.Context, ticket string, addr netip.Addr) (*authz.Token, wire.Code) {
	type result struct {
		token *authz.Token
		code  wire.Code
	}
	v, ok := await(ctx, &s.tickets, len(ticket), func() (v result) {
		v.token, v.code, _ = s.takeTicket(ticket, addr)
		return v
	})
	if !ok {
		return nil, wire.Unavailable
	}
	return v.token, v.code
}

// beginStream hands a connection to the loops.
func (s *Server) beginStream(w http.ResponseWriter, x *stream, addr netip.Addr) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, wire.Unavailable, "this connection cannot be a stream")
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return
	}
	header := w.Header()
	accept := func(c *loop.Conn) ([]byte, bool) {
		answer := &rawResponse{header: header}
		code := x.token.Check(c.Loop().Now()) // it may have ended on the way
		switch {
		case code != wire.OK:
			refuse(answer, code, "")
		case !c.SetAddr(addr):
			setRetryAfter(answer, 10*time.Second)
			refuse(answer, wire.RateLimited, "too many connections of this address")
		default:
			answer.WriteHeader(http.StatusOK)
			c.Data = x
			return answer.bytes(), true
		}
		return answer.bytes(), false
	}
	if err := s.engine.AdoptStream(conn, accept); err != nil {
		s.log.Debug("a stream of events", zap.Error(err))
	}
}

// subscribeStream subscribes a connection to what its request asked for.
func (s *Server) subscribeStream(c *loop.Conn, x *stream) {
	for _, name := range x.topics {
		if !c.Open() {
			return
		}
		r := s.request(c)
		r.token, r.env = x.token, wire.Envelope{Kind: wire.Subscribe, ID: []byte(name), Topic: []byte(name)}
		if home, _ := s.homeOf(r.env.Topic); home != nil {
			r.env.Since = x.since
		}
		r.join(nil, false)
	}
}

// endStream ends a stream whose last subscription has ended.
func (s *Server) endStream(c *loop.Conn, code wire.CloseCode) {
	if c.IsStream() && sessionOf(c).count == 0 {
		s.close(c, code)
	}
}

// rawResponse is an HTTP response that ends with its connection, as bytes.
type rawResponse struct {
	header http.Header
	text   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (x *rawResponse) Header() http.Header { return x.header }

// WriteHeader implements [http.ResponseWriter].
func (x *rawResponse) WriteHeader(status int) {
	x.header.Set("Connection", "close")
	fmt.Fprintf(&x.text, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = x.header.Write(&x.text)
	x.text.WriteString("\r\n")
}

// Write implements [http.ResponseWriter].
func (x *rawResponse) Write(p []byte) (int, error) { return x.text.Write(p) }

func (x *rawResponse) bytes() []byte { return x.text.Bytes() }

// eventName is the name of the event as which a stream is sent an envelope. An event
// has none, so that it is a page's message; the others are named by their type.
func eventName(envelope []byte) []byte {
	kind, _, _ := bytes.Cut(bytes.TrimPrefix(envelope, []byte(`{"type":"`)), []byte(`"`))
	if string(kind) == "event" {
		return nil
	}
	return kind
}
