package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/authz"
)

// keyFile writes the public part of a new key.
func keyFile(t *testing.T) (path string, key authz.Key) {
	t.Helper()
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, public, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, key
}

func TestCheck(t *testing.T) {
	t.Parallel()
	file, _ := keyFile(t)
	if r := invoke(t, nil, "", "check", "--auth.keys", file); r.code != exitOK || r.stdout != "the configuration is fine\n" {
		t.Fatalf("defaults: %+v", r)
	}
	// Of a URL only the form is looked at: nobody listens there.
	issuers := fmt.Sprintf(`[{"name":"a","keys":[%q,"http://127.0.0.1:1/jwks"],"publish":["a.>"],"type":"at+jwt"},{"name":"b","keys":[%[1]q]}]`, file)
	if r := invoke(t, nil, "", "check", "--auth.issuers", issuers, "--auth.keys=https://id.example/jwks", "--auth.issuer=c"); r.code != exitOK {
		t.Fatalf("issuers: %+v", r)
	}
	for _, c := range []struct {
		args string
		want string // key, value and a word of the remedy, separated by |
	}{
		{"--listen=8080", `listen: "8080"|HOST:PORT`},
		{"--listen=:70000", `listen: ":70000"|HOST:PORT`},
		{"--admin.listen=x", `admin.listen: "x"|HOST:PORT`},
		{"--admin.listen=127.0.0.1:8080", `admin.listen: "127.0.0.1:8080"|listen (127.0.0.1:8080); use another one`},
		{"--admin.listen= --admin.pprof", "admin.pprof: true|set admin.listen"},
		{"--admin.listen= --console.enabled", "console.enabled: true|set admin.listen"},
		{"--auth.keys=https://s3cret:s3cret@id/jwks?key=s3cret", "auth.keys: https://id/jwks: |password does not belong in the URL"},
		{"--auth.keys=http://id.example/jwks?key=s3cret", "auth.keys: http://id.example/jwks: |use https"},
		{"--auth.keys=ftp://id/jwks", "auth.keys: ftp://id/jwks: |neither https nor http"},
		{"--auth.audience=a,,b", `auth.audience: ""|remove it`},
		{`--auth.issuers=[{"name":"a","keys":["https://id.example/jwks"],"audience":["a",""]}]`, `auth.issuers[0]: a|an audience is empty`},
		{"--auth.jwks-refresh=0s", "auth.jwks_refresh: 0s|1s or more"},
		{"--auth.jwks-cooldown=0s", "auth.jwks_cooldown: 0s|1s or more"},
		{"--auth.jwks-timeout=0s", "auth.jwks_timeout: 0s|100ms or more"},
		{"--auth.jwks-max-age=5m5s", "auth.jwks_max_age: 5m5s|several times as long"},
		{"--auth.jwks-refresh=48h", "auth.jwks_max_age: 24h0m0s|auth.jwks_refresh (48h0m0s)"},
		{"--auth.strategies=", "auth.strategies: empty|leave it out"},
		{"--auth.strategies=message --auth.require=connection", "auth.require: connection|add first-message"},
		{"--auth.deadline=1ms", "auth.deadline: 1ms|1s or more"},
		{"--auth.ticket-ttl=0s", "auth.ticket_ttl: 0s|1s or more"},
		{"--auth.revocation-max-age=1s", "auth.revocation_max_age: 1s|5s or more"},
		{"--auth.issuers=[{name:a}]", "auth.issuers|[0].name:a: unknown member; did you mean name?"}, // YAML wants a space
		{"--auth.issuers=[{keys:[KEYS],name:a}]", "auth.issuers|write a list whose elements have name, keys"},
		{`--auth.issuers=[{"name":"a"}]`, "auth.issuers[0].keys: empty|name a file"},
		{`--auth.issuers=[{"keys":["KEYS"]}]`, `auth.issuers[0].name: ""|'iss'`},
		{`--auth.issuers=[{"name":"a","keys":["/nowhere"]}]`, "auth.issuers[0].keys: /nowhere|no such file"},
		{`--auth.issuers=[{"name":"a","keys":["http://id/?s3cret"]}]`, "auth.issuers[0].keys: http://id/: |use https"},
		{`--auth.issuers=[{"name":"a","keys":["KEYS"]},{"name":"a","keys":["KEYS"]}]`, "auth.issuers[1].name: a: |into one entry"},
		{`--auth.issuers=[{"name":"a","keys":["KEYS"],"publish":["a..b"]}]`, `auth.issuers[0]: a: |"a..b" is not a pattern`},
		{`--auth.issuers=[{"name":"a","keys":["KEYS"],"max_lifetime":"1ms"}]`, "auth.issuers[0]: a: |at least 1s"},
		{`--auth.issuers=[{"name":"a","keys":["KEYS"]}] --auth.keys=KEYS`, `auth.issuer: ""|move them into auth.issuers`},
		{`--auth.issuers=[{"name":"a","keys":["KEYS"]}] --auth.keys=KEYS --auth.issuer=a`, "auth.issuers[0].name: a: |into one entry"},
		{`--auth.issuers=[{"name":"a","keys":["KEYS"]}] --auth.issuer=b`, "auth.issuer: b: has no keys|set auth.keys"},
		{"--auth.keys=/nowhere", "auth.keys: /nowhere|no such file"},
		{"--auth.leeway=2h", "auth.leeway: 7200|0 to 3600"},
		{"--auth.leeway=-1s", "auth.leeway: -1|0 to 3600"},
		{"--auth.not-before-leeway=2h", "auth.not_before_leeway: 7200|0 to 3600"},
		{"--auth.cache-entries=0", "auth.cache_entries: 0|1 to"},
		{"--auth.token-bytes=10", "auth.token_bytes: 10|256 to"},
		{"--auth.token-bytes=64KiB", "auth.token_bytes: 64KiB|limits.message_bytes (64KiB)"},
		{"--auth.workers=-1", "auth.workers: -1|0 to"},
		{"--auth.expiry-notice=0s", "auth.expiry_notice: 0s|1s or more"},
		{"--limits.message-bytes=9MiB", "limits.message_bytes: 9437184|8388608"},
		{"--limits.head-bytes=10", "limits.head_bytes: 10|1024 to"},
		{"--limits.head-bytes=8KiB", "limits.head_bytes: 8KiB|auth.token_bytes (8KiB)"},
		{"--proxy-header=X-Real-IP --trusted-proxies=10.0.0.0/8", `proxy_header: "X-Real-IP"|auto, forwarded or x-forwarded-for`},
		{"--proxy-header=forwarded", "proxy_header: forwarded|trusted_proxies"},
		{"--path-prefix=push", `path_prefix: "push"|/push`},
		{"--path-prefix=/push/", `path_prefix: "/push/"|/push`},
		{"--path-prefix=/", `path_prefix: "/"|/push`},
		{"--path-prefix=/a%20b", `path_prefix: "/a%20b"|/push`},
		{"--limits.subscriptions=0", "limits.subscriptions: 0|1 to"},
		{"--limits.pending-bytes=5KiB", "limits.pending_bytes: 5KiB|several times"},
		{"--limits.pending-bytes=5", "limits.pending_bytes: 5|4096 to"},
		{"--limits.rate=-1", "limits.rate: -1|0 to"},
		{"--limits.burst=5", "limits.burst: 5|limits.rate"},
		{"--limits.rate=1 --limits.burst=-5", "limits.burst: -5|0 to"},
		{"--limits.connections=-1", "limits.connections: -1|0 to"},
		{"--limits.connections-per-ip=-1", "limits.connections_per_ip: -1|0 to"},
		{"--limits.bad-envelopes=0", "limits.bad_envelopes: 0|1 to"},
		{"--limits.auth-failures=0", "limits.auth_failures: 0|1 to"},
		{"--limits.penalty=-1s", "limits.penalty: -1s|0s or more"},
		{"--limits.handshake-timeout=1ms", "limits.handshake_timeout: 1ms|1s or more"},
		{"--limits.message-timeout=0s", "limits.message_timeout: 0s|1s or more"},
		{"--limits.idle-timeout=25s", "limits.idle_timeout: 25s|ping_interval (25s)"},
		{"--limits.idle-timeout=0s", "limits.idle_timeout: 0s|1s or more"},
		{"--ping-interval=1ms", "ping_interval: 1ms|1s or more"},
		{"--drain-delay=-1s", "drain_delay: -1s|0s or more"},
		{"--drain-window=-1s", "drain_window: -1s|0s or more"},
		{"--loops=-1", "loops: -1|0 to"},
		{"--nats.replicas=6", "nats.replicas: 6|1 to 5"},
		{"--nats.replicas=3", "nats.replicas: 3|set nats.url"},
		{"--nats.linger=-1s", "nats.linger: -1s|0s or more"},
		{"--nats.prefix=", `nats.prefix: ""|such as notify`},
		{"--nats.prefix=a.*", `nats.prefix: "a.*"|such as notify`},
		{"--nats.url=nats://h --data-dir=d", "data_dir: d|leave it out"},
		{"--nats.url=http://h", `nats.url: "http://h"|use nats`},
		{"--nats.user=u", `nats.user: "u"|nats.url`},
		{"--nats.url=nats://h --nats.user=u", `nats.user: "u"|nats.password`},
		{"--nats.url=nats://h --nats.tls-cert=c", `nats.tls_cert: "c"|nats.tls_key`},
		{"--nats.url=nats://h --nats.user=u --nats.password=p --nats.nkey=n", `nats.nkey: "n"|keep this or nats.user`},
		{"--nats.url=nats://h --nats.routes=r", `nats.url: "nats://h"|nats.listen, nats.cluster_name, nats.cluster_listen and nats.routes`},
		{"--nats.routes=nats://h:1", `nats.cluster_listen: ""|0.0.0.0:6222`},
		{"--nats.cluster-listen=127.0.0.1:1 --nats.cluster-name=c --data-dir=d", `nats.routes: ""|nats.cluster_listen`},
		{"--nats.cluster-listen=u:p@:1 --nats.cluster-name=c", `data_dir: ""|set it`},
		{"--nats.cluster-listen=:1 --nats.cluster-name=c --data-dir=d --nats.routes=nats://h:1", `nats.cluster_listen: ":1"|USER:PASSWORD@`},
		{"--nats.listen=0.0.0.0:4222", `nats.listen: "0.0.0.0:4222"|USER:PASSWORD@`},
		{"--nats.tls-cert=c", `nats.tls_cert: "c"|nats.url`},
		{"--nats.cluster-listen=u:p@:1 --data-dir=d --nats.routes=nats://h:1", `nats.cluster_name: ""|same name`},
	} {
		args := append([]string{"check"}, strings.Fields(strings.ReplaceAll(c.args, "KEYS", file))...)
		if !strings.Contains(c.args, "auth.keys") && !strings.Contains(c.args, "auth.issuers") {
			args = append(args, "--auth.keys", file)
		}
		r := invoke(t, nil, "", args...)
		if r.code != exitUsage {
			t.Errorf("%s: exit code %d", c.args, r.code)
		}
		for want := range strings.SplitSeq(c.want, "|") {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%s: no %q in:\n%s", c.args, want, r.stderr)
			}
		}
		if n := strings.Count(r.stderr, "\n"); n > 2 {
			t.Errorf("%s: %d problems:\n%s", c.args, n, r.stderr)
		}
		if strings.Contains(r.stderr, "s3cret") {
			t.Errorf("%s: a secret is quoted:\n%s", c.args, r.stderr)
		}
	}
}

