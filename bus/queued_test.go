package bus_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// An external NATS that hangs makes no Publish wait and takes none back: publishers are held back when much waits, and
// when it goes on, all that was answered with OK arrives, in order.
func TestHungServerHoldsPublishersBack(t *testing.T) {
	c := testkit.StartNATS(t)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: c.URL()}, sink)
	testkit.Eventually(t, "connected", b.Connected)
	bustest.Subscribe(t, b, 1, "t")
	c.Freeze(t)
	pad := strings.Repeat("x", 10_000)
	n := 0
	for ; b.HasRoom(); n++ {
		if n > 10_000 {
			t.Fatal("there is always room")
		}
		if code := b.Publish([]byte("t"), fmt.Appendf(nil, "%d %s", n, pad)); code != wire.OK {
			t.Fatalf("publish %d: %v", n, code)
		}
		b.Flush()
	}
	rooms := sink.Rooms()
	c.Thaw(t)
	sink.Wait(t, "the sink is told of room", func([]bustest.Event) bool { return sink.Rooms() > rooms && b.HasRoom() })
	got := sink.Wait(t, "all events", func(got []bustest.Event) bool { return len(got) == n })
	for i, e := range got {
		if e.Data != fmt.Sprintf("%d %s", i, pad) {
			t.Fatalf("event %d is %.10s", i, e.Data)
		}
	}
}

// A NATS that dies while much waits for it leaves nobody waiting, and the next connection begins with nothing in its way.
func TestServerDiesWhilePublishersWait(t *testing.T) {
	c := testkit.StartNATS(t)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: c.URL()}, sink)
	testkit.Eventually(t, "connected", b.Connected)
	c.Freeze(t)
	for b.HasRoom() {
		if code := b.Publish([]byte("t"), make([]byte, 60_000)); code != wire.OK {
			t.Fatal(code)
		}
		b.Flush()
	}
	rooms := sink.Rooms()
	c.Kill(t)
	sink.Wait(t, "the sink is told of room", func([]bustest.Event) bool { return sink.Rooms() > rooms && b.HasRoom() })
	testkit.Eventually(t, "disconnected", func() bool { return !b.Connected() })
	c.Start(t)
	testkit.Eventually(t, "reconnected", b.Connected)
	bustest.Subscribe(t, b, 1, "t")
	bustest.Publish(t, b, "t", "after")
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "after"})
}
