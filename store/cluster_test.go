package store_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/store"
)

// Three nodes that are a NATS cluster by themselves lose one, go on, and get it back.
func TestClusterLosesANode(t *testing.T) {
	var addrs []string
	var options []bus.Options
	for range 3 {
		addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port))
	}
	nodes, watches := make([]*node, 3), make([]*revoked, 3)
	start := func(i int) {
		b := open(t, options[i], store.Options{Replicas: 3}, zap.NewNop())
		nodes[i], watches[i] = b, watch(b)
	}
	for i := range 3 {
		options = append(options, bus.Options{DataDir: t.TempDir(), Embedded: bus.Embedded{
			ClusterName: "c", ClusterListen: addrs[i], Routes: addrs,
		}})
		start(i)
	}
	// While the members meet and elect, calls fail. The key that was used in the end is returned.
	works := func(b *node, what string) (key string) {
		t.Helper()
		n := 0
		testkit.Eventually(t, what, func() bool {
			n++
			key = fmt.Sprintf("%s%d", what, n)
			first, err := b.UseOnce(t.Context(), key, time.Now().Add(time.Hour))
			return err == nil && first && b.PutTicket(t.Context(), key, nil, time.Hour) == nil &&
				b.PutRevocation(t.Context(), what, nil, time.Now().Add(time.Hour)) == nil
		})
		return key
	}
	used := works(nodes[0], "start")
	known := map[string]string{"start": ""}
	for i := range 3 {
		watches[i].waitFor(t, known)
		if useOnce(t, nodes[i], used, time.Now().Add(time.Hour)) {
			t.Error("used twice")
		}
	}
	for round := range 3 {
		key := fmt.Sprintf("race%d", round)
		putTicket(t, nodes[round], key, "v", time.Hour)
		putTicket(t, nodes[round], key+"/rest", "v", time.Hour)
		if won := race(t, 99, func(i int) (bool, error) {
			_, ok, err := nodes[i%3].TakeTicket(t.Context(), key)
			return ok, err
		}); won != 1 {
			t.Errorf("%d took the ticket", won)
		}
		if won := race(t, 99, func(i int) (bool, error) {
			return nodes[i%3].UseOnce(t.Context(), key, time.Now().Add(time.Hour))
		}); won != 1 {
			t.Errorf("%d were first", won)
		}
	}

	// What one node has put the next finds at once.
	for i := range 300 {
		key := fmt.Sprintf("next%d", i)
		putTicket(t, nodes[i%3], key, "v", time.Hour)
		if _, ok := takeTicket(t, nodes[(i+1)%3], key); !ok {
			t.Fatal("not found")
		}
	}

	nodes[0].close(t)
	used = works(nodes[1], "without-one")
	known["without-one"] = ""
	for i := 1; i < 3; i++ {
		watches[i].waitFor(t, known)
		if useOnce(t, nodes[i], "race0", time.Now().Add(time.Hour)) {
			t.Error("a used key was forgotten")
		}
		if _, ok := takeTicket(t, nodes[i], "race0"); ok {
			t.Error("a used ticket came back")
		}
		if _, ok := takeTicket(t, nodes[i], fmt.Sprintf("race%d/rest", i)); !ok {
			t.Error("a ticket was lost")
		}
	}
	start(0)
	works(nodes[0], "again")
	known["again"] = ""
	for i := range 3 {
		watches[i].waitFor(t, known)
		if useOnce(t, nodes[i], used, time.Now().Add(time.Hour)) {
			t.Error("a key that was used meanwhile is not known")
		}
	}
}
