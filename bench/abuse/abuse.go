//go:build linux

package abuse

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
)

// Options say what to do.
type Options struct {
	Bin      string           // the notifyd that is attacked
	Only     []string         // names of attacks; none: all
	Duration time.Duration    // of the pair alone, and again with the attack in full swing
	Short    bool             // fewer attackers, and no look at how late events are: for tests
	Worker   func() *exec.Cmd // makes a command that calls Work
	Progress func(doing string)
}

// The goal: with an attack, p99 is at most MaxRatio times that without it, or that of the pair elsewhere, or Floor where
// that is more. On two busy processors, a server that has work waits for its turn longer than one that slept.
const (
	MaxRatio = 1.5
	Floor    = 10 * time.Millisecond
)

const (
	// beginWithin bounds the preparations of an attack.
	beginWithin = time.Minute
	// sampleEvery is how often the server's memory is read.
	sampleEvery = 50 * time.Millisecond
	// warmup is how long the pair runs before anything is measured.
	warmup = 300 * time.Millisecond
)

// Run does the attacks, each on a server of its own. One that cannot be done is a failure of its result.
func Run(ctx context.Context, o Options) (results []Result, err error) {
	for _, name := range o.Only {
		if !slices.ContainsFunc(List, func(a Abuse) bool { return a.Name == name }) {
			return nil, fmt.Errorf("%q is none of the abuses", name)
		}
	}
	for _, a := range List {
		if len(o.Only) > 0 && !slices.Contains(o.Only, a.Name) {
			continue
		}
		if o.Progress != nil {
			o.Progress(a.Name)
		}
		r, err := o.attack(ctx, a)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		if err != nil {
			r.Failures = append(r.Failures, err.Error())
		}
		results = append(results, r)
	}
	return results, nil
}

func (o Options) attack(ctx context.Context, a Abuse) (Result, error) {
	r := Result{Name: a.Name, About: a.About}
	dir, err := os.MkdirTemp("", "notifyd-abuse-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	alg := a.alg
	if alg == "" {
		alg = "EdDSA"
	}
	key, keys, err := rig.NewKey(dir, alg)
	if err != nil {
		return r, err
	}
	if a.keySet {
		set, err := serveKeys(key)
		if err != nil {
			return r, err
		}
		defer func() { _ = set.Close() }()
		keys = set.Addr
	}
	args := append([]string{"--auth.keys", keys}, a.serve...)
	attacked, err := startNode(ctx, o.Bin, args, key, a.proxied)
	if err != nil {
		return r, err
	}
	defer attacked.stop()
	server := attacked.server
	var other *node
	if !o.Short {
		if other, err = startNode(ctx, o.Bin, args, key, a.proxied); err != nil {
			return r, err
		}
		defer other.stop()
		attacked.measure(after(warmup), other)
	}
	r.Without, _ = attacked.measure(after(o.Duration), other)
	if r.RSSBefore, err = server.RSS(); err != nil {
		return r, err
	}
	r.RSSPeak = r.RSSBefore

	w, err := hire(o.Worker(), task{Name: a.Name, Addr: server.Addr, Key: key, Short: o.Short})
	if err != nil {
		return r, err
	}
	over := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(over)
		failed <- r.watch(ctx, server, w, o.Duration)
	}()
	r.With, r.Elsewhere = attacked.measure(over, other)
	r.Got, err = w.stop()
	if watchErr := <-failed; watchErr != nil {
		err = fmt.Errorf("%w; the attacker got: %s", watchErr, r.answers())
	}
	r.judge(a, !o.Short)
	return r, err
}

// node is a server with its honest clients.
type node struct {
	server *rig.Server
	pair   *pair
}

func startNode(ctx context.Context, bin string, args []string, key authz.Key, proxied bool) (*node, error) {
	server, err := rig.Start(bin, args...)
	if err != nil {
		return nil, err
	}
	p, err := newPair(ctx, server.Addr, key, proxied)
	if err != nil {
		server.Stop()
		return nil, err
	}
	return &node{server, p}, nil
}

func (n *node) stop() {
	n.pair.close()
	n.server.Stop()
}

// measure measures the pairs of both nodes until over is closed. They publish in turn. other may be nil.
func (n *node) measure(over <-chan struct{}, other *node) (here, elsewhere Measured) {
	var beside sync.WaitGroup
	if other != nil {
		beside.Go(func() {
			time.Sleep(time.Second / rate / 2)
			elsewhere = other.pair.measure(over)
		})
	}
	here = n.pair.measure(over)
	beside.Wait()
	return here, elsewhere
}

// watch reads the server's memory until the attack has been in full swing for d.
func (r *Result) watch(ctx context.Context, server *rig.Server, w *worker, d time.Duration) error {
	sample := time.NewTicker(sampleEvery)
	defer sample.Stop()
	begun, end := w.begun, time.After(beginWithin)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-begun:
			begun, end = nil, time.After(d)
		case <-end:
			if begun != nil {
				return fmt.Errorf("the attack was not in full swing within %v", beginWithin)
			}
			return nil
		case <-sample.C:
			rss, err := server.RSS()
			if err != nil {
				return fmt.Errorf("the server: %w", err)
			}
			r.RSSPeak = max(r.RSSPeak, rss)
		}
	}
}

func after(d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	time.AfterFunc(d, func() { close(over) })
	return over
}

// serveKeys serves the key at a URL, the server's Addr.
func serveKeys(key authz.Key) (*http.Server, error) {
	public, err := key.Public()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{
		Addr: "http://" + l.Addr().String() + "/jwks",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(public)
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { _ = s.Serve(l) }()
	return s, nil
}
