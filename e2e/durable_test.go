//go:build linux

package e2e

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/internal/testkit/history"
)

// A publisher of durable topics learns where each event is, a subscriber gets each once with the chain of its topic,
// from now on or from a position, and an event that is published again under its name is not stored again.
func TestDurableEvents(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	config := write(t, t.TempDir(), "notifyd.yaml", "streams:\n  - name: orders\n    topics: [\"orders.>\"]\n    max_age: 1h\n    storage: memory\n")
	node := serve(t, "notifyd", nil, "--config="+config, "--auth.keys="+keys.public)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["orders.>"],"subscribe":["orders.>"]}}`)
	dial := func() *client.Client {
		t.Helper()
		c, err := client.Dial(t.Context(), node.url, client.Options{Token: client.StaticToken(token), OnError: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	began := time.Now().Truncate(time.Millisecond) // as exact as an event tells it
	var mu sync.Mutex
	reader := history.Reader{Name: "subscriber", Pattern: "orders.>"}
	_, err := dial().Subscribe(t.Context(), reader.Pattern, func(e client.Event) {
		mu.Lock()
		defer mu.Unlock()
		reader.Seen = append(reader.Seen, history.Event{Topic: e.Topic, Data: string(e.Data), Seq: e.Seq, Prev: e.Prev})
		if now := time.Now(); e.Time.Before(began) || e.Time.After(now) {
			t.Errorf("event %d was stored at %v, not between %v and %v", e.Seq, e.Time, began, now)
		}
	})
	if err != nil {
		t.Fatal(err)
	}

	const count = 100
	c := dial()
	var acks []history.Ack
	var stored []history.Event
	last := map[string]uint64{}
	for n := range count {
		p := client.Publication{Topic: "orders." + strconv.Itoa(n%3), Data: fmt.Append(nil, n), MsgID: "order-" + strconv.Itoa(n)}
		for _, duplicate := range []bool{false, true} {
			at, err := c.PublishEvent(t.Context(), p)
			if err != nil || at.Duplicate != duplicate {
				t.Fatalf("publish %d: %+v, %v", n, at, err)
			}
			acks = append(acks, history.Ack{Topic: p.Topic, Data: string(p.Data), Seq: at.Seq})
			if !duplicate {
				stored = append(stored, history.Event{Topic: p.Topic, Data: string(p.Data), Seq: at.Seq, Prev: last[p.Topic]})
				last[p.Topic] = at.Seq
			}
		}
	}
	eventually(t, "the subscriber has all events", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(reader.Seen) >= count
	})
	var readers []history.Reader
	for after, since := range map[uint64]client.Since{0: client.Everything(), 40: client.After(client.Position{Seq: 40})} {
		r := &readerOf{reader: history.Reader{Name: fmt.Sprint("after ", after), Pattern: "orders.>", After: after}}
		sub, err := dial().SubscribeWith(t.Context(), "orders.>", client.SubscribeOptions{Since: since}, r.handle)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, r.reader.Name+" has all events", func() bool { return sub.Position().Seq == stored[count-1].Seq })
		r.mu.Lock()
		readers = append(readers, r.reader)
		r.mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	readers = append(readers, reader)
	for _, problem := range history.Check(acks, stored, readers) {
		t.Error(problem)
	}
}

// readerOf keeps what a subscription gets.
type readerOf struct {
	mu     sync.Mutex
	reader history.Reader
}

func (r *readerOf) handle(e client.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reader.Seen = append(r.reader.Seen, history.Event{Topic: e.Topic, Data: string(e.Data), Seq: e.Seq, Prev: e.Prev})
}
