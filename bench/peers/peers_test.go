//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/load"
	"github.com/notifyd/notifyd/bench/peers/hub"
)

// TestMain lets the test binary be the servers that it starts, as the program is
// for itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "plain") {
		main()
		return
	}
	os.Exit(m.Run())
}

// tiny is each kind of scenario, with several subscribers and subscriptions.
var tiny = []scenario{
	window("window", "", load.Plan{Name: "fanout", Topics: 3, Connections: 15, Subscriptions: 1, Publishers: 3}, 7, small),
	rate("rate", "", load.Pairs(6), 300, small, 2),
	window("publishers", "", load.ManyPublishers(5), 2, large),
	window("subscriptions", "", load.ManySubscriptions(3, 4), 1, small),
	window("http1", "", load.Post(3, 1, 2), 1, small),
	window("ndjson", "", load.Post(2, 7, 2), 7, small),
	{Name: "idle", Plan: load.Idle(40)},
	{Name: "storm", Plan: load.Storm(10)},
	fresh("fresh", "", load.Pairs(6), 1, small),
	rate("flood", "", load.Flood(6), 300, small, 2),
	rate("beside", "", load.Beside(6, 20), 300, small, 2),
	window("durable", "", load.Durable(3), 4, small),
	{Name: "replay", Plan: load.Replay(4, 2000), Size: small},
	rate("resume", "", load.Resume(3, 40, 20), 300, small, 1),
}

// TestServersDeliver drives every server. What is lost or invented is an error.
func TestServersDeliver(t *testing.T) {
	o := &options{duration: 200 * time.Millisecond}
	names := append(hubNames(), "notifyd", "notifyd-nats")
	if program, err := exec.LookPath("centrifugo"); err == nil {
		names, o.centrifugo = append(names, "centrifugo", "centrifugo-nats"), program
	} else {
		t.Log("left out: Centrifugo's program, which CI does not build; its library takes part")
	}
	all, err := candidates(names, o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			for i := range tiny {
				s := &tiny[i]
				if !c.takesPart(s) || c.cannot(s) != "" {
					continue
				}
				values, results, err := c.run(t.Context(), s, o)
				if err != nil {
					t.Fatalf("%s: %v", s.Name, err)
				}
				if len(results) == 0 {
					t.Errorf("%s: no results", s.Name)
				}
				for _, m := range s.metrics() {
					if v, ok := values[m]; !ok || v <= 0 && m != rssPerConnection {
						t.Errorf("%s: %s is %v", s.Name, m.Name, v)
					}
				}
			}
		})
	}
}

