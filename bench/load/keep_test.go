//go:build linux

package load

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// TestKept runs the scenarios of durable topics with the embedded NATS and beside an external one, and NATS alone.
func TestKept(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, external := range []bool{false, true} {
		name, args := "embedded", []string{StreamFlag()}
		o := Options{Plain: natsAlone, Server: "notifyd", Size: 128, Warmup: 100 * time.Millisecond, Duration: 400 * time.Millisecond}
		if external {
			if o.NATS, err = StartNATS(natsAlone); err != nil {
				t.Fatal(err)
			}
			defer o.NATS.Stop()
			name, args = "external", append(args, "--nats.url="+o.NATS.URL)
		}
		url, key, process, stop, err := Serve(bin, "EdDSA", args)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		o.URL, o.Process = url, process
		if external {
			o.Process = Together{process, RunningProcess(o.NATS.PID)}
		}
		if o.Target, err = NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, false); err != nil {
			t.Fatal(err)
		}
		measure := func(t *testing.T, plan Plan, loads ...Load) []Result {
			t.Helper()
			told, o := 0, o
			o.Plan, o.Loads, o.Progress = plan, loads, func(Progress) { told++ }
			results, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if told == 0 {
				t.Error("nothing was told")
			}
			for _, r := range results {
				if r.Scenario != plan.Name || r.Lost != 0 || r.ServerCores == nil {
					t.Errorf("%+v", r)
				}
			}
			return results
		}
		t.Run(name+"/durable", func(t *testing.T) {
			results := measure(t, Durable(3), Load{Window: 4}, Load{Window: 8}, Load{Rate: 100})
			if len(results) != 5 { // what is due at a rate is compared with nothing
				t.Fatalf("%d results", len(results))
			}
			for i := range results[:4] {
				switch r := results[i]; {
				case r.Published == 0 || *r.CPUPerPublish <= 0:
					t.Errorf("%+v", r)
				case i%2 == 0 && (r.Server != "notifyd" || r.Latency.Count == 0):
					t.Errorf("%+v", r)
				case i%2 == 1 && r.Server != plainName:
					t.Errorf("%+v", r)
				}
			}
			checkCompared(t, results[0], "CPU", plainName, *results[0].CPUPerPublish / *results[1].CPUPerPublish)
		})
		t.Run(name+"/replay", func(t *testing.T) {
			const n, events = 5, 1500
			r := measure(t, Replay(n, events))
			if len(r) != 4 || r[0].Delivered != events || r[1].Delivered != n*events || r[2].Delivered == 0 || r[3].Delivered != events {
				t.Fatalf("%+v", r)
			}
			checkCompared(t, r[0], "speed", plainName, r[0].DeliveriesPerSecond/r[3].DeliveriesPerSecond)
			checkCompared(t, r[1], "CPU", "live", *r[1].CPUPerDelivery / *r[2].CPUPerDelivery)
		})
		t.Run(name+"/resume", func(t *testing.T) {
			const clients, behind = 60, 20
			r := measure(t, Resume(3, clients, behind), Load{Rate: 100}, Load{Window: 1})
			if len(r) != 4 || r[0].Returned != nil || r[1].Returned != nil {
				t.Fatalf("%+v", r)
			}
			for i, with := range r[2:] {
				b := with.Returned
				if b == nil || b.Connections != clients || b.Behind != behind+i || b.Waves == 0 || b.Seconds < 0.9 || b.RSS == 0 || b.Lost != 0 {
					t.Fatalf("%+v", b)
				}
				if b.Latency.Count != int64(clients*b.Waves) || with.Latency.Count == 0 || with.CPUPerDelivery != nil {
					t.Errorf("%+v", with)
				}
			}
		})
	}
}

func checkCompared(t *testing.T, r Result, measure, to string, times float64) {
	t.Helper()
	if len(r.Compared) != 1 || r.Compared[0] != (Comparison{measure, to, times}) || !strings.Contains(r.Label(), " × the "+measure+" of "+to) {
		t.Errorf("%q: %+v, want %v", r.Label(), r.Compared, times)
	}
}

// TestNotKept: a server that acknowledges what it does not store is an error, and so is one that refuses it.
func TestNotKept(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	url, key, _, stop, err := Serve(bin, "EdDSA", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Target: target, URL: url, Size: MinSize, Duration: time.Minute, Loads: []Load{{Window: 1}}}
	for _, plan := range []Plan{Durable(2), Replay(2, 10), Resume(2, 5, 3)} {
		o.Plan = plan
		if _, err := Run(t.Context(), o); !errors.Is(err, errNotKept) {
			t.Errorf("%s: %v", plan.Name, err)
		}
	}
	token, err := authz.Sign(key, authz.Claims{Expires: time.Now().Add(time.Hour), Publish: []string{"elsewhere"}})
	if err != nil {
		t.Fatal(err)
	}
	o.Plan, o.Target = Durable(2), &Notifyd{Token: token}
	if _, err := Run(t.Context(), o); !errors.Is(err, wire.Forbidden) {
		t.Error(err)
	}
	o.Target, o.URL = hubTarget{}, (&hub{heap: 1}).serve(t)
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "Keeper") {
		t.Errorf("a server that keeps nothing: %v", err)
	}
}

// forgetful is a server that leaves out the last event of what a client that comes back has missed.
type forgetful struct{ *Notifyd }

func (f forgetful) Resume(dst []byte, topic string, from Position) []byte {
	from.Seq++
	return f.Notifyd.Resume(dst, topic, from)
}

// TestReplayMisses: events that a replay leaves out are lost, and are not called fast.
func TestReplayMisses(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	url, key, _, stop, err := Serve(bin, "EdDSA", []string{StreamFlag()})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRun(Options{Plan: Replay(2, 10), Target: forgetful{target}, URL: url, Size: MinSize}, "x")
	if err != nil {
		t.Fatal(err)
	}
	start, err := r.positions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.fill(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if res, err := r.reread(t.Context(), 2, start[0], 10); err != nil || res.Lost != 2 || res.Delivered != 18 {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestPlainFails: what NATS alone cannot do is an error here.
func TestPlainFails(t *testing.T) {
	r := &run{Options: Options{Plan: Durable(1), Plain: natsAlone, NATS: &NATS{URL: "nats://127.0.0.1:1"}}}
	if _, err := r.plain(t.Context(), plainJob{Window: 1, Size: MinSize, Duration: time.Millisecond}); err == nil {
		t.Error("published to no server")
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.NATS = nil
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := r.plain(ctx, plainJob{Window: 1, Size: MinSize, Duration: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
