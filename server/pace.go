package server

import (
	"context"
	"net/http"
	"net/netip"
	"runtime"
	"time"
)

// An HTTP request costs its sender little, the node tens of microseconds, and each
// connection has a goroutine that runs beside the loops. Requests that did nothing for
// a good token (a path that is not there, a token that is refused, a ticket too many)
// could come without end. So the node answers an address fruitlessAtOnce of them at
// once and so many a second. It holds back the answers to the others, and closes their
// connections, or clients that do not read answers would keep them.
const fruitlessAtOnce = 100

// pace keeps HTTP requests from taking the processors from the loops.
func (s *Server) pace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w, server: s, request: r}
		next.ServeHTTP(a, r)
		wait(r.Context(), a.heldBack)
		// A goroutine with many requests in its buffer would go on for 10 ms, and so would
		// each of its kind, before a loop had its turn.
		runtime.Gosched()
	})
}

// wait lets a time pass, unless the client goes or the server ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// answer finds out, when it begins, for how long it is held back.
type answer struct {
	http.ResponseWriter
	server   *Server
	request  *http.Request
	begun    bool
	heldBack time.Duration
}

func (a *answer) WriteHeader(status int) {
	if s, r := a.server, a.request; !a.begun && !isFruitful(r, status) {
		a.heldBack = s.holdBackFruitless(httpNow(), s.httpClientAddr(r))
		if a.heldBack > 0 {
			a.Header().Set("Connection", "close")
		}
	}
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// holdBackFruitless counts a request from addr that did nothing, and returns for how long
// its answer is held back.
func (s *Server) holdBackFruitless(now int64, addr netip.Addr) time.Duration {
	return s.fruitless.reserve(now, s.opts.Loop.MessageTimeout/2, addressKey(addr).String())
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// isFruitful says whether a request did what it is for, or could have but for the
// server. Upgrades are counted by the loops.
func isFruitful(r *http.Request, status int) bool {
	return asksForUpgrade(r) || status >= http.StatusInternalServerError ||
		r.Method == http.MethodPost && status < http.StatusBadRequest
}
