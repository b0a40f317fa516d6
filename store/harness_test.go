package store_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// node is a store and the bus whose connection it uses.
type node struct {
	*store.Store
	bus *bus.Bus
}

// open opens a bus whose events do not matter, and a store on it.
func open(t testing.TB, o bus.Options, keep store.Options, log *zap.Logger) *node {
	t.Helper()
	b, err := bus.Open(t.Context(), o, bustest.NewRecorder(), log)
	if err != nil {
		t.Fatal(err)
	}
	keep.Prefix = o.Prefix
	s, err := store.New(b.Conn(), keep, log)
	if err != nil {
		t.Fatal(err)
	}
	b.Watch(s)
	n := &node{s, b}
	t.Cleanup(func() { n.close(t) })
	return n
}

// connected opens a node and waits until it is connected.
func connected(t testing.TB, o bus.Options) *node {
	t.Helper()
	n := open(t, o, store.Options{}, zap.NewNop())
	testkit.Eventually(t, "connected", n.bus.Connected)
	return n
}

// close ends the store and the bus; twice does no harm.
func (n *node) close(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	n.Close()
	if err := n.bus.Close(ctx); err != nil {
		t.Error(err)
	}
}
