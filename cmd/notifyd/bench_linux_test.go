package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestBenchHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, command := range []string{"bench", "bench fanout", "bench idle", "bench flood", "bench beside", "bench http", "bench durable", "bench replay", "bench resume", "bench abuse"} {
		r := invoke(t, nil, "", append(strings.Fields(command), "--help")...)
		if r.code != exitOK || r.stderr != "" {
			t.Errorf("%s --help: %+v", command, r)
		}
		golden(t, filepath.Join("testdata", "help", strings.ReplaceAll("notifyd "+command, " ", "-")+".txt"), r.stdout)
	}
}

func TestBenchUsageErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"fanout --size 8", "--size"},
		{"fanout --window 0", "--window"},
		{"fanout --rate 0", "--rate"},
		{"fanout --rate NaN", "--rate"},
		{"fanout --duration 0s", "--duration"},
		{"fanout --warmup -1s", "--warmup"},
		{"fanout --alg none", "EdDSA"},
		{"fanout --source nowhere", "--source"},
		{"fanout --url ws://127.0.0.1:1/", "NOTIFYD_TOKEN"},
		{"fanout --url ws://127.0.0.1:1/ --key nowhere", "nowhere"},
		{"fanout --url ws://127.0.0.1:1/ --token x --fresh", "--key"},
		{"flood --url ws://127.0.0.1:1/", "--key"},
		{"flood --rate 0", "--rate"},
		{"beside --rate 0", "--rate"},
		{"http --window 0", "--window"},
		{"http --batch 1", "--batch"},
		{"http -n=-1", "-n"},
		{"durable --window 0", "--window"},
		{"durable --url ws://127.0.0.1:1/ --external", "--external"},
		{"replay --size 8", "--size"},
		{"resume --rate 0", "--rate"},
		{"abuse --duration 0s", "--duration"},
		{"abuse --only politeness", "politeness"},
	} {
		r := invoke(t, nil, "", append([]string{"bench"}, strings.Fields(c.args)...)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: want exit code 2 and %q, got %+v", c.args, c.want, r)
		}
	}
}

// TestBenchElsewhere measures a server that it has not started.
func TestBenchElsewhere(t *testing.T) {
	jwk := invoke(t, nil, "", "keys", "generate")
	keyFile := filepath.Join(t.TempDir(), "key.jwk")
	if err := os.WriteFile(keyFile, []byte(jwk.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	token := invoke(t, nil, "", "token", "--key", keyFile, "--publish", "bench.>", "--subscribe", "bench.>")
	url := serveHere(t, "--auth.keys", keyFile).url
	for _, args := range [][]string{
		{"fanout", "-n", "5", "-w", "2", "-r", "100", "--key", keyFile, "--fresh", "--json"},
		{"flood", "-n", "5", "--key", keyFile, "--json"},
		{"beside", "-n", "5", "--many", "20", "--key", keyFile, "--json"},

		{"pairs", "-n", "5", "-w", "2,4", "--token", strings.TrimSpace(token.stdout), "--json"},
	} {
		r := invoke(t, nil, "", append(append([]string{"bench"}, args...), "--url", url, "-d", "300ms", "--warmup", "0s")...)
		var report struct {
			Version, Machine string
			Results          []struct {
				Delivered int
				Lost      int
				CPU       *float64 `json:"cpu_us_per_delivery"`
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != exitOK {
			t.Fatalf("%v: %+v", err, r)
		}
		if len(report.Results) != 2 || report.Version == "" || report.Machine == "" {
			t.Fatalf("%s", r.stdout)
		}
		for _, result := range report.Results {
			if result.Delivered == 0 || result.Lost != 0 || result.CPU != nil {
				t.Errorf("%+v", result)
			}
		}
	}
}

// TestBenchKept: the command line starts NATS alone by itself, and an external one.
func TestBenchKept(t *testing.T) {
	for args, want := range map[string]string{
		"durable -n 3 --warmup 0s -d 300ms --json":                            "nats.go",
		"durable -n 3 --warmup 0s -d 300ms --external --json":                 "nats.go",
		"replay -n 3 --events 500 -d 300ms --json":                            "ordered consumer",
		"resume -n 20 --behind 5 --topics 2 --warmup 0s -d 300ms -w 1 --json": `"behind": 5`,
	} {
		out, err := exec.CommandContext(t.Context(), "notifyd", append([]string{"bench"}, strings.Fields(args)...)...).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
}

// TestBenchAbuse lists the abuses, and its exit code says whether honest clients noticed one.
func TestBenchAbuse(t *testing.T) {
	if r := invoke(t, nil, "", "bench", "abuse", "--list"); r.code != exitOK || !strings.Contains(r.stdout, "close-storm") {
		t.Errorf("%+v", r)
	}
	out, err := exec.CommandContext(t.Context(), "notifyd", "bench", "abuse", "--only", "tickets", "--short", "-d", "200ms", "--json").Output()
	var report struct {
		Version, Machine string
		Results          []struct {
			Name string
			Got  map[string]int
		}
	}
	if err != nil || json.Unmarshal(out, &report) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(report.Results) != 1 || report.Results[0].Name != "tickets" || report.Results[0].Got["HTTP 429"] == 0 || report.Machine == "" {
		t.Errorf("%s", out)
	}
	// A server that serves nobody is an error, and not a table without failures.
	if out, err := exec.CommandContext(t.Context(), "notifyd", "bench", "abuse", "--only", "tickets", "--bin", "/bin/false").CombinedOutput(); err == nil {
		t.Errorf("%s", out)
	}
}
