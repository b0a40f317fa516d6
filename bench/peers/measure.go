//go:build linux

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/bench/load"
)

var (
	errLost     = errors.New("deliveries never came")
	errInvented = errors.New("more came than was published")
	errNothing  = errors.New("nothing was published in the measured time; --duration is too short")
)

// measure puts a running server through the scenario.
func (s *scenario) measure(ctx context.Context, p *process, c *candidate, o *options) (map[metric]float64, []load.Result, error) {
	p.settles = s.Load.Rate == 0
	options := load.Options{
		Plan: s.Plan, Target: c.target, Server: c.name, URL: "ws://" + p.addr + c.path, Process: p,
		Size: s.Size, Warmup: o.warmup(), Duration: s.duration(o),
	}
	if s.Fresh {
		options.Target = c.fresh
	}
	options.Plan.Events = c.streams
	if s.Plan.Stored || s.Plan.Replay > 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		options.Plain = func() *exec.Cmd { return exec.Command(self, "plain") }
		if p.nats != nil {
			options.NATS = &load.NATS{URL: "nats://" + p.nats.addr, PID: p.nats.cmd.Process.Pid}
		}
	}
	if s.Plan.Publishers > 0 {
		options.Loads = []load.Load{s.Load}
	}
	results, err := load.Run(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	for i := range results {
		if err := s.complete(&results[i]); err != nil {
			return nil, nil, err
		}
	}
	values, err := s.values(p, c, results)
	return values, results, err
}

// complete fails if a server lost or invented events, and thus did less or more
// than it was to do.
func (s *scenario) complete(r *load.Result) error {
	if r.Lost > 0 {
		return fmt.Errorf("%d %w", r.Lost, errLost)
	}
	if r.Returned != nil && r.Returned.Lost > 0 {
		return fmt.Errorf("%d %w, to clients that came back", r.Returned.Lost, errLost)
	}
	if s.Plan.Stored || s.Plan.Replay > 0 {
		return nil // answers, and what was published before
	}
	fan := uint64(s.fan())
	// A window may be under way when the measurement begins; at a rate, as much as a
	// slow server is late; where publishers do not wait for subscribers, as much as these are behind.
	under := uint64(s.Load.Window*max(s.Plan.Topics, s.Plan.Publishers)) * fan
	if s.Load.Rate > 0 || s.Plan.Answered {
		under = r.Published*fan/2 + fan
	}
	if r.Delivered > r.Published*fan+under {
		return fmt.Errorf("%w: %d for %d publishes to %d", errInvented, r.Delivered, r.Published, fan)
	}
	return nil
}

// fan is how many deliveries a publish brings while all read.
func (s *scenario) fan() int { return s.Plan.Connections * s.Plan.Subscriptions / s.Plan.Topics }

func (s *scenario) values(p *process, c *candidate, results []load.Result) (map[metric]float64, error) {
	r := results[0]
	switch {
	case s.Plan.Post > 0:
		if r.Published == 0 {
			return nil, errNothing
		}
		return map[metric]float64{
			perPosted: *r.CPUPerPublish, posted50: r.Latency.P50, posted99: r.Latency.P99, received99: r.Received.P99,
		}, nil
	case s.Plan.Stored:
		return map[metric]float64{perStored: *r.CPUPerPublish, storedTime: r.Latency.P50, plainStored: *results[1].CPUPerPublish}, nil
	case s.Plan.Replay > 0:
		all, live, plain := results[1], results[2], results[3]
		return map[metric]float64{
			replayRate: r.DeliveriesPerSecond, plainRate: plain.DeliveriesPerSecond,
			perReplay: *all.CPUPerDelivery, perLive: *live.CPUPerDelivery,
		}, nil
	case s.Plan.Returning > 0:
		back := results[1].Returned
		return map[metric]float64{
			alone99: r.Latency.P99, back99: results[1].Latency.P99, allLive: back.Seconds, peakRSS: float64(back.RSS),
		}, nil
	case s.Plan.Flood:
		return flood(r, results[1])
	case s.Plan.Beside > 0:
		return beside(r, results[1])
	case s.Plan.Storm:
		return map[metric]float64{cpuPerVisit: *r.CPUPerConnect}, nil
	case s.Plan.Publishers == 0:
		return map[metric]float64{rssPerConnection: *results[1].RSSPerConnection, cpuPerConnection: *r.CPUPerConnect}, nil
	case s.Plan.Stalled > 0:
		growth, err := p.growth()
		stalled := results[1]
		closed := stalled.Dropped
		if c.tooSlow != "" {
			closed = stalled.DroppedBy[c.tooSlow]
		}
		return map[metric]float64{
			calm99: r.Latency.P99, stalled99: stalled.Latency.P99,
			rssPerStalled: float64(growth) / float64(s.Plan.Stalled),
			kept:          float64(stalled.Stalled - closed),
		}, err
	}
	if r.Published == 0 {
		return nil, errNothing
	}
	// Whatever was published has been delivered when the processor time is read; see process.CPU.
	values := map[metric]float64{cpuPerDelivery: *r.CPUPerPublish / float64(s.fan())}
	if s.Load.Rate > 0 {
		values[latency50], values[latency99], values[latency999] = r.Latency.P50, r.Latency.P99, r.Latency.P999
	} else if r.OwnCPUPerDelivery != nil {
		values[ownPerDelivery] = *r.OwnCPUPerDelivery
	}
	if s.Fresh {
		token, err := c.fresh.Mint()
		if err != nil {
			return nil, err
		}
		values[rawVerify], err = verifyTime(token)
		return values, err
	}
	return values, nil
}

func beside(alone, beside load.Result) (map[metric]float64, error) {
	crowd := beside.Beside
	switch {
	case alone.Pong.Count == 0 || beside.Pong.Count == 0:
		return nil, errors.New("no ping was answered in the measured time")
	case crowd.Lost > 0:
		return nil, fmt.Errorf("%d %w, of the fan-out", crowd.Lost, errLost)
	case crowd.Latency.Count == 0:
		return nil, errors.New("the fan-out had no event in the measured time; --duration is too short")
	}
	return map[metric]float64{
		alone50: alone.Latency.P50, alone99: alone.Latency.P99,
		beside50: beside.Latency.P50, beside99: beside.Latency.P99, beside999: beside.Latency.P999,
		pong99: beside.Pong.P99, crowd99: crowd.Latency.P99, besideCores: *beside.ServerCores,
	}, nil
}

func flood(before, during load.Result) (map[metric]float64, error) {
	if during.Flooded.Refused == 0 {
		return nil, errors.New("no bad token was refused in the measured time")
	}
	return map[metric]float64{
		quiet99: before.Latency.P99, flooded99: during.Latency.P99,
		refusals: float64(during.Flooded.Refused) / during.Seconds,
	}, nil
}

// verifications is how many are timed: a tenth of a second's.
const verifications = 2000

// verifyTime is how many microseconds of processor time this machine takes now to
// verify an Ed25519 signature of what such a token signs, and nothing else.
func verifyTime(token string) (float64, error) {
	signed := []byte(token[:strings.LastIndexByte(token, '.')])
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return 0, err
	}
	signature := ed25519.Sign(private, signed)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, err := threadTime()
	if err != nil {
		return 0, err
	}
	for range verifications {
		if !ed25519.Verify(public, signed, signature) {
			return 0, errors.New("a good signature was refused")
		}
	}
	ended, err := threadTime()
	return float64((ended - began).Nanoseconds()) / 1e3 / verifications, err
}

// threadTime is the processor time of this thread.
func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}
