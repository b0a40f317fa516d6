package server

import (
	"testing"
	"time"

	"github.com/notifyd/notifyd/server/loop"
)

// The machine's clock decides when tokens end, and nothing else: a connection that has to authenticate has the same
// time for it, however the clock is set.
func TestClockIsSet(t *testing.T) {
	x := newStage(t, Options{RequireConnection: true, AuthDeadline: time.Minute})
	x.with(func(c *loop.Conn) {
		ses, now := sessionOf(c), c.Loop().Now()
		for _, by := range []time.Duration{0, time.Hour, -time.Hour} {
			if _, open := x.deadlines(c, ses, now+int64(by)); !open {
				t.Fatalf("the clock was set by %v: the time to authenticate was over", by)
			}
		}
		ses.opened -= 62
		if _, open := x.deadlines(c, ses, now-int64(time.Hour)); open {
			t.Error("the clock was set back: the time to authenticate did not end")
		}
	})
}
