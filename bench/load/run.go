//go:build linux

// Package load puts a WebSocket pub/sub server under load and measures what it
// costs: processor time for each delivery and publish, memory for each
// connection, and how late events arrive. Any server can be measured for which
// there is a Target; notifyd's is here.
//
// plan.go is who is connected to what, pace.go when they publish, engine.go the
// loop that publishes and receives, frames.go and mark.go what it looks at.
// events.go is
// Server-Sent Events instead. traffic.go measures one load, measure.go reads what is measured. flood.go is a
// client that disturbs, beside.go a fan-out to many, http.go those that publish by HTTP. keep.go, replay.go and resume.go are about
// durable topics, plain.go is what they are compared with. receivers.go and worker.go share the subscribers between
// processes, which link.go joins.
package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// Process is the server's process, as far as it is measured.
type Process interface {
	CPU() (time.Duration, error)
	RSS() (bytes int64, err error)
}

// Options say what to measure.
type Options struct {
	Plan     Plan
	Loads    []Load // one after the other, on the same connections; none for Idle and Storm
	Target   Target
	Server   string       // its name in the results
	URL      string       // ws://HOST:PORT/PATH
	Sources  []netip.Addr // addresses to connect from, 20,000 connections each; none: 127.0.0.0/8 in turn for a server there
	Process  Process      // nil: the server's costs stay unknown
	Size     int          // bytes of an event's data, MinSize or more
	Warmup   time.Duration
	Duration time.Duration
	// Processes, if more than 1, is how many others share the subscribing
	// connections; this one publishes. Worker makes a command that calls Work.
	Processes int
	Worker    func() *exec.Cmd
	// Plain, if not nil, makes a command that calls PlainWork. What durable topics cost is
	// then compared with what NATS takes for the same without notifyd: with a server of
	// its own or, if NATS is not nil, with that.
	Plain func() *exec.Cmd
	NATS  *NATS
	// Progress, if not nil, is called some times a second, by Run's goroutine.
	Progress func(Progress)
}

// Progress is how far Run has come.
type Progress struct {
	Doing      string  // "fanout, window 32"
	Done       float64 // 0 to 1
	Deliveries float64 // a second
	Connected  int
}

const (
	// openers is how many connections are opened at once.
	openers = 32
	// progressEvery is how often progress is reported.
	progressEvery = 200 * time.Millisecond
	// pollEvents is how many events one epoll_wait brings.
	pollEvents = 512
)

// Run does everything in the options, and gives one result for each load. An
// error ends it at once; ctx ends it with its error.
func Run(ctx context.Context, o Options) (results []Result, err error) {
	if err := o.Plan.check(); err != nil {
		return nil, err
	}
	if !o.Plan.Storm && o.Plan.Publishers > 0 && o.Size < MinSize {
		return nil, fmt.Errorf("size: %d bytes do not hold the mark; %d do", o.Size, MinSize)
	}
	r, err := newRun(o, strings.ToLower(rand.Text()[:6]))
	if err != nil {
		return nil, err
	}
	if o.Processes > 1 && o.Plan.Connections > 0 && o.Plan.Replay == 0 && !o.Plan.Answered && o.Plan.Batch == 0 {
		if r.receivers, err = startReceivers(o.Worker, min(o.Processes, o.Plan.Connections)); err != nil {
			return nil, err
		}
		defer r.receivers.end()
		r.end = 0
	}
	if err := enoughDescriptors(r.descriptors()); err != nil {
		return nil, err
	}
	switch {
	case o.Plan.Storm:
		return r.storm(ctx)
	case o.Plan.Stored:
		return r.durable(ctx)
	case o.Plan.Replay > 0:
		return r.replay(ctx)
	case o.Plan.Batch > 0:
		return r.http(ctx)
	case o.Plan.Publishers == 0:
		return r.idle(ctx)
	}
	var f *flooder
	var crowd *crowd
	var back *returners
	switch {
	case o.Plan.Flood:
		f, err = newFlooder(r)
	case o.Plan.Beside > 0:
		crowd, err = newCrowd(r)
	case o.Plan.Returning > 0:
		back, err = newReturners(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if results, err = r.traffic(ctx, 0); err != nil || o.Plan.Stalled == 0 && f == nil && crowd == nil && back == nil {
		return results, err
	}
	r.flooder, r.crowd, r.returners = f, crowd, back
	// Clients that were cut off are gone: each load begins with new ones.
	for _, l := range o.Loads {
		r.Loads = []Load{l}
		more, err := r.traffic(ctx, o.Plan.Stalled)
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	return results, nil
}

type run struct {
	Options
	id         string
	dialer     *dialer
	keeper     Keeper     // of durable topics, or of frames that are answered
	poster     Poster     // of HTTP requests
	names      []string   // topics
	first, end int        // the subscribing connections of this process: from first up to end
	receivers  *receivers // has them instead, if not nil
	flooder    *flooder   // disturbs each load, if not nil
	crowd      *crowd     // as does this
	returners  *returners // and these
}

func newRun(o Options, id string) (*run, error) {
	d, err := newDialer(o.URL, o.Target, o.Sources)
	if err != nil {
		return nil, err
	}
	r := &run{Options: o, id: id, dialer: d, names: o.Plan.names(id), end: o.Plan.Connections}
	if o.Plan.Post > 0 {
		var ok bool
		if r.poster, ok = o.Target.(Poster); !ok {
			return nil, fmt.Errorf("%s: needs a server that takes HTTP requests, whose target is a Poster", o.Plan.Name)
		}
	}
	if o.Plan.Kept() || o.Plan.Answered && o.Plan.Post == 0 {
		var ok bool
		if r.keeper, ok = o.Target.(Keeper); !ok {
			return nil, fmt.Errorf("%s: needs a server that keeps events, whose target is a Keeper", o.Plan.Name)
		}
	}
	return r, nil
}

// descriptors is how many this process needs for connections and pipes.
func (r *run) descriptors() int {
	n := r.end - r.first + r.Plan.Publishers + r.Plan.warm() + r.Plan.others()
	if r.receivers != nil {
		n += 2 * len(r.receivers.all)
	}
	return n
}
