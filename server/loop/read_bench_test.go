//go:build linux

package loop

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// One message of 500 bytes from each of 100 sockets: read(2), frame, handler.
// The writes are left out.
func BenchmarkReadable(b *testing.B) {
	const peers = 100
	q := &quiet{}
	l := idle(b, Options{}, q)
	frame := text(strings.Repeat("x", 500))
	conns, theirs := make([]*Conn, peers), make([]int, peers)
	for i := range conns {
		ours, their := pair(b)
		conns[i], theirs[i] = l.member(ours), their
		b.Cleanup(func() { _ = unix.Close(ours) })
	}
	b.ReportAllocs()
	turns := 0
	for b.Loop() {
		b.StopTimer()
		for _, fd := range theirs {
			if _, err := unix.Write(fd, frame); err != nil {
				b.Fatal(err)
			}
		}
		turns++
		b.StartTimer()
		for _, c := range conns {
			l.readable(c)
		}
	}
	if q.messages != turns*peers {
		b.Errorf("%d messages, want %d", q.messages, turns*peers)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*peers), "ns/message")
}
