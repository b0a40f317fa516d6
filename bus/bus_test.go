package bus_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/wire"
)

const (
	childPort  = "NOTIFYD_TEST_NATS_PORT"
	childStore = "NOTIFYD_TEST_NATS_STORE" // empty: no JetStream
)

// TestMain runs the test binary as a NATS server of its own process when a test has asked for that.
func TestMain(m *testing.M) {
	if port := os.Getenv(childPort); port != "" {
		runNATS(port)
	}
	os.Exit(m.Run())
}

func runNATS(port string) {
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	store := os.Getenv(childStore)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: n, NoSigs: true, NoLog: true, JetStream: store != "", StoreDir: store,
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test, however that ends
	os.Exit(0)
}

// child is a NATS server in a process of its own.
type child struct {
	port  int
	store string    // JetStream's directory, "": none
	cmd   *exec.Cmd // nil: not running
}

// newChild finds a free port, below those that the system gives to outgoing connections. What is running at
// the end of the test is killed, after everything that was opened later was closed.
func newChild(t testing.TB) *child {
	t.Helper()
	c := &child{}
	eventually(t, "a free port", func() bool {
		c.port = 10_000 + rand.N(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
		return err == nil && l.Close() == nil
	})
	t.Cleanup(func() { c.kill(t) })
	return c
}

func startChild(t testing.TB) *child {
	t.Helper()
	c := newChild(t)
	c.start(t)
	return c
}

// startJetStream starts a child whose files outlive it.
func startJetStream(t testing.TB) *child {
	t.Helper()
	store := t.TempDir()
	c := newChild(t)
	c.store = store
	c.start(t)
	return c
}

func (c *child) start(t testing.TB) {
	t.Helper()
	c.cmd = exec.Command(os.Args[0])
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childPort, c.port), childStore+"="+c.store)
	c.cmd.Stderr = os.Stderr
	// In a group of its own: the kernel continues what is stopped in one whose shell ends (setpgid(2)).
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill is SIGKILL.
func (c *child) kill(t testing.TB) {
	t.Helper()
	if c.cmd == nil {
		return
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.cmd.Wait() // says "signal: killed"
	c.cmd = nil
}

func (c *child) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", c.port) }

// eventually polls ok until a patience that is a hang rather than slowness.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 20_000 / 5 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s: did not happen", what)
}

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

func logs() (*zap.Logger, *observer.ObservedLogs) {
	core, seen := observer.New(zap.DebugLevel)
	return zap.New(core), seen
}

func TestConformance(t *testing.T) {
	c := startChild(t)
	for name, o := range map[string]bus.Options{
		"embedded":         {},
		"embedded, shards": {Shards: 4},
		"no linger":        {Linger: -1},
		"prefix":           {Prefix: "a.b"},
		"external":         {URL: c.url(), Shards: 2},
	} {
		t.Run(name, func(t *testing.T) {
			bustest.Run(t, func(t *testing.T, sink bustest.Sink) bustest.Bus {
				b := open(t, o, sink)
				eventually(t, "connected", b.Connected)
				return b
			})
		})
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	c := startChild(t)
	for name, o := range map[string]bus.Options{"embedded": {}, "external": {URL: c.url()}} {
		t.Run(name, func(t *testing.T) {
			b := open(t, o, bustest.NewRecorder())
			eventually(t, "connected", b.Connected)
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
