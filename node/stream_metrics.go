package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/notifyd/notifyd/bus"
)

type streamCollector struct{ bus *bus.Bus }

var (
	descStreamReady    = metric("stream_ready", "1 while JetStream has the stream and can be reached.", "stream")
	descStreamLast     = metric("stream_last_seq", "Position of the stream's last event, as its leader said last.", "stream")
	descStreamBytes    = metric("stream_bytes", "Bytes that the stream keeps, as its leader said last.", "stream")
	descStreamCreated  = metric("stream_created_timestamp_seconds", "When the stream was made, in Unix time, as its leader said last; another time is another stream.", "stream")
	descStreamEvents   = metric("stream_events", "Events that the stream keeps, as its leader said last.", "stream")
	descStreamPosition = metric("stream_position", "Position up to which subscribers of this node have been handed the stream; 0: it has none.", "stream")
	descStreamLag      = metric("stream_lag_events", "Events that the leader was ahead of the position of this node.", "stream")
	descStreamHealed   = metric("stream_healed_total", "Events that NATS had not passed on, and that were read from the stream.", "stream")
	descStreamGaps     = metric("stream_gaps_total", "Times that events were gone before they could be read.", "stream")
	descStreamRenewals = metric("stream_renewals_total", "Times that a stream which subscribers follow was made anew, or had lost what it had stored.", "stream")
	descStreamStores   = metric("stream_stores_total", "Events that this node wanted stored.", "stream", "result")
)

// Describe implements [prometheus.Collector].
func (streamCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descStreamReady, descStreamLast, descStreamBytes, descStreamEvents, descStreamPosition, descStreamLag,
		descStreamCreated, descStreamHealed, descStreamGaps, descStreamRenewals, descStreamStores,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c streamCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.bus.Streams() {
		st, name := s.Stats(), s.Name()
		ready := 0.0
		if st.Ready {
			ready = 1
		}
		for _, g := range []struct {
			desc *prometheus.Desc
			v    float64
		}{
			{descStreamReady, ready},
			{descStreamLast, float64(st.Last)},
			{descStreamBytes, float64(st.Bytes)},
			{descStreamEvents, float64(st.Events)},
			{descStreamPosition, float64(st.Position)},
			{descStreamLag, float64(st.Lag)},
		} {
			gauge(ch, g.desc, g.v, name)
		}
		if !st.Created.IsZero() {
			gauge(ch, descStreamCreated, float64(st.Created.UnixMicro())/1e6, name)
		}
		counter(ch, descStreamHealed, st.Healed, name)
		counter(ch, descStreamGaps, st.Gaps, name)
		counter(ch, descStreamRenewals, st.Renewals, name)
		counter(ch, descStreamStores, st.Stored, name, "stored")
		counter(ch, descStreamStores, st.Duplicates, name, "duplicate")
		counter(ch, descStreamStores, st.Refused, name, "refused")
		counter(ch, descStreamStores, st.Timeouts, name, "timeout")
	}
}
