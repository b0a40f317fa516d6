package server

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// openAPI describes the HTTP calls (OpenAPI 3.1).
//
//go:embed openapi.json
var openAPI []byte

// handler answers what is no WebSocket upgrade.
func (s *Server) handler() http.Handler {
	type call struct {
		methods string // "": the handler looks itself
		answer  http.HandlerFunc
	}
	calls := map[string]call{
		wire.Path:          {"", s.socketHandler},
		"/v1/publish":      {"POST", s.publishHandler},
		"/v1/events":       {"GET, HEAD", s.eventsHandler},
		"/v1/history":      {"GET, HEAD", s.historyHandler},
		"/v1/tickets":      {"POST", s.ticketsHandler},
		"/v1/revocations":  {"POST", s.revocationsHandler},
		"/v1/openapi.json": {"GET, HEAD", openAPIHandler},
	}
	// Not http.ServeMux: it answers in plain text, and sends a POST to //v1/publish on as a
	// GET. Paths are compared as they were sent, as the loops compare theirs: a proxy that
	// keeps a call from strangers may not know another spelling of it (CWE-177).
	return FatalPanics(s.pace(s.console(s.cors(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, below := strings.CutPrefix(r.URL.EscapedPath(), s.opts.PathPrefix)
		c, found := calls[path]
		switch {
		case !below || !found:
			problem(w, http.StatusNotFound, wire.BadEnvelope, "there is no such call here: /v1/openapi.json, behind the prefix that the operator has set, has those that there are")
		case c.methods != "" && !slices.Contains(strings.Split(c.methods, ", "), r.Method):
			w.Header().Set("Allow", c.methods)
			problem(w, http.StatusMethodNotAllowed, wire.BadEnvelope, "this call takes "+c.methods)
		default:
			c.answer(w, r)
		}
	})))))
}

// console gives what is for the console to it. It comes before cors: pages of other origins have no part in it, whichever may
// connect.
func (s *Server) console(next http.Handler) http.Handler {
	if s.opts.Console == nil {
		return next
	}
	prefix := s.opts.PathPrefix + "/console"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.EscapedPath(); path == prefix || strings.HasPrefix(path, prefix+"/") {
			http.StripPrefix(s.opts.PathPrefix, s.opts.Console).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// socketHandler answers what comes to the WebSocket's path. As the first request of a
// connection an upgrade would not have come here.
func (s *Server) socketHandler(w http.ResponseWriter, r *http.Request) {
	if asksForUpgrade(r) {
		s.upgrade(w, r)
		return
	}
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Connection", "Upgrade")
	problem(w, http.StatusUpgradeRequired, wire.BadEnvelope, "this is a WebSocket endpoint: send an upgrade request (RFC 6455)")
}

// openAPIHandler answers GET /v1/openapi.json.
func openAPIHandler(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", mediaJSON)
	_, _ = w.Write(openAPI)
}

// asksForUpgrade says whether a request wants a WebSocket.
func asksForUpgrade(r *http.Request) bool {
	if r.Method != http.MethodGet || r.ProtoMajor != 1 {
		return false
	}
	for _, line := range r.Header.Values("Upgrade") {
		for item := range strings.SplitSeq(line, ",") {
			if is([]byte(strings.TrimSpace(item)), "websocket") {
				return true
			}
		}
	}
	return false
}

// upgrade hands a connection back to the loops that has carried other requests:
// proxies keep connections alive, and browsers send the upgrade on one that had a
// fetch. The request is written down again and judged there like any other: one with a
// body is refused, or the body would be read as frames (CWE-444).
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusUpgradeRequired)
		return
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "GET %s %s\r\nHost: %s\r\n", r.RequestURI, r.Proto, r.Host)
	for _, coding := range r.TransferEncoding { // net/http has taken it out of the header
		fmt.Fprintf(&head, "Transfer-Encoding: %s\r\n", coding)
	}
	if err = r.Header.Write(&head); err == nil {
		head.WriteString("\r\n")
		behind, _ := buffered.Peek(buffered.Reader.Buffered()) // what is there
		head.Write(behind)
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		return
	}
	if err := s.engine.Adopt(conn, head.Bytes()); err != nil {
		s.log.Debug("an upgrade behind other requests", zap.Error(err))
	}
}

// bearerToken is the token in the Authorization header (RFC 6750 §2.1), if there is
// exactly one.
func bearerToken(r *http.Request) (raw []byte, ok bool) {
	lines := r.Header.Values("Authorization")
	if len(lines) != 1 {
		return nil, false
	}
	return bearerOf([]byte(lines[0]))
}

// bearerOf is the token in a line of that header, if it holds one.
func bearerOf(line []byte) (raw []byte, ok bool) {
	scheme, value, _ := bytes.Cut(line, []byte(" "))
	if !bytes.EqualFold(scheme, []byte("Bearer")) {
		return nil, false
	}
	return bytes.TrimSpace(value), true
}

