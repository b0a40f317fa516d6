package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// Subscriptions of connections that end, however many they are, are taken out some in each turn of the loop: the others
// do not wait until all have gone.
func TestSubscriptionsLeaveInTurns(t *testing.T) {
	const conns, each, mostInATurn = 6, 1000, 512
	bus := new(memBus)
	n := start(t, setup{alg: "HS256", server: server.Options{Loop: loop.Options{Loops: 1}}, fake: bus})
	token := n.all(t)
	watch := n.dial(t)
	watch.subscribe("watch", token)
	var ends []*peer
	for i := range conns {
		p := n.dial(t)
		var frames []string
		for j := range each {
			frames = append(frames, fmt.Sprintf(`{"type":"subscribe","id":"s","topic":"t.%d.%d","token":%q}`, i, j, token))
		}
		p.pipeline(frames)
		for range frames {
			p.want(`"ack"`)
		}
		ends = append(ends, p)
	}
	for _, p := range ends {
		_ = p.conn.Close()
	}
	for i := 0; n.metrics(t)["notifyd_subscriptions"] > 1; i++ {
		watch.publish("watch", token, fmt.Sprint(i))
		watch.wantExactly(fmt.Sprintf(`{"type":"event","topic":"watch","data":%d}`, i))
	}
	eventually(t, "the interest has gone", func() bool { return bus.patterns() == 1 })
	if most := bus.mostInATurn(); most == 0 || most > mostInATurn {
		t.Errorf("%d subscriptions were taken out in one turn", most)
	}
	if topics := n.metrics(t)["notifyd_topics"]; topics != 1 {
		t.Errorf("%v topics are left", topics)
	}
}

// Tokens of very many that expire at the same moment are noticed in several turns of the loop.
func TestTokensExpireInTurns(t *testing.T) {
	t.Parallel()
	const conns, mostInATurn = 1300, 2 * 512 // the bus sees the first ones of a walk and the next as one turn
	bus := new(memBus)
	n := start(t, setup{alg: "HS256", server: server.Options{Loop: loop.Options{Loops: 1}}, fake: bus})
	peers := make([]*peer, conns)
	for i := range peers {
		peers[i] = n.dial(t)
	}
	token := sign(t, n.key, authz.Claims{Expires: time.Now().Add(6 * time.Second), Subscribe: []string{">"}})
	for i, p := range peers {
		p.send(`{"type":"subscribe","id":"s","topic":"t.%d","token":%q}`, i, token)
	}
	for i, p := range peers {
		for m := ""; m != fmt.Sprintf(`{"type":"expired","topic":"t.%d"}`, i); { // behind its ack and a warning
			if m = p.next(); strings.Contains(m, `"error"`) {
				t.Fatal(m)
			}
		}
	}
	if most := bus.mostInATurn(); most == 0 || most > mostInATurn {
		t.Errorf("%d subscriptions ended in one turn", most)
	}
}
