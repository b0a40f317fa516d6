package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/store"
	"github.com/notifyd/notifyd/wire"
)

func putTicket(t testing.TB, b *node, key, value string, ttl time.Duration) {
	t.Helper()
	if err := b.PutTicket(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatal(err)
	}
}

func takeTicket(t testing.TB, b *node, key string) (string, bool) {
	t.Helper()
	v, ok, err := b.TakeTicket(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(v), ok
}

func useOnce(t testing.TB, b *node, key string, until time.Time) bool {
	t.Helper()
	first, err := b.UseOnce(t.Context(), key, until)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// race lets n callers begin together and counts those that won.
func race(t *testing.T, n int, take func(i int) (bool, error)) int {
	t.Helper()
	var wg sync.WaitGroup
	var won atomic.Int64
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			ok, err := take(i)
			if err != nil {
				t.Error(err)
			}
			if ok {
				won.Add(1)
			}
		})
	}
	close(begin)
	wg.Wait()
	return int(won.Load())
}

// Two nodes, a hundred racers, one winner: several times, since a race that is lost by luck proves little.
func TestOneWins(t *testing.T) {
	c := testkit.StartJetStream(t)
	nodes := []*node{connected(t, bus.Options{URL: c.URL()}), connected(t, bus.Options{URL: c.URL()})}
	for round := range 10 {
		key := fmt.Sprintf("k%d", round)
		if round > 0 { // in the first round the racers also make the bucket
			putTicket(t, nodes[0], key, "v", time.Minute)
			won := race(t, 100, func(i int) (bool, error) {
				v, ok, err := nodes[i%2].TakeTicket(t.Context(), key)
				if ok && string(v) != "v" {
					t.Errorf("took %q", v)
				}
				return ok, err
			})
			if won != 1 {
				t.Errorf("%d took the ticket", won)
			}
		}
		won := race(t, 100, func(i int) (bool, error) {
			return nodes[i%2].UseOnce(t.Context(), key, time.Now().Add(time.Hour))
		})
		if won != 1 {
			t.Errorf("%d were first", won)
		}
	}
}

