package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
)

var zapNop = zap.NewNop()

// wantField asserts that err blames field and tells value and remedy.
func wantField(t *testing.T, err error, field, value string) {
	t.Helper()
	var oe *bus.OptionError
	if !errors.As(err, &oe) {
		t.Fatalf("got %v", err)
	}
	if oe.Field != field || oe.Value != value || oe.Remedy == "" {
		t.Errorf("got %q %q %q: %v", oe.Field, oe.Value, oe.Remedy, err)
	}
}

func TestEmbeddedLeavesNothingBehind(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	before := goleak.IgnoreCurrent()
	for range 3 {
		b, err := bus.Open(t.Context(), bus.Options{}, bustest.NewRecorder(), zapNop)
		if err != nil {
			t.Fatal(err)
		}
		bustest.Subscribe(t, b, 1, "t")
		if left, _ := os.ReadDir(tmp); len(left) != 1 {
			t.Errorf("in use: %v", left)
		}
		closeBus(t, b)
		closeBus(t, b) // twice does no harm
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	goleak.VerifyNone(t, before)
}

func TestExternalLeavesNothingBehind(t *testing.T) {
	c := testkit.StartNATS(t)
	before := goleak.IgnoreCurrent()
	up, err := bus.Open(t.Context(), bus.Options{URL: c.URL()}, bustest.NewRecorder(), zapNop)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "connected", up.Connected)
	c.Kill(t)
	testkit.Eventually(t, "disconnected", func() bool { return !up.Connected() })
	closeBus(t, up) // in the middle of reconnecting
	never, err := bus.Open(t.Context(), bus.Options{URL: c.URL()}, bustest.NewRecorder(), zapNop)
	if err != nil {
		t.Fatal(err)
	}
	closeBus(t, never)
	goleak.VerifyNone(t, before)
}

func TestDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	open1, err := bus.Open(t.Context(), bus.Options{DataDir: dir}, bustest.NewRecorder(), zapNop)
	if err != nil {
		t.Fatal(err)
	}
	_, err = bus.Open(t.Context(), bus.Options{DataDir: dir}, bustest.NewRecorder(), zapNop)
	wantField(t, err, "DataDir", dir)
	if !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
	name := open1.Node()
	closeBus(t, open1)
	again := open(t, bus.Options{DataDir: dir}, bustest.NewRecorder())
	if again.Node() != name || name == "" {
		t.Errorf("node %q, then %q", name, again.Node())
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = bus.Open(t.Context(), bus.Options{DataDir: file}, bustest.NewRecorder(), zapNop)
	wantField(t, err, "DataDir", file)

	// JetStream's own directory cannot be made.
	blocked := t.TempDir()
	if err := os.WriteFile(filepath.Join(blocked, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = bus.Open(t.Context(), bus.Options{DataDir: blocked}, bustest.NewRecorder(), zapNop)
	wantField(t, err, "DataDir", blocked)
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	taken := l.Addr().String()
	_, err = bus.Open(t.Context(), bus.Options{Embedded: bus.Embedded{Listen: "u:secret@" + taken}}, bustest.NewRecorder(), zapNop)
	wantField(t, err, "Embedded.Listen", "***@"+taken)
	_, err = bus.Open(t.Context(), bus.Options{DataDir: t.TempDir(), Embedded: bus.Embedded{ClusterName: "c", ClusterListen: taken, Routes: []string{taken}}}, bustest.NewRecorder(), zapNop)
	wantField(t, err, "Embedded.ClusterListen", taken)
}

func TestOpenHonoursContext(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := bus.Open(ctx, bus.Options{}, bustest.NewRecorder(), zapNop); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	goleak.VerifyNone(t, before) // it tidies up behind us
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Any NATS client is a publisher and a subscriber, with the password that the operator set.
func TestListen(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{Embedded: bus.Embedded{Listen: "u:pw@" + addr}}, sink)
	if nc, err := nats.Connect(addr); err == nil {
		nc.Close()
		t.Error("no password was needed")
	}
	nc, err := nats.Connect(addr, nats.UserInfo("u", "pw"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("notify.ev.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	bustest.Subscribe(t, b, 1, "a.b")
	bustest.Publish(t, b, "a.b", "ours")
	m, err := sub.NextMsg(20 * time.Second)
	if err != nil || m.Subject != "notify.ev.a.b" || string(m.Data) != "ours" || len(m.Header) != 0 {
		t.Errorf("%v %v", m, err)
	}
	if err := nc.Publish("notify.ev.a.b", []byte("theirs")); err != nil {
		t.Fatal(err)
	}
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "a.b", Data: "theirs"})
	if err := nc.PublishMsg(&nats.Msg{Subject: "notify.ev.a.b", Header: nats.Header{"A": {"b"}}, Reply: "_INBOX.1", Data: []byte("with a header")}); err != nil {
		t.Fatal(err)
	}
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "a.b", Data: "with a header"})
}

func TestCluster(t *testing.T) {
	ca, caFile, _ := certificate(t, nil)
	_, cert, key := certificate(t, &ca)
	for name, o := range map[string]bus.Options{"plain": {}, "mutual TLS": {TLSCA: caFile, TLSCert: cert, TLSKey: key}} {
		t.Run(name, func(t *testing.T) { testCluster(t, o) })
	}
}

func testCluster(t *testing.T, o bus.Options) {
	var addrs []string
	for range 3 {
		addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port))
	}
	var nodes []*bus.Bus
	var sinks []*bustest.Recorder
	log, seen := testkit.Log()
	for _, a := range addrs {
		sink := bustest.NewRecorder()
		o.DataDir, o.Embedded = t.TempDir(), bus.Embedded{ClusterName: "c", ClusterListen: "u:secret@" + a, Routes: addrs}
		b, err := bus.Open(t.Context(), o, sink, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeBus(t, b) })
		nodes, sinks = append(nodes, b), append(sinks, sink)
	}
	// Interest takes a moment to reach the other members, as they take a moment to meet.
	for i, b := range nodes {
		bustest.Subscribe(t, b, 5, "from.*")
		testkit.Eventually(t, "events from all", func() bool {
			for j, from := range nodes {
				bustest.Publish(t, from, fmt.Sprintf("from.%d", j), "x")
			}
			seen := map[string]bool{}
			for _, e := range sinks[i].Events() {
				seen[e.Topic] = true
			}
			return len(seen) == 3
		})
	}
	names := map[string]bool{}
	for _, b := range nodes {
		names[b.Node()] = true
	}
	if len(names) != 3 {
		t.Errorf("names %v", names)
	}
	for _, e := range seen.All() {
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "secret") {
			t.Errorf("logged: %s", text)
		}
	}
}

// A start of the embedded server that nothing is wrong with warns of nothing.
func TestStartWarnsOfNothing(t *testing.T) {
	for _, o := range []bus.Options{{}, {Embedded: bus.Embedded{Listen: fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port)}}} {
		log, seen := testkit.Log()
		b, err := bus.Open(t.Context(), o, bustest.NewRecorder(), log)
		if err != nil {
			t.Fatal(err)
		}
		closeBus(t, b)
		for _, e := range seen.All() {
			if e.Level > zap.InfoLevel {
				t.Errorf("%v: %s", e.Level, e.Message)
			}
		}
	}
}
