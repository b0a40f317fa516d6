package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the HTTP side for operators: /healthz, /readyz, /metrics and, if asked for, /debug/pprof. It has a listener
// of its own, so that nobody reaches it through the port of the clients.
type admin struct {
	metrics  *prometheus.Registry
	failed   chan error // the listener broke
	draining atomic.Bool
	listener net.Listener // nil: off
	server   http.Server
}

// newAdmin takes the port but does not serve yet. ready is called for each /readyz, once start was.
func newAdmin(c adminConfig, ready func() error) (*admin, error) {
	a := &admin{metrics: prometheus.NewRegistry(), failed: make(chan error, 1)}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if c.Listen == "" {
		return a, nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := ready()
		if a.draining.Load() {
			err = errors.New("draining")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{Registry: a.metrics}))
	if c.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	a.server.Handler = mux
	a.server.ReadHeaderTimeout = 10 * time.Second
	a.server.IdleTimeout = time.Minute
	var err error
	a.listener, err = net.Listen("tcp", c.Listen)
	return a, err
}

func (a *admin) start() {
	if a.listener == nil {
		return
	}
	go func() {
		if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- err
		}
	}()
}

// addr is where it listens; empty when it is off.
func (a *admin) addr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

// drain makes /readyz say no, so that load balancers send nobody any more.
func (a *admin) drain() { a.draining.Store(true) }

func (a *admin) stop(ctx context.Context) {
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
	if a.listener != nil {
		_ = a.listener.Close() // when it was never served
	}
}
