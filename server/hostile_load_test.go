package server_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// Clients that send one bad ES256 token after another keep the workers busy for
// ever, and nobody else waits: not for a cheap answer, not for a token that is
// known, nor in the queue for longer than each of them once.
func TestFloodOfBadTokens(t *testing.T) {
	n := start(t, setup{alg: "ES256", server: server.Options{AuthFailures: 1 << 15, VerifyWorkers: 1}, fake: new(memBus)})
	good := n.all(t)
	sub, pub := n.dial(t), n.dial(t)
	sub.subscribe("a", good)
	bad := good[:len(good)-20] + strings.Repeat("A", 20)
	var refused atomic.Int64
	quit := make(chan bool)
	for range 4 {
		p, done := n.dial(t), make(chan bool)
		p.pipeline(repeat(fmt.Sprintf(`{"type":"publish","topic":"a","token":%q,"data":"bad"}`, bad), 30_000))
		go func() {
			defer close(done)
			for {
				if m, err := p.read(); err != nil || !strings.Contains(m, `"token_invalid"`) {
					return
				}
				refused.Add(1)
				select {
				case <-quit:
					_ = p.conn.Close()
					return
				default:
				}
			}
		}()
		t.Cleanup(func() { <-done })
	}
	defer close(quit)
	eventually(t, "the flood has begun", func() bool { return refused.Load() > 10 && n.metrics(t)["notifyd_verify_queue"] > 0 })
	before := refused.Load()
	for i := range 500 {
		pub.publish("a", good, fmt.Sprint(i))
		sub.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, i))
		if i%50 == 0 {
			before := refused.Load()
			pub.publish("b", n.all(t), "1") // has to queue
			// One turn of each flooder, and what they were refused until the ack was read.
			if turns := refused.Load() - before; turns > 5000 {
				t.Errorf("%d bad tokens were verified before a good one", turns)
			}
		}
	}
	eventually(t, "the flood goes on", func() bool { return refused.Load() > before })
}

func repeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// usage is what must be the same before and after.
type usage struct {
	goroutines, descriptors, interest int
	subscriptions, topics, pending    float64
	heap                              uint64
}

// uses measures. The heap is measured after everything that can be collected
// has been, pools included.
func (n *node) uses(t *testing.T) (u usage) {
	t.Helper()
	m := n.metrics(t)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var mem runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&mem)
	return usage{
		runtime.NumGoroutine(), len(fds), n.bus.Stats().Subscriptions,
		m["notifyd_subscriptions"], m["notifyd_topics"], m["notifyd_pending_bytes"],
		mem.HeapAlloc,
	}
}

// back requires that nothing has grown since.
func (n *node) back(t *testing.T, to usage) {
	t.Helper()
	var now usage
	defer func() { t.Logf("before %+v, after %+v", to, now) }()
	eventually(t, "everything is back at the baseline", func() bool {
		now = n.uses(t)
		return now.goroutines <= to.goroutines && now.descriptors <= to.descriptors && now.interest <= to.interest &&
			now.subscriptions == to.subscriptions && now.topics == to.topics && now.pending == 0 &&
			now.heap < to.heap+2<<20
	})
}

