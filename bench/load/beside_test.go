//go:build linux

package load

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestBeside: the first pass is alone, the second beside the fan-out, and each ping is
// answered in both, in an open loop and in a closed one.
func TestBeside(t *testing.T) {
	const many = 25
	for _, load := range []Load{{Rate: 100}, {Window: 2}} {
		results, err := Run(t.Context(), Options{
			Plan: Beside(3, many), Loads: []Load{load}, Target: hubTarget{}, URL: (&hub{heap: 1}).serve(t), Server: "hub",
			Size: 48, Warmup: 100 * time.Millisecond, Duration: time.Second,
		})
		if err != nil || len(results) != 2 {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for i, r := range results {
			if r.Lost != 0 || r.Delivered == 0 || r.Connections != 3 || r.Topics != 3 {
				t.Errorf("%s: the pairs: %+v", load, r)
			}
			if n := r.Pong.Count; n != pingRate && n != pingRate+1 || r.Pong.P50 <= 0 {
				t.Errorf("%s: %d pongs, p50 %v", load, n, r.Pong.P50)
			}
			if (r.Beside != nil) != (i == 1) {
				t.Errorf("%s: pass %d is beside %+v", load, i, r.Beside)
			}
		}
		c := results[1].Beside
		if c.Connections != many || c.Published < crowdRate || c.Delivered != many*c.Published || c.Lost != 0 || c.Latency.Count < many*(crowdRate-1) {
			t.Errorf("%s: the fan-out: %+v", load, c)
		}
		var table bytes.Buffer
		if err := WriteTable(&table, results); err != nil {
			t.Fatal(err)
		}
		for what, n := range map[string]int{"pong": 2, "the fan-out": 1, "beside a fan-out to 25": 1} {
			if strings.Count(table.String(), what) != n {
				t.Errorf("want %q %d times:\n%s", what, n, table.String())
			}
		}
	}
}

// TestBesideOfALiar: what the fan-out loses is not held against the pairs, and a
// fan-out that fails ends the run.
func TestBesideOfALiar(t *testing.T) {
	o := Options{
		Plan: Beside(2, 10), Loads: []Load{{Rate: 100}}, Target: crowdless{}, URL: (&hub{heap: 1}).serve(t),
		Size: 48, Duration: 300 * time.Millisecond,
	}
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r := results[1]; r.Lost != 0 || r.Delivered == 0 || r.Beside.Published == 0 || r.Beside.Lost != 10*r.Beside.Published {
		t.Errorf("%+v, %+v", r, r.Beside)
	}
	o.Target = crowdless{refuse: true}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "fan-out to 10") {
		t.Errorf("%v", err)
	}
}

// crowdless publishes nothing to the crowd's topic, or refuses to.
type crowdless struct {
	hubTarget
	refuse bool
}

func (c crowdless) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	if run := strings.Split(topic, ".")[1]; strings.HasSuffix(run, crowdMark) && len(run) > 6 {
		if c.refuse {
			return dst, errors.New("refused")
		}
		topic = "elsewhere"
	}
	return c.hubTarget.Publish(dst, topic, data)
}
