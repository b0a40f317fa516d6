package bus_test

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// natsCluster starts three NATS servers with JetStream, and gives them and their URLs.
func natsCluster(t *testing.T) (servers []*server.Server, urls string) {
	t.Helper()
	var routes []*url.URL
	for range 3 {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port)})
	}
	var list []string
	for i, route := range routes {
		port, err := strconv.Atoi(route.Port())
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port, NoAdvertise: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a NATS server is not ready")
		}
		list = append(list, "nats://"+s.Addr().String())
		servers = append(servers, s)
	}
	testkit.Eventually(t, "the cluster's leader", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() && s.NumRoutes() > 0 && len(s.JetStreamClusterPeers()) == 3 {
				return true
			}
		}
		return false
	})
	return servers, strings.Join(list, ",")
}

// inCluster are the options of a bus at a cluster, with a prefix of its own.
func inCluster(urls string, n int, streams ...bus.StreamOptions) bus.Options {
	for i := range streams {
		streams[i].Replicas = 3
	}
	return bus.Options{URL: urls, Prefix: fmt.Sprint("p", n), Streams: streams}
}

func TestStreamConformanceInACluster(t *testing.T) {
	servers, urls := natsCluster(t)
	n := 0
	bustest.RunStreams(t, func(t *testing.T, sink bustest.Sink) bustest.StreamBus {
		n++
		b := open(t, inCluster(urls, n, kept(), last()), sink)
		testkit.Eventually(t, "connected", b.Connected)
		bus := streamBus{b, t}
		for _, name := range []string{"kept", "last"} {
			bus.Stream(name)
			awaitInterest(t, servers, fmt.Sprintf("p%d.ev.%s.x", n, name))
		}
		return bus
	})
}

// awaitInterest waits until all servers know that a stream wants a subject. Until then an event is refused.
func awaitInterest(t *testing.T, servers []*server.Server, subject string) {
	t.Helper()
	testkit.Eventually(t, "interest in "+subject, func() bool {
		for _, s := range servers {
			if s.GlobalAccount().Interest(subject) == 0 {
				return false
			}
		}
		return true
	})
}

// Two nodes at a cluster whose stream's leader ends: what was acknowledged comes to the subscribers of both,
// each event once and in order, and a publisher that sends again by its msg_id stores nothing twice.
func TestTheLeaderIsLost(t *testing.T) {
	servers, urls := natsCluster(t)
	var sinks [2]*bustest.Recorder
	var nodes [2]*bus.Bus
	for i := range nodes {
		sinks[i] = bustest.NewRecorder()
		nodes[i] = open(t, inCluster(urls, 0, kept()), sinks[i])
		stream(t, nodes[i], "kept")
		testkit.Eventually(t, "a subscription", func() bool {
			return bustest.TrySubscribe(t, nodes[i], 1, "kept.>") == wire.OK
		})
	}
	var stored atomic.Uint64 // acknowledged
	const events = 600
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := nodes[0].Streams()[0]
		for i := range events {
			m := &wire.ToStore{Topic: fmt.Appendf(nil, "kept.%d", i%3), Data: fmt.Append(nil, i), MsgID: fmt.Append(nil, i)}
			for {
				r := bustest.NewReceipt()
				if s.Store(m, r) == wire.OK && r.Wait(t).Code == wire.OK {
					break
				}
			}
			stored.Add(1)
		}
	}()
	testkit.Eventually(t, "events", func() bool { return stored.Load() > 100 })
	for _, s := range servers {
		if s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "p0-kept") {
			s.Shutdown()
			break
		}
	}
	<-done
	for i, sink := range sinks {
		got := sink.StoredFor(t, 1, events)
		if len(got) != events {
			t.Fatalf("node %d: %d events", i, len(got))
		}
		prev := map[string]uint64{}
		for k, e := range got {
			if e.First != 0 || e.Seq != uint64(k+1) || e.Prev != prev[e.Topic] || e.Data != fmt.Sprint(k) {
				t.Fatalf("node %d: event %d is %+v, before it on the topic %d", i, k, e, prev[e.Topic])
			}
			prev[e.Topic] = e.Seq
		}
		if st := nodes[i].Streams()[0].Stats(); st.Gaps != 0 {
			t.Errorf("node %d: %+v", i, st)
		}
	}
}
