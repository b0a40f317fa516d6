package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// collector reads the loops' counters when it is asked. The path counts in
// plain integers that only its loop uses; a scrape costs the path nothing.
type collector struct{ s *Server }

// Collector returns the server's metrics, for one registry. Their names are a
// contract; docs/operations.md lists them.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("notifyd_"+name, help, labels, nil)
}

var (
	descConnections   = desc("connections", "Open WebSocket connections.")
	descSubscriptions = desc("subscriptions", "Subscriptions of open connections.")
	descTopics        = desc("topics", "Distinct topics and patterns that have subscribers on this node.")
	descPending       = desc("pending_bytes", "Bytes owed to connections whose sockets have no room.")
	descAccepted      = desc("accepted_total", "Sockets accepted.")
	descAcceptErrors  = desc("accept_errors_total", "Pauses in accepting because descriptors or memory ran out.")
	descHandshakes    = desc("handshakes_total", "Requests by what became of them.", "result")
	descTimeouts      = desc("timeouts_total", "Connections closed because a handshake, a message or a sign of life took too long.")
	descSlow          = desc("slow_closes_total", "Connections closed because they did not read what they were sent.")
	descBytes         = desc("bytes_total", "Bytes of WebSocket traffic.", "direction")
	descFrames        = desc("frames_total", "WebSocket frames.", "direction")
	descWrites        = desc("writes_total", "write(2) calls.")
	descDeliveries    = desc("deliveries_total", "Events sent to subscribers, each subscriber counting.")
	descPublishes     = desc("publishes_total", "Publish envelopes by result: ok, or the code of the error.", "result")
	descErrors        = desc("errors_total", "Error envelopes sent, by code.", "code")
	descMemo          = desc("token_memo_hits_total", "Envelopes whose token was the last one that their connection used.")
	descVerifying     = desc("verify_queue", "Envelopes that wait for a signature to be verified.")
	descInvalid       = desc("invalid_events_total", "Messages from NATS that were dropped because their subject is no topic or their payload not JSON.")
	descBatch         = desc("batch_frames", "Events in one write to a topic's subscribers.")
	descReplaying     = desc("replay_running", "Subscriptions to durable topics that are on their way from their since to the live events.")
	descReplayed      = desc("replay_events_total", "Stored events sent to subscriptions on that way.")
	descReplayChunks  = desc("replay_chunks_total", "Chunks of such events that were sent, by source: read from the stream for it, read for another one (shared), or this node's memory.", "source")
	descReplayPages   = desc("replay_pages_total", "Pages that were read of streams in NATS for such subscriptions.")
	descReplayHeld    = desc("replay_bytes", "Bytes of stored events that were read and are kept for such subscriptions.")
	descDelivery      = desc("delivery_seconds", "Time from an event's arrival on this node until a loop has written it to all subscribers of its topic or pattern there.")
	descTurns         = desc("loop_turn_seconds", "Time that a loop's turn takes, which is what others wait for it.")
	descTurnMax       = desc("loop_turn_max_seconds", "The longest turn since the last scrape.")
)

// answers counts what happens beside the loops' own counters; any goroutine may.
type answers struct {
	handshakes *prometheus.CounterVec // refused, by reason
	tickets    *prometheus.CounterVec // by result
	replays    prometheus.Histogram   // seconds
}

