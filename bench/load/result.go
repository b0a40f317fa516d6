package load

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what "notifyd bench --json" prints.
type Report struct {
	Date    time.Time `json:"date"`
	Version string    `json:"version"`
	Machine string    `json:"machine"`
	Results []Result  `json:"results"`
}

// Result is what one load did. Costs are nil where the server's process is not
// known, or where there was nothing to divide by.
type Result struct {
	Server      string  `json:"server"`
	Scenario    string  `json:"scenario"`
	Load        string  `json:"load"` // "window 32", "rate 3000", "idle", "storm"
	Connections int     `json:"connections"`
	Topics      int     `json:"topics"`
	Publishers  int     `json:"publishers"`
	Processes   int     `json:"processes,omitempty"` // that shared the subscribers; less than 2: there was one
	Size        int     `json:"size"`                // bytes of data
	Seconds     float64 `json:"seconds"`

	Published uint64 `json:"published"`
	Delivered uint64 `json:"delivered"`
	Lost      uint64 `json:"lost"`    // deliveries that had not come when nothing came any more
	Stalled   int    `json:"stalled"` // connections that were not read
	Dropped   int    `json:"dropped"` // of these, closed by the server
	Connects  int    `json:"connects,omitempty"`
	// DroppedBy is how many of them got which close code, or "no close frame".
	DroppedBy map[string]int `json:"dropped_by,omitempty"`
	Flooded   *Flooded       `json:"flooded,omitempty"` // nil: nobody floods
	Beside    *Crowd         `json:"beside,omitempty"`  // nil: nothing else was published
	// Returned is what clients did that came back meanwhile; nil: there were none.
	Returned *Returned `json:"returned,omitempty"`
	// Compared says how this is to other results of the run.
	Compared []Comparison `json:"compared,omitempty"`

	PublishesPerSecond  float64 `json:"publishes_per_second"`
	DeliveriesPerSecond float64 `json:"deliveries_per_second"`

	// The server's processor time, and the generator's own, in microseconds.
	ServerCores       *float64 `json:"server_cores"` // 1 is one core, fully used
	CPUPerDelivery    *float64 `json:"cpu_us_per_delivery"`
	CPUPerPublish     *float64 `json:"cpu_us_per_publish"`
	CPUPerConnect     *float64 `json:"cpu_us_per_connect"` // handshake, welcome and subscribe
	OwnCPUPerDelivery *float64 `json:"generator_cpu_us_per_delivery"`
	RSS               *int64   `json:"rss_bytes"`                // at the end
	RSSPerConnection  *float64 `json:"rss_bytes_per_connection"` // growth while they were opened

	// Latency is from when an event was sent, or was due, until it was read, in
	// microseconds; for a storm from dial to subscribed.
	Latency Latency `json:"latency_us"`
	// Received is how late events came to subscribers, in microseconds, where Latency is that of the answers to those
	// that publish.
	Received *Latency `json:"received_us,omitempty"`
	// Pong is how long after a ping of an idle connection was due its pong came, in
	// microseconds; nil: nobody pinged.
	Pong *Latency `json:"pong_us,omitempty"`
}

// Flooded is what a client did that floods the server with bad publishes.
type Flooded struct {
	Sent     uint64 `json:"sent"`     // some of them behind the last that the server looked at before it closed
	Refused  uint64 `json:"refused"`  // answered by the server
	Connects uint64 `json:"connects"` // how often it came back
}

// Crowd is a fan-out to many that a load ran beside.
type Crowd struct {
	Connections int     `json:"connections"`
	Published   uint64  `json:"published"`
	Delivered   uint64  `json:"delivered"`
	Lost        uint64  `json:"lost"`
	Latency     Latency `json:"latency_us"`
	// Ahead says that the thread that measured the load ran ahead of all others (SCHED_FIFO). If not, its latencies
	// have in them what it waited for a processor itself.
	Ahead bool `json:"ahead"`
}

// Returned is clients that came back within a second, each with events to catch up on.
type Returned struct {
	Connections int     `json:"connections"` // of a wave
	Behind      int     `json:"behind"`      // events that each had missed
	Waves       int     `json:"waves"`       // times that they came
	Seconds     float64 `json:"seconds"`     // from the first that came until all were live, of the slowest wave
	RSS         int64   `json:"rss_bytes"`   // of the server, the highest reading; 0: not known
	Lost        uint64  `json:"lost"`
	// Latency is how long each took from when it was due to come until it had what it had missed.
	Latency Latency `json:"latency_us"`
}

// Comparison is a measure of a result, divided by that of another one.
type Comparison struct {
	Measure string  `json:"measure"` // "CPU" of an event, or "speed"
	To      string  `json:"to"`
	Times   float64 `json:"times"`
}

// compare adds a comparison, where both values are known.
func (r *Result) compare(measure, to string, own, other *float64) {
	if own != nil && other != nil && *other > 0 {
		r.Compared = append(r.Compared, Comparison{measure, to, *own / *other})
	}
}