// Churn leaves nothing behind: of subscriptions on one connection, and of
// connections that end in every way while others are served.
func TestChurn(t *testing.T) {
	nats := startNATS(t)
	n := start(t, setup{alg: "HS256", bus: bus.Options{URL: nats.ClientURL()}})
	token := n.all(t)
	watch := n.dial(t)
	watch.subscribe("watch", token)

	subscriptions := func(rounds int) {
		p := n.dial(t)
		for i := range rounds {
			for j := range 50 {
				p.send(`{"type":"subscribe","topic":"c.%d.%d","token":%q}`, i, j, token)
			}
			for j := range 50 {
				p.send(`{"type":"unsubscribe","topic":"c.%d.%d"}`, i, j)
			}
			p.send(`{"type":"ping","id":"%d"}`, i)
			for {
				// An unsubscribe that overtakes the confirmation is told so.
				if m := p.next(); strings.Contains(m, `"pong"`) {
					break
				} else if !strings.Contains(m, `"unavailable"`) {
					t.Fatal(m)
				}
			}
		}
		_ = p.conn.Close()
	}
	connections := func(rounds int) {
		for i := range rounds {
			p := n.dial(t)
			p.subscribe("watch", token)
			p.subscribe(fmt.Sprintf("d.%d.>", i%7), token)
			p.send(`{"type":"publish","topic":"d.%d.x","token":%q,"data":%q}`, i%7, token, strings.Repeat("x", 10_000))
			switch i % 4 {
			case 0: // at once, events unread
				_ = p.conn.Close()
			case 1: // in the middle of a frame
				_, _ = p.conn.Write([]byte{0x81, 0xfe, 0x10})
				_ = p.conn.Close()
			case 2: // for a violation
				_, _ = p.conn.Write([]byte{0xff, 0xff})
				_ = p.conn.Close()
			case 3: // politely
				p.want(`"event"`)
				_ = wsutil.WriteClientMessage(p.conn, 8, []byte{3, 232})
				p.wantExactly("close 1000")
				_ = p.conn.Close()
			}
		}
	}
	subscriptions(5) // whatever is made once is made now
	connections(20)
	eventually(t, "the first ones have gone", func() bool { return n.metrics(t)["notifyd_connections"] == 1 })
	eventually(t, "NATS was told", func() bool { return n.bus.Stats().Subscriptions == 1 })
	base, natsBase := n.uses(t), nats.NumSubscriptions()
	subscriptions(60)
	connections(400)
	watch.publish("watch", token, "1")
	watch.wantExactly(`{"type":"event","topic":"watch","data":1}`)
	watch.fence()
	n.back(t, base)
	eventually(t, "NATS has forgotten them too", func() bool { return nats.NumSubscriptions() <= natsBase })
}

// NATS goes away while clients publish, and comes back. What was not acked was
// refused; nobody is disconnected; subscriptions resume by themselves.
func TestNATSGoesAndComesBack(t *testing.T) {
	nats := startNATS(t)
	n := start(t, setup{alg: "HS256", bus: bus.Options{URL: nats.ClientURL()}})
	token := n.all(t)
	p, q := n.dial(t), n.dial(t)
	p.subscribe("a", token)
	q.publish("a", token, "1")
	p.wantExactly(`{"type":"event","topic":"a","data":1}`)

	port := nats.Addr().(*net.TCPAddr).Port
	nats.Shutdown()
	nats.WaitForShutdown()
	eventually(t, "NATS is missed", func() bool { return !n.bus.Connected() })
	q.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":"lost"}`, token)
	q.wantError(wire.Unavailable, "1")
	q.send(`{"type":"subscribe","id":"2","topic":"b","token":%q}`, token)
	q.wantError(wire.Unavailable, "2")
	p.fence()

	runNATS(t, port)
	eventually(t, "NATS is found again", n.bus.Connected)
	q.publish("a", token, "2")
	p.wantExactly(`{"type":"event","topic":"a","data":2}`)
	q.subscribe("b", token)
	p.publish("b", token, "3")
	q.wantExactly(`{"type":"event","topic":"b","data":3}`)
}

// Clients are told of a restart while everything goes on, new connections included.
func TestRestartIsAnnounced(t *testing.T) {
	with := setup{}
	with.server.DrainWindow = 4 * time.Second
	n := start(t, with)
	token := n.all(t)
	p := n.dial(t)
	p.subscribe("a", token)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.stop()
	}()
	if m, err := p.read(); m != `{"type":"restart","within":2}` {
		t.Fatal(m, err)
	}
	q := n.dial(t)
	q.pipeline([]string{fmt.Sprintf(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, token)})
	if m, err := q.read(); m != `{"type":"ack","id":"1"}` {
		t.Fatal(m, err)
	}
	if m, err := p.read(); m != `{"type":"event","topic":"a","data":1}` {
		t.Fatal(m, err)
	}
	p.wantEnd(wire.CloseRestart)
	q.wantEnd(wire.CloseRestart)
	<-stopped
}