// Who does not read is closed, with the code of notifyd, and its memory counts.
func TestStalled(t *testing.T) {
	all, err := candidates([]string{"notifyd"}, &options{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := rate("stalled", "", load.Slow(10), 1000, huge, 1)
	c := all[0]
	p, err := start(c.command)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	values, results, err := s.measure(t.Context(), p, c, &options{duration: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if values[kept] != 0 || values[rssPerStalled] <= 0 || values[calm99] <= 0 || values[stalled99] <= 0 {
		t.Errorf("%v", values)
	}
	other := *c
	other.tooSlow = "4999"
	if values, err = s.values(p, &other, results); err != nil || values[kept] != 1 {
		t.Errorf("%v, %v: closed with another code, yet it counts", values, err)
	}
}

// Only notifyd takes tokens, and gws no requests; with notifyd, each scenario about them measures what it
// says.
func TestTokens(t *testing.T) {
	all, err := candidates([]string{"gws", "notifyd"}, &options{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range tiny {
		forGws := !tiny[i].tokens() && tiny[i].Plan.Post == 0
		if all[0].takesPart(&tiny[i]) != forGws || !all[1].takesPart(&tiny[i]) {
			t.Errorf("%s: the wrong ones take part", tiny[i].Name)
		}
	}
	c, o := all[1], &options{duration: 400 * time.Millisecond}
	always := window("always", "", load.Pairs(6), 1, small)
	once, _, err := c.run(t.Context(), &always, o)
	if err != nil {
		t.Fatal(err)
	}
	renewed := fresh("renewed", "", load.Pairs(6), 1, small)
	each, _, err := c.run(t.Context(), &renewed, o)
	if err != nil {
		t.Fatal(err)
	}
	// Half of it, as the machine may have been slower just then.
	if each[cpuPerDelivery]-once[cpuPerDelivery] < each[rawVerify]/2 {
		t.Errorf("a delivery costs %v µs with one token and %v with new ones; verifying one takes %v", once[cpuPerDelivery], each[cpuPerDelivery], each[rawVerify])
	}
	token, err := c.fresh.Mint()
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := c.fresh.Mint(); other == token {
		t.Error("two tokens are the same")
	}
	if bad, err := authz.Inspect(c.target.(*load.Notifyd).Spoil); err != nil || !strings.Contains(string(bad.Header), `"ES256"`) {
		t.Errorf("the flood is of %s, %v", bad.Header, err)
	}
}

// Servers that do not keep events say so, and are not measured; a history in memory is not stored.
func TestCannot(t *testing.T) {
	all, err := candidates([]string{"floor", "centrifuge", "notifyd"}, &options{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	durable, replay := window("durable", "", load.Durable(1), 1, small), scenario{Name: "replay", Plan: load.Replay(1, 10)}
	live := window("live", "", load.Pairs(1), 1, small)
	for i, want := range []struct{ durable, replay bool }{{false, false}, {false, true}, {true, true}} {
		c := all[i]
		if got := c.cannot(&durable) == ""; got != want.durable {
			t.Errorf("%s: durable: %v", c.name, got)
		}
		if got := c.cannot(&replay) == ""; got != want.replay {
			t.Errorf("%s: replay: %v", c.name, got)
		}
		if why := c.cannot(&live); why != "" {
			t.Errorf("%s: %s", c.name, why)
		}
	}
	o := options{duration: time.Millisecond, rounds: 1}
	r := newReport([]trial{{&durable, all[:1]}}, &o)
	if err := rounds(t.Context(), r, &o); err != nil {
		t.Error(err)
	}
	var b strings.Builder
	r.finish()
	if r.markdown(&b); !strings.Contains(b.String(), "floor: cannot: acknowledges no event as stored") {
		t.Error(b.String())
	}
	if _, err := candidates([]string{"centrifugo"}, &options{centrifugo: "/nowhere"}, ""); err == nil || !strings.Contains(err.Error(), "--centrifugo") {
		t.Errorf("%v", err)
	}
}

// A flood of which nothing is refused says nothing about refusing.
func TestDryFlood(t *testing.T) {
	if values, err := flood(load.Result{}, load.Result{Flooded: &load.Flooded{Sent: 32}, Seconds: 1}); err == nil {
		t.Errorf("%v", values)
	}
}

// liar does not publish what it is told to.
type liar struct {
	hubTarget
	packs   bool
	publish func(topic string, data []byte) string
}

func (l liar) Packs() bool { return l.packs }

func (l liar) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	return append(dst, l.publish(topic, data)...), nil
}

// A hub that loses or invents events must not look fast.
func TestLostAndInvented(t *testing.T) {
	all, err := candidates([]string{"floor"}, &options{}, "")
	if err != nil {
		t.Fatal(err)
	}
	s := rate("lies", "", load.Fanout(2), 100, small, 1)
	for _, test := range []struct {
		name   string
		target liar
		want   error
	}{
		{"another topic", liar{publish: func(_ string, data []byte) string { return "P elsewhere " + string(data) }}, errLost},
		{"two for one", liar{packs: true, publish: func(topic string, data []byte) string {
			return "P " + topic + " " + string(data) + string(data)
		}}, errInvented},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := *all[0]
			c.target = test.target
			values, _, err := c.run(t.Context(), &s, &options{duration: time.Second})
			if !errors.Is(err, test.want) {
				t.Errorf("%v, %v; want %v", values, err, test.want)
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
