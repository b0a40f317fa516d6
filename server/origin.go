package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/notifyd/notifyd/wire"
)

// anyOrigin in [Options.Origins] lets every page connect.
const anyOrigin = "*"

// originAllowed says whether a browser page of this origin may connect to this host. A
// client that sends no Origin is no browser, and not bound by it.
func (s *Server) originAllowed(origin, to string) bool {
	if origin == "" || slices.Contains(s.opts.Origins, anyOrigin) {
		return true
	}
	scheme, host, ok := strings.Cut(strings.ToLower(origin), "://")
	if !ok || !isHostPort(host) {
		return false // "null", a sandboxed page or a file; or no browser's
	}
	if len(s.opts.Origins) == 0 {
		return strings.EqualFold(host, to)
	}
	for _, o := range s.opts.Origins {
		o = strings.ToLower(o)
		if s, h, ok := strings.Cut(o, "://"); ok {
			if s != scheme {
				continue
			}
			o = h
		}
		if o == host {
			return true
		}
		if suffix, ok := strings.CutPrefix(o, "*"); ok && strings.HasPrefix(suffix, ".") &&
			strings.HasSuffix(host, suffix) && len(host) > len(suffix) {
			return true
		}
	}
	return false
}

// isHostPort says whether b holds nothing but what a serialized origin may have
// behind its scheme (RFC 6454 §6.2): two readers of anything else, such as # or a
// backslash before an allowed suffix, may see two hosts.
func isHostPort(host string) bool {
	for _, b := range []byte(host) {
		switch {
		case 'a' <= b && b <= 'z', '0' <= b && b <= '9', b == '.', b == '-', b == '_', b == ':', b == '[', b == ']':
		default:
			return false
		}
	}
	return host != ""
}

// cors lets pages of allowed origins use the HTTP calls (Fetch standard, CORS
// protocol). Tokens stand in a header that pages set themselves; cookies are
// never part of it, so credentials are not allowed.
func (s *Server) cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Add("Vary", "Origin")
		if len(r.Header.Values("Origin")) > 1 || !s.originAllowed(origin, r.Host) {
			problem(w, http.StatusForbidden, wire.Forbidden, "this origin is not allowed")
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
			w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID")
			w.Header().Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