func newAnswers() answers {
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "notifyd_" + name, Help: help}, []string{label})
	}
	a := answers{
		handshakes: vec("handshakes_refused_total", "Refused upgrade requests by reason.", "reason"),
		tickets:    vec("tickets_total", "Requests for a ticket by result: ok, or the code of the error.", "result"),
		replays: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "notifyd_replay_seconds", Help: "Time from a subscribe with since until its subscription is live.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 4, 9), // 1 ms to 65 s
		}),
	}
	// A counter that is there from the beginning is one whose first increase is seen.
	for _, x := range []*refusal{errNotFound, errTooMany, errOrigin, errSubprotocol, errTwo, errQuery, errNone, errDisabled, errCredential, errNotYet, errTryLater} {
		a.handshakes.WithLabelValues(x.reason)
	}
	a.handshakes.WithLabelValues(wire.TokenInvalid.String())
	a.tickets.WithLabelValues("ok")
	return a
}

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	c.s.answers.handshakes.Describe(ch)
	c.s.answers.tickets.Describe(ch)
	c.s.answers.replays.Describe(ch)
	for _, d := range []*prometheus.Desc{
		descConnections, descSubscriptions, descTopics, descPending, descAccepted, descAcceptErrors, descHandshakes,
		descTimeouts, descSlow, descBytes, descFrames, descWrites, descDeliveries, descPublishes, descErrors,
		descMemo, descVerifying, descInvalid, descBatch, descDelivery, descTurns, descTurnMax,
		descReplaying, descReplayed, descReplayChunks, descReplayPages, descReplayHeld,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	s.answers.handshakes.Collect(ch)
	s.answers.tickets.Collect(ch)
	s.answers.replays.Collect(ch)
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	st := s.engine.Stats()
	sum := s.sum()
	var invalid uint64
	for i := range s.shards {
		invalid += s.shards[i].invalid.Load()
	}
	gauge(descConnections, float64(st.Open))
	gauge(descSubscriptions, float64(sum.subs))
	gauge(descTopics, float64(s.topics.count()))
	gauge(descPending, float64(st.Pending))
	count(descAccepted, st.Accepted)
	count(descAcceptErrors, st.AcceptErrors)
	count(descHandshakes, st.Upgraded, "upgraded")
	count(descHandshakes, st.Refused, "refused")
	count(descHandshakes, st.HTTP, "http")
	count(descTimeouts, st.Timeouts)
	count(descSlow, st.Slow)
	count(descBytes, st.BytesIn, "in")
	count(descBytes, st.BytesOut, "out")
	count(descFrames, st.FramesIn, "in")
	count(descFrames, st.FramesOut, "out")
	count(descWrites, st.Writes)
	count(descDeliveries, st.Deliveries)
	count(descPublishes, sum.published[wire.OK], "ok")
	for _, code := range wire.Codes() {
		count(descPublishes, sum.published[code], code.String())
		count(descErrors, sum.refused[code], code.String())
	}
	count(descMemo, sum.memoHits)
	gauge(descVerifying, float64(s.verify.waiting()))
	count(descInvalid, invalid)
	gauge(descReplaying, float64(s.replaying.Load()))
	count(descReplayed, sum.replayed)
	count(descReplayChunks, sum.chunks[fromStream], "stream")
	count(descReplayChunks, sum.chunks[fromOther], "shared")
	count(descReplayChunks, sum.chunks[fromMemory], "memory")
	count(descReplayPages, s.chunks.pages.Load())
	gauge(descReplayHeld, float64(s.chunks.held.Load()))
	gauge(descTurnMax, time.Duration(st.TurnMax).Seconds())
	ch <- prometheus.MustNewConstSummary(descTurns, st.Turns, time.Duration(st.TurnNanos).Seconds(), nil)

	buckets := make(map[float64]uint64, len(st.Batches))
	var batches uint64
	for i, n := range st.Batches {
		batches += n
		buckets[float64(uint64(2)<<i-1)] = batches
	}
	ch <- prometheus.MustNewConstHistogram(descBatch, batches, float64(st.BatchFrames), buckets)

	delays := make(map[float64]uint64, len(st.Delays))
	var events uint64
	for i, bound := range loop.DelayBounds() {
		events += st.Delays[i]
		delays[bound] = events
	}
	events += st.Delays[len(st.Delays)-1]
	ch <- prometheus.MustNewConstHistogram(descDelivery, events, time.Duration(st.DelayNanos).Seconds(), delays)
}

// sum adds up what the loops have counted.
func (s *Server) sum() counts {
	parts := make([]counts, len(s.engine.Loops()))
	s.engine.Do(func(l *loop.Loop) { parts[l.Index()] = stateOf(l).counts })
	var t counts
	for code := range t.published {
		t.published[code] = s.publishedByHTTP[code].Load()
	}
	for i := range parts {
		t.memoHits += parts[i].memoHits
		t.subs += parts[i].subs
		t.replayed += parts[i].replayed
		for from := range t.chunks {
			t.chunks[from] += parts[i].chunks[from]
		}
		for code := range t.published {
			t.published[code] += parts[i].published[code]
			t.refused[code] += parts[i].refused[code]
		}
	}
	return t
}
