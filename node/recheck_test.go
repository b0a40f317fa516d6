package node

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/notifyd/notifyd/internal/testkit"
)

// Requests for a recheck that come while one runs become one, which begins after them.
func TestRecheckerJoinsRequests(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	r := newRechecker()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.run(ctx, func() { began <- struct{}{}; <-goOn }) }()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(r.took)
	measured := func() uint64 {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].GetMetric()[0].GetHistogram().GetSampleCount()
	}
	r.ask()
	r.await(time.Now())
	<-began
	for range 100 {
		r.ask()
		r.await(time.Now().Add(time.Hour)) // a clock that is ahead
	}
	goOn <- struct{}{}
	<-began
	if n := measured(); n != 1 {
		t.Errorf("%d were measured before the recheck that they wait for ended", n)
	}
	goOn <- struct{}{}
	testkit.Eventually(t, "all are measured", func() bool { return measured() == 101 })
	<-r.await(time.Now()) // what it waits for is over
	if n := measured(); n != 102 {
		t.Errorf("%d were measured", n)
	}
	r.ask()
	behind := r.await(time.Time{})
	<-began
	select {
	case <-behind:
		t.Error("a recheck that has not ended has settled what waits for it")
	default:
	}
	goOn <- struct{}{}
	<-behind
	if n := measured(); n != 102 {
		t.Errorf("%d were measured, with one that is not to be", n)
	}
	cancel()
	<-ended
}
