//go:build linux

package load

import (
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// TestForge: nothing is wrong with what is forged but its signature, whatever the
// algorithm, and no two are alike.
func TestForge(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA", "RS256", "HS256"} {
		key, err := authz.GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
		if err != nil {
			t.Fatal(err)
		}
		target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, code := verifier.Verify([]byte(target.Token)); code != wire.OK {
			t.Fatalf("%s: the good token: %v", alg, code)
		}
		good, err := authz.Inspect(target.Token)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{target.Token: true}
		for range 50 {
			payload, err := target.Forge(nil, "a.b", []byte(`"x"`))
			if err != nil {
				t.Fatal(err)
			}
			var publish wire.Envelope
			if err := wire.Parse(payload, &publish); err != nil {
				t.Fatal(err)
			}
			token := string(publish.Token)
			if _, code := verifier.Verify(publish.Token); code != wire.TokenInvalid || seen[token] {
				t.Errorf("%s: %v, seen before: %v", alg, code, seen[token])
			}
			seen[token] = true
			bad, err := authz.Inspect(token)
			if err != nil || string(bad.Header) != string(good.Header) || string(bad.Claims) != string(good.Claims) || len(token) != len(target.Token) {
				t.Errorf("%s: %v: %s %s, want %s %s", alg, err, bad.Header, bad.Claims, good.Header, good.Claims)
			}
			if !strings.Contains(string(bad.Header), `"kid": "`+key.ID()+`"`) {
				t.Errorf("%s: not with the key %s: %s", alg, key.ID(), bad.Header)
			}
		}
	}
	n := &Notifyd{Token: "a.b.c2hvcnQ"}
	if _, err := n.Forge(nil, "a", nil); err == nil {
		t.Error("a signature that is too short was spoiled")
	}
}

// TestFlood: the server refuses what floods it and closes it, again and again, and
// the others lose nothing.
func TestFlood(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"ES256", "EdDSA"} {
		url, key, process, stop, err := Serve(bin, alg, []string{"--limits.auth-failures=5", "--limits.penalty=0s"})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, false)
		if err != nil {
			t.Fatal(err)
		}
		results, err := Run(t.Context(), Options{
			Plan: Flood(10), Loads: []Load{{Rate: 200}, {Window: 1}}, Target: target, URL: url, Process: process,
			Size: MinSize, Warmup: 100 * time.Millisecond, Duration: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != 4 {
			t.Fatalf("%s: %d results", alg, len(results))
		}
		for i, r := range results {
			if r.Published == 0 || r.Lost != 0 || r.Delivered > r.Published+uint64(r.Topics) {
				t.Errorf("%s: the good: %+v", alg, r)
			}
			if i < 2 {
				if r.Flooded != nil {
					t.Errorf("%s: nobody floods: %+v", alg, r.Flooded)
				}
				continue
			}
			// Five refusals close a connection; at either end of the time, one is under way.
			f := r.Flooded
			if f == nil || f.Refused == 0 || f.Sent < f.Refused || f.Connects < 2 || f.Refused > 5*(f.Connects+1) {
				t.Errorf("%s: the flood: %+v", alg, f)
			}
		}
	}
}

// gullible is a server that believes everything.
type gullible struct{ hubTarget }

func (g gullible) Forge(dst []byte, _ string, data []byte) ([]byte, error) {
	return g.Publish(dst, "elsewhere", data)
}

func (gullible) Refused([]byte) bool { return false }

// TestFloodEnds: the flood ends with the pass, though the server says nothing; and
// a server that takes no tokens cannot be flooded with bad ones.
func TestFloodEnds(t *testing.T) {
	o := Options{
		Plan: Flood(2), Loads: []Load{{Rate: 100}}, Target: gullible{}, URL: (&hub{heap: 1}).serve(t),
		Size: MinSize, Warmup: 100 * time.Millisecond, Duration: 300 * time.Millisecond,
	}
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r := results[1]; r.Flooded == nil || r.Flooded.Refused != 0 || r.Lost != 0 || r.Delivered == 0 {
		t.Errorf("%+v, %+v", r, r.Flooded)
	}
	o.Target = hubTarget{}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "Forger") {
		t.Error(err)
	}
}
