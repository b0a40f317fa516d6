package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

func TestTwoNodesOnOneServer(t *testing.T) {
	c := testkit.StartNATS(t)
	sink1, sink2 := bustest.NewRecorder(), bustest.NewRecorder()
	b1, b2 := open(t, bus.Options{URL: c.URL()}, sink1), open(t, bus.Options{URL: c.URL()}, sink2)
	testkit.Eventually(t, "connected", func() bool { return b1.Connected() && b2.Connected() })
	bustest.Subscribe(t, b2, 7, "a.*")
	bustest.Publish(t, b1, "a.b", "from 1")
	sink2.WaitFor(t, bustest.Event{Handle: 7, Topic: "a.b", Data: "from 1"})
	if got := sink1.Events(); len(got) != 0 {
		t.Errorf("a node without interest got %v", got)
	}
}

func TestServerKilledAndRestarted(t *testing.T) {
	c := testkit.StartNATS(t)
	sink := bustest.NewRecorder()
	var mu sync.Mutex
	var states []bool
	b := open(t, bus.Options{URL: c.URL(), OnState: func(up bool) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, up)
	}}, sink)
	testkit.Eventually(t, "connected", b.Connected)
	for i := range uint32(10) {
		bustest.Subscribe(t, b, i, fmt.Sprintf("t.%d", i))
	}
	bustest.Publish(t, b, "t.3", "before")
	sink.WaitFor(t, bustest.Event{Handle: 3, Topic: "t.3", Data: "before"})

	c.Kill(t)
	testkit.Eventually(t, "disconnected", func() bool { return !b.Connected() })
	for range 100 {
		if code := b.Publish([]byte("t.3"), []byte("lost")); code != wire.Unavailable {
			t.Fatalf("publish while NATS is down: %v", code)
		}
	}
	if code := bustest.TrySubscribe(t, b, 50, "late"); code != wire.Unavailable {
		t.Errorf("subscribe while NATS is down: %v", code)
	}
	b.Unsubscribe(9)

	c.Start(t)
	testkit.Eventually(t, "reconnected", b.Connected)
	for i := range uint32(9) {
		topic := fmt.Sprintf("t.%d", i)
		bustest.Publish(t, b, topic, "after")
		sink.WaitFor(t, bustest.Event{Handle: i, Topic: topic, Data: "after"})
	}
	bustest.Publish(t, b, "t.9", "nobody listens")
	bustest.Publish(t, b, "late", "nobody listens")
	bustest.Publish(t, b, "t.0", "end")
	got := sink.WaitFor(t, bustest.Event{Handle: 0, Topic: "t.0", Data: "end"})
	if len(got) != 1+9+1 {
		t.Errorf("%d events: %v", len(got), got)
	}
	if st := b.Stats(); st.Reconnects != 1 || !st.Connected {
		t.Errorf("%+v", st)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(states, []bool{true, false, true}) {
		t.Errorf("states %v", states)
	}
}

// Patterns that end while NATS is away, or goes, take no events from those that stay: a server that still counted them
// among the node's would go on choosing them.
func TestPatternsGoWhileServerIsAway(t *testing.T) {
	c := testkit.StartNATS(t)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: c.URL(), Linger: -1}, sink)
	testkit.Eventually(t, "connected", b.Connected)
	const rounds, patterns, events = 5, 12, 200
	bustest.Subscribe(t, b, 100, "t.>")
	bustest.Subscribe(t, b, 101, "end")
	topic := "t" + strings.Repeat(".x", wire.MaxTopicTokens-1)
	for round := range rounds {
		for i := range uint32(patterns) {
			bustest.Subscribe(t, b, i, "t."+strings.Repeat("*.", int(i))+"x.>")
		}
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			c.Kill(t)
		}()
		for i := range uint32(patterns) {
			if i == patterns/2 {
				<-killed
				testkit.Eventually(t, "disconnected", func() bool { return !b.Connected() })
			}
			b.Unsubscribe(i)
			time.Sleep(time.Duration(round) * 100 * time.Microsecond) // so that each is dropped by itself
		}
		c.Start(t)
		testkit.Eventually(t, "reconnected", b.Connected)
		testkit.Eventually(t, "the patterns have ended", func() bool { return b.Stats().Subscriptions == 2 })
		before := len(sink.Events())
		for i := range events {
			bustest.Publish(t, b, topic, fmt.Sprint(i))
		}
		end := fmt.Sprint("end ", round)
		bustest.Publish(t, b, "end", end)
		if got := sink.WaitFor(t, bustest.Event{Handle: 101, Topic: "end", Data: end}); len(got)-before != events+1 {
			t.Errorf("%d of %d events came", len(got)-before-1, events)
		}
	}
}