// bearer verifies the request's token.
func (s *Server) bearer(r *http.Request) (*authz.Token, wire.Code) {
	raw, ok := bearerToken(r)
	if !ok {
		return nil, wire.TokenMissing
	}
	token, code := s.verifyHTTP(r.Context(), s.httpClientAddr(r), raw)
	if code == wire.OK {
		code = token.Check(httpNow())
	}
	return token, code
}

// verifyHTTP verifies a token that came from addr by HTTP. Signatures are verified by
// the workers that do so for the connections, so that HTTP is no way around that
// bound. After a bad one it returns late.
func (s *Server) verifyHTTP(ctx context.Context, addr netip.Addr, raw []byte) (*authz.Token, wire.Code) {
	if len(raw) == 0 {
		return nil, wire.TokenMissing
	}
	if token := s.auth.Find(raw); token != nil {
		return token, wire.OK
	}
	type result struct {
		token *authz.Token
		code  wire.Code
	}
	cost := s.auth.Cost(raw)
	if cost == authz.Cheap {
		return s.auth.VerifyFrom(raw, addressKey(addr))
	}
	v, ok := await(ctx, &s.verify, len(raw), func() (v result) {
		v.token, v.code = s.auth.VerifyFrom(raw, addressKey(addr))
		return v
	})
	if !ok {
		return nil, wire.Unavailable
	}
	if v.code == wire.TokenInvalid {
		s.holdBack(ctx, addr)
	}
	return v.token, v.code
}

// await has a worker of p do work, and returns its result. It returns false when the
// queue is full or ctx ends first; work may be under way then.
func await[T any](ctx context.Context, p *pool, size int, work func() T) (result T, ok bool) {
	done := make(chan T, 1)
	var gone atomic.Bool
	if !p.push(job{size: size, gone: &gone, run: func() { done <- work() }}) {
		return result, false
	}
	select {
	case result = <-done:
		return result, true
	case <-ctx.Done(): // the client has gone, or the server ends
		gone.Store(true)
		return result, false
	}
}

// httpStatus is the status of an answer that refuses with code.
func httpStatus(code wire.Code) int {
	switch code {
	case wire.Forbidden:
		return http.StatusForbidden
	case wire.TooLarge:
		return http.StatusRequestEntityTooLarge
	case wire.TokenReplayed:
		return http.StatusConflict
	case wire.DigestMismatch:
		return http.StatusUnprocessableEntity
	case wire.RateLimited:
		return http.StatusTooManyRequests
	case wire.Unavailable:
		return http.StatusServiceUnavailable
	}
	if code.Auth() {
		return http.StatusUnauthorized
	}
	return http.StatusBadRequest
}

// refuse answers that a request was refused with code, and how to authenticate where
// its token is the reason. message is as in problem.
func refuse(w http.ResponseWriter, code wire.Code, message string) {
	if text := challenge(code); text != "" {
		w.Header().Set("WWW-Authenticate", text)
	}
	problem(w, httpStatus(code), code, message)
}

// challenge says how to authenticate where a request was refused for its token; ""
// where that is not the reason.
func challenge(code wire.Code) string {
	switch {
	case code == wire.TokenMissing:
		return "Bearer" // RFC 6750 §3.1: nothing more when nothing was presented
	case code == wire.Forbidden:
		return `Bearer error="insufficient_scope"`
	case httpStatus(code) == http.StatusUnauthorized:
		return `Bearer error="invalid_token"`
	}
	return ""
}

// problem answers with what RFC 9457 calls a problem. message is for developers;
// empty, it is the code's own text. A Retry-After that the caller has set stays.
func problem(w http.ResponseWriter, status int, code wire.Code, message string) {
	h := w.Header()
	if code.Retry() && h.Get("Retry-After") == "" {
		setRetryAfter(w, retryAfter)
	}
	writeJSON(w, status, mediaProblem, problemOf(status, code, message))
}

// retryAfter is what a client is asked to wait where nothing says better.
const retryAfter = 2 * time.Second

// problemBody is the body of such an answer.
type problemBody struct {
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func problemOf(status int, code wire.Code, message string) problemBody {
	if message == "" {
		message = code.Text()
	}
	return problemBody{http.StatusText(status), status, code.String(), message}
}

// bodyProblem answers that a body could not be read to its end: the client has gone, the
// length was wrong, or it took too long. Then the time for the answer is over as well,
// so that it gets its own.
func (s *Server) bodyProblem(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opts.Loop.MessageTimeout))
	problem(w, http.StatusBadRequest, wire.BadEnvelope, s.notWhole())
}

func (s *Server) notWhole() string {
	return fmt.Sprintf("the body did not come whole within %v", s.opts.Loop.MessageTimeout)
}

func setRetryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(wholeSeconds(d)))
}

func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func writeJSON(w http.ResponseWriter, status int, media string, v any) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
