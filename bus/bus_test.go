package bus_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func open(t testing.TB, o bus.Options, sink bus.Sink) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), o, sink, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	return b
}

func closeBus(t testing.TB, b *bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	c := testkit.StartNATS(t)
	for name, o := range map[string]bus.Options{
		"embedded":         {},
		"embedded, shards": {Shards: 4},
		"no linger":        {Linger: -1},
		"prefix":           {Prefix: "a.b"},
		"external":         {URL: c.URL(), Shards: 2},
	} {
		t.Run(name, func(t *testing.T) {
			bustest.Run(t, func(t *testing.T, sink bustest.Sink) bustest.Bus {
				b := open(t, o, sink)
				testkit.Eventually(t, "connected", b.Connected)
				return b
			})
		})
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	c := testkit.StartNATS(t)
	for name, o := range map[string]bus.Options{"embedded": {}, "external": {URL: c.URL()}} {
		t.Run(name, func(t *testing.T) {
			b := open(t, o, bustest.NewRecorder())
			testkit.Eventually(t, "connected", b.Connected)
			topic, data := []byte("rooms.42"), make([]byte, 128)
			if n := testing.AllocsPerRun(1000, func() {
				if c := b.Publish(topic, data); c != wire.OK {
					t.Fatal(c)
				}
				b.Flush()
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestPublishGuardsTheConnection(t *testing.T) {
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{MaxPayload: 1000}, sink)
	bustest.Subscribe(t, b, 1, ">")
	long := make([]byte, 5000)
	for i := range long {
		long[i] = 'x'
	}
	for _, topic := range []string{
		"", "a b", "a\tb", "a\r\nPUB notify.ev.evil 1\r\nx", "a\nb", "a\x00b", "a\x7fb", "\x1b", " ", string(long), string(long[:256]),
	} {
		if c := b.Publish([]byte(topic), []byte("x")); c != wire.BadTopic {
			t.Errorf("topic %.20q: %v", topic, c)
		}
	}
	if c := b.Publish([]byte("big"), make([]byte, 1001)); c != wire.TooLarge {
		t.Errorf("1,001 bytes: %v", c)
	}
	if c := b.Publish(long[:255], make([]byte, 1000)); c != wire.OK {
		t.Errorf("the largest: %v", c)
	}
	bustest.Publish(t, b, "ünïcode.日本", "end")
	got := sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "ünïcode.日本", Data: "end"})
	if len(got) != 2 {
		t.Errorf("%d events arrived", len(got))
	}
	if st := b.Stats(); st.Reconnects != 0 || st.Errors != 0 || st.Published != 2 {
		t.Errorf("%+v", st)
	}
}
