//go:build linux

package loop

import (
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// benchGroup is a group of n members whose other ends can be emptied.
type benchGroup struct {
	*Loop
	g      Group
	theirs []int
	buf    []byte
}

func newBenchGroup(t testing.TB, n int) *benchGroup {
	x := &benchGroup{Loop: idle(t, Options{}, &quiet{}), buf: make([]byte, 64<<10)}
	for range n {
		ours, theirs := pair(t)
		c := x.member(ours)
		x.g.Join(&Member{Conn: c, Until: forever})
		x.theirs = append(x.theirs, theirs)
		t.Cleanup(func() { _ = unix.Close(ours) })
	}
	return x
}

// empty reads what the members got and returns how much the last one did.
func (x *benchGroup) empty() (n int) {
	for _, fd := range x.theirs {
		n, _ = readSocket(int32(fd), x.buf)
	}
	return n
}

// event is a frame of 128 bytes, in a batch of its own.
var event = append(appendHeader(nil, ws.OpText, 126), strings.Repeat("e", 126)...)

func (x *benchGroup) deliver() {
	b := NewBatch()
	b.b = append(b.b, event...)
	b.n = 1
	x.Deliver(&x.g, b)
}

func BenchmarkParse(b *testing.B) {
	for name, size := range map[string]int{"16B": 16, "500B": 500, "60kB": 60_000} {
		b.Run(name, func(b *testing.B) {
			l := idle(b, Options{}, &quiet{})
			c := &Conn{loop: l, fd: -1, state: stateOpen, events: readable}
			frame := text(strings.Repeat("x", size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				in, have := l.room(c)
				l.received(c, in[:have+copy(in[have:], frame)])
			}
		})
	}
}

// One event of 128 bytes, and 32 of them merged, to 1,000 sockets; per delivery,
// with the reads that empty the sockets left out.
func BenchmarkDeliver(b *testing.B) {
	for name, events := range map[string]int{"1": 1, "32": 32} {
		b.Run(name, func(b *testing.B) {
			x := newBenchGroup(b, 1000)
			b.ReportAllocs()
			for b.Loop() {
				for range events {
					x.deliver()
				}
				x.take()
				x.flush()
				b.StopTimer()
				x.empty()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events*1000), "ns/delivery")
		})
	}
}

func BenchmarkInbox(b *testing.B) {
	x := newBenchGroup(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		for range 100 {
			x.deliver()
		}
		x.take()
		x.flush()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/event")
}

// A handshake from the head in memory to the answer in memory.
func BenchmarkHandshake(b *testing.B) {
	l := idle(b, Options{}, &quiet{})
	head := make([]byte, len(request))
	b.ReportAllocs()
	for b.Loop() {
		copy(head, request)
		c := &Conn{loop: l, fd: -1, events: readable}
		if l.head(c, head); c.state != stateOpen {
			b.Fatal("refused")
		}
		l.cork.conn, l.cork.frames = nil, l.cork.frames[:0]
	}
}
