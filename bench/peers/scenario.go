//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/bench/load"
)

// scenario is a load that each server is put through.
type scenario struct {
	Name  string
	About string
	Plan  load.Plan
	Load  load.Load // none where nothing is published
	Size  int       // bytes of an event's data
	Times int       // as long as others; 0 is once. Percentiles need many events.
	Fresh bool      // each publish has a token of its own
}

const (
	small = 128
	large = 1 << 10
	// huge fills the buffers of a connection that is not read within a measurement.
	huge = 16 << 10
)

var scenarios = []scenario{
	window("fan100-w32", "1→100, 32 events in flight", load.Fanout(100), 32, small),
	window("fan1000-w1", "1→1,000, one event in flight", load.Fanout(1000), 1, small),
	window("fan1000-w32", "1→1,000, 32 events in flight", load.Fanout(1000), 32, small),
	window("fan10000-w8", "1→10,000, 8 events in flight", load.Fanout(10000), 8, small),
	long(window("fan10000-w32", "1→10,000, 32 events in flight", load.Fanout(10000), 32, small), 3),
	window("fan1000-1k-w1", "1→1,000 with 1 KiB, one event in flight", load.Fanout(1000), 1, large),
	window("fan1000-1k-w32", "1→1,000 with 1 KiB, 32 events in flight", load.Fanout(1000), 32, large),
	long(window("fan10000-1k-w1", "1→10,000 with 1 KiB, one event in flight", load.Fanout(10000), 1, large), 3),
	long(window("fan10000-1k-w32", "1→10,000 with 1 KiB, 32 events in flight", load.Fanout(10000), 32, large), 3),
	rate("fan1000-r30", "1→1,000, 30 events a second", load.Fanout(1000), 30, small, 3),
	rate("fan1000-r300", "1→1,000, 300 events a second", load.Fanout(1000), 300, small, 2),
	rate("fan1000-r1000", "1→1,000, 1,000 events a second", load.Fanout(1000), 1000, small, 2),
	rate("fan1000-r2000", "1→1,000, 2,000 events a second", load.Fanout(1000), 2000, small, 2),
	rate("pairs10-beside", "10 topics 1:1, 200 events a second in all, alone and beside a fan-out to 10,000", load.Beside(10, 10_000), 200, small, 3),
	window("pairs100-w1", "100 topics 1:1, one event in flight on each", load.Pairs(100), 1, small),
	fresh("pairs100-w1-fresh", "100 topics 1:1, one event in flight on each, each with a new token (EdDSA)", load.Pairs(100), 1, small),
	window("pairs100-w16", "100 topics 1:1, 16 events in flight on each", load.Pairs(100), 16, small),
	rate("pairs100-r3000", "100 topics 1:1, 3,000 events a second in all", load.Pairs(100), 3000, small, 2),
	window("pairs10000-w1", "10,000 topics with one subscriber each, one event in flight on each", load.Pairs(10000), 1, small),
	window("publishers1000-w1", "1,000 publishers to one subscriber, one event of each in flight", load.ManyPublishers(1000), 1, small),
	window("subscriptions100-w1", "100 connections with 100 subscriptions each, one event in flight on each", load.ManySubscriptions(100, 100), 1, small),
	window("http1", "16 connections publish with an HTTP request for each event, to a topic with one subscriber", load.Post(16, 1, 1), 1, small),
	window("ndjson100", "16 connections publish with an HTTP request for 100 events, to a topic with one subscriber", load.Post(16, 100, 1), 100, small),
	{Name: "idle15000", About: "15,000 connections with one subscription each", Plan: load.Idle(15000)},
	{Name: "storm1000", About: "1,000 connections connect, subscribe and are reset, again and again", Plan: load.Storm(1000)},
	rate("stalled", "1→500 with 16 KiB, 100 events a second, before and after a tenth stopped reading", load.Slow(500), 100, huge, 2),
	window("durable10-w32", "10 publishers to a durable topic each, 32 events of each in flight until they are stored in a file", load.Durable(10), 32, small),
	{Name: "replay50000", About: "50,000 stored events of a topic to one client, and the last 5,000 to 1,000 clients at once", Plan: load.Replay(1000, 50_000), Size: small},
	rate("resume5000", "10 topics 1:1 that are kept, 200 events a second in all, before and while 5,000 clients come back within a second, each 100 events behind", load.Resume(10, 5000, 100), 200, small, 3),
	rate("flood", "100 topics 1:1, 1,000 events a second in all, before and while a client sends bad tokens (ES256)", load.Flood(100), 1000, small, 3),
}

func window(name, about string, plan load.Plan, window, size int) scenario {
	return scenario{Name: name, About: about, Plan: plan, Load: load.Load{Window: window}, Size: size}
}

// long is a scenario that takes several times as long as others: some servers need
// seconds for a single window of it.
func long(s scenario, times int) scenario {
	s.Times = times
	return s
}

func fresh(name, about string, plan load.Plan, window, size int) scenario {
	return scenario{Name: name, About: about, Plan: plan, Load: load.Load{Window: window}, Size: size, Fresh: true}
}

func rate(name, about string, plan load.Plan, rate float64, size, times int) scenario {
	return scenario{Name: name, About: about, Plan: plan, Load: load.Load{Rate: rate}, Size: size, Times: times}
}

// findScenario gives the scenario with that name.
func findScenario(name string) (*scenario, error) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("no scenario %q; there are %s", name, strings.Join(scenarioNames(), ", "))
	}
	return &scenarios[i], nil
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.Name)
	}
	return names
}

// metric is something that is measured in a scenario.
type metric struct {
	Name string
	Unit string
}

