//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestNodeDies has one of two nodes killed while events flow: the clients of the other lose nothing and stay, and a
// node that takes its place gets events at once.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	const topic = "node.dies"
	keys := newIssuer(t)
	_, address := natsProcess(t, ownHost()+":0")
	node := func(name string) *server {
		return serve(t, name, nil, "--nats.url=nats://"+address, "--auth.keys="+keys.public)
	}
	survivor, victim := node("survivor"), node("victim")
	reads := keys.subscriber(t, time.Hour, topic)
	subscriber := dialCoder(t, "subscriber on the survivor", survivor.url)
	subscriber.subscribe(t, topic, reads)
	publisher := dialCoder(t, "publisher on the survivor", survivor.url)
	other := dialCoder(t, "publisher on the victim", victim.url)
	token := keys.publisher(t, time.Hour, topic)

	number := 0
	publish := func(p *peer, n int) {
		t.Helper()
		for range n {
			number++
			if m := p.publish(t, topic, token, fmt.Sprint(number)); m.Type != "ack" {
				t.Fatalf("publish %d: %s %s: %s", number, m.Type, m.Code, m.Message)
			}
		}
	}
	publish(other, 50)
	subscriber.awaitEvents(t, 50)
	victim.kill()
	publish(publisher, 100)
	subscriber.awaitEvents(t, 150)

	heir := node("heir")
	later := dialCoder(t, "subscriber on the heir", heir.url)
	later.subscribe(t, topic, reads)
	publish(publisher, 50)
	subscriber.awaitEvents(t, 200)
	later.awaitEvents(t, 50)

	for i, e := range subscriber.events(t) {
		if got, want := string(e.Data), fmt.Sprint(i+1); got != want {
			t.Fatalf("event %d is %s", i+1, got)
		}
	}
	if status, body := survivor.get("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz of the survivor: %d %s", status, body)
	}
	subscriber.ping(t) // on the connection that it had from the start
}
