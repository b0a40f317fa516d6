//go:build linux

package auth

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
)

func spreadOf(v []float64) Spread {
	return Spread{quantile(v, 0.5), quantile(v, 0.99), quantile(v, 1)}
}

func (b *bench) report(rounds int, cases []*Cost, e ends) (*Report, error) {
	r := &Report{
		Go: runtime.Version(), CPUs: runtime.NumCPU(), Rounds: rounds, Connects: b.connects, Messages: b.messages,
		NoToken: size(publication("")), Expiry: delays(e.expiry), Revocation: delays(e.revocation),
	}
	n := len(b.connectCases())
	r.Connect, r.Publish = cases[:n], cases[n:]
	compare(r.Connect, func(c, other *Cost) bool { return other.Name == "message" && other.Token == c.Token })
	compare(r.Publish, func(_, other *Cost) bool { return other.Token == Remembered })
	var err error
	r.Bytes, err = b.sizes()
	return r, err
}

func delays(all []end) (out []Delay) {
	for _, alg := range Algorithms {
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
		out = append(out, Delay{alg, len(last), spreadOf(last), spreadOf(told), late})
	}
	return out
}

// print writes the tables.
func (r *Report) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(out, "%s, %d CPUs, %d rounds: median (least–greatest) ×ratio\n", r.Go, r.CPUs, r.Rounds)
	r.costs(t, out, "CPU of the server for a connect and its first subscribe, µs; ×: to message", r.Connect)
	r.costs(t, out, "CPU of the server for a publish, µs; ×: to the Remembered token", r.Publish)

	_, _ = fmt.Fprintf(out, "\nBytes of a publish of %d bytes of data on the wire; %d without a token\n", len(message), r.NoToken)
	heading(t)
	for at := 0; at < len(kinds)-1; at++ {
		_, _ = fmt.Fprintf(t, "%s\t", kinds[at+1].name)
		for a := range Algorithms {
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
		delays []Delay
	}{{"exp", r.Expiry}, {"the call to revoke", r.Revocation}} {
		_, _ = fmt.Fprintf(out, "\nMilliseconds from %s, p50 / p99 / max, one event every %v\n", d.title, interval)
		heading(t)
		for _, row := range []struct {
			name string
			of   func(Delay) Spread
		}{
			{"last event", func(d Delay) Spread { return d.Last }},
			{"client is told", func(d Delay) Spread { return d.Told }},
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
	for _, alg := range Algorithms {
		_, _ = fmt.Fprintf(t, "%s\t", alg)
	}
	_, _ = fmt.Fprintln(t)
}

// costs prints one table: a row for each name and token, a column for each
// algorithm.
func (r *Report) costs(t *tabwriter.Writer, out io.Writer, title string, cases []*Cost) {
	_, _ = fmt.Fprintf(out, "\n%s\n", title)
	heading(t)
	for _, row := range Rows(cases) {
		_, _ = fmt.Fprintf(t, "%s\t", row[0].label())
		for _, c := range row {
			m := c.Micros
			_, _ = fmt.Fprintf(t, "%.*f (%.*f–%.*f) ×%.2f\t", digits(m.Median), m.Median, digits(m.Median), m.Min, digits(m.Median), m.Max, c.Ratio.Median)
		}
		_, _ = fmt.Fprintln(t)
	}
	_ = t.Flush()
}

// digits is how many decimals a time in µs is worth.
func digits(us float64) int {
	if us < 20 {
		return 1
	}
	return 0
}
