//go:build linux

package abuse

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what "notifyd bench abuse --json" prints.
type Report struct {
	Date    time.Time `json:"date"`
	Version string    `json:"version"`
	Machine string    `json:"machine"`
	Results []Result  `json:"results"`
}

// Result is what one attack did.
type Result struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Without Measured `json:"without"`
	With    Measured `json:"with"`
	// Elsewhere is what the same clients saw during the attack at another notifyd of this machine, which nobody attacks. It
	// is what the machine costs, with an attacker and a server that are busy.
	Elsewhere Measured          `json:"elsewhere"`
	RSSBefore int64             `json:"rss_before_bytes"`
	RSSPeak   int64             `json:"rss_peak_bytes"`
	Got       map[string]uint64 `json:"got"` // what the attacker was answered, and how often
	// Failures say what the attack has done to the honest clients that it may not. None: they were served as ever.
	Failures []string `json:"failures,omitempty"`
}

// judge fills in Failures.
func (r *Result) judge(a Abuse, timed bool) {
	fail := func(format string, args ...any) { r.Failures = append(r.Failures, fmt.Sprintf(format, args...)) }
	for _, m := range []Measured{r.Without, r.With} {
		if m.Lost > 0 {
			fail("%d events lost", m.Lost)
		}
		if m.Refused > 0 {
			fail("%d publishes refused", m.Refused)
		}
		if m.Disconnected != "" {
			fail("disconnected: %s", m.Disconnected)
		}
		if len(m.NewcomersFailed) > 0 {
			fail("%d newcomers failed: %s", len(m.NewcomersFailed), m.NewcomersFailed[0])
		}
	}
	if limit := max(r.base()*MaxRatio, milliseconds(Floor)); timed && r.With.P99 > limit {
		fail("p99 %.2f ms, over %.2f", r.With.P99, limit)
	}
	for _, want := range a.wants {
		if r.Got[want] == 0 {
			fail("the attacker never got %q: no attack took place", want)
		}
	}
}

// base is the p99 that the attacked server has to be compared with.
func (r Result) base() float64 { return max(r.Without.P99, r.Elsewhere.P99) }

// Ratio is the p99 with the attack by that without it, or by that elsewhere where that is more.
func (r Result) Ratio() float64 {
	if r.base() == 0 {
		return 0
	}
	return r.With.P99 / r.base()
}

// WriteTable writes the results for people.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "abuse\tevents\tlost\tp50 ms\telsewhere\twith\tp99 ms\telsewhere\twith\tratio\tnewcomer max ms\tRSS MiB\tpeak\tresult\tthe attacker got")
	for _, r := range results {
		verdict := "ok"
		if len(r.Failures) > 0 {
			verdict = strings.Join(r.Failures, "; ")
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.0f\t%d\t%d\t%s\t%s\n",
			r.Name, r.With.Published, r.With.Lost, r.Without.P50, r.Elsewhere.P50, r.With.P50, r.Without.P99, r.Elsewhere.P99, r.With.P99, r.Ratio(),
			r.With.NewcomerMax, r.RSSBefore>>20, r.RSSPeak>>20, verdict, r.answers())
	}
	return t.Flush()
}

// answers lists them, the most frequent first.
func (r Result) answers() string {
	names := slices.SortedFunc(maps.Keys(r.Got), func(a, b string) int {
		if r.Got[a] != r.Got[b] {
			return int(int64(r.Got[b]) - int64(r.Got[a]))
		}
		return strings.Compare(a, b)
	})
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprintf("%s %d", name, r.Got[name]))
	}
	return strings.Join(all, ", ")
}
