//go:build linux

package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// measure is a reading of what only goes up.
type measure struct {
	at    time.Time
	cpu   time.Duration // of the server
	own   time.Duration // of this process
	rss   int64
	count counters
	flood Flooded
}

func (r *run) read(count counters) (measure, error) {
	m := measure{count: count}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return m, err
	}
	m.own = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	if r.Process != nil {
		var err error
		if m.cpu, err = r.Process.CPU(); err != nil {
			return m, fmt.Errorf("the server's process: %w", err)
		}
		if m.rss, err = r.Process.RSS(); err != nil {
			return m, fmt.Errorf("the server's process: %w", err)
		}
	}
	if r.flooder != nil {
		m.flood = r.flooder.count()
	}
	m.at = time.Now()
	return m, nil
}

// result is what lies between two measures.
func (r *run) result(load string, from, until measure) Result {
	seconds := until.at.Sub(from.at).Seconds()
	res := Result{
		Server: r.Server, Scenario: r.Plan.Name, Load: load,
		Connections: r.Plan.Connections, Topics: r.Plan.Topics, Publishers: r.Plan.Publishers, Size: r.Size,
		Processes: r.Processes,
		Seconds:   seconds,
		Published: until.count.published - from.count.published,
		Delivered: until.count.delivered - from.count.delivered,
	}
	res.PublishesPerSecond = float64(res.Published) / seconds
	res.DeliveriesPerSecond = float64(res.Delivered) / seconds
	own := float64((until.own - from.own).Nanoseconds()) / 1e3
	res.OwnCPUPerDelivery = each(&own, res.Delivered)
	if r.flooder != nil {
		res.Flooded = until.flood.since(from.flood)
	}
	if r.Process != nil {
		cpu := float64((until.cpu - from.cpu).Nanoseconds()) / 1e3
		cores := cpu / 1e6 / seconds
		res.ServerCores, res.RSS = &cores, &until.rss
		res.CPUPerDelivery, res.CPUPerPublish = each(&cpu, res.Delivered), each(&cpu, res.Published)
	}
	return res
}

// connected adds what opening the connections cost.
func (r *run) connected(res *Result, n int, from, until measure) {
	if r.Process == nil {
		return
	}
	cpu, rss := float64((until.cpu-from.cpu).Nanoseconds())/1e3, float64(until.rss-from.rss)
	res.CPUPerConnect, res.RSSPerConnection = each(&cpu, n), each(&rss, n)
}