func TestCheckTellsEveryProblem(t *testing.T) {
	config := writeFile(t, "listen: x\nlimits: {rate: y, subscriptions: 0}\nnats: {pasword: s3cret}\n")
	r := invoke(t, nil, "", "check", "--config", config)
	for _, want := range []string{"listen: ", "limits.rate: ", "limits.subscriptions: ", "nats.pasword: unknown key; did you mean nats.password?", "auth.keys: "} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in:\n%s", want, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "s3cret") {
		t.Errorf("a secret is quoted:\n%s", r.stderr)
	}
}

func TestCheckHealth(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	if r := invoke(t, nil, "", "check", "--health", server.URL); r.code != exitOK || r.stdout != "" {
		t.Errorf("healthy: %+v", r)
	}
	status = http.StatusServiceUnavailable
	if r := invoke(t, nil, "", "check", "--health", server.URL); r.code != exitFailed || !strings.Contains(r.stderr, "503") {
		t.Errorf("unhealthy: %+v", r)
	}
	server.Close()
	if r := invoke(t, nil, "", "check", "--health", server.URL); r.code != exitFailed {
		t.Errorf("gone: %+v", r)
	}
	if r := invoke(t, nil, "", "check", "--health", "::"); r.code != exitUsage {
		t.Errorf("no URL: %+v", r)
	}
}