func TestTicket(t *testing.T) {
	for name, o := range map[string]bus.Options{
		"embedded":        {},
		"small messages":  {MaxPayload: 1},
		"uncommon prefix": {Prefix: "my_app.x/y"},
		"external":        {URL: testkit.StartJetStream(t).URL()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // expiry takes its time
			b := connected(t, o)
			if _, ok := takeTicket(t, b, "unknown"); ok {
				t.Error("took an unknown ticket")
			}
			putTicket(t, b, "a", "value", time.Minute)
			putTicket(t, b, "b", "", time.Minute)
			if err := b.PutTicket(t.Context(), "b", nil, time.Minute); err == nil {
				t.Error("a second ticket under the same key")
			}
			if v, ok := takeTicket(t, b, "a"); !ok || v != "value" {
				t.Errorf("%q %v", v, ok)
			}
			if _, ok := takeTicket(t, b, "a"); ok {
				t.Error("took it twice")
			}
			if v, ok := takeTicket(t, b, "b"); !ok || v != "" {
				t.Errorf("%q %v", v, ok)
			}
			putTicket(t, b, "late", "x", time.Nanosecond)
			testkit.Eventually(t, "expired", func() bool { // a look that does not take it
				err := b.PutTicket(t.Context(), "late", []byte("new"), time.Minute)
				return err == nil
			})
			if v, ok := takeTicket(t, b, "late"); !ok || v != "new" {
				t.Errorf("%q %v", v, ok)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	b := connected(t, bus.Options{})
	for _, key := range []string{
		"", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x 0\r\n", "a*", "*", ">", "ä", "a\x00", strings.Repeat("a", store.MaxKeyBytes+1),
	} {
		err1 := b.PutTicket(t.Context(), key, nil, time.Minute)
		_, _, err2 := b.TakeTicket(t.Context(), key)
		_, err3 := b.UseOnce(t.Context(), key, time.Now())
		err4 := b.PutRevocation(t.Context(), key, nil, time.Now())
		for _, err := range []error{err1, err2, err3, err4} {
			if !errors.Is(err, jetstream.ErrInvalidKey) {
				t.Errorf("%.20q: %v", key, err)
			}
		}
	}
	long := strings.Repeat("a", store.MaxKeyBytes-1) + "/"
	for _, key := range []string{"a", "jti.aGVsbG8_-=", long} {
		if !useOnce(t, b, key, time.Now()) || useOnce(t, b, key, time.Now()) {
			t.Errorf("%.20q", key)
		}
	}
	if st := b.bus.Stats(); st.Reconnects != 0 || st.Errors != 0 {
		t.Errorf("%+v", st)
	}
}

// What lives too long for the server's arithmetic must not be forgotten at once, nor what has expired
// for us but not for a node whose clock is behind.
func TestOnceLives(t *testing.T) {
	dir := t.TempDir()
	b := connected(t, bus.Options{DataDir: dir})
	untils := map[string]time.Time{
		"past": time.Now().Add(-time.Second), "now": time.Now(), "far": time.Unix(1<<40, 0), "never": time.Unix(1<<62, 0),
	}
	for key, until := range untils {
		if !useOnce(t, b, key, until) {
			t.Errorf("%s: not the first", key)
		}
	}
	if !useOnce(t, b, "gone", time.Now().Add(-time.Hour)) {
		t.Error("gone: not the first")
	}
	testkit.Eventually(t, "what expired an hour ago is forgotten", func() bool {
		first, err := b.UseOnce(t.Context(), "gone", time.Now().Add(time.Hour))
		return err == nil && first
	})
	b.close(t)
	b = connected(t, bus.Options{DataDir: dir}) // counts anew from the files
	for key, until := range untils {
		if useOnce(t, b, key, until) {
			t.Errorf("%s: forgotten", key)
		}
	}
}

// SIGKILL: the server has no moment to write anything.
func TestServerKilled(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	for i := range 20 {
		key := fmt.Sprintf("k%d", i)
		putTicket(t, b, key, "v", time.Hour)
		if _, ok := takeTicket(t, b, key); !ok || !useOnce(t, b, key, time.Now().Add(time.Hour)) {
			t.Fatal("not the first")
		}
	}
	c.Kill(t)
	testkit.Eventually(t, "disconnected", func() bool { return !b.bus.Connected() })
	_, err1 := b.UseOnce(t.Context(), "new", time.Now().Add(time.Hour))
	_, _, err2 := b.TakeTicket(t.Context(), "k1")
	err3 := b.PutTicket(t.Context(), "new", nil, time.Hour)
	err4 := b.PutRevocation(t.Context(), "new", nil, time.Now())
	for _, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("while NATS is down: %v", err)
		}
	}
	c.Start(t)
	testkit.Eventually(t, "reconnected", b.bus.Connected)
	for i := range 20 {
		key := fmt.Sprintf("k%d", i)
		if _, ok := takeTicket(t, b, key); ok {
			t.Error("a used ticket came back")
		}
		if useOnce(t, b, key, time.Now().Add(time.Hour)) {
			t.Error("a used key was forgotten")
		}
	}
	if !useOnce(t, b, "new", time.Now().Add(time.Hour)) {
		t.Error("what failed during the outage is remembered")
	}
}

// A call ends when the server dies or hangs under it, or its context does.
func TestCallInterrupted(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL()})
	useOnce(t, b, "warm", time.Now())
	c.Freeze(t)
	if _, err := b.UseOnce(t.Context(), "a", time.Now()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("hung server: %v", err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, _, err := b.TakeTicket(ctx, "a"); !errors.Is(err, why) {
		t.Errorf("context: %v", err)
	}
	answers := make(chan error)
	for range 10 {
		go func() {
			_, err := b.UseOnce(t.Context(), "a", time.Now())
			answers <- err
		}()
	}
	c.Kill(t)
	for range 10 {
		if err := <-answers; !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("killed server: %v", err)
		}
	}
}

// Tickets that nobody takes do not fill the memory.
func TestTicketsAreBounded(t *testing.T) {
	b := connected(t, bus.Options{})
	value := make([]byte, 60_000)
	n := 0
	for err := error(nil); err == nil && n < 2000; n++ {
		err = b.PutTicket(t.Context(), fmt.Sprint(n), value, time.Hour)
	}
	if n < 500 || n > 1200 {
		t.Errorf("%d tickets of %d bytes", n, len(value))
	}
	if _, ok := takeTicket(t, b, "0"); !ok {
		t.Error("an old ticket went")
	}
	putTicket(t, b, "room-for-one", "", time.Hour)
}

// A bucket that somebody removes is made again.
func TestBucketRemoved(t *testing.T) {
	c := testkit.StartJetStream(t)
	b := connected(t, bus.Options{URL: c.URL(), Prefix: "a.b"})
	useOnce(t, b, "k", time.Now())
	js := admin(t, c.URL())
	if err := js.DeleteStream(t.Context(), "KV_a_2eb_once"); err != nil {
		t.Fatal(err)
	}
	if !useOnce(t, b, "k", time.Now()) {
		t.Error("not the first")
	}
}

