package node

import (
	"math"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/store"
)

// The collectors read the counters of authz and bus when they are asked. The names are a contract; docs/operations.md
// lists them.

type tokenCollector struct{ verifier *authz.Verifier }

var (
	descTokenLookups     = metric("token_cache_lookups_total", "Look-ups of tokens in the cache of verified ones.", "result")
	descTokenChecks      = metric("token_verifications_total", "Tokens that were verified since they were not remembered.", "result")
	descTokenRefused     = metric("tokens_refused_total", "Tokens that were refused, by the check that they failed.", "reason")
	descTokenEvicted     = metric("token_cache_evicted_total", "Remembered tokens that were still valid and made room for others.")
	descTokenEntries     = metric("token_cache_entries", "Tokens that are remembered.")
	descTokenStale       = metric("token_stale_total", "Valid tokens that were refused since revocations are out of date.")
	descKeyLoads         = metric("key_loads_total", "Key files read again and JWK Sets fetched.", "result")
	descKeySetAge        = metric("key_set_age_seconds", "Time since the last fetch that succeeded, of the JWK Set for which it is longest.")
	descRevocations      = metric("revocations", "Revocations in force.")
	descRevocationsLimit = metric("revocations_limit", "Revocations that can be in force at once.")
)

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("notifyd_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (tokenCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descTokenLookups, descTokenChecks, descTokenRefused, descTokenEvicted, descTokenEntries, descTokenStale, descKeyLoads, descKeySetAge, descRevocations, descRevocationsLimit,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c tokenCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.verifier.Stats()
	counter(ch, descTokenLookups, st.Hits, "hit")
	counter(ch, descTokenLookups, st.Misses, "miss")
	counter(ch, descTokenChecks, st.Verified, "valid")
	counter(ch, descTokenChecks, st.Refused.Sum(), "refused")
	for _, r := range authz.Reasons() {
		counter(ch, descTokenRefused, st.Refused.Of(r), r.String())
	}
	counter(ch, descTokenEvicted, st.Evicted)
	gauge(ch, descTokenEntries, float64(st.Entries))
	counter(ch, descTokenStale, st.Stale)
	counter(ch, descKeyLoads, st.KeyLoads-st.KeyErrors, "ok")
	counter(ch, descKeyLoads, st.KeyErrors, "failed")
	gauge(ch, descRevocations, float64(st.Revocations))
	gauge(ch, descRevocationsLimit, authz.MaxRevocations)
	if st.KeySetAge == math.MaxInt64 {
		gauge(ch, descKeySetAge, math.Inf(1))
	} else {
		gauge(ch, descKeySetAge, st.KeySetAge.Seconds())
	}
}

type natsCollector struct{ bus *bus.Bus }

var (
	descNATSConnected     = metric("nats_connected", "1 while NATS is reachable.")
	descNATSMessages      = metric("nats_messages_total", "Events to and from NATS.", "direction")
	descNATSBytes         = metric("nats_bytes_total", "Bytes of events to and from NATS.", "direction")
	descNATSDropped       = metric("nats_dropped_total", "Events from NATS that found their queue full.")
	descNATSErrors        = metric("nats_errors_total", "Errors that NATS reported.")
	descNATSReconnects    = metric("nats_reconnects_total", "Times that the connection to NATS was made again.")
	descNATSSubscriptions = metric("nats_subscriptions", "Subscriptions at NATS, one for each distinct pattern.")
	descNATSPending       = metric("nats_pending_events", "Events from NATS that wait to be handed to the loops.")
)

// Describe implements [prometheus.Collector].
func (natsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descNATSConnected, descNATSMessages, descNATSBytes, descNATSDropped, descNATSErrors, descNATSReconnects,
		descNATSSubscriptions, descNATSPending,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c natsCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.bus.Stats()
	connected := 0.0
	if st.Connected {
		connected = 1
	}
	gauge(ch, descNATSConnected, connected)
	counter(ch, descNATSMessages, st.Published, "out")
	counter(ch, descNATSMessages, st.Received, "in")
	counter(ch, descNATSBytes, st.PublishedBytes, "out")
	counter(ch, descNATSBytes, st.ReceivedBytes, "in")
	counter(ch, descNATSDropped, st.Dropped)
	counter(ch, descNATSErrors, st.Errors)
	counter(ch, descNATSReconnects, st.Reconnects)
	gauge(ch, descNATSSubscriptions, float64(st.Subscriptions))
	gauge(ch, descNATSPending, float64(st.Pending))
}

// readyGauge is 1 while /readyz says yes.
func readyGauge(ready func() readiness) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "notifyd_ready",
		Help: "1 while /readyz answers 200.",
	}, func() float64 {
		if ready().not != nil {
			return 0
		}
		return 1
	})
}

// limitGauge is how many connections the node takes; 0 is no bound.
func limitGauge(connections int) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "notifyd_connections_limit",
		Help: "Connections that this node takes at most.",
	})
	if g.Set(float64(connections)); connections == 0 {
		g.Set(math.Inf(1))
	}
	return g
}

// buildInfo is always 1: what matters are the labels, which say what runs where.
func buildInfo(version, revision string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "notifyd_build_info",
		Help:        "1, with the version, the commit and the Go version of this program.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "go": runtime.Version()},
	})
	g.Set(1)
	return g
}

type storeCollector struct {
	store       *store.Store
	revocations *revocations
}

var (
	descRevocationsAge     = metric("revocations_age_seconds", "Time since which this node may have missed revocations.")
	descRevocationsUnsaved = metric("revocations_unsaved", "Revocations that are in force on this node, and that NATS does not have.")
	descStoreWritable      = metric("store_writable", "0 while NATS refuses to store revocations.")
	descStoreLosses        = metric("store_losses_total", "Times that a bucket in NATS lost what was in it.", "bucket")
)

// Describe implements [prometheus.Collector].
func (storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRevocationsAge, descRevocationsUnsaved, descStoreWritable, descStoreLosses} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. The age is +Inf until they are loaded.
func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	age, writable := math.Inf(1), 1.0
	if at := c.store.LastFresh(); !at.IsZero() {
		age = time.Since(at).Seconds()
	}
	if c.store.Writable() != nil {
		writable = 0
	}
	gauge(ch, descRevocationsAge, age)
	gauge(ch, descRevocationsUnsaved, float64(c.revocations.countUnsaved()))
	gauge(ch, descStoreWritable, writable)
	for bucket, n := range c.store.Losses() {
		counter(ch, descStoreLosses, n, bucket)
	}
}

func newVerifyTime() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "notifyd_verify_seconds",
		Help:    "Time to verify a token that was not remembered.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 9), // 1 µs to 65 ms
	})
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
