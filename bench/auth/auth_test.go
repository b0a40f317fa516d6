//go:build linux

package auth

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/wire"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		q    float64
		want float64
	}{
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 2, 3}, 0.5, 2.5},
		{[]float64{30, 10, 20}, 0, 10},
		{[]float64{30, 10, 20}, 1, 30},
		{[]float64{0, 100}, 0.99, 99},
		{[]float64{-2, -1}, 0.5, -1.5},
	} {
		before := slices.Clone(c.v)
		if got := quantile(c.v, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.v, c.q, got, c.want)
		}
		if !slices.Equal(c.v, before) {
			t.Errorf("quantile changed %v to %v", before, c.v)
		}
	}
}

func TestCompareWithinRounds(t *testing.T) {
	// The machine was three times as slow in the second round. Ratios do not see
	// that, medians divided by medians would.
	base := &Cost{Name: "message", Token: Fresh, Alg: "ES256", rounds: []float64{10, 30, 12}}
	other := &Cost{Name: "ticket", Token: Fresh, Alg: "ES256", rounds: []float64{20, 60, 36}}
	foreign := &Cost{Name: "message", Token: Fresh, Alg: "HS256", rounds: []float64{1, 1, 1}}
	compare([]*Cost{base, other, foreign}, func(_, o *Cost) bool { return o.Name == "message" })
	if want := (Summary{Median: 2, Min: 2, Max: 3}); other.Ratio != want {
		t.Errorf("ratio %+v, want %+v", other.Ratio, want)
	}
	if want := (Summary{Median: 36, Min: 20, Max: 60}); other.Micros != want {
		t.Errorf("micros %+v, want %+v", other.Micros, want)
	}
	if want := (Summary{1, 1, 1}); base.Ratio != want || foreign.Ratio != want {
		t.Errorf("bases have ratios %+v and %+v", base.Ratio, foreign.Ratio)
	}
}

// TestSize compares the arithmetic with what a client writes, on both sides of
// the length from which a header is longer.
func TestSize(t *testing.T) {
	for _, n := range []int{0, 125, 126, 65535, 65536} {
		var written bytes.Buffer
		if err := wsutil.WriteClientText(&written, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if got := size(make([]byte, n)); got != written.Len() {
			t.Errorf("size of %d bytes is %d, written were %d", n, got, written.Len())
		}
	}
}

func TestMessage(t *testing.T) {
	if len(message) != 128 || !wire.ValidJSON(message) {
		t.Errorf("%d bytes, JSON: %v", len(message), wire.ValidJSON(message))
	}
	env := publication("a.b.c")
	var e wire.Envelope
	if err := wire.Parse(env, &e); err != nil || e.Kind != wire.Publish || !bytes.Equal(e.Data, message) {
		t.Errorf("the publication is not one: %v", err)
	}
}

func TestWatcherOutcome(t *testing.T) {
	due := time.Unix(1000, 0)
	w := watcher{
		alg: "ES256", due: due, answered: due.Add(2 * time.Millisecond),
		lastSent: due.Add(time.Millisecond), lastReceived: due.Add(1500 * time.Microsecond), told: due.Add(3 * time.Millisecond),
	}
	if got, want := w.outcome(), (end{alg: "ES256", last: 1.5, told: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	w.lastSent = w.answered.Add(1)
	if !w.outcome().late {
		t.Error("an event that was sent after the answer is not late")
	}
}

func TestDelays(t *testing.T) {
	all := []end{
		{alg: "HS256", last: 1, told: 2}, {alg: "HS256", last: 3, told: 4, late: true},
	}
	for _, alg := range Algorithms[:len(Algorithms)-1] {
		all = append(all, end{alg: alg, last: -1, told: 1})
	}
	got := delays(all)
	if len(got) != len(Algorithms) {
		t.Fatalf("%d Algorithms", len(got))
	}
	last := got[len(got)-1]
	if want := (Delay{"HS256", 2, Spread{2, 2.98, 3}, Spread{3, 3.98, 4}, 1}); last != want {
		t.Errorf("%+v, want %+v", last, want)
	}
	if first := got[0]; first.Subscribers != 1 || first.Last.Max != -1 || first.Late != 0 {
		t.Errorf("%+v", first)
	}
}

// sample is a report in which every figure differs.
func sample(t *testing.T) *Report {
	t.Helper()
	b := &bench{options: options{rounds: 1}}
	cases := append(b.connectCases(), b.publishCases()...)
	for i, c := range cases {
		c.rounds = []float64{float64(i + 1)}
	}
	n := len(b.connectCases())
	r := &Report{Connect: cases[:n], Publish: cases[n:]}
	compare(cases, func(c, other *Cost) bool { return c == other })
	var all []end
	for i, alg := range Algorithms {
		for j, k := range kinds[1:] {
			r.Bytes = append(r.Bytes, Bytes{k.name, alg, i, 1000*(i+1) + j})
		}
		all = append(all, end{alg: alg, last: -float64(i), told: float64(i)})
	}
	r.Expiry, r.Revocation = delays(all), delays(all)
	return r
}

func TestTables(t *testing.T) {
	r := sample(t)
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(out.String()) {
		for _, s := range strategies {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), s.name+", "+Fresh); ok {
				rows[s.name] = strings.Fields(rest) // median, (least–greatest), ratio of each
			}
		}
	}
	// The cases of one algorithm come together; a row has one of each.
	for i, s := range strategies {
		for a := range Algorithms {
			us := float64(1 + i + a*len(strategies))
			if got, want := rows[s.name][3*a], fmt.Sprintf("%.*f", digits(us), us); got != want {
				t.Errorf("%s, %s: %s, want %s", s.name, Algorithms[a], got, want)
			}
		}
	}
	if !strings.Contains(out.String(), "4003 (token 3)") {
		t.Errorf("the size of the last algorithm's last kind is missing:\n%s", out.String())
	}
}
