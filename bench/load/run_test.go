//go:build linux

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

func events(p Plan) Plan {
	p.Name, p.Events = p.Name+" events", true
	return p
}

// TestScenarios runs each against a real server.
func TestScenarios(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	url, key, process, stop, err := Serve(bin, "EdDSA", []string{StreamFlag()})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	windows := []Load{{Window: 1}, {Window: 8}}
	for _, c := range []struct {
		plan      Plan
		loads     []Load
		fresh     bool
		processes int
		results   int
		perPub    int // deliveries for each publish
	}{
		{Fanout(20), []Load{{Window: 1}, {Window: 8}, {Rate: 200}}, false, 1, 3, 20},
		{Fanout(5), []Load{{Window: 2}, {Rate: 200}}, true, 1, 2, 5},
		{Pairs(10), []Load{{Window: 4}, {Rate: 500}}, false, 1, 2, 1},
		{ManyPublishers(10), windows, false, 1, 2, 1},
		{ManySubscriptions(4, 5), windows, false, 1, 2, 1},
		{Slow(20), []Load{{Rate: 100}}, false, 1, 2, 0},
		{Flood(10), []Load{{Rate: 500}}, false, 1, 2, 1},
		{Beside(10, 30), []Load{{Rate: 200}}, false, 1, 2, 1},
		{Durable(4), []Load{{Window: 1}, {Window: 8}, {Rate: 200}}, false, 1, 3, 1},
		{Durable(2), []Load{{Window: 8}}, true, 1, 1, 1},
		{Idle(30), nil, false, 1, 2, 0},
		{Storm(30), nil, false, 1, 1, 0},
		{events(Fanout(20)), []Load{{Window: 1}, {Window: 8}, {Rate: 200}}, false, 1, 3, 20},
		{events(ManySubscriptions(4, 5)), windows, false, 1, 2, 1},
		{events(Slow(20)), []Load{{Rate: 100}}, false, 1, 2, 0},
		{events(Idle(30)), nil, false, 1, 2, 0},

		{Fanout(20), []Load{{Window: 1}, {Window: 8}, {Rate: 200}}, false, 3, 3, 20},
		{Fanout(2), []Load{{Window: 2}}, true, 5, 1, 2},
		{Pairs(10), []Load{{Window: 4}, {Rate: 500}}, false, 3, 2, 1},
		{ManyPublishers(10), windows, false, 2, 2, 1},
		{ManySubscriptions(4, 5), windows, false, 2, 2, 1},
		{Slow(20), []Load{{Rate: 100}}, false, 3, 2, 0},
		{Flood(10), []Load{{Rate: 500}}, true, 3, 2, 1},
		{Beside(10, 30), windows, false, 3, 4, 1},
		{Idle(30), nil, false, 3, 2, 0},
		{Storm(30), nil, false, 3, 1, 0},
		{events(Fanout(20)), []Load{{Window: 8}}, false, 3, 1, 20},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.plan.Name, c.processes), func(t *testing.T) {
			target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, c.fresh)
			if err != nil {
				t.Fatal(err)
			}
			told := 0
			results, err := Run(t.Context(), Options{
				Plan: c.plan, Loads: c.loads, Target: target, Server: "notifyd", URL: url, Process: process,
				Size: 128, Warmup: 100 * time.Millisecond, Duration: 600 * time.Millisecond,
				Progress: func(Progress) { told++ }, Processes: c.processes, Worker: colleague(target.Token),
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(results) != c.results || told == 0 {
				t.Fatalf("%d results, %d times told", len(results), told)
			}
			for i, r := range results {
				if *r.RSS == 0 || *r.ServerCores == 0 {
					t.Errorf("the server cost nothing: %+v", r)
				}
				if c.loads == nil {
					if i == 0 && (r.Connects < 30 || r.Latency.Count < 30 || *r.CPUPerConnect <= 0) {
						t.Errorf("connects: %+v", r)
					}
					continue
				}
				if r.Published == 0 || r.Delivered == 0 || r.Lost != 0 || r.Latency.Count == 0 || r.Beside == nil && *r.CPUPerDelivery <= 0 {
					t.Errorf("%+v", r)
				}
				// At both ends of the measured time a window is under way; other processes
				// do not measure at the same moment.
				window := c.loads[min(i, len(c.loads)-1)].Window * max(r.Topics, r.Publishers) * c.perPub
				diff := int(r.Published)*c.perPub - int(r.Delivered)
				if window > 0 && c.processes == 1 && max(diff, -diff) > window {
					t.Errorf("window %d: %d published, %d delivered", window, r.Published, r.Delivered)
				}
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		for _, claims := range []authz.Claims{
			{Expires: time.Now().Add(time.Hour), Publish: []string{">"}, Subscribe: []string{"elsewhere"}},
			{Expires: time.Now().Add(time.Hour), Publish: []string{"elsewhere"}, Subscribe: []string{">"}},
		} {
			token, err := authz.Sign(key, claims)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Run(t.Context(), Options{
				Plan: Fanout(1), Loads: []Load{{Window: 1}}, Target: &Notifyd{Token: token}, URL: url,
				Size: MinSize, Duration: time.Minute,
			})
			if !errors.Is(err, wire.Forbidden) {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("sources", func(t *testing.T) {
		target, err := NewNotifyd(key, authz.Claims{}, time.Hour, false)
		if err != nil {
			t.Fatal(err)
		}
		for sources, n := range map[string]int{"": portsPerSource, "127.0.0.9": 0} {
			var from []netip.Addr
			want := "127.0.0.2"
			if sources != "" {
				from, want = []netip.Addr{netip.MustParseAddr(sources)}, sources
			}
			d, err := newDialer(url, target, from)
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.open(n, nil)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(c.fd), "")
			nc, err := net.FileConn(f)
			if err != nil {
				t.Fatal(err)
			}
			if host, _, _ := net.SplitHostPort(nc.LocalAddr().String()); host != want {
				t.Errorf("connected from %s, want %s", host, want)
			}
			_ = nc.Close()
			_ = f.Close()
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		target, err := NewNotifyd(key, authz.Claims{}, time.Hour, false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Run(ctx, Options{
			Plan: Fanout(2), Loads: []Load{{Window: 1}}, Target: target, URL: url, Size: MinSize, Duration: time.Hour,
			Progress: func(p Progress) {
				if p.Deliveries > 0 {
					cancel()
				}
			},
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestStalledAreDropped: who does not read is closed for that, and nobody else
// loses anything.
func TestStalledAreDropped(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	url, key, process, stop, err := Serve(bin, "EdDSA", []string{"--limits.pending-bytes=2MiB"})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, processes := range []int{1, 2} {
		// A round is 1 MiB, which may be pending for a moment for who does read.
		results, err := Run(t.Context(), Options{
			Plan: Slow(20), Loads: []Load{{Window: 32}}, Target: target, URL: url, Process: process,
			Size: 32 << 10, Duration: 2 * time.Second, Processes: processes, Worker: colleague(target.Token),
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := results[0]; r.Stalled != 0 || r.Dropped != 0 || r.Lost != 0 {
			t.Errorf("nobody stalls: %+v", r)
		}
		if r := results[1]; r.Stalled != 2 || r.Dropped != 2 || r.DroppedBy["4410"] != 2 || r.Lost != 0 || r.Delivered == 0 {
			t.Errorf("two of 20 stall: %+v", r)
		}
	}
}

// TestCommand: the command line shares connections between processes of its own.
func TestCommand(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"fanout -n 9 --processes 2 --warmup 0s -w 2 -r 50 --fresh",
		"idle -n 9 --processes 2",
	} {
		cmd := exec.CommandContext(t.Context(), bin, append([]string{"bench"}, strings.Fields(args+" -d 300ms --json")...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		var report struct{ Results []Result }
		if err := json.Unmarshal(out, &report); err != nil || len(report.Results) != 2 {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
		if r := report.Results[0]; r.Connections != 9 || r.Processes != 2 || r.Latency.Count == 0 {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// hub is another kind of server: "S TOPIC" subscribes and is answered with "ok",
// "P TOPIC DATA" publishes, and events are passed on in heaps of heap, in messages
// that end anywhere.
type hub struct {
	heap int
	cut  int // where the first of a heap's two messages ends

	mu     sync.Mutex
	topics map[string][]net.Conn
	held   map[string][][]byte
}

func (h *hub) serve(t *testing.T) (url string) {
	h.topics, h.held = map[string][]net.Conn{}, map[string][][]byte{}
	return "ws://" + testkit.ServeTCP(t, h.client) + "/"
}

func (h *hub) client(c net.Conn) {
	defer func() { _ = c.Close() }()
	if _, err := ws.Upgrade(c); err != nil {
		return
	}
	for {
		b, _, err := wsutil.ReadClientData(c)
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(string(b), " ")
		topic, data, _ := strings.Cut(rest, " ")
		h.mu.Lock()
		if verb == "S" {
			h.topics[topic] = append(h.topics[topic], c)
			_ = wsutil.WriteServerText(c, []byte("ok"))
		} else if h.held[topic] = append(h.held[topic], []byte(data+"\n")); len(h.held[topic]) == h.heap {
			all := bytes.Join(h.held[topic], nil)
			cut := min(h.cut, len(all))
			for _, to := range h.topics[topic] {
				_ = wsutil.WriteServerBinary(to, all[:cut])
				_ = wsutil.WriteServerBinary(to, all[cut:])
			}
			h.held[topic] = nil
		}
		h.mu.Unlock()
	}
}

// hubTarget speaks to a hub.
type hubTarget struct{}

func (hubTarget) Dialer() ws.Dialer               { return ws.Dialer{} }
func (hubTarget) Text() bool                      { return false }
func (hubTarget) Packs() bool                     { return true }
func (hubTarget) Fresh() bool                     { return false }
func (hubTarget) Hello(dst []byte) ([]byte, bool) { return dst, false }
func (hubTarget) Subscribe(dst []byte, topic string) ([]byte, bool) {
	return append(append(dst, "S "...), topic...), true
}

func (hubTarget) Answer(payload []byte) (Answer, error) {
	if string(payload) == "ok" {
		return Answer{Kind: Subscribed}, nil
	}
	return Answer{}, nil
}

func (hubTarget) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	return fmt.Appendf(dst, "P %s %s", topic, data), nil
}

func TestAnotherServer(t *testing.T) {
	for _, cut := range []int{1, 20, MinSize + 5, 1 << 10} {
		h := &hub{heap: 4, cut: cut}
		results, err := Run(t.Context(), Options{
			Plan: Pairs(3), Loads: []Load{{Window: 4}, {Window: 8}}, Target: hubTarget{}, URL: h.serve(t),
			Size: 48, Duration: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Delivered == 0 || r.Lost != 0 || r.CPUPerDelivery != nil {
				t.Errorf("cut at %d: %+v", cut, r)
			}
		}
	}
}

// TestLateFromWhenDue: a server that passes nothing on until it has 20 events
// makes the first of them 19 intervals late, however it is measured.
func TestLateFromWhenDue(t *testing.T) {
	const heap, rate = 20, 100
	h := &hub{heap: heap}
	results, err := Run(t.Context(), Options{
		Plan: Fanout(2), Loads: []Load{{Rate: rate}}, Target: hubTarget{}, URL: h.serve(t), Size: 48, Duration: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if least := float64((heap - 1) * 1_000_000 / rate); results[0].Latency.Max < least*0.99 {
		t.Errorf("at most %v µs late, must be %v", results[0].Latency.Max, least)
	}
	if results[0].Lost != 2*(results[0].Published%heap) {
		t.Errorf("%d published, %d lost", results[0].Published, results[0].Lost)
	}
}

func TestAddresses(t *testing.T) {
	for _, url := range []string{"wss://127.0.0.1:1/", "ws://127.0.0.1/", "http://x:1", "::"} {
		if _, err := newDialer(url, hubTarget{}, nil); err == nil {
			t.Errorf("%s: accepted", url)
		}
	}
}