var (
	cpuPerDelivery   = metric{"CPU per delivery", "µs"}
	ownPerDelivery   = metric{"generator's own", "µs"}
	latency50        = metric{"latency p50", "µs"}
	latency99        = metric{"latency p99", "µs"}
	latency999       = metric{"latency p99.9", "µs"}
	rssPerConnection = metric{"RSS per connection", "B"}
	cpuPerConnection = metric{"CPU per handshake and subscribe", "µs"}
	cpuPerVisit      = metric{"CPU per connect, subscribe and reset", "µs"}
	calm99           = metric{"latency p99 while all read", "µs"}
	stalled99        = metric{"latency p99 of the others", "µs"}
	rssPerStalled    = metric{"RSS per stalled connection, peak", "B"}
	kept             = metric{"stalled connections not closed", "connections"}
	rawVerify        = metric{"ed25519.Verify alone", "µs"}
	quiet99          = metric{"latency p99 without the flood", "µs"}
	flooded99        = metric{"latency p99 with the flood", "µs"}
	alone50          = metric{"latency p50 alone", "µs"}
	alone99          = metric{"latency p99 alone", "µs"}
	beside50         = metric{"latency p50 beside it", "µs"}
	beside99         = metric{"latency p99 beside it", "µs"}
	beside999        = metric{"latency p99.9 beside it", "µs"}
	pong99           = metric{"pong p99 beside it", "µs"}
	crowd99          = metric{"latency p99 of the fan-out", "µs"}
	perStored        = metric{"CPU per stored event", "µs"}
	storedTime       = metric{"until it is stored, p50", "µs"}
	plainStored      = metric{"PublishAsync of nats.go alone", "µs"}
	replayRate       = metric{"events to one client", "/s"}
	plainRate        = metric{"ordered consumer of nats.go alone", "/s"}
	perReplay        = metric{"CPU per delivery to all", "µs"}
	perLive          = metric{"CPU per live delivery, 32 in flight", "µs"}
	back99           = metric{"latency p99 while clients come back", "µs"}
	allLive          = metric{"until all are live", "s"}
	peakRSS          = metric{"RSS, peak", "B"}
	perPosted        = metric{"CPU per event", "µs"}
	posted50         = metric{"until it is answered, p50", "µs"}
	posted99         = metric{"until it is answered, p99", "µs"}
	received99       = metric{"until the subscriber has it, p99", "µs"}
	besideCores      = metric{"CPU beside it", "cores"}
	refusals         = metric{"bad tokens refused", "/s"}
)

func (s *scenario) metrics() []metric {
	switch {
	case s.Plan.Post > 0:
		return []metric{perPosted, posted50, posted99, received99}
	case s.Plan.Stored:
		return []metric{perStored, storedTime, plainStored}
	case s.Plan.Replay > 0:
		return []metric{replayRate, plainRate, perReplay, perLive}
	case s.Plan.Returning > 0:
		return []metric{alone99, back99, allLive, peakRSS}
	case s.Plan.Storm:
		return []metric{cpuPerVisit}
	case s.Plan.Publishers == 0:
		return []metric{rssPerConnection, cpuPerConnection}
	case s.Plan.Stalled > 0:
		return []metric{calm99, stalled99, rssPerStalled, kept}
	case s.Plan.Flood:
		return []metric{quiet99, flooded99, refusals}
	case s.Plan.Beside > 0:
		return []metric{alone50, alone99, beside50, beside99, beside999, pong99, crowd99, besideCores}
	case s.Fresh:
		return []metric{cpuPerDelivery, ownPerDelivery, rawVerify}
	case s.Load.Rate > 0:
		return []metric{cpuPerDelivery, latency50, latency99, latency999}
	}
	return []metric{cpuPerDelivery, ownPerDelivery}
}

// tokens says whether the scenario is about tokens.
func (s *scenario) tokens() bool { return s.Fresh || s.Plan.Flood }

// duration is how long the scenario is measured.
func (s *scenario) duration(o *options) time.Duration {
	if s.Plan.Publishers == 0 && !s.Plan.Storm && s.Plan.Replay == 0 {
		return o.settle
	}
	return o.duration * time.Duration(max(1, s.Times))
}

func (o *options) warmup() time.Duration { return o.duration / 4 }

// estimate is how long the scenario takes with one server, roughly.
func (s *scenario) estimate(o *options) time.Duration {
	const start, connect, drain = time.Second / 2, 200 * time.Microsecond, 2 * time.Second
	took := start + time.Duration(s.Plan.Connections+s.Plan.Beside)*connect + s.duration(o)
	switch {
	case s.Plan.Replay > 0 || s.Plan.Stored:
		return 4 * (took + o.warmup())
	case s.Plan.Returning > 0:
		return 3*took + time.Duration(s.Plan.Returning)*connect
	case s.Plan.Stalled > 0 || s.Plan.Flood || s.Plan.Beside > 0:
		return 2*(took+o.warmup()) + drain
	case s.Plan.Publishers > 0:
		return took + o.warmup()
	}
	return took + time.Second // in which the server is left alone before the connections come
}

// impossible says why this machine cannot run the scenario; "" if it can.
// Generator and server need a descriptor for each connection.
func (s *scenario) impossible() string {
	const spare = 200
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err.Error()
	}
	if need := s.Plan.Connections + s.Plan.Publishers + s.Plan.Beside + s.Plan.Returning + spare; uint64(need) > limit.Max {
		return fmt.Sprintf("needs %d descriptors; this machine allows a process %d", need, limit.Max)
	}
	return ""
}
