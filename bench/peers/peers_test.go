//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/bench/peers/hub"
)

// TestMain lets the test binary be the servers that it starts, as the program is
// for itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

// small is each kind of scenario, with more topics than one read brings and
// several subscribers for each.
var small = []scenario{
	{Name: "window", Topics: 3, Subscribers: 5, Window: 7},
	{Name: "rate", Topics: 3, Subscribers: 2, Rate: 300},
	{Name: "idle", Topics: 2, Connections: 40},
}

// TestServersDeliver drives every server. The driver itself fails when an event
// is missing at the end, or comes to a topic that none was published to.
func TestServersDeliver(t *testing.T) {
	names := append(hubNames(), "notifyd")
	all, err := contestants(names, "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := &options{duration: 100 * time.Millisecond}
	for i := range all {
		t.Run(all[i].name, func(t *testing.T) {
			for j := range small {
				values, err := all[i].play(&small[j], o)
				if err != nil {
					t.Fatalf("%s: %v", small[j].Name, err)
				}
				for _, m := range small[j].metrics() {
					if v, ok := values[m]; !ok || v <= 0 && m != rssPerConnection {
						t.Errorf("%s: %s is %v", small[j].Name, m.Name, v)
					}
				}
			}
		})
	}
}

// A hub that loses or invents events must not look fast.
func TestDriverCounts(t *testing.T) {
	s := &scenario{Topics: 1, Subscribers: 2, Window: 3}
	for name, publish := range map[string]func(string) string{
		"another topic": func(string) string { return "P elsewhere " + bare },
		"two for one":   func(topic string) string { return "P " + topic + " " + bare + bare },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := hubDialect()
			d.publish = publish
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			p, err := start(func(addr string) []string { return []string{self, "serve", "floor", "--listen", addr} })
			if err != nil {
				t.Fatal(err)
			}
			defer p.stop()
			l, err := newLoad(s, p.addr, d)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			l.patience = 200 * time.Millisecond
			if n, err := l.run(time.Millisecond); err == nil {
				t.Errorf("%d events counted as if nothing were wrong", n)
			}
		})
	}
}

func TestServeNamesServers(t *testing.T) {
	err := command([]string{"serve", "nothing"})
	if err == nil || !strings.Contains(err.Error(), "floor") {
		t.Errorf("error is %v; it should name those that there are", err)
	}
}

func TestReport(t *testing.T) {
	s := []scenario{{Name: "w1", About: "about", Topics: 1, Window: 1}}
	r := newReport(s, []contestant{{name: "floor"}, {name: "gws", version: "v1"}, {name: "gone"}}, options{rounds: 3, duration: time.Second})
	for _, v := range []float64{4, 2, 3} {
		r.add(&s[0], "floor", map[metric]float64{cpuPerDelivery: v}, nil)
		r.add(&s[0], "gws", map[metric]float64{cpuPerDelivery: 2 * v}, nil)
		r.add(&s[0], "gone", nil, errEnded)
	}
	r.finish()
	var b strings.Builder
	r.markdown(&b)
	for _, line := range []string{"| floor  | 3.00 | 1.00 |", "| gws v1 | 6.00 | 2.00 |", "| gone  | – | – |"} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
	var plot bytes.Buffer
	r.svg(&plot)
	var drawn struct {
		Bars []struct {
			Width string `xml:"width,attr"`
		} `xml:"rect"`
	}
	if err := xml.Unmarshal(plot.Bytes(), &drawn); err != nil {
		t.Fatal(err)
	}
	var widths []string
	for _, bar := range drawn.Bars[1:] { // the first is the background
		widths = append(widths, bar.Width)
	}
	if want := []string{"110.0", "220.0", "0.0"}; !slices.Equal(widths, want) {
		t.Errorf("bars are %v wide, not %v", widths, want)
	}
	if errs := r.find("w1", "gone", cpuPerDelivery).Errors; len(errs) != 3 {
		t.Errorf("errors are %q", errs)
	}
}

// The versions that are compared are pinned, and known to the program: a test
// binary is not told them, so it is built.
func TestVersionsAreKnown(t *testing.T) {
	program := filepath.Join(t.TempDir(), "peers")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command("go", "version", "-m", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range hub.Servers {
		if s.Module != "" && !strings.Contains(string(out), "\tdep\t"+s.Module+"\tv") {
			t.Errorf("%s is not in the program", s.Module)
		}
	}
}
