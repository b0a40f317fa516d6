//go:build linux

package loop

import (
	"testing"
	"time"
)

// Connections that came together are due together: pings, and the ends of those whose time is over. A turn does some of that, so
// that whatever else comes is not kept waiting by all of it, and the turns that follow do the rest, each once.
func TestDeadlinesAreSpreadOverTurns(t *testing.T) {
	const conns = 2*sweepActs + 10
	opts := Options{
		HandshakeTimeout: 10 * time.Second, MessageTimeout: 20 * time.Second, PingInterval: 30 * time.Second,
		IdleTimeout: 60 * time.Second, CloseTimeout: time.Second, PendingBytes: 1 << 20,
	}
	for name, test := range map[string]struct {
		come  func(c *Conn, now uint32)
		acted func(c *Conn, now uint32) bool
	}{
		"handshakes that never end": {
			come:  func(c *Conn, now uint32) { c.leaveOpen(stateHead); c.state, c.since = stateHead, now-11 },
			acted: func(c *Conn, _ uint32) bool { return c.state == stateDead },
		},
		"messages that never end": {
			come:  func(c *Conn, now uint32) { c.since, c.heard, c.pinged = now-21, now, now },
			acted: func(c *Conn, _ uint32) bool { return c.state == stateLinger },
		},
		"peers that are gone": {
			come:  func(c *Conn, now uint32) { c.heard, c.pinged = now-61, now },
			acted: func(c *Conn, _ uint32) bool { return c.state == stateClosing },
		},
		"pings": {
			come:  func(c *Conn, now uint32) { c.heard, c.pinged = now-30, now-30 },
			acted: func(c *Conn, now uint32) bool { return c.pinged == now },
		},
		"closes that nobody answers": {
			come:  func(c *Conn, now uint32) { c.leaveOpen(stateClosing); c.since = now - 2 },
			acted: func(c *Conn, _ uint32) bool { return c.state == stateDead },
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := idle(t, opts, &hooks{})
			l.sec = 1000
			var all []*Conn
			for range conns {
				fd, _ := pair(t)
				c := l.member(fd)
				test.come(c, l.sec)
				all = append(all, c)
			}
			acted := func() (n int) {
				for _, c := range all {
					if test.acted(c, l.sec) {
						n++
					}
				}
				return n
			}
			l.beginSweep()
			for _, want := range []int{sweepActs, 2 * sweepActs, conns} {
				if !l.sweep.due() {
					t.Error("the loop may sleep")
				}
				l.sweepSome()
				l.cork.release()
				if n := acted(); n != want {
					t.Errorf("%d have been dealt with, want %d", n, want)
				}
				l.beginSweep() // the next second begins: the walk goes on where it was
			}
			for _, c := range all {
				c.abort()
			}
			l.reap()
		})
	}
}
