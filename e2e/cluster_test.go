//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTwoNodes has a publisher on one node and a subscriber on another, with NATS in a third process that dies and
// comes back. Neither client may notice more than "unavailable".
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	const topic = "two.nodes"
	keys := newIssuer(t)
	natsServer, address := natsProcess(t, ownHost()+":0")
	var nodes [2]*server
	for i := range nodes {
		nodes[i] = serve(t, fmt.Sprintf("node %d", i), nil, "--nats.url=nats://"+address, "--auth.keys="+keys.public)
	}
	publisher := dialCoder(t, "publisher on node 0", nodes[0].url)
	subscriber := dialCoder(t, "subscriber on node 1", nodes[1].url)
	subscriber.subscribe(t, topic, keys.subscriber(t, time.Hour, topic))
	token := keys.publisher(t, time.Hour, topic)

	number, acked := 0, []string{}
	publish := func() message {
		number++
		m := publisher.publish(t, topic, token, fmt.Sprint(number))
		if m.Type == "ack" {
			acked = append(acked, fmt.Sprint(number))
		}
		return m
	}
	publishAcked := func(n int) {
		for range n {
			if m := publish(); m.Type != "ack" {
				t.Fatalf("publish: %s %s: %s", m.Type, m.Code, m.Message)
			}
		}
	}
	ready := func(want int) {
		for _, node := range nodes {
			eventually(t, fmt.Sprintf("/readyz of %s says %d", node.output.name, want), func() bool {
				status, _ := node.get("/readyz")
				return status == want
			})
		}
	}
	received := func() (values []string) {
		for _, e := range subscriber.events(t) {
			values = append(values, string(e.Data))
		}
		return values
	}

	ready(http.StatusOK)
	publishAcked(100)
	subscriber.awaitEvents(t, 100)
	sameValues(t, "before", received(), acked)

	natsServer.kill()
	eventually(t, "publish says unavailable", func() bool { return publish().Code == "unavailable" })
	ready(http.StatusServiceUnavailable)
	for range 20 {
		if m := publish(); m.Type != "error" || m.Code != "unavailable" {
			t.Fatalf("publish without NATS: %s %q, want error unavailable", m.Type, m.Code)
		}
	}
	for _, node := range nodes {
		if status, body := node.get("/healthz"); status != http.StatusOK {
			t.Errorf("%s: /healthz without NATS: %d %s", node.output.name, status, body)
		}
	}

	natsProcess(t, address)
	ready(http.StatusOK)
	// The first to come through after the restart marks where both streams are compared again.
	mark := ""
	eventually(t, "an event comes through after the restart", func() bool {
		if publish().Type != "ack" {
			return false
		}
		subscriber.ping(t)
		if values := received(); len(values) > 0 && values[len(values)-1] == acked[len(acked)-1] {
			mark = values[len(values)-1]
		}
		return mark != ""
	})
	publishAcked(100)
	last := fmt.Sprint(number)
	subscriber.got.await(t, "event "+last, 0, func(frame string) bool { return strings.Contains(frame, `"data":`+last+"}") })
	sameValues(t, "after", from(mark, received()), from(mark, acked))

	for _, p := range []*peer{publisher, subscriber} {
		p.ping(t) // on the connection that it had from the start
	}
}

// from returns values beginning with first.
func from(first string, values []string) []string {
	for i, v := range values {
		if v == first {
			return values[i:]
		}
	}
	return nil
}
