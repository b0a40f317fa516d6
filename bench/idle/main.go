//go:build linux

// Idle measures what a subscribed connection that receives nothing costs the
// server in memory:
//
//	go run ./bench/idle [--connections 15000]
//
// It builds notifyd, starts it with embedded defaults, opens the connections
// over loopback, each subscribed to one of 100 topics, and divides the growth of
// the server's resident set (VmRSS in /proc/PID/status) by their number: right
// after the last subscribe, and again while they idle. The kernel's socket
// buffers are not part of it.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

func main() {
	n := flag.Int("connections", 15000, "how many to open; each is a descriptor here and in the server")
	flag.Parse()
	if err := run(*n); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

const topics = 100

func run(n int) error {
	dir, err := os.MkdirTemp("", "notifyd-idle-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, token, err := start(dir)
	if err != nil {
		return err
	}
	defer s.Stop()
	var conns crowd
	defer conns.drop()

	// The first connections touch code and tables that all share.
	if err := conns.open(s, token, topics); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	before, err := s.RSS()
	if err != nil {
		return err
	}
	cpu, err := s.CPU()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := conns.open(s, token, n); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := s.CPU()
	if err != nil {
		return err
	}
	fmt.Printf("%d connections, each with one subscription, opened in %v\n", n, took.Round(time.Millisecond))
	fmt.Printf("CPU per handshake and subscribe: %.0f µs\n", (after-cpu).Seconds()*1e6/float64(n))
	for _, wait := range []time.Duration{0, 5 * time.Second, 10 * time.Second} {
		time.Sleep(wait)
		now, err := s.RSS()
		if err != nil {
			return err
		}
		fmt.Printf("RSS per connection: %.0f B, %v later\n", float64(now-before)/float64(n), wait)
	}
	return nil
}

// start runs a server, and makes a token to subscribe with.
func start(dir string) (*rig.Server, string, error) {
	bin, err := rig.Build(dir)
	if err != nil {
		return nil, "", err
	}
	key, file, err := rig.NewKey(dir, "EdDSA")
	if err != nil {
		return nil, "", err
	}
	token, err := authz.Sign(key, authz.Claims{Subject: "idle", Subscribe: []string{">"}, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		return nil, "", err
	}
	s, err := rig.Start(bin, "--auth.keys", file)
	return s, token, err
}

// crowd is the connections that are open.
type crowd struct {
	mu    sync.Mutex
	conns []*rig.Conn // guarded by mu
}

// open adds n subscribed connections, 32 at a time.
func (w *crowd) open(s *rig.Server, token string, n int) error {
	return rig.Each(n, 32, func(i int) error {
		c, err := rig.Dial(s.Addr, "", ws.Dialer{})
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
		return c.Ask(wire.AppendSubscribe(nil, "1", "idle."+strconv.Itoa(i%topics), token))
	})
}

func (w *crowd) drop() {
	for _, c := range w.conns {
		c.Drop()
	}
}