func TestStartBeforeServer(t *testing.T) {
	child := testkit.NewNATS(t)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: child.URL()}, sink)
	if b.Connected() {
		t.Fatal("connected to nothing")
	}
	if c := b.Publish([]byte("t"), nil); c != wire.Unavailable {
		t.Errorf("publish: %v", c)
	}
	if c := bustest.TrySubscribe(t, b, 1, "t"); c != wire.Unavailable {
		t.Errorf("subscribe: %v", c)
	}
	child.Start(t)
	testkit.Eventually(t, "connected", b.Connected)
	bustest.Subscribe(t, b, 1, "t")
	bustest.Publish(t, b, "t", "x")
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "x"})
	if st := b.Stats(); st.Reconnects != 0 {
		t.Errorf("the first connection counts as a reconnect: %+v", st)
	}
}

// A subscription whose confirmation an outage interrupts is gone, not half there.
func TestSubscribeInterrupted(t *testing.T) {
	c := testkit.StartNATS(t)
	b := open(t, bus.Options{URL: c.URL()}, bustest.NewRecorder())
	testkit.Eventually(t, "connected", b.Connected)
	const n = 2000
	codes := make(chan wire.Code, n)
	for i := range uint32(n) {
		if i == n/2 {
			c.Kill(t)
		}
		b.Subscribe(i, fmt.Sprintf("t.%d", i), func(c wire.Code) { codes <- c })
	}
	ok := 0
	for range n {
		select {
		case c := <-codes:
			if c == wire.OK {
				ok++
			} else if c != wire.Unavailable {
				t.Errorf("%v", c)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("answers are missing")
		}
	}
	if got := b.Stats().Subscriptions; got != ok || ok == n {
		t.Errorf("%d confirmed, %d registered", ok, got)
	}
}

func TestLinger(t *testing.T) {
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{Linger: time.Hour}, sink)
	bustest.Subscribe(t, b, 1, "t")
	b.Unsubscribe(1)
	bustest.Publish(t, b, "t", "nobody")
	bustest.Subscribe(t, b, 9, "end")
	bustest.Publish(t, b, "end", "")
	sink.WaitFor(t, bustest.Event{Handle: 9, Topic: "end"})
	if got := b.Stats().Subscriptions; got != 2 {
		t.Errorf("%d subscriptions while it lingers", got)
	}
	bustest.Subscribe(t, b, 2, "t")
	bustest.Publish(t, b, "t", "x")
	got := sink.WaitFor(t, bustest.Event{Handle: 2, Topic: "t", Data: "x"})
	if len(got) != 2 || b.Stats().Subscriptions != 2 {
		t.Errorf("%v %+v", got, b.Stats())
	}

	brief := open(t, bus.Options{Linger: time.Millisecond}, bustest.NewRecorder())
	for i := range uint32(3000) { // churn
		brief.Subscribe(i, fmt.Sprintf("t.%d", i%7), func(wire.Code) {})
		brief.Unsubscribe(i)
	}
	testkit.Eventually(t, "all gone", func() bool { return brief.Stats().Subscriptions == 0 })
}

// stuck is a sink that holds its shard up.
type stuck struct {
	entered chan struct{}
	release chan struct{}
	once    sync.Once
}

func (s *stuck) Event(int, []uint32, string, []byte) {
	s.once.Do(func() { close(s.entered) })
	<-s.release
}
func (s *stuck) Flush(int) {}
func (s *stuck) Answered() {}
func (s *stuck) Room()     {}

