package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/notifyd/notifyd/server"
)

// admin is the HTTP side for operators: /healthz, /readyz, /metrics, /streams and, if asked for, /debug/pprof. It has a listener
// of its own, so that no client reaches it through its own port.
type admin struct {
	metrics  *prometheus.Registry
	failed   chan error // the listener broke
	draining atomic.Bool
	listener net.Listener // nil: off
	server   http.Server
	console  http.Handler // nil: off
	calls    http.Handler // what its page asks of the protocol
}

// listenAdmin takes the port, if address names one, and does not serve yet.
func listenAdmin(address string) (*admin, error) {
	a := &admin{metrics: prometheus.NewRegistry(), failed: make(chan error, 1)}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if address == "" {
		return a, nil
	}
	var err error
	a.listener, err = net.Listen("tcp", address)
	return a, err
}

// healthTimeout is how long loops may take to give a sign of life.
const healthTimeout = 5 * time.Second

// serve answers from now on. health is called for each /healthz, ready for each /readyz.
func (a *admin) serve(health func(context.Context) error, ready func() readiness, streams http.HandlerFunc, withPprof bool) {
	if a.listener == nil {
		return
	}
	a.server.Handler = server.FatalPanics(a.handler(health, ready, streams, withPprof))
	a.server.ReadHeaderTimeout = 10 * time.Second
	a.server.IdleTimeout = time.Minute
	go func() {
		if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- err
		}
	}()
}

func (a *admin) handler(health func(context.Context) error, ready func() readiness, streams http.HandlerFunc, withPprof bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		answer(w, health(ctx))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		state := ready()
		if state.not == nil && state.degraded != nil {
			_, _ = fmt.Fprintf(w, "ok, but %v\n", state.degraded)
			return
		}
		answer(w, state.not)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{Registry: a.metrics}))
	mux.HandleFunc("GET /streams", streams)
	if a.console != nil {
		mux.Handle("/console", a.console)
		mux.Handle("/console/", a.console)
		mux.Handle("/v1/", a.calls)
	}
	if withPprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// readiness is what /readyz says.
type readiness struct {
	not      error // why no new client should come here; nil if it should
	degraded error // what is wrong all the same
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// addr is where it listens; empty when it is off.
func (a *admin) addr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

// drain makes /readyz say no, so that load balancers send no more clients.
func (a *admin) drain() { a.draining.Store(true) }

func (a *admin) close(ctx context.Context) {
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
	if a.listener != nil {
		_ = a.listener.Close() // when it was never served
	}
}
