//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/internal/testkit"
)

// What two honest clients notice while NATS, or a part of it, hangs or is slow. How long it took is logged; what is
// asserted is that everything arrives, and that nobody waits behind those who wait for NATS.

// A pair publishes one event at a time and waits for it.
type pair struct {
	publisher, subscriber *websocket.Conn
	topic, token          string
	sent                  int
}

func newPair(t *testing.T, keys issuer, url, topic string) *pair {
	t.Helper()
	p := &pair{topic: topic, token: keys.publisher(t, time.Hour, topic)}
	p.publisher, p.subscriber = p.dial(t, url), p.dial(t, url)
	frame := fmt.Sprintf(`{"type":"subscribe","id":"s","topic":%q,"token":%q}`, topic, keys.subscriber(t, time.Hour, topic))
	p.ask(t, p.subscriber, frame, "ack")
	return p
}

func (p *pair) dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(1 << 20)
	return c
}

// ask sends a frame, unless it is empty, and reads until something of that type comes.
func (p *pair) ask(t *testing.T, c *websocket.Conn, frame, want string) (m message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // guards against hanging
	defer cancel()
	if frame != "" {
		if err := c.Write(ctx, websocket.MessageText, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	for m.Type != want {
		_, text, err := c.Read(ctx)
		if err == nil {
			m = message{}
			err = json.Unmarshal(text, &m)
		}
		if err != nil || m.Type == "error" {
			t.Fatalf("%+v, %v, want %s", m, err, want)
		}
	}
	return m
}

// events publishes n and gives the time from each publish to its event.
func (p *pair) events(t *testing.T, n int) (took []time.Duration) {
	t.Helper()
	for range n {
		p.sent++
		began := time.Now()
		p.ask(t, p.publisher, publishFrame("p", p.topic, p.token, fmt.Sprint(p.sent)), "ack")
		if m := p.ask(t, p.subscriber, "", "event"); string(m.Data) != fmt.Sprint(p.sent) {
			t.Fatalf("got event %s, want %d", m.Data, p.sent)
		}
		took = append(took, time.Since(began))
	}
	return took
}

// pings is how long n pongs took.
func (p *pair) pings(t *testing.T, n int) (took []time.Duration) {
	t.Helper()
	for range n {
		began := time.Now()
		p.ask(t, p.subscriber, `{"type":"ping","id":"p"}`, "pong")
		took = append(took, time.Since(began))
	}
	return took
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100].Round(10 * time.Microsecond)
}

func stop(t *testing.T, m *member, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-m.process.cmd.Process.Pid, signal); err != nil {
		t.Fatal(err)
	}
}

// JetStream of a cluster has lost its majority: two of three servers hang. 500 handshakes with invented tickets wait for
// it, again and again, and publishers do not wait behind them.
func TestJetStreamHangs(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	servers, addresses := natsMembers(t, 3)
	node := serve(t, "node", nil, "--auth.keys="+keys.public, "--nats.url=nats://"+addresses[0], "--nats.replicas=3",
		"--limits.connections-per-ip=0", "--log.level=info")
	eventually(t, "the node is ready", func() bool { status, _ := node.get("/readyz"); return status == http.StatusOK })
	p := newPair(t, keys, node.url, "a")
	alone := p.events(t, 300)

	for _, m := range servers[1:] {
		stop(t, m, syscall.SIGSTOP)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting sync.WaitGroup
	var asked atomic.Int64
	var mu sync.Mutex
	answers := map[string]int{}
	for i := range 500 {
		waiting.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				_, resp, err := websocket.Dial(ctx, fmt.Sprintf("%s?ticket=%032d", node.url, i), nil)
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				if resp == nil {
					answers[err.Error()]++
				} else {
					answers[fmt.Sprint(resp.StatusCode, " retry ", resp.Header.Get("Retry-After") != "")]++
				}
				mu.Unlock()
				pause(ctx, 200*time.Millisecond)
			}
		})
	}
	eventually(t, "all handshakes have begun", func() bool { return asked.Load() >= 500 })
	during := p.events(t, 300)
	eventually(t, "handshakes are answered", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(answers) > 0
	})
	p.events(t, 100)
	cancel()
	waiting.Wait()
	for _, m := range servers[1:] {
		stop(t, m, syscall.SIGCONT)
	}
	t.Logf("p99 alone %v, with 500 handshakes %v; handshakes: %v", p99(alone), p99(during), answers)
	for answer := range answers {
		// The server that goes on may be the leader of the tickets: until it notices that it is alone it knows that there
		// is no such ticket.
		if answer != "503 retry true" && answer != "401 retry false" {
			t.Errorf("a handshake with a ticket was answered %s", answer)
		}
	}
	token := keys.subscriber(t, time.Hour, "a")
	eventually(t, "tickets are given again", func() bool {
		status, _ := node.post(t, "tickets", token, "")
		return status == http.StatusCreated
	})
}

// A slow network between a node and NATS passes 2.5 MB a second in each direction, or nothing while it is stopped.
type slowNetwork struct {
	address string
	fast    atomic.Bool
	stopped sync.RWMutex // held while nothing passes
}

func newSlowNetwork(t *testing.T, to string) *slowNetwork {
	t.Helper()
	s := new(slowNetwork)
	s.address = testkit.ServeTCP(t, func(from net.Conn) {
		target, err := net.Dial("tcp", to)
		if err != nil {
			_ = from.Close()
			return
		}
		for _, way := range [][2]net.Conn{{from, target}, {target, from}} {
			go func() {
				s.pass(way[1], way[0])
				_ = from.Close()
				_ = target.Close()
			}()
		}
	})
	return s
}

func (s *slowNetwork) pass(to io.Writer, from io.Reader) {
	const bytesPerSecond = 2_500_000
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if !s.fast.Load() {
			time.Sleep(time.Duration(n) * time.Second / bytesPerSecond)
		}
		s.stopped.RLock()
		_, err = to.Write(buffer[:n])
		s.stopped.RUnlock()
		if err != nil {
			return
		}
	}
}

// NATS is slow, and then hangs, while a client publishes events of 60 kB as fast as it may. Loops go on: pings are
// answered, and whatever was acknowledged arrives in the end.
func TestNATSIsSlow(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	_, address := natsProcess(t, ownHost()+":0")
	network := newSlowNetwork(t, address)
	network.fast.Store(true)
	node := serve(t, "node", nil, "--auth.keys="+keys.public, "--nats.url=nats://"+network.address,
		"--limits.connections-per-ip=0", "--log.level=info")
	eventually(t, "the node is ready", func() bool { status, _ := node.get("/readyz"); return status == http.StatusOK })
	p := newPair(t, keys, node.url, "a")
	alone, pong := p.events(t, 300), p.pings(t, 300)

	network.fast.Store(false)
	bulk := dialCoder(t, "publisher of large events", node.url)
	go func() {
		frame := publishFrame("", "bulk", keys.publisher(t, time.Hour, "bulk"), `"`+strings.Repeat("x", 60_000)+`"`)
		for err := error(nil); err == nil; {
			err = bulk.send(frame)
		}
	}()
	eventually(t, "large events wait for the network", func() bool { return bulk.got.len() > 10 })
	slowPong, slow := p.pings(t, 300), p.events(t, 100)

	network.stopped.Lock()
	stoppedPong := p.pings(t, 300)
	network.stopped.Unlock()
	p.events(t, 100)
	t.Logf("p99 of events alone %v, on a slow network full of others' %v; of pings alone %v, slow %v, stopped %v",
		p99(alone), p99(slow), p99(pong), p99(slowPong), p99(stoppedPong))
}
