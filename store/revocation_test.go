package store_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/store"
)

// revoked is what a node has heard of.
type revoked struct {
	node *node

	mu      sync.Mutex
	all     map[string]string
	removed []string
	loads   int
}

func watch(b *node) *revoked {
	r := &revoked{node: b, all: map[string]string{}}
	b.WatchRevocations(store.Watch{
		Begin: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.removed = nil
		},
		Apply: func(key string, value []byte) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.all[key] = string(value)
		},
		Removed: func(key string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.removed = append(r.removed, key)
		},
		Loaded: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.loads++
		},
	})
	return r
}

func (r *revoked) has(want map[string]string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Equal(r.all, want)
}

func (r *revoked) loaded() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loads
}

// waitFor waits until the node knows exactly want, and knows that it does.
func (r *revoked) waitFor(t *testing.T, want map[string]string) {
	t.Helper()
	now := time.Now()
	testkit.Eventually(t, "fresh", func() bool { return r.node.LastFresh().After(now) })
	if !r.has(want) {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.Fatalf("fresh without being complete: %d of %d, %v", len(r.all), len(want), r.all)
	}
}

func revoke(t *testing.T, b *node, known map[string]string, key, value string) {
	t.Helper()
	if err := b.PutRevocation(t.Context(), key, []byte(value), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	known[key] = value
}

func TestRevocations(t *testing.T) {
	c := testkit.StartJetStream(t)
	b1 := connected(t, bus.Options{URL: c.URL()})
	known := map[string]string{}
	r1 := watch(b1)
	r1.waitFor(t, known) // none is complete too
	for i := range 500 {
		revoke(t, b1, known, fmt.Sprintf("jti.%d", i%400), fmt.Sprint(i))
	}
	r1.waitFor(t, known)

	b2 := connected(t, bus.Options{URL: c.URL()})
	if !b2.LastFresh().IsZero() {
		t.Error("fresh before it watches")
	}
	r2 := watch(b2)
	testkit.Eventually(t, "loaded", func() bool { return r2.loaded() == 1 })
	if !r2.has(known) {
		t.Error("loaded, and not complete")
	}
	revoke(t, b1, known, "new", "from 1")
	revoke(t, b2, known, "newer", "")
	testkit.Eventually(t, "both know", func() bool { return r1.has(known) && r2.has(known) })

	// Removed by hand: the last revision is a marker then, and nothing comes of it.
	js := admin(t, c.URL())
	kv, err := js.KeyValue(t.Context(), "notify_revocations")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	r1.waitFor(t, known)
	if r1.loaded() != 1 || r2.loaded() != 1 {
		t.Errorf("loaded %d and %d times", r1.loaded(), r2.loaded())
	}

	// Without its bucket, and without its consumer, the watch begins again.
	for name, remove := range map[string]func() error{
		"bucket": func() error { return js.DeleteStream(t.Context(), "KV_notify_revocations") },
		"consumers": func() error {
			s, err := js.Stream(t.Context(), "KV_notify_revocations")
			if err != nil {
				return err
			}
			for name := range s.ConsumerNames(t.Context()).Name() {
				if err := s.DeleteConsumer(t.Context(), name); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		before := r2.loaded()
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		revoke(t, b1, known, "without-"+name, "x")
		testkit.Eventually(t, "loaded anew", func() bool { return r2.loaded() > before })
		r2.waitFor(t, known)
	}
}

// Whatever is revoked while a node is cut off reaches it afterwards, and it knows when.
func TestRevocationsAfterAnOutage(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	known := map[string]string{}
	revoke(t, b, known, "before", "1")
	r := watch(b)
	r.waitFor(t, known)
	c.Kill(t)
	testkit.Eventually(t, "disconnected", func() bool { return !b.bus.Connected() })
	stale := b.LastFresh()
	c.Start(t)
	other := open(t, bus.Options{URL: c.URL()}, store.Options{}, zap.NewNop())
	testkit.Eventually(t, "reconnected", func() bool { return b.bus.Connected() && other.bus.Connected() })
	revoke(t, other, known, "after", "2")
	r.waitFor(t, known)
	if r.loaded() < 2 || !b.LastFresh().After(stale) {
		t.Errorf("loaded %d times", r.loaded())
	}
	// A node that starts before its server.
	c.Kill(t)
	early := open(t, bus.Options{URL: c.URL()}, store.Options{}, zap.NewNop())
	re := watch(early)
	if !early.LastFresh().IsZero() {
		t.Error("fresh without NATS")
	}
	c.Start(t)
	testkit.Eventually(t, "loaded", func() bool { return re.loaded() > 0 })
	re.waitFor(t, known)
}

// A server that hangs vouches for nothing.
func TestRevocationsFromAHungServer(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	known := map[string]string{}
	r := watch(b)
	r.waitFor(t, known)
	c.Freeze(t)
	stopped := time.Now()
	_, err := b.UseOnce(t.Context(), "k", time.Now()) // 3 s, and so more than an interval
	if err == nil || b.LastFresh().After(stopped) {
		t.Errorf("%v; fresh %v after the server stopped", err, b.LastFresh().Sub(stopped))
	}
	c.Thaw(t)
	revoke(t, b, known, "k", "v")
	r.waitFor(t, known)
}

func TestRevocationsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	b := connected(t, bus.Options{DataDir: dir})
	known := map[string]string{}
	revoke(t, b, known, "jti.1", "v")
	revoke(t, b, known, "jti.1", "w")
	b.close(t)
	b = connected(t, bus.Options{DataDir: dir})
	r := watch(b)
	r.waitFor(t, known)
}

// A watch that NATS does not permit says so, once, and gives up neither itself nor the processor.
func TestRevocationsNotPermitted(t *testing.T) {
	url := testkit.ServeNATS(t, server.Options{JetStream: true, StoreDir: t.TempDir(), Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.>"}},
	}}}})
	log, seen := testkit.Log()
	b := open(t, bus.Options{URL: url, User: "u", Password: "p"}, store.Options{}, log)
	known := map[string]string{}
	revoke(t, b, known, "k", "v")
	r := watch(b)
	testkit.Eventually(t, "three attempts", func() bool { return b.bus.Stats().Errors >= 3 })
	lines := seen.FilterMessageSnippet("loading them anew").All()
	if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0].ContextMap()), "let the NATS account publish") {
		t.Errorf("logged %v", lines)
	}
	if r.loaded() != 0 || !b.LastFresh().IsZero() {
		t.Error("it loaded")
	}
	for range 100 { // each a chance to show that denials do not disturb other calls
		revoke(t, b, known, "k", "v")
	}
	if n := b.bus.Stats().Errors; n > 4 {
		t.Errorf("%d attempts", n)
	}
}