func TestDropsAreCountedAndLogged(t *testing.T) {
	log, seen := testkit.Log()
	sink := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	b, err := bus.Open(t.Context(), bus.Options{URL: testkit.StartNATS(t).URL(), Buffer: 10}, sink, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	testkit.Eventually(t, "connected", b.Connected)
	bustest.Subscribe(t, b, 1, "t")
	bustest.Publish(t, b, "t", "first")
	<-sink.entered
	for range 110 {
		bustest.Publish(t, b, "t", "x")
	}
	testkit.Eventually(t, "100 drops", func() bool { return b.Stats().Dropped == 100 })
	if p := b.Stats().Pending; p != 10 {
		t.Errorf("%d pending", p)
	}
	testkit.Eventually(t, "a log line", func() bool { return seen.FilterMessageSnippet("being dropped").Len() == 1 })
	close(sink.release)
	b.Unsubscribe(1)
	testkit.Eventually(t, "unsubscribed", func() bool { return b.Stats().Subscriptions == 0 })
	if d := b.Stats().Dropped; d != 100 {
		t.Errorf("%d drops after the subscription went", d)
	}
}

// Close hands over what was published just before.
func TestCloseFlushes(t *testing.T) {
	c := testkit.StartNATS(t)
	testkit.Eventually(t, "server", func() bool {
		nc, err := nats.Connect(c.URL())
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	sink := bustest.NewRecorder()
	other := open(t, bus.Options{URL: c.URL()}, sink)
	bustest.Subscribe(t, other, 1, "t")
	b := open(t, bus.Options{URL: c.URL()}, bustest.NewRecorder())
	for i := range 1000 {
		bustest.Publish(t, b, "t", fmt.Sprint(i))
	}
	closeBus(t, b)
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "999"})

	if code := b.Publish([]byte("t"), nil); code != wire.Unavailable {
		t.Errorf("publish after close: %v", code)
	}
	if code := bustest.TrySubscribe(t, b, 2, "u"); code != wire.Unavailable {
		t.Errorf("subscribe after close: %v", code)
	}
	b.Unsubscribe(2)
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	before := goleak.IgnoreCurrent()
	sink := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	b, err := bus.Open(t.Context(), bus.Options{}, sink, zapNop)
	if err != nil {
		t.Fatal(err)
	}
	bustest.Subscribe(t, b, 1, "t")
	bustest.Publish(t, b, "t", "x")
	<-sink.entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(sink.release)
	goleak.VerifyNone(t, before) // the rest ends behind us
}

// A server that is stopped, not dead, takes connections and bytes but answers nothing.
func TestServerHangs(t *testing.T) {
	c := testkit.StartNATS(t)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: c.URL()}, sink)
	testkit.Eventually(t, "connected", b.Connected)
	bustest.Subscribe(t, b, 1, "t")
	c.Freeze(t)
	big := make([]byte, 60_000)
	testkit.Eventually(t, "a write to the full socket fails", func() bool {
		code := wire.OK
		for i := 0; i < 1000 && code == wire.OK; i++ {
			code = b.Publish([]byte("flood"), big)
		}
		return code == wire.Unavailable
	})
	testkit.Eventually(t, "disconnected", func() bool { return !b.Connected() })
	if code := bustest.TrySubscribe(t, b, 2, "u"); code != wire.Unavailable {
		t.Errorf("subscribe: %v", code)
	}
	c.Thaw(t)
	testkit.Eventually(t, "reconnected", b.Connected)
	bustest.Publish(t, b, "t", "x")
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "x"})
}

// matcher is a sink that looks whether events come under the handle of their topic.
type matcher struct {
	t *testing.T
	n atomic.Int64

	mu   sync.Mutex
	room sync.Cond
}

// awaitRoom waits until the bus has room.
func (m *matcher) awaitRoom(b *bus.Bus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !b.HasRoom() {
		m.room.Wait()
	}
}

func (m *matcher) Room() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room.Broadcast()
}

func (m *matcher) Event(_ int, handles []uint32, topic string, _ []byte) {
	for _, handle := range handles {
		if want := fmt.Sprintf("t.%d", handle%7); topic != want {
			m.t.Errorf("handle %d got %s", handle, topic)
		}
	}
	m.n.Add(1)
}
func (m *matcher) Flush(int) {}
func (m *matcher) Answered() {}

// Interest comes and goes while events are under way, some for subscriptions that are new or just gone.
func TestChurnUnderTraffic(t *testing.T) {
	sink := &matcher{t: t}
	sink.room.L = &sink.mu
	b := open(t, bus.Options{Linger: -1, Shards: 2}, sink)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				sink.awaitRoom(b)
				if c := b.Publish(fmt.Appendf(nil, "t.%d", i%7), nil); c != wire.OK {
					t.Error(c)
				}
				b.Flush()
			}
		}
	})
	for i := uint32(0); i < 2000 || sink.n.Load() < 1000; i++ {
		b.Unsubscribe(i - 7) // or one that never was
		b.Subscribe(i, fmt.Sprintf("t.%d", i%7), func(c wire.Code) {
			if c != wire.OK {
				t.Error(c)
			}
		})
		if i%100 == 0 {
			bustest.Subscribe(t, b, 1<<30+i, fmt.Sprintf("pause.%d", i))
		}
	}
	close(stop)
	wg.Wait()
}

// What others publish can be more than we can hand over. Then the embedded server hangs up; once we can
// again, events come again, of the same subscriptions, and what happened is logged and counted.
func TestOverrunByOthers(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port)
	log, seen := testkit.Log()
	sink := &gated{Recorder: bustest.NewRecorder(), release: make(chan struct{})}
	b, err := bus.Open(t.Context(), bus.Options{Embedded: bus.Embedded{Listen: addr}}, sink, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	nc, err := nats.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	bustest.Subscribe(t, b, 1, "t")
	flood := make([]byte, 60_000)
	for range 1500 { // 90 MB; the server keeps 64 for a client
		if err := nc.Publish("notify.ev.t", flood); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	close(sink.release)
	testkit.Eventually(t, "another connection", func() bool { return b.Stats().Reconnects == 1 })
	testkit.Eventually(t, "a log line", func() bool { return seen.FilterMessageSnippet("lost embedded NATS").Len() == 1 })
	bustest.Publish(t, b, "t", "after")
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "after"})
}

// gated is a sink that hands nothing on until it is released.
type gated struct {
	*bustest.Recorder
	release chan struct{}
}

func (g *gated) Event(shard int, handles []uint32, topic string, data []byte) {
	<-g.release
	g.Recorder.Event(shard, handles, topic, data)
}