// Stopping under load: every client is told to come back, and what was acked
// has reached NATS, in order.
func TestShutdownUnderLoad(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		nats := startNATS(t)
		s := newSpy(t, nats)
		with.bus.URL, with.alg = nats.ClientURL(), "HS256"
		with.server.DrainWindow = 200 * time.Millisecond
		n := start(t, with)
		token := n.all(t)
		const publishers = 5
		acked := make(chan int, publishers)
		var sum atomic.Int64
		frames := make([][]string, publishers)
		for i := range frames {
			for j := range 5_000 {
				frames[i] = append(frames[i], fmt.Sprintf(`{"type":"publish","id":"%d","topic":"t.%d","token":%q,"data":%d}`, j, i, token, j))
			}
		}
		for i := range publishers {
			p := n.dial(t)
			p.pipeline(frames[i])
			go func() {
				for j := 0; ; j++ {
					m, err := p.read()
					if m == fmt.Sprintf(`{"type":"ack","id":"%d"}`, j) {
						sum.Add(1)
						continue
					}
					if m != fmt.Sprint("close ", uint16(wire.CloseRestart)) {
						t.Errorf("publisher %d after %d acks: %s %v", i, j, m, err)
					}
					_ = p.conn.Close()
					acked <- j
					return
				}
			}()
		}
		idle := n.dial(t)
		idle.subscribe("nothing", token)
		eventually(t, "there is load", func() bool { return sum.Load() > 1000 })
		stopped := make(chan bool)
		go func() {
			defer close(stopped)
			n.stop()
		}()
		idle.wantEnd(wire.CloseRestart)
		total := 0
		for range publishers {
			total += <-acked
		}
		<-stopped
		t.Log(total, "acked")
		next := make(map[string]int)
		for range total {
			subject, data, _ := strings.Cut(s.next(), " ")
			if data != fmt.Sprint(next[subject]) {
				t.Fatalf("%s: %s, want %d", subject, data, next[subject])
			}
			next[subject]++
		}
	})
}

// Ten thousand subscriptions on one connection go as it goes, at NATS too.
func TestManySubscriptions(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		nats := startNATS(t)
		base := nats.NumSubscriptions()
		with.alg, with.bus.URL, with.server.Subscriptions = "HS256", nats.ClientURL(), 10_000
		n := start(t, with)
		p, token := n.dial(t), n.all(t)
		frames := make([]string, 10_000)
		for i := range frames {
			frames[i] = fmt.Sprintf(`{"type":"subscribe","id":"%d","topic":"t.%d","token":%q}`, i, i, token)
		}
		p.pipeline(frames)
		for range frames {
			p.want(`{"type":"ack","id":"`)
		}
		q := n.dial(t)
		q.publish("t.9999", token, "1")
		p.wantExactly(`{"type":"event","topic":"t.9999","data":1}`)
		if m := n.metrics(t); m["notifyd_subscriptions"] != 10_000 || m["notifyd_topics"] != 10_000 || nats.NumSubscriptions() < base+10_000 {
			t.Errorf("%v subscriptions, %v topics, %d at NATS", m["notifyd_subscriptions"], m["notifyd_topics"], nats.NumSubscriptions())
		}
		_ = p.conn.Close()
		eventually(t, "they are gone", func() bool {
			m := n.metrics(t)
			return m["notifyd_subscriptions"] == 0 && m["notifyd_topics"] == 0 && nats.NumSubscriptions() <= base
		})
	})
}

// One client that publishes without end and without waiting does not starve
// another, on the same loop or not.
func TestPublishFlood(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.alg, with.fake = "HS256", new(memBus)
		n := start(t, with)
		token := n.all(t)
		flooder, quit, done := n.dial(t), make(chan bool), make(chan bool)
		var frames []byte
		for range 100 {
			frame := ws.NewTextFrame(fmt.Appendf(nil, `{"type":"publish","topic":"flood","token":%q,"data":1}`, token))
			frames = append(frames, ws.MustCompileFrame(ws.MaskFrame(frame))...)
		}
		go func() {
			defer close(done)
			for {
				select {
				case <-quit:
					return
				default:
				}
				if _, err := flooder.conn.Write(frames); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		p, q := n.dial(t), n.dial(t)
		p.subscribe("a", token)
		ok := `notifyd_publishes_total{result="ok"}`
		eventually(t, "the flood has begun", func() bool { return n.metrics(t)[ok] > 1000 })
		before := n.metrics(t)[ok]
		for i := range 300 {
			q.publish("a", token, fmt.Sprint(i))
			p.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, i))
		}
		if flooded := n.metrics(t)[ok] - before - 300; flooded < 300 {
			t.Errorf("the flooder published %v meanwhile: no flood", flooded)
		}
		close(quit)
		<-done
	})
}
