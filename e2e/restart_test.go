//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/internal/testkit"
)

// balancer forwards TCP connections to the node that is named to it.
type balancer struct {
	url string
	to  atomic.Pointer[string]
}

func newBalancer(t *testing.T, node *server) *balancer {
	t.Helper()
	b := new(balancer)
	b.send(node)
	b.url = "ws://" + testkit.ServeTCP(t, func(in net.Conn) {
		defer func() { _ = in.Close() }()
		out, err := net.Dial("tcp", *b.to.Load())
		if err != nil {
			return
		}
		defer func() { _ = out.Close() }()
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(in, out)
	}) + "/v1/ws"
	return b
}

// send has new connections go to node.
func (b *balancer) send(node *server) {
	address := strings.TrimSuffix(strings.TrimPrefix(node.url, "ws://"), "/v1/ws")
	b.to.Store(&address)
}

// TestRestartLosesNothing ends one of two nodes with SIGTERM while Go clients publish and subscribe on it. They move to
// the other one: every publish is acked, and each subscriber receives each event once, in order.
func TestRestartLosesNothing(t *testing.T) {
	t.Parallel()
	const topic, publishers, subscribers = "restart.load", 3, 8
	keys := newIssuer(t)
	_, address := natsProcess(t, ownHost()+":0")
	args := []string{"--nats.url=nats://" + address, "--auth.keys=" + keys.public, "--drain-window=6s"}
	one, two := serve(t, "node one", nil, args...), serve(t, "node two", nil, args...)
	front := newBalancer(t, one)
	dial := func(token string) *client.Client {
		c, err := client.Dial(t.Context(), front.url, client.Options{
			Token:   client.StaticToken(token),
			OnState: func(s client.State, err error) { t.Log(s, err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}

	type reader struct {
		mu  sync.Mutex
		got [publishers][]int
	}
	readers := make([]*reader, subscribers)
	read := keys.subscriber(t, time.Hour, "restart.>")
	for n := range readers {
		r := &reader{}
		readers[n] = r
		if _, err := dial(read).Subscribe(t.Context(), []string{topic, "restart.*"}[n%2], func(e client.Event) {
			var who, number int
			if _, err := fmt.Sscanf(string(e.Data), "[%d,%d]", &who, &number); err != nil {
				t.Error(err)
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got[who] = append(r.got[who], number)
		}); err != nil {
			t.Fatal(err)
		}
	}

	var sent [publishers]int
	stop := make(chan struct{})
	var running sync.WaitGroup
	write := keys.publisher(t, time.Hour, topic)
	for who := range publishers {
		c := dial(write)
		running.Go(func() {
			var acks []*client.Ack
			for {
				select {
				case <-stop:
					for n, ack := range acks {
						if err := ack.Wait(t.Context()); err != nil {
							t.Errorf("publish %d of %d: %v", n, who, err)
						}
					}
					sent[who] = len(acks)
					return
				case <-time.After(2 * time.Millisecond):
				}
				ack, err := c.PublishAsync(t.Context(), topic, fmt.Appendf(nil, "[%d,%d]", who, len(acks)))
				if err != nil {
					t.Errorf("publish of %d: %v", who, err)
					return
				}
				acks = append(acks, ack)
			}
		})
	}

	time.Sleep(500 * time.Millisecond)
	one.terminate(t)
	eventually(t, "the balancer sees that node one is not ready", func() bool {
		status, _ := one.get("/readyz")
		return status != 200
	})
	front.send(two)
	select {
	case <-one.gone:
	case <-time.After(patience):
		t.Fatal("node one did not end")
	}
	time.Sleep(500 * time.Millisecond)
	close(stop)
	running.Wait()
	for n, r := range readers {
		for who := range publishers {
			have := func() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got[who]) }
			eventually(t, fmt.Sprintf("subscriber %d has all events of %d", n, who), func() bool { return have() >= sent[who] })
			r.mu.Lock()
			for i, number := range r.got[who] {
				if i != number {
					t.Errorf("subscriber %d: event %d of %d stands at place %d of %d", n, number, who, i, sent[who])
					break
				}
			}
			r.mu.Unlock()
		}
	}
	t.Logf("%v events to each of %d subscribers", sent, subscribers)
}
