//go:build linux

package auth

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
)

// report is all that was measured, as --json prints it.
type report struct {
	Go         string    `json:"go"`
	CPUs       int       `json:"cpus"`
	Rounds     int       `json:"rounds"`
	Connects   int       `json:"connects"` // of a case in a round
	Messages   int       `json:"messages"`
	Connect    []*cost   `json:"connect"` // ratios to message
	Publish    []*cost   `json:"publish"` // ratios to plain, remembered
	NoToken    int       `json:"frame_bytes_without_token"`
	Bytes      []bytesOf `json:"bytes"`
	Expiry     []delay   `json:"expiry"`     // from exp
	Revocation []delay   `json:"revocation"` // from the call
}

// delay is how soon tokens of an algorithm brought no more events. Times are in
// milliseconds, by the subscriber's clock, which is the server's.
type delay struct {
	Alg         string `json:"alg"`
	Subscribers int    `json:"subscribers"`
	Last        spread `json:"last_event_ms"`
	Told        spread `json:"told_ms"`
	// Late is how many got an event that was sent after exp, or after the call to
	// revoke had been answered.
	Late int `json:"late"`
}

type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	return spread{quantile(v, 0.5), quantile(v, 0.99), quantile(v, 1)}
}

func (b *bench) report(rounds int, cases []*cost, e ends) (*report, error) {
	r := &report{
		Go: runtime.Version(), CPUs: runtime.NumCPU(), Rounds: rounds, Connects: b.connects, Messages: b.messages,
		NoToken: size(publication("")), Expiry: delays(e.expiry), Revocation: delays(e.revocation),
	}
	n := len(b.connectCases())
	r.Connect, r.Publish = cases[:n], cases[n:]
	compare(r.Connect, func(c, other *cost) bool { return other.Name == "message" && other.Token == c.Token })
	compare(r.Publish, func(_, other *cost) bool { return other.Token == remembered })
	var err error
	r.Bytes, err = b.sizes()
	return r, err
}

func delays(all []end) (out []delay) {
	for _, alg := range algorithms {
		var last, told []float64
		late := 0
		for _, e := range all {
			if e.alg != alg {
				continue
			}
			last, told = append(last, e.last), append(told, e.told)
			if e.late {
				late++
			}
		}
		out = append(out, delay{alg, len(last), spreadOf(last), spreadOf(told), late})
	}
	return out
}

// print writes the tables.
func (r *report) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(out, "%s, %d CPUs, %d rounds: median (least–greatest) ×ratio\n", r.Go, r.CPUs, r.Rounds)
	r.costs(t, out, "CPU of the server for a connect and its first subscribe, µs; ×: to message", r.Connect)
	r.costs(t, out, "CPU of the server for a publish, µs; ×: to the remembered token", r.Publish)

	_, _ = fmt.Fprintf(out, "\nBytes of a publish of %d bytes of data on the wire; %d without a token\n", len(message), r.NoToken)
	heading(t)
	for at := 0; at < len(kinds)-1; at++ {
		_, _ = fmt.Fprintf(t, "%s\t", kinds[at+1].name)
		for a := range algorithms {
			s := r.Bytes[a*(len(kinds)-1)+at]
			_, _ = fmt.Fprintf(t, "%d (token %d)\t", s.Frame, s.Token)
		}
		_, _ = fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range []struct {
		title  string
		delays []delay
	}{{"exp", r.Expiry}, {"the call to revoke", r.Revocation}} {
		_, _ = fmt.Fprintf(out, "\nMilliseconds from %s, p50 / p99 / max, one event every %v\n", d.title, interval)
		heading(t)
		for _, row := range []struct {
			name string
			of   func(delay) spread
		}{
			{"last event", func(d delay) spread { return d.Last }},
			{"client is told", func(d delay) spread { return d.Told }},
		} {
			_, _ = fmt.Fprintf(t, "%s\t", row.name)
			for _, of := range d.delays {
				s := row.of(of)
				_, _ = fmt.Fprintf(t, "%.1f / %.1f / %.1f\t", s.P50, s.P99, s.Max)
			}
			_, _ = fmt.Fprintln(t)
		}
		_, _ = fmt.Fprint(t, "got a late event\t")
		for _, of := range d.delays {
			_, _ = fmt.Fprintf(t, "%d of %d\t", of.Late, of.Subscribers)
		}
		_, _ = fmt.Fprintln(t)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func heading(t io.Writer) {
	_, _ = fmt.Fprint(t, "\t")
	for _, alg := range algorithms {
		_, _ = fmt.Fprintf(t, "%s\t", alg)
	}
	_, _ = fmt.Fprintln(t)
}

// costs prints one table: a row for each name and token, a column for each
// algorithm.
func (r *report) costs(t *tabwriter.Writer, out io.Writer, title string, cases []*cost) {
	_, _ = fmt.Fprintf(out, "\n%s\n", title)
	heading(t)
	for _, row := range rows(cases) {
		_, _ = fmt.Fprintf(t, "%s\t", row[0].label())
		for _, c := range row {
			m := c.Micros
			_, _ = fmt.Fprintf(t, "%.*f (%.*f–%.*f) ×%.2f\t", digits(m.Median), m.Median, digits(m.Median), m.Min, digits(m.Median), m.Max, c.Ratio.Median)
		}
		_, _ = fmt.Fprintln(t)
	}
	_ = t.Flush()
}

func (c *cost) label() string { return c.Name + ", " + c.Token }

// digits is how many decimals a time in µs is worth.
func digits(us float64) int {
	if us < 20 {
		return 1
	}
	return 0
}

// rows groups cases by label, in the order in which labels come, each with its
// algorithms in theirs.
func rows(cases []*cost) (rows [][]*cost) {
	at := map[string]int{}
	for _, c := range cases {
		i, ok := at[c.label()]
		if !ok {
			i = len(rows)
			at[c.label()] = i
			rows = append(rows, nil)
		}
		rows[i] = append(rows[i], c)
	}
	return rows
}
