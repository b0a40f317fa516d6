//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// flood publishes [who,0], [who,1], … with at most 32 unanswered until the connection is gone.
func flood(p *peer, who int, topic, token string) {
	for i := 0; ; {
		select {
		case <-p.closed:
			return
		default:
		}
		if i-p.got.len() >= 32 {
			time.Sleep(time.Millisecond)
			continue
		}
		if p.send(publishFrame(fmt.Sprint(i), topic, token, fmt.Sprintf("[%d,%d]", who, i))) != nil {
			return
		}
		i++
	}
}

// acked lists the events of flood that frames say were acked.
func acked(t *testing.T, who int, frames []string) (values []string) {
	t.Helper()
	for _, frame := range frames {
		if m := decode(t, frame); m.Type == "ack" {
			values = append(values, fmt.Sprintf("[%d,%s]", who, m.ID))
		}
	}
	return values
}

// TestDrain ends one of two nodes with SIGTERM while clients publish and subscribe on it as fast as they can.
func TestDrain(t *testing.T) {
	t.Parallel()
	const topic, publisherCount, subscriberCount = "drain.load", 4, 8
	keys := newIssuer(t)
	_, address := natsProcess(t, ownHost()+":0")
	args := []string{"--nats.url=nats://" + address, "--auth.keys=" + keys.public, "--drain-window=2s", "--log.level=info"}
	draining := serve(t, "draining node", nil, args...)
	staying := serve(t, "staying node", nil, args...)

	readToken, writeToken := keys.subscriber(t, time.Hour, topic), keys.publisher(t, time.Hour, topic)
	remote := dialCoder(t, "subscriber on the staying node", staying.url)
	remote.subscribe(t, topic, readToken)
	var publishers, subscribers []*peer
	for i := range subscriberCount {
		s := dialCoder(t, fmt.Sprintf("subscriber %d on the draining node", i), draining.url)
		s.subscribe(t, topic, readToken)
		subscribers = append(subscribers, s)
	}
	var flooding sync.WaitGroup
	for i := range publisherCount {
		p := dialCoder(t, fmt.Sprintf("publisher %d on the draining node", i), draining.url)
		publishers = append(publishers, p)
		flooding.Go(func() { flood(p, i, topic, writeToken) })
	}
	for _, p := range publishers {
		eventually(t, p.name+" is at work", func() bool { return p.got.len() > 500 })
	}

	var before []string // acked before the signal
	for i, p := range publishers {
		before = append(before, acked(t, i, p.got.all())...)
	}
	draining.terminate(t)
	select {
	case <-draining.gone:
	case <-time.After(patience):
		t.Fatalf("the server did not end within %v of SIGTERM", patience)
	}
	if code := draining.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	flooding.Wait()
	for _, p := range append(publishers, subscribers...) {
		<-p.closed
		if p.code != 1012 {
			t.Errorf("%s was closed with %d, want 1012", p.name, p.code)
		}
	}

	for _, s := range subscribers {
		got := inOrder(t, s, publisherCount)
		contains(t, s.name, got, before, "acked before SIGTERM")
	}
	var all []string
	for i, p := range publishers {
		values := acked(t, i, p.got.all())
		all = append(all, values...)
		last := `"data":` + values[len(values)-1] + "}"
		remote.got.await(t, "event "+last, 0, func(frame string) bool { return strings.Contains(frame, last) })
	}
	contains(t, remote.name, inOrder(t, remote, publisherCount), all, "acked")
}

// inOrder checks that the events of each publisher came without gap, repetition or change of order.
func inOrder(t *testing.T, s *peer, publishers int) map[string]bool {
	t.Helper()
	next := make([]int, publishers)
	got := map[string]bool{}
	for _, e := range s.events(t) {
		var v [2]int
		if err := json.Unmarshal(e.Data, &v); err != nil {
			t.Fatal(err)
		}
		if v[1] != next[v[0]] {
			t.Errorf("%s: event %d of publisher %d came when %d was due", s.name, v[1], v[0], next[v[0]])
		}
		next[v[0]] = v[1] + 1
		got[string(e.Data)] = true
	}
	return got
}

func contains(t *testing.T, who string, got map[string]bool, want []string, what string) {
	t.Helper()
	var missing []string
	for _, value := range want {
		if !got[value] {
			missing = append(missing, value)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%s lacks %d of %d events that were %s, such as %s", who, len(missing), len(want), what, missing[0])
	}
}

// TestDrainDelay sends SIGTERM to a node with a drain_delay: /readyz says no at once, and connections from before and new
// ones are served for as long; then they are told of the restart and sent away, and nobody comes in any more.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	const topic = "drain.delay"
	keys := newIssuer(t)
	node := serve(t, "node", nil, "--auth.keys="+keys.public, "--drain-delay=8s", "--drain-window=2s")
	write, read := keys.publisher(t, time.Hour, topic), keys.subscriber(t, time.Hour, topic)
	before := dialCoder(t, "from before", node.url)
	before.subscribe(t, topic, read)
	node.terminate(t)
	eventually(t, "/readyz says no", func() bool { status, _ := node.get("/readyz"); return status == 503 })
	if status, body := node.get("/healthz"); status != 200 {
		t.Errorf("/healthz in the delay: %d %s", status, body)
	}
	newcomer := dialCoder(t, "newcomer", node.url)
	newcomer.subscribe(t, topic, read)
	if m := newcomer.publish(t, topic, write, `"here"`); m.Type != "ack" {
		t.Errorf("publish in the delay: %+v", m)
	}
	for _, p := range []*peer{before, newcomer} {
		p.got.await(t, "the event", 0, func(frame string) bool { return strings.Contains(frame, `"here"`) })
		p.got.await(t, "the restart", 0, func(frame string) bool { return decode(t, frame).Type == "restart" })
		told := false
		for _, frame := range p.got.all() {
			told = told || decode(t, frame).Type == "restart"
			if told && strings.Contains(frame, `"here"`) {
				t.Errorf("%s was told of the restart before the delay was over", p.name)
			}
		}
	}
	for _, p := range []*peer{before, newcomer} {
		if <-p.closed; p.code != 1012 {
			t.Errorf("%s was closed with %d, want 1012", p.name, p.code)
		}
	}
	<-node.gone
	if code := node.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := tryCoder(t, "too late", node.url); err == nil {
		t.Error("a client came in after the end")
	}
}