// The configurations for identity providers are complete.
func TestCheckIdentityProviders(t *testing.T) {
	text, err := os.ReadFile("../../docs/identity-providers.md")
	if err != nil {
		t.Fatal(err)
	}
	configs := strings.Split(string(text), "\n```yaml\n")[1:]
	if len(configs) < 4 {
		t.Fatalf("%d configurations", len(configs))
	}
	for _, config := range configs {
		config, _, _ = strings.Cut(config, "\n```")
		if r := invoke(t, nil, "", "check", "--config", writeFile(t, config)); r.code != exitOK {
			t.Errorf("%s\n%+v", config, r)
		}
	}
}

// The streams of docs/streams.md can be declared as they are printed there.
func TestCheckStreamsOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/streams.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, ok := strings.Cut(string(text), "\n```yaml\n")
	config, _, closed := strings.Cut(config, "\n```")
	if !ok || !closed {
		t.Fatal("no configuration")
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", filepath.Join(dir, "temporary")) // where streams should not be
	config = strings.Replace(config, "/var/lib/notifyd", filepath.Join(dir, "data"), 1)
	file, _ := keyFile(t)
	if r := invoke(t, nil, "", "check", "--auth.keys", file, "--config", writeFile(t, config)); r.code != exitOK {
		t.Errorf("%s\n%+v", config, r)
	}
}
