package node_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/node"
	"github.com/notifyd/notifyd/wire"
)

// BenchmarkReplay reads 50,000 events, as a node stores them, of a NATS in a process of its own: in turn by a client that
// resumes from their beginning, and by an ordered consumer of nats.go. ratio is of the events a second.
func BenchmarkReplay(b *testing.B) {
	const events = 50_000
	child := testkit.StartJetStream(b)
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		b.Fatal(err)
	}
	n, err := node.Start(b.Context(), node.Options{
		Auth: authz.Options{Trusted: []authz.Key{key}},
		Bus:  bus.Options{URL: child.URL(), Streams: []bus.StreamOptions{{Name: "kept", Topics: []string{"kept.>"}, MaxBytes: 64 << 20}}},
	}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	for _, s := range n.Bus.Streams() {
		testkit.Eventually(b, "the stream", func() bool { ready, _ := s.Ready(); return ready })
	}
	conn, err := nats.Connect(child.URL())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	data := fmt.Appendf(nil, "%q", bytes.Repeat([]byte("x"), 126))
	for i := range events {
		m := &nats.Msg{Subject: fmt.Sprintf("notify.ev.kept.%d", i%20), Data: data, Header: nats.Header{"Notifyd-From": {"somebody"}, "Notifyd-Jti": {"0123456789"}}}
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	token, err := authz.Sign(key, authz.Claims{Subject: "reader", Expires: time.Now().Add(time.Hour), Subscribe: []string{">"}})
	if err != nil {
		b.Fatal(err)
	}
	var replays, consumers, replayCPU, consumerCPU time.Duration
	var ratios []float64
	for round := 0; b.Loop(); round++ { // each from a position of its own: no chunk is there yet
		start, cpu := time.Now(), cpuOf(b, child.Pid())
		replay(b, n.Addr().String(), token, round, events)
		took := time.Since(start)
		replays += took
		replayCPU += cpuOf(b, child.Pid()) - cpu
		start, cpu = time.Now(), cpuOf(b, child.Pid())
		consume(b, js, events)
		consumers += time.Since(start)
		consumerCPU += cpuOf(b, child.Pid()) - cpu
		ratios = append(ratios, time.Since(start).Seconds()/took.Seconds())
	}
	b.ReportMetric(events*float64(b.N)/replays.Seconds(), "events/s")
	b.ReportMetric(events*float64(b.N)/consumers.Seconds(), "consumer-events/s")
	b.ReportMetric(consumers.Seconds()/replays.Seconds(), "ratio")
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "median-ratio")
	b.ReportMetric(float64(replayCPU.Nanoseconds())/events/float64(b.N), "cpu-ns/event")
	b.ReportMetric(float64(consumerCPU.Nanoseconds())/events/float64(b.N), "consumer-cpu-ns/event")
}

// cpuOf is what this process and another one have used.
func cpuOf(b *testing.B, pid int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(u.Utime.Nano()+u.Stime.Nano()) + time.Duration(user+system)*10*time.Millisecond
}

// replay resumes a subscription, and reads up to the last event.
func replay(b *testing.B, addr, token string, after, last int) {
	c, r, _, err := ws.Dial(b.Context(), "ws://"+addr+wire.Path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if r == nil {
		r = bufio.NewReaderSize(c, 64<<10)
	}
	if err := wsutil.WriteClientText(c, fmt.Appendf(nil, `{"type":"subscribe","topic":"kept.>","token":%q,"since":{"seq":%d}}`, token, after)); err != nil {
		b.Fatal(err)
	}
	var payload []byte
	for seq := after; seq < last; {
		h, err := ws.ReadHeader(r)
		if err != nil {
			b.Fatal(err)
		}
		payload = append(payload[:0], make([]byte, h.Length)...)
		if _, err := io.ReadFull(r, payload); err != nil {
			b.Fatal(err)
		}
		if !bytes.HasPrefix(payload, []byte(`{"type":"event"`)) {
			continue
		}
		seq++
		if !bytes.Contains(payload, fmt.Appendf(nil, `,"seq":%d,`, seq)) {
			b.Fatalf("event %d is %s", seq, payload)
		}
	}
}

// consume reads so many events with an ordered consumer.
func consume(b *testing.B, js jetstream.JetStream, events int) {
	c, err := js.OrderedConsumer(context.Background(), "notify-kept", jetstream.OrderedConsumerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		b.Fatal(err)
	}
	defer messages.Stop()
	for range events {
		if _, err := messages.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
