package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/store"
)

// patience is when a test gives up. Nothing is expected to take long.
const patience = 30 * time.Second

// node is a whole server in this process: real loops, real tokens, real NATS
// unless the test has brought a bus of its own.
type node struct {
	*server.Server
	auth *authz.Verifier
	bus  *bus.Bus // nil with setup.fake
	kept *store.Store
	addr string
	key  authz.Key
	stop func() // Shutdown and close the bus, once
}

// keeper is the store of a node.
type keeper struct {
	*store.Store
	n *node
}

func (k keeper) Revoke(ctx context.Context, r server.Revocation) error { return k.n.revoke(ctx, r) }

// revoke keeps a revocation and puts it in force on this node.
func (n *node) revoke(ctx context.Context, r server.Revocation) error {
	full := authz.Revocation{JTI: r.ID, Subject: r.Subject, Issuer: r.Issuer}
	if !r.Before.IsZero() {
		full.Before = r.Before.Unix()
	}
	full, err := n.auth.Complete(full)
	if err != nil {
		return errors.Join(server.ErrBadRevocation, err)
	}
	if err := n.kept.PutRevocation(ctx, full.Key(), full.Encode(), time.Unix(full.Expires, 0)); err != nil {
		return err
	}
	if err := n.auth.Revoke(full); err != nil {
		return err
	}
	n.Recheck()
	return nil
}

// natsStreams are the streams of a bus.
type natsStreams struct{ *bus.Bus }

func (x natsStreams) StreamOf(topic []byte) server.Stream {
	if s := x.Bus.StreamOf(topic); s != nil {
		return s
	}
	return nil
}

func (x natsStreams) StreamAround(pattern []byte) (server.Stream, string) {
	s, reason := x.Bus.StreamAround(pattern)
	if s == nil {
		return nil, reason
	}
	return s, ""
}

type setup struct {
	server server.Options
	bus    bus.Options
	alg    string        // of the key that signs; default EdDSA
	key    authz.Key     // that signs; default: a new one
	more   []authz.Key   // trusted as well
	auth   authz.Options // but for its keys
	fake   *memBus       // instead of NATS
	store  server.Store  // instead of NATS
	gate   func(nth int) // called when the nth token has been verified, from 1 on
	brief  bool          // the gate may be passed on a loop
	before func(*node)   // called before the node starts
	log    *zap.Logger
}

func start(t testing.TB, with setup) *node {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the loops under the server run on Linux only")
	}
	if with.alg == "" {
		with.alg = "EdDSA"
	}
	n := &node{key: with.key}
	if n.key.Algorithm() == "" {
		n.key = newKey(t, with.alg)
	}
	var err error
	with.auth.Trusted = append([]authz.Key{n.key}, with.more...)
	if with.gate != nil {
		var verified atomic.Int64
		with.auth.OnVerify = func(time.Duration) { with.gate(int(verified.Add(1))) }
	}
	if n.auth, err = authz.New(with.auth); err != nil {
		t.Fatal(err)
	}
	log := with.log
	if log == nil {
		log = zap.NewNop()
		if os.Getenv("NOTIFYD_TEST_LOG") != "" {
			log = zaptest.NewLogger(t)
		}
	}
	with.server.Node = "test"
	with.server.Shards = with.bus.Shards
	if n := len(with.bus.Streams); n > 0 {
		with.server.Shards = max(1, with.bus.Shards) + n
	}
	if with.fake != nil && len(with.fake.kept) > 0 {
		with.server.Shards = 1 + len(with.fake.kept)
	}
	if n.Server, err = server.New(with.server, n.auth, log); err != nil {
		t.Fatal(err)
	}
	if with.gate != nil && !with.brief {
		n.VerifyOffLoop() // a loop must not stand at the gate
	}
	if with.before != nil {
		with.before(n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var b server.Bus = with.fake
	var streams server.Streams
	if with.fake == nil {
		if with.bus.DataDir == "" {
			with.bus.DataDir = filepath.Join(t.TempDir(), "nats")
		}
		if with.bus.Linger == 0 {
			with.bus.Linger = -1
		}
		if n.bus, err = bus.Open(ctx, with.bus, n.Server, log); err != nil {
			t.Fatal(err)
		}
		b = n.bus
		if len(with.bus.Streams) > 0 {
			streams = natsStreams{n.bus}
		}
		if n.kept, err = store.New(n.bus.Conn(), store.Options{Prefix: with.bus.Prefix}, log); err != nil {
			t.Fatal(err)
		}
		n.bus.Watch(n.kept)
		if with.store == nil {
			with.store = keeper{n.kept, n}
		}
	} else {
		with.fake.start(n.Server)
		for i, s := range with.fake.kept {
			s.start(with.fake, n.Server, 1+i)
		}
		if len(with.fake.kept) > 0 {
			streams = with.fake.kept
		}
	}
	ln, err := loop.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	if err := n.Start(ln, b, streams, with.store); err != nil {
		t.Fatal(err)
	}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if n.bus == nil {
			for _, s := range with.fake.kept {
				s.stop()
			}
			with.fake.stop()
			return
		}
		n.kept.Close()
		if err := n.bus.Close(ctx); err != nil {
			t.Errorf("bus: %v", err)
		}
	}
	t.Cleanup(n.stop)
	return n
}

// loops runs a test on one loop and on two.
func loops(t *testing.T, f func(t *testing.T, with setup)) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", n), func(t *testing.T) {
			var with setup
			with.server.Loop.Loops = n
			f(t, with)
		})
	}
}

func newKey(t testing.TB, alg string) authz.Key {
	t.Helper()
	key, err := authz.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, key authz.Key, c authz.Claims) string {
	t.Helper()
	tok, err := authz.Sign(key, c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// token mints one that expires after ttl.
func (n *node) token(t testing.TB, ttl time.Duration, publish, subscribe []string) string {
	t.Helper()
	return sign(t, n.key, authz.Claims{Subject: "tester", Expires: time.Now().Add(ttl), Publish: publish, Subscribe: subscribe})
}

// all is a token for everything that is valid for a while. No two are equal.
func (n *node) all(t testing.TB) string {
	t.Helper()
	every := []string{">"}
	return sign(t, n.key, authz.Claims{ID: fmt.Sprint(serial.Add(1)), Expires: time.Now().Add(time.Hour), Publish: every, Subscribe: every})
}

var serial atomic.Int64 // of tokens

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

const hour = time.Hour

// jsonString is what a JSON string with this inside says.
func jsonString(inside string) (s string, err error) {
	err = json.Unmarshal([]byte(`"`+inside+`"`), &s)
	return s, err
}

// loopWithMessages are the options of loops that take messages of n bytes.
func loopWithMessages(n int) loop.Options { return loop.Options{MessageBytes: n} }
