package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/store"
)

// A bucket whose content is gone, since somebody has deleted or purged it, is told once, and revocations are loaded
// anew. A key that is removed, and an outage, are no loss.
func TestLosses(t *testing.T) {
	t.Parallel()
	c := testkit.StartJetStream(t)
	log, seen := testkit.Log()
	b := open(t, bus.Options{URL: c.URL()}, store.Options{}, log)
	testkit.Eventually(t, "connected", b.bus.Connected)
	r := watch(b)
	js := admin(t, c.URL())
	stream := func(bucket string) jetstream.Stream {
		t.Helper()
		s, err := js.Stream(t.Context(), "KV_notify_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	probed := func(bucket string) bool {
		s, err := js.Stream(t.Context(), "KV_notify_"+bucket)
		if err != nil {
			return false
		}
		info, err := s.Info(t.Context(), jetstream.WithSubjectFilter("$KV.*.probe.>"))
		return err == nil && len(info.State.Subjects) == 1
	}
	buckets := []string{"tickets", "once", "revocations"}
	allProbed := func() bool {
		for _, bucket := range buckets {
			if !probed(bucket) {
				return false
			}
		}
		return true
	}
	testkit.Eventually(t, "all buckets are probed", allProbed)
	known := map[string]string{}
	revoke(t, b, known, "jti.a", "v")
	r.waitFor(t, known)
	kv, err := js.KeyValue(t.Context(), "notify_revocations")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "jti.a"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the removal is told", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Sprint(r.removed) == "[jti.a]"
	})

	want := map[string]uint64{"tickets": 0, "once": 0, "revocations": 0}
	lost := func() bool { return maps.Equal(b.Losses(), want) }
	for round, remove := range []map[string]bool{ // whether the whole bucket
		{"tickets": true, "once": false, "revocations": true},
		{"tickets": false, "once": true, "revocations": false},
	} {
		if !lost() {
			t.Fatalf("round %d: %v before anything is lost", round, b.Losses())
		}
		loads := r.loaded()
		for bucket, whole := range remove {
			if whole {
				err = js.DeleteStream(t.Context(), "KV_notify_"+bucket)
			} else {
				err = stream(bucket).Purge(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			want[bucket]++
		}
		testkit.Eventually(t, fmt.Sprintf("losses %v", want), lost)
		testkit.Eventually(t, "revocations are loaded anew", func() bool { return r.loaded() > loads })
		testkit.Eventually(t, "all buckets are probed again", allProbed)
	}
	if n := seen.FilterMessageSnippet("has lost what was in it").FilterLevelExact(zap.ErrorLevel).Len(); n != 4 {
		t.Errorf("%d errors are logged, want one for each loss of used tokens and revocations", n)
	}

	// NATS goes, and comes back with what it had in files.
	c.Kill(t)
	testkit.Eventually(t, "disconnected", func() bool { return !b.bus.Connected() })
	c.Start(t)
	at := time.Now()
	testkit.Eventually(t, "fresh", func() bool { return b.LastFresh().After(at) })
	if n := b.Losses(); n["once"] != want["once"] || n["revocations"] != want["revocations"] {
		t.Errorf("an outage counts as a loss: %v", n)
	}
}

// While NATS takes no revocation, because its limits do not permit it, the store says so, also when nobody revokes.
func TestWritable(t *testing.T) {
	t.Parallel()
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	watch(b)
	js := admin(t, c.URL())
	limit := func(bytes int64) {
		t.Helper()
		testkit.Eventually(t, "the bucket is limited", func() bool {
			s, err := js.Stream(t.Context(), "KV_notify_revocations")
			if err != nil {
				return false
			}
			config := s.CachedInfo().Config
			config.MaxBytes = bytes
			_, err = js.UpdateStream(t.Context(), config)
			return err == nil
		})
	}
	limit(1)
	testkit.Eventually(t, "the store says that nothing can be stored", func() bool { return b.Writable() != nil })
	if err := b.PutRevocation(t.Context(), "k", nil, time.Now().Add(time.Hour)); err == nil {
		t.Fatal("a revocation was stored")
	}
	limit(-1)
	testkit.Eventually(t, "it can be stored", func() bool { return b.Writable() == nil })
}

// Without JetStream nothing can be stored; that NATS is away is told otherwise.
func TestWritableWithoutJetStream(t *testing.T) {
	t.Parallel()
	b := connected(t, bus.Options{URL: testkit.ServeNATS(t, server.Options{})})
	watch(b)
	testkit.Eventually(t, "the store says what is missing", func() bool {
		err := b.Writable()
		return err != nil && strings.Contains(err.Error(), "JetStream is needed")
	})

	away := testkit.NewNATS(t)
	b = open(t, bus.Options{URL: away.URL()}, store.Options{}, zap.NewNop())
	watch(b)
	err := b.PutRevocation(context.Background(), "k", nil, time.Now())
	if !errors.Is(err, store.ErrUnavailable) || b.Writable() != nil {
		t.Errorf("%v, and then %v", err, b.Writable())
	}
}