// The last revision that there was has expired, so that nobody can have seen it.
func TestRevocationExpires(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	known := map[string]string{}
	revoke(t, b, known, "new", "v")
	if err := b.PutRevocation(t.Context(), "old", nil, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	kv, err := admin(t, c.URL()).KeyValue(t.Context(), "notify_revocations")
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "expired", func() bool {
		_, err := kv.Get(t.Context(), "old")
		return errors.Is(err, jetstream.ErrKeyNotFound)
	})
	watch(b).waitFor(t, known)
}

// Thousands come while the node loads, faster than it asks what is the last.
func TestRevocationsInAFlood(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	known := map[string]string{}
	revoke(t, b, known, "first", "")
	js := admin(t, c.URL())
	for i := range 20_000 {
		key, value := fmt.Sprintf("k%d", i), fmt.Sprint(i)
		if _, err := js.PublishAsync("$KV.notify_revocations."+key, []byte(value), jetstream.WithStallWait(20*time.Second)); err != nil {
			t.Fatal(err)
		}
		known[key] = value
		if i == 10_000 {
			r := watch(b)
			defer func() {
				if r.loaded() != 1 {
					t.Errorf("loaded %d times", r.loaded())
				}
			}()
			defer r.waitFor(t, known)
		}
	}
	<-js.PublishAsyncComplete()
}
