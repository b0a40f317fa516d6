package bus

import (
	"fmt"
	"testing"
	"time"
)

// unasked are events that nobody asks for but by subscribing.
type unasked struct{ events }

func (unasked) subscribe(*subscription) error { return nil }

// Subscriptions that end together end some at a time, so that neither NATS nor those who use the tables are held up by all
// of them. None is forgotten, and there is no pause between them.
func TestReapedInParts(t *testing.T) {
	b := &Bus{linger: -1, events: unasked{}}
	in := &b.interest
	in.init()
	const all = 2*maxReaped + 7
	for i := range uint32(all) {
		if _, err := b.take(i, fmt.Sprint("t.", i)); err != nil {
			t.Fatal(err)
		}
		b.Unsubscribe(i)
	}
	for _, want := range []struct {
		gone int
		next time.Duration
	}{{maxReaped, 1}, {maxReaped, 1}, {7, 0}, {0, 0}} {
		if gone, next := b.lingered(); len(gone) != want.gone || next != want.next {
			t.Errorf("%d ended, the next in %v; want %+v", len(gone), next, want)
		}
	}
	if n := len(in.byPattern) + len(in.byHandle) + len(in.lingering); n != 0 {
		t.Errorf("%d are left", n)
	}
}
