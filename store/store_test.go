package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/store"
)

// A store that is closed refuses, whatever becomes of the connection, and so does one that was not told of it.
func TestClosedAndNotConnected(t *testing.T) {
	n := connected(t, bus.Options{})
	untold, err := store.New(n.bus.Conn(), store.Options{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := untold.PutTicket(t.Context(), "k", nil, time.Minute); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("before Connected: %v", err)
	}
	n.bus.Watch(untold) // which tells it at once
	if err := untold.PutTicket(t.Context(), "k", nil, time.Minute); err != nil {
		t.Errorf("after Watch: %v", err)
	}
	untold.Close()
	untold.Connected()
	if err := untold.PutTicket(t.Context(), "l", nil, time.Minute); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
	putTicket(t, n, "l", "", time.Minute) // the other store of this connection goes on
}

func TestReplicasAreBounded(t *testing.T) {
	n := connected(t, bus.Options{})
	for _, replicas := range []int{-1, 6} {
		if _, err := store.New(n.bus.Conn(), store.Options{Replicas: replicas}, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "use 1 to 5") {
			t.Errorf("%d: %v", replicas, err)
		}
	}
}
