//go:build linux

package server

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// handler answers what is no WebSocket upgrade.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(wire.Path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "this is a WebSocket endpoint: send an upgrade request (RFC 6455)", http.StatusUpgradeRequired)
	})
	mux.HandleFunc("POST /v1/tickets", s.ticketsHandler)
	mux.HandleFunc("POST /v1/revocations", s.revocationsHandler)
	return s.cors(mux)
}

// bearer verifies the request's token, or answers and returns false. Signatures
// are verified here by as many requests at once as there are workers for the
// connections, so that HTTP is no way around that bound.
func (s *Server) bearer(w http.ResponseWriter, r *http.Request) (*authz.Token, bool) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if len(r.Header.Values("Authorization")) != 1 || !strings.EqualFold(scheme, "Bearer") {
		s.httpError(w, wire.TokenMissing)
		return nil, false
	}
	raw := []byte(strings.TrimSpace(value))
	token, code := s.auth.Find(raw), wire.OK
	if token == nil {
		done := make(chan struct{})
		verify := func() {
			token, code = s.auth.Verify(raw)
			close(done)
		}
		if !s.verify.push(job{size: len(raw), run: verify}) {
			s.httpError(w, wire.Unavailable)
			return nil, false
		}
		select {
		case <-done:
		case <-r.Context().Done():
			return nil, false
		}
	}
	if code == wire.OK {
		code = token.Check(httpNow())
	}
	if code != wire.OK {
		s.httpError(w, code)
		return nil, false
	}
	return token, true
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
