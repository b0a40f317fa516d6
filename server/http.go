package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// handler answers what is no WebSocket upgrade.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	prefix := s.opts.PathPrefix
	mux.HandleFunc(prefix+wire.Path, func(w http.ResponseWriter, r *http.Request) {
		if asksForUpgrade(r) {
			s.upgrade(w, r)
			return
		}
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "this is a WebSocket endpoint: send an upgrade request (RFC 6455)", http.StatusUpgradeRequired)
	})
	mux.HandleFunc("POST "+prefix+"/v1/tickets", s.ticketsHandler)
	mux.HandleFunc("POST "+prefix+"/v1/revocations", s.revocationsHandler)
	return s.cors(mux)
}

// asksForUpgrade says whether a request wants a WebSocket. As the first of a
// connection it would not have come here.
func asksForUpgrade(r *http.Request) bool {
	if r.Method != http.MethodGet || r.ProtoMajor != 1 {
		return false
	}
	for _, line := range r.Header.Values("Upgrade") {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(item), "websocket") {
				return true
			}
		}
	}
	return false
}

// upgrade hands a connection back to the loops that has carried other requests:
// proxies keep connections alive, and browsers send the upgrade on one that had a
// fetch. The request is written down again and judged there like any other.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusUpgradeRequired)
		return
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "GET %s %s\r\nHost: %s\r\n", r.RequestURI, r.Proto, r.Host)
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

// bearer verifies the request's token. Signatures are verified here by as many requests at once as there are workers for the
// connections, so that HTTP is no way around that bound.
func (s *Server) bearer(r *http.Request) (*authz.Token, wire.Code) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if len(r.Header.Values("Authorization")) != 1 || !strings.EqualFold(scheme, "Bearer") {
		return nil, wire.TokenMissing
	}
	raw := []byte(strings.TrimSpace(value))
	token, code := s.auth.Find(raw), wire.OK
	if token == nil {
		cost, from := s.auth.Cost(raw), addressKey(s.httpClientAddr(r))
		done := make(chan struct{})
		verify := func() {
			token, code = s.auth.VerifyFrom(raw, from)
			close(done)
		}
		if !s.verify.push(job{size: len(raw), run: verify}) {
			return nil, wire.Unavailable
		}
		select {
		case <-done:
		case <-r.Context().Done(): // the client has gone, or the server ends
			return nil, wire.Unavailable
		}
		if code == wire.TokenInvalid && cost != authz.Cheap {
			s.holdBack(r)
		}
	}
	if code == wire.OK {
		code = token.Check(httpNow())
	}
	return token, code
}

// httpError answers with a code of the table.
func (s *Server) httpError(w http.ResponseWriter, code wire.Code) {
	status := http.StatusBadRequest
	switch {
	case code == wire.TokenMissing:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750 §3.1: nothing more when nothing was presented
	case code.Auth():
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	case code == wire.Forbidden:
		status = http.StatusForbidden
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
	case code == wire.Unavailable:
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "2")
	case code == wire.RateLimited:
		status = http.StatusTooManyRequests // the caller has set Retry-After
	}
	if code == wire.TokenNotYetValid {
		w.Header().Set("Retry-After", "2")
	}
	writeJSON(w, status, struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{code.String(), code.Text()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
