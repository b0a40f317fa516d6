package server_test

import (
	"runtime"
	"testing"
	"time"
)

// While there is little to do Go has one processor; work for one and a fan-out each
// bring back the others. Events come through all that.
func TestProcessorsFollowTheWork(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	runtime.SetDefaultGOMAXPROCS()
	all := runtime.GOMAXPROCS(0)
	if all == 1 {
		t.Skip("this machine has one processor")
	}
	var with setup
	with.fake, with.alg = new(memBus), "HS256"
	with.server.AdaptProcessors = true
	n := start(t, with)
	become := func(what string, processors int) {
		t.Helper()
		eventually(t, what, func() bool { return runtime.GOMAXPROCS(0) == processors })
	}
	token := n.all(t)
	p := n.dial(t)
	p.subscribe("a", token)

	become("one processor", 1)
	p.fence()
	for end := time.Now().Add(patience); runtime.GOMAXPROCS(0) == 1 && time.Now().Before(end); {
		p.fence()
	}
	become("all processors, for much work", all)
	p.fence()

	become("one processor again", 1)
	peers := []*peer{p}
	for range 130 {
		x := n.dial(t)
		x.subscribe("a", token)
		peers = append(peers, x)
	}
	become("one processor with many connections", 1)
	n.dial(t).publish("a", token, `"to all"`)
	for _, x := range peers {
		x.want("to all")
	}
	become("all processors, for a fan-out", all)

	become("one processor for the last time", 1)
	n.stop()
	if got := runtime.GOMAXPROCS(0); got != all {
		t.Errorf("%d processors after the shutdown", got)
	}
}
