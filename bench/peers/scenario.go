//go:build linux

package main

import "time"

// scenario is a load that each server is put through. With a window, it is a
// closed loop: a topic's publisher sends that many events in one write, and again
// as soon as every subscriber of the topic has got all of them. With a rate, it is
// an open loop.
type scenario struct {
	Name        string
	About       string
	Topics      int // each with a publisher of its own
	Subscribers int // of each topic
	Window      int
	Rate        int // publishes a second, over all topics
	Connections int // only opened, over all topics, and then left alone
}

// payloadBytes is the size of an event's data.
const payloadBytes = 128

var scenarios = []scenario{
	{Name: "fan1000-w1", About: "1→1,000, one event in flight", Topics: 1, Subscribers: 1000, Window: 1},
	{Name: "fan1000-w32", About: "1→1,000, 32 events in flight", Topics: 1, Subscribers: 1000, Window: 32},
	{Name: "fan10000-w8", About: "1→10,000, 8 events in flight", Topics: 1, Subscribers: 10000, Window: 8},
	{Name: "fan1000-r30", About: "1→1,000, 30 events a second", Topics: 1, Subscribers: 1000, Rate: 30},
	{Name: "pairs100-w1", About: "100 topics 1:1, one event in flight on each", Topics: 100, Subscribers: 1, Window: 1},
	{Name: "pairs100-w16", About: "100 topics 1:1, 16 events in flight on each", Topics: 100, Subscribers: 1, Window: 16},
	{Name: "pairs100-r3000", About: "100 topics 1:1, 3,000 events a second in all", Topics: 100, Subscribers: 1, Rate: 3000},
	{Name: "idle15000", About: "15,000 connections with one subscription each", Topics: 100, Connections: 15000},
}

// metric is something that is measured in a scenario.
type metric struct {
	Name string
	Unit string
}

var (
	cpuPerDelivery   = metric{"CPU per delivery", "µs"}
	latency50        = metric{"latency p50", "µs"}
	latency99        = metric{"latency p99", "µs"}
	rssPerConnection = metric{"RSS per connection", "B"}
	cpuPerConnection = metric{"CPU per handshake and subscribe", "µs"}
)

func (s *scenario) metrics() []metric {
	switch {
	case s.Connections > 0:
		return []metric{rssPerConnection, cpuPerConnection}
	case s.Rate > 0:
		return []metric{cpuPerDelivery, latency50, latency99}
	}
	return []metric{cpuPerDelivery}
}

// measure puts a running server through the scenario.
func (s *scenario) measure(p *process, d *dialect, o *options) (map[metric]float64, error) {
	if s.Connections > 0 {
		return s.measureIdle(p, d, o.settle)
	}
	l, err := newLoad(s, p.addr, d)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if _, err = l.run(o.duration / 4); err != nil { // warm-up
		return nil, err
	}
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	delivered, err := l.run(o.duration)
	if err != nil {
		return nil, err
	}
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	values := map[metric]float64{cpuPerDelivery: micros(after-before) / float64(delivered)}
	if s.Rate > 0 {
		values[latency50], values[latency99] = l.percentile(0.5), l.percentile(0.99)
	}
	return values, nil
}

func (s *scenario) measureIdle(p *process, d *dialect, settle time.Duration) (map[metric]float64, error) {
	var c crowd
	defer c.close()
	if err := c.open(p.addr, d, s.Topics, s.Topics); err != nil { // touch what all connections share
		return nil, err
	}
	time.Sleep(settle / 2)
	rss, err := p.rss()
	if err != nil {
		return nil, err
	}
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	if err = c.open(p.addr, d, s.Connections, s.Topics); err != nil {
		return nil, err
	}
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	time.Sleep(settle)
	grown, err := p.rss()
	if err != nil {
		return nil, err
	}
	return map[metric]float64{
		rssPerConnection: float64(grown-rss) / float64(s.Connections),
		cpuPerConnection: micros(after-before) / float64(s.Connections),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