// A stream that has a bucket's name and would not do what the bucket needs is refused, for each thing that it lacks. Direct
// reads, for one, are answered by replicas that may lag: a ticket could be taken twice.
func TestBucketsOfOthersAreRefused(t *testing.T) {
	url := testkit.ServeNATS(t, server.Options{JetStream: true, StoreDir: t.TempDir()})
	js := admin(t, url)
	for i, c := range []struct {
		name   string
		change func(*jetstream.StreamConfig)
		good   bool
	}{
		{"as it should be", func(*jetstream.StreamConfig) {}, true},
		{"kept in memory", func(s *jetstream.StreamConfig) { s.Storage = jetstream.MemoryStorage }, false},
		{"two values a key", func(s *jetstream.StreamConfig) { s.MaxMsgsPerSubject = 2 }, false},
		{"an age for all values", func(s *jetstream.StreamConfig) { s.MaxAge = time.Hour }, false},
		{"no time to live", func(s *jetstream.StreamConfig) { s.AllowMsgTTL = false }, false},
		{"no rollup", func(s *jetstream.StreamConfig) { s.AllowRollup = false }, false},
		{"direct reads", func(s *jetstream.StreamConfig) { s.AllowDirect = true }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			prefix := fmt.Sprint("p", i)
			config := jetstream.StreamConfig{
				Name: "KV_" + prefix + "_once", Subjects: []string{"$KV." + prefix + "_once.>"}, Storage: jetstream.FileStorage,
				MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowRollup: true, DenyDelete: true, AllowMsgTTL: true,
			}
			c.change(&config)
			if _, err := js.CreateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			b := connected(t, bus.Options{URL: url, Prefix: prefix})
			_, err := b.UseOnce(t.Context(), "k", time.Now())
			if errors.As(err, new(*store.SetupError)) == c.good || c.good && err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

func admin(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// An error says what a bucket needs and cannot have, and events flow all the same.
func TestNoJetStream(t *testing.T) {
	dir := t.TempDir()
	all := []string{">"}
	deny := func(subjects ...string) server.Options {
		return server.Options{JetStream: true, StoreDir: dir, Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: all, Deny: subjects},
			Subscribe: &server.SubjectPermission{Allow: all},
		}}}}
	}
	noInbox := deny()
	noInbox.Users[0].Permissions.Subscribe.Deny = []string{"_INBOX.>"}
	foreign := testkit.ServeNATS(t, server.Options{JetStream: true, StoreDir: t.TempDir()})
	if _, err := admin(t, foreign).CreateStream(t.Context(), jetstream.StreamConfig{Name: "KV_notify_once", Subjects: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		o    bus.Options
		keep store.Options
		text string
	}{
		"no JetStream":     {bus.Options{URL: testkit.ServeNATS(t, server.Options{})}, store.Options{}, "enable it"},
		"no requests":      {bus.Options{URL: testkit.ServeNATS(t, deny("$JS.>"))}, store.Options{}, "$KV.notify_once.>"},
		"no values":        {bus.Options{URL: testkit.ServeNATS(t, deny("$KV.>"))}, store.Options{}, "$KV.notify_once.>"},
		"no answers":       {bus.Options{URL: testkit.ServeNATS(t, noInbox)}, store.Options{}, "_INBOX.>"},
		"no replicas":      {bus.Options{}, store.Options{Replicas: 3}, "use 1"},
		"an old NATS":      {bus.Options{URL: testkit.NATSVersion(t, testkit.ServeNATS(t, deny()), "2.10.29")}, store.Options{}, "version 2.10.29, and 2.11 is the oldest"},
		"a foreign stream": {bus.Options{URL: foreign}, store.Options{}, "KV_notify_once"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.o.URL != "" {
				test.o.User, test.o.Password = "u", "p"
			}
			b := open(t, test.o, test.keep, zap.NewNop())
			testkit.Eventually(t, "connected", b.bus.Connected)
			for range 2 { // whether or not it is the connection's first
				_, err := b.UseOnce(t.Context(), "k", time.Now())
				var setup *store.SetupError
				if !errors.As(err, &setup) || setup.Remedy == "" || errors.Is(err, store.ErrUnavailable) ||
					!strings.Contains(err.Error(), "once: ") || !strings.Contains(err.Error(), test.text) {
					t.Errorf("got %v", err)
				}
			}
			bustest.Subscribe(t, b.bus, 1, "t")
			if c := b.bus.Publish([]byte("t"), nil); c != wire.OK {
				t.Errorf("publish: %v", c)
			}
		})
	}
}

func TestBucketsLeaveNothingBehind(t *testing.T) {
	tmp := t.TempDir()
	c := testkit.StartJetStream(t)
	t.Setenv("TMPDIR", tmp)
	before := goleak.IgnoreCurrent()
	for _, o := range []bus.Options{{}, {URL: c.URL()}} {
		b := open(t, o, store.Options{}, zap.NewNop())
		testkit.Eventually(t, "connected", b.bus.Connected)
		putTicket(t, b, "k", "v", time.Minute)
		takeTicket(t, b, "k")
		useOnce(t, b, "k", time.Now())
		b.WatchRevocations(quiet)
		testkit.Eventually(t, "synced", func() bool { return !b.LastFresh().IsZero() })
		b.close(t)
		if err := b.PutTicket(t.Context(), "k", nil, time.Minute); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("after Close: %v", err)
		}
		b.WatchRevocations(quiet)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	goleak.VerifyNone(t, before)
}

// quiet is a watch that nobody listens to.
var quiet = store.Watch{Begin: func() {}, Apply: func(string, []byte) {}, Removed: func(string) {}, Loaded: func() {}}
