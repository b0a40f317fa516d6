//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
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
	const topic, publisherCount, subscriberCount = "drain.load", 4, 8
	keys := newIssuer(t)
	_, address := natsProcess(t, "127.0.0.1:0")
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
	draining.signal(t, syscall.SIGTERM)
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
