package bus

import (
	"testing"
	"time"

	"go.uber.org/zap"
)

// SyncInterval reaches the server that stores; 0 is what NATS does of itself.
func TestSyncInterval(t *testing.T) {
	for _, c := range []struct {
		set, interval time.Duration
		always        bool
	}{{0, 2 * time.Minute, false}, {5 * time.Second, 5 * time.Second, false}, {-1, 2 * time.Minute, true}} {
		o := Options{DataDir: t.TempDir(), Embedded: Embedded{SyncInterval: c.set}}
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		o.setDefaults()
		e, err := startEmbedded(t.Context(), &o, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		js := e.server.JetStreamConfig()
		if js.SyncAlways != c.always || !c.always && js.SyncInterval != c.interval {
			t.Errorf("%v: every %v, always: %v", c.set, js.SyncInterval, js.SyncAlways)
		}
		if err := e.stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
