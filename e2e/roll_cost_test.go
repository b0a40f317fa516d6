//go:build linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/wire"
)

var rollClients = flag.Int("roll.clients", 40, "clients of the test that says what a rolling restart costs them")

// A front sends each new connection to a node at random that is ready, as a balancer does that asks /readyz.
type front struct {
	nodes []*server
	ready []atomic.Bool
	only  atomic.Int32 // the number of the one that is chosen, from 1 on; 0: any
}

func newFront(t *testing.T, members []*member) *front {
	t.Helper()
	f := &front{ready: make([]atomic.Bool, len(members))}
	for _, m := range members {
		m.ready(t)
		f.nodes = append(f.nodes, listening(t, m.process)) // its addresses stay
	}
	ctx, stop := context.WithCancel(context.Background())
	var looking sync.WaitGroup
	t.Cleanup(func() {
		stop()
		looking.Wait()
	})
	for i, node := range f.nodes {
		f.ready[i].Store(true)
		looking.Go(func() {
			for ctx.Err() == nil {
				status, _ := node.get("/readyz")
				f.ready[i].Store(status == http.StatusOK)
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	return f
}

// pick gives the address of a node, of which some are ready but for a moment.
func (f *front) pick(ctx context.Context) (string, error) {
	for ctx.Err() == nil {
		i := rand.N(len(f.nodes))
		if only := int(f.only.Load()); only > 0 {
			i = only - 1
		}
		if f.ready[i].Load() {
			return strings.TrimSuffix(strings.TrimPrefix(f.nodes[i].url, "ws://"), "/v1/ws"), nil
		}
		time.Sleep(time.Millisecond)
	}
	return "", context.Cause(ctx)
}

// A traveller is a client behind a front, with a log of its own.
type traveller struct {
	*client.Client
	topic string

	mu       sync.Mutex
	got      []string
	gaps     int
	connects int           // connections that it made
	open     int           // that are not closed
	since    time.Time     // when the last one was closed
	without  time.Duration // how long it has had none, after its first
	lost     int           // times that it found its connection gone
}

func (f *front) travel(t *testing.T, token, topic string) *traveller {
	t.Helper()
	c := &traveller{topic: topic}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		address, err := f.pick(ctx)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		c.opened()
		return &counted{Conn: conn, closed: sync.OnceFunc(c.closed)}, nil
	}
	var err error
	c.Client, err = client.Dial(t.Context(), "ws://front/v1/ws", client.Options{
		Token: client.StaticToken(token), HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
		OnState: func(s client.State, err error) {
			if s == client.StateReconnecting {
				t.Logf("a client of %s reconnects: %v", topic, err)
				c.mu.Lock()
				c.lost++
				c.mu.Unlock()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// counted is a connection whose end is noted.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (c *traveller) opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == 0 && c.connects > 0 {
		c.without += time.Since(c.since)
	}
	c.open++
	c.connects++
}

func (c *traveller) closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	c.since = time.Now()
}

func (c *traveller) read(t *testing.T) {
	t.Helper()
	note := func(f func()) {
		c.mu.Lock()
		defer c.mu.Unlock()
		f()
	}
	_, err := c.SubscribeWith(t.Context(), c.topic, client.SubscribeOptions{OnGap: func(client.Gap) { note(func() { c.gaps++ }) }},
		func(e client.Event) { note(func() { c.got = append(c.got, string(e.Data)) }) })
	if err != nil {
		t.Fatal(err)
	}
}

func (c *traveller) have() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// travellers are n clients with a subscription each, to ten topics in turn.
func (f *front) travellers(t *testing.T, n int, token string) (all []*traveller) {
	t.Helper()
	for i := range n {
		c := f.travel(t, token, fmt.Sprintf("k.%d", i%10))
		c.read(t)
		all = append(all, c)
	}
	return all
}

// cpu is the processor time that a process has used (clock_getcpuclockid(3)).
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|2), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// TestRollCost restarts two nodes in turn, with a drain delay and a balancer, and counts what that costs Go clients. None
// loses an event of a stream, or has one twice. docs/operations.md has the figures of
//
//	go test ./e2e -run TestRollCost -v -roll.clients=1000
func TestRollCost(t *testing.T) {
	t.Parallel()
	n := *rollClients
	keys := newIssuer(t)
	_, address := natsProcess(t, ownHost()+":0")
	nodes, _ := notifydMembers(t, 2, nil, "--auth.keys="+keys.public, durable(1), "--log.format=json", "--nats.url=nats://"+address,
		"--drain-delay=1s", "--drain-window=8s")
	f := newFront(t, nodes)
	token := keys.subscriber(t, time.Hour, "k.>")

	// Nothing is published, and all are on one node: what those who move cost the node that they come to, beside what they
	// cost the first one when they came.
	f.only.Store(1)
	before := nodes[0].process.cpu(t)
	clients := f.travellers(t, n, token)
	first := (nodes[0].process.cpu(t) - before) / time.Duration(n)
	f.only.Store(0)
	began := time.Now()
	before = nodes[1].process.cpu(t)
	nodes[0].roll(t)
	took, moved := time.Since(began), nodes[1].process.cpu(t)-before
	const rest = 3 * time.Second
	before = nodes[1].process.cpu(t)
	time.Sleep(rest)
	idle := nodes[1].process.cpu(t) - before
	each := (moved - time.Duration(float64(idle)*float64(took)/float64(rest))) / time.Duration(n)
	t.Logf("%d clients came to a node for %v of its processor time each, and moved to the other one for %v each, %.2f times that", n, first, each, float64(each)/float64(first))
	report(t, "without load", clients)
	for _, c := range clients {
		c.Close()
	}

	clients = f.travellers(t, n, token)
	writers := f.writers(t, keys)
	for _, m := range nodes {
		m.roll(t)
	}
	published := writers.stop()
	for _, c := range clients {
		want := published[c.topic]
		eventually(t, "a client of "+c.topic+" has all events", func() bool { return c.have() >= len(want) })
	}
	report(t, "under load", clients)
	for _, c := range clients {
		c.mu.Lock()
		if !slices.Equal(c.got, published[c.topic]) {
			t.Errorf("a client of %s has %d events, and not those %d that were acknowledged, in their order", c.topic, len(c.got), len(published[c.topic]))
		}
		if c.gaps > 0 {
			t.Errorf("a client of %s was told of %d gaps", c.topic, c.gaps)
		}
		c.mu.Unlock()
		c.Close()
	}
}

// report says what a restart cost clients by their own logs.
func report(t *testing.T, when string, clients []*traveller) {
	t.Helper()
	var moves, lost, without int
	var longest time.Duration
	for _, c := range clients {
		c.mu.Lock()
		moves += c.connects - 1
		lost += c.lost
		if c.without > 0 {
			without++
		}
		longest = max(longest, c.without)
		c.mu.Unlock()
	}
	t.Logf("%s: %.2f connections more for each of %d clients; %d were without one, at most for %v; %d found theirs closed",
		when, float64(moves)/float64(len(clients)), len(clients), without, longest, lost)
}

// rollWriters publish to the ten topics until stop, and have each event acknowledged.
type rollWriters struct {
	quit    chan struct{}
	clients []*traveller
	running sync.WaitGroup
	mu      sync.Mutex
	acked   map[string][]string
}

func (f *front) writers(t *testing.T, keys issuer) *rollWriters {
	t.Helper()
	w := &rollWriters{quit: make(chan struct{}), acked: map[string][]string{}}
	token := keys.publisher(t, time.Hour, "k.>")
	for who := range 2 {
		c := f.travel(t, token, fmt.Sprint("writer ", who))
		w.clients = append(w.clients, c)
		w.running.Go(func() {
			for number := 0; !closed(w.quit); number++ {
				topic, data := fmt.Sprintf("k.%d", who*5+number%5), fmt.Sprint(number)
				p := client.Publication{Topic: topic, Data: []byte(data), MsgID: fmt.Sprintf("%d-%d", who, number)}
				for {
					_, err := c.PublishEvent(t.Context(), p)
					if err == nil {
						break
					}
					if !errors.Is(err, wire.Unavailable) && !errors.Is(err, client.ErrDisconnected) {
						t.Error(err)
						return
					}
				}
				w.mu.Lock()
				w.acked[topic] = append(w.acked[topic], data)
				w.mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return w
}

func (w *rollWriters) stop() map[string][]string {
	close(w.quit)
	w.running.Wait()
	for _, c := range w.clients {
		c.Close()
	}
	return w.acked
}