// Latency is a distribution in microseconds.
type Latency struct {
	Count       int64        `json:"count"`
	Mean        float64      `json:"mean"`
	P50         float64      `json:"p50"`
	P90         float64      `json:"p90"`
	P99         float64      `json:"p99"`
	P999        float64      `json:"p99.9"`
	Max         float64      `json:"max"`
	Percentiles []Percentile `json:"percentiles"`
}

// Percentile is a point of a distribution.
type Percentile struct {
	Percent float64 `json:"percent"`
	Micros  float64 `json:"us"`
}

func newLatency(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(percent float64) float64 { return float64(h.ValueAtPercentile(percent)) / 1e3 }
	l := Latency{
		Count: h.TotalCount(), Mean: h.Mean() / 1e3,
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1e3,
	}
	for _, b := range h.CumulativeDistribution() {
		l.Percentiles = append(l.Percentiles, Percentile{b.Quantile, float64(b.ValueAt) / 1e3})
	}
	return l
}

// each divides microseconds by a count.
func each[N int | uint64](micros *float64, count N) *float64 {
	if micros == nil || count == 0 {
		return nil
	}
	v := *micros / float64(count)
	return &v
}

// WriteTable writes the results for people.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "server\tscenario\tload\tconns\tsize\tpublishes/s\tdeliveries/s\tCPU\tµs/delivery\tµs/publish\tµs/connect\town µs/del.\tRSS\tB/conn\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\tlost\t")
	for _, r := range withOthers(results) {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n",
			r.Server, r.Scenario, r.Label(), r.Connections, r.Size,
			number(&r.PublishesPerSecond, 0), number(&r.DeliveriesPerSecond, 0), percent(r.ServerCores),
			number(r.CPUPerDelivery, 3), number(r.CPUPerPublish, 2), number(r.CPUPerConnect, 1), number(r.OwnCPUPerDelivery, 3),
			mebibytes(r.RSS), number(r.RSSPerConnection, 0),
			millis(r.Latency.P50), millis(r.Latency.P99), millis(r.Latency.P999), millis(r.Latency.Max), r.Lost)
	}
	return t.Flush()
}

// withOthers adds a row for what else was measured in each: the clients that came back, the
// pongs, and the fan-out beside it.
func withOthers(results []Result) (all []Result) {
	for _, r := range results {
		all = append(all, r)
		if b := r.Returned; b != nil {
			row := Result{
				Server: r.Server, Scenario: r.Scenario, Connections: b.Connections, Size: r.Size, Latency: b.Latency, Lost: b.Lost,
				Load: fmt.Sprintf("resume, %d behind, all live in %.2f s", b.Behind, b.Seconds),
			}
			if b.RSS > 0 {
				row.RSS = &b.RSS
			}
			all = append(all, row)
		}
		if r.Received != nil {
			all = append(all, Result{Server: r.Server, Scenario: r.Scenario, Load: "received", Connections: r.Connections, Size: r.Size, Latency: *r.Received})
		}
		if r.Pong != nil {
			all = append(all, Result{Server: r.Server, Scenario: r.Scenario, Load: "pong", Connections: 1, Latency: *r.Pong})
		}
		if b := r.Beside; b != nil {
			all = append(all, Result{Server: r.Server, Scenario: r.Scenario, Load: "the fan-out", Connections: b.Connections, Size: r.Size, Latency: b.Latency, Lost: b.Lost})
		}
	}
	return all
}

// Label is the load, what went on beside it, and how it compares.
func (r Result) Label() string {
	parts := []string{r.label()}
	for _, c := range r.Compared {
		parts = append(parts, fmt.Sprintf("%.2f × the %s of %s", c.Times, c.Measure, c.To))
	}
	return strings.Join(parts, ", ")
}

func (r Result) label() string {
	switch {
	case r.Returned != nil:
		return r.Load + ", while clients come back"
	case r.Stalled > 0:
		return fmt.Sprintf("%s, %d stalled (%d closed)", r.Load, r.Stalled, r.Dropped)
	case r.Beside != nil:
		how := ""
		if !r.Beside.Ahead {
			how = " (the thread that measures waits for a processor, too)"
		}
		return fmt.Sprintf("%s, beside a fan-out to %d%s", r.Load, r.Beside.Connections, how)
	case r.Flooded != nil:
		return fmt.Sprintf("%s, flooded (%d sent, %d refused)", r.Load, r.Flooded.Sent, r.Flooded.Refused)
	}
	return r.Load
}

func number(v *float64, decimals int) string {
	if v == nil || *v == 0 {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', decimals, 64)
}

func percent(cores *float64) string {
	if cores == nil {
		return "-"
	}
	return strconv.FormatFloat(*cores*100, 'f', 0, 64) + "%"
}

func mebibytes(b *int64) string {
	if b == nil {
		return "-"
	}
	return strconv.FormatFloat(float64(*b)/(1<<20), 'f', 1, 64) + " MiB"
}

func millis(us float64) string {
	ms := us / 1e3
	return number(&ms, 3)
}
