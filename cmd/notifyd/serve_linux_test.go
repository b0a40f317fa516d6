package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"

	"github.com/notifyd/notifyd/internal/testkit"
)

// running is a 'notifyd serve' in this process.
type running struct {
	url, admin string
	stdout     *buffer
	log        *buffer
	stop       func() int // as SIGTERM does; gives the exit code
}

// buffer is what a command writes while the test reads.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// eventually polls, since what it waits for happens in other goroutines; a minute is only reached by a bug.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func serveHere(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{stdout: &buffer{}, log: &buffer{}}
	code := make(chan int, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := &process{ctx, nil, strings.NewReader(""), r.stdout, r.log}
		code <- run(p, append([]string{
			"serve", "--listen=127.0.0.1:0", "--admin.listen=127.0.0.1:0",
			"--log.format=json", "--log.level=debug", "--drain-window=0s",
		}, args...))
	}()
	r.stop = func() int { cancel(); return <-code }
	t.Cleanup(func() { cancel(); <-ended })
	eventually(t, "the server listens", func() bool {
		for line := range strings.Lines(r.log.String()) {
			var entry struct{ Msg, Addr, Admin string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
				r.url, r.admin = "ws://"+entry.Addr+"/v1/ws", "http://"+entry.Admin
				return true
			}
		}
		select {
		case <-ended:
			t.Fatalf("serve ended:\n%s", r.log)
		default:
		}
		return false
	})
	return r
}

func (r *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	return testkit.Get(t, r.admin+path)
}

// subscribed waits until the server holds n subscriptions.
func (r *running) subscribed(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d subscriptions", n), func() bool {
		_, metrics := r.get(t, "/metrics")
		return strings.Contains(metrics, fmt.Sprintf("\nnotifyd_subscriptions %d\n", n))
	})
}

// background runs a command and gives its result.
func background(ctx context.Context, env map[string]string, args ...string) <-chan result {
	done := make(chan result, 1)
	go func() { done <- invokeCtx(ctx, env, "", args...) }()
	return done
}

func TestServeDev(t *testing.T) {
	t.Parallel()
	r := serveHere(t, "--dev", "--auth.issuer=me", "--auth.audience=it", "--admin.pprof")
	tokens := map[string]string{}
	eventually(t, "the lines to paste", func() bool {
		for _, m := range devLine.FindAllStringSubmatch(r.stdout.String(), -1) {
			if m[2] != r.url {
				t.Fatalf("%s is not %s", m[2], r.url)
			}
			tokens[m[1]] = m[3]
		}
		return len(tokens) == 2
	})
	page, secret, _ := strings.Cut(regexp.MustCompile(`http://\S+/console/#mint=\S+`).FindString(r.stdout.String()), "#mint=")
	if status, body := testkit.Get(t, page); status != http.StatusOK || !strings.Contains(body, "<title>notifyd console</title>") {
		t.Errorf("the console at %q: %d %s", page, status, body)
	}
	for header, want := range map[string]int{"Bearer " + secret: http.StatusOK, "": http.StatusForbidden} {
		resp, body := testkit.Call(t, http.MethodPost, page+"token", map[string]string{"Authorization": header, "Content-Type": "application/json"}, `{"seconds":60}`)
		if resp.StatusCode != want {
			t.Errorf("a token for %q: %s %s", header, resp.Status, body)
		}
	}
	if secret == "" || strings.Contains(r.log.String(), secret) {
		t.Errorf("the secret is %q, or in the log", secret)
	}
	publisher, subscriber := map[string]string{"NOTIFYD_TOKEN": tokens["pub"]}, map[string]string{"NOTIFYD_TOKEN": tokens["sub"]}

	sub := background(t.Context(), subscriber, "sub", "--url", r.url, "--count", "5", "demo.>", "other")
	r.subscribed(t, 2)
	if p := invoke(t, publisher, "", "pub", "--url", r.url, "demo.hello", `{"text": "<hello>"}`); p != (result{}) {
		t.Fatalf("pub: %+v", p)
	}
	if p := invoke(t, publisher, "1\n\n \"two\" \n[3 ]", "pub", "--url", r.url, "demo.lines", "-"); p != (result{}) {
		t.Fatalf("pub: %+v", p)
	}
	if p := invoke(t, publisher, "", "pub", "--url", r.url, "other", "{\n \"a\":\n1}"); p != (result{}) {
		t.Fatalf("pub: %+v", p)
	}
	want := `{"type":"event","topic":"demo.hello","pattern":"demo.>","data":{"text": "<hello>"}}
{"type":"event","topic":"demo.lines","pattern":"demo.>","data":1}
{"type":"event","topic":"demo.lines","pattern":"demo.>","data":"two"}
{"type":"event","topic":"demo.lines","pattern":"demo.>","data":[3 ]}
{"type":"event","topic":"other","data":{"a":1}}
`
	if got := <-sub; got != (result{stdout: want}) {
		t.Errorf("sub: %+v", got)
	}

	// What is refused is said, with the code, and makes the exit code 1.
	for _, c := range []struct {
		env         map[string]string
		stdin, args string
		code        int
		want        string
	}{
		{subscriber, "", "pub --url URL a 1", exitFailed, "forbidden"},
		{publisher, "", "sub --url URL a", exitFailed, "subscribe to a: forbidden"},
		{publisher, "1\nx\n", "pub --url URL a -", exitUsage, "line 2 is not JSON"},
		{subscriber, "1\n2\n", "pub --url URL a -", exitFailed, "line 1: forbidden"},
	} {
		got := invoke(t, c.env, c.stdin, strings.Fields(strings.ReplaceAll(c.args, "URL", r.url))...)
		if got.code != c.code || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v, want exit code %d and %q", c.args, got, c.code, c.want)
		}
	}

	ctx, interrupt := context.WithCancel(t.Context())
	sub = background(ctx, subscriber, "sub", "--url", r.url, "demo.>")
	r.subscribed(t, 1)
	interrupt()
	if got := <-sub; got != (result{}) {
		t.Errorf("interrupted sub: %+v", got)
	}

	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/debug/pprof/cmdline": "",
		"/metrics": `notifyd_publishes_total{result="ok"} 6`,
	} {
		if status, body := r.get(t, path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, name := range []string{"notifyd_verify_seconds_count", "notifyd_token_cache_lookups_total", "notifyd_nats_connected 1", "go_goroutines", "process_open_fds"} {
		if _, body := r.get(t, "/metrics"); !strings.Contains(body, "\n"+name) {
			t.Errorf("no %s in /metrics", name)
		}
	}
	if code := r.stop(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, r.log)
	}
	for name, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if strings.Contains(r.log.String(), part) {
				t.Errorf("the log holds a part of the token to %s", name)
			}
		}
	}
}

// A scrape says which build it is.
func TestBuildInfo(t *testing.T) {
	defer func(v, r string) { version, revision = v, r }(version, revision)
	version, revision = "v9.8.7", "0123456789abcdef"
	r := serveHere(t, "--dev")
	_, metrics := r.get(t, "/metrics")
	want := fmt.Sprintf("\nnotifyd_build_info{go=%q,revision=\"0123456789abcdef\",version=\"v9.8.7\"} 1\n", runtime.Version())
	if !strings.Contains(metrics, want) {
		t.Errorf("no %s", want)
	}
	for _, want := range []string{`"version":"v9.8.7"`, `"revision":"0123456789abcdef"`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no %s in the log", want)
		}
	}
}

func TestServeWithoutAdmin(t *testing.T) {
	r := serveHere(t, "--dev", "--admin.listen=")
	if r.admin != "http://" {
		t.Errorf("admin listens on %s", r.admin)
	}
	if code := r.stop(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, r.log)
	}
}

func TestPprofIsOffByDefault(t *testing.T) {
	r := serveHere(t, "--dev")
	if status, _ := r.get(t, "/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
}

// On SIGHUP the key files are read again: tokens of a key that is gone stop to work at once, also where they are in use.
func TestReload(t *testing.T) {
	file, old := keyFile(t)
	r := serveHere(t, "--auth.keys", file)
	token := func(key authz.Key) map[string]string {
		text, err := authz.Sign(key, authz.Claims{Expires: time.Now().Add(time.Hour), Publish: []string{">"}, Subscribe: []string{">"}})
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"NOTIFYD_TOKEN": text}
	}
	sub := background(t.Context(), token(old), "sub", "--url", r.url, "a")
	r.subscribed(t, 1)

	reload := func(what string) {
		t.Helper()
		n := strings.Count(r.log.String(), what)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, what, func() bool { return strings.Count(r.log.String(), what) > n })
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	reload("keys not loaded, those that there are stay")
	if p := invoke(t, token(old), "", "pub", "--url", r.url, "b", "1"); p != (result{}) {
		t.Fatalf("pub after a bad reload: %+v", p)
	}

	other, fresh := keyFile(t)
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	reload("keys reloaded")
	if got := <-sub; got.code != exitFailed || !strings.Contains(got.stderr, "subscription to a ended: token_invalid") {
		t.Errorf("sub with the old key: %+v", got)
	}
	if p := invoke(t, token(old), "", "pub", "--url", r.url, "b", "1"); p.code != exitFailed || !strings.Contains(p.stderr, "token_invalid") {
		t.Errorf("pub with the old key: %+v", p)
	}
	if p := invoke(t, token(fresh), "", "pub", "--url", r.url, "b", "1"); p != (result{}) {
		t.Errorf("pub with the new key: %+v", p)
	}
}

// A subscriber whose token is refused for a moment goes on when it is accepted again.
func TestSubOutlivesARefusal(t *testing.T) {
	file, key := keyFile(t)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := keyFile(t)
	r := serveHere(t, "--auth.keys", file)
	trust := func(keys []byte) {
		t.Helper()
		if err := os.WriteFile(file, keys, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	env := as(mint(t, key, authz.Claims{Publish: []string{"a"}, Subscribe: []string{"a"}}))
	var stdout, stderr buffer
	code := make(chan int, 1)
	go func() {
		code <- run(&process{t.Context(), env, strings.NewReader(""), &stdout, &stderr}, []string{"sub", "--url", r.url, "--count=1", "a"})
	}()
	r.subscribed(t, 1)

	bad, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	trust(bad)
	eventually(t, "three refusals", func() bool { return strings.Count(stderr.String(), "token_invalid") >= 3 })
	trust(good)
	r.subscribed(t, 1)
	if got := invoke(t, env, "", "pub", "--url", r.url, "a", "1"); got != (result{}) {
		t.Errorf("pub: %+v", got)
	}
	if got := <-code; got != exitOK || stdout.String() != `{"type":"event","topic":"a","data":1}`+"\n" {
		t.Errorf("exit code %d\n%s%s", got, &stdout, &stderr)
	}
}

func TestServeFailsToStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--listen=" + taken.Addr().String(), exitFailed, "listen: listen tcp 127.0.0.1:"},
		{"--listen=127.0.0.1:0 --admin.listen=" + taken.Addr().String(), exitFailed, "admin.listen: listen tcp 127.0.0.1:"},
		{"--listen=127.0.0.1:0 --admin.listen= --data-dir=" + dir, exitUsage, "data_dir: \"" + dir + "\": "},
		{"--loops=-1", exitUsage, "loops: -1"},
	} {
		r := invoke(t, nil, "", append([]string{"serve", "--dev"}, strings.Fields(c.args)...)...)
		if r.code != c.code || !strings.Contains(r.stderr, c.want) || r.stdout != "" {
			t.Errorf("%s: %+v, want exit code %d and %q", c.args, r, c.code, c.want)
		}
	}
}

// /readyz says no while NATS is away.
func TestReady(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := nobody.Addr().String()
	_ = nobody.Close()
	r := serveHere(t, "--dev", "--nats.url=nats://"+address)
	if status, body := r.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "NATS is unreachable") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := r.get(t, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
}

// What is configured for a node reaches it.
func TestNodeOptions(t *testing.T) {
	c := parse(t, nil, "--nats.replicas=3", "--nats.url=nats://h", "--listen=:1", "--admin.listen=:2", "--admin.pprof")
	o, err := c.nodeOptions()
	if err != nil || o.Store.Replicas != 3 || o.Bus.URL != "nats://h" || o.Listen != ":1" || o.AdminListen != ":2" || !o.Pprof {
		t.Errorf("%+v %v", o, err)
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(logConfig{Level: 1, Format: "json"}, &out) // 1: warn
	log.Info("unseen")
	for range 1000 {
		log.Warn("flood")
	}
	if n := strings.Count(out.String(), `"msg":"flood"`); n < 100 || n > 130 || strings.Contains(out.String(), "unseen") {
		t.Errorf("%d lines", n)
	}
	out.Reset()
	newLogger(logConfig{Format: "console"}, &out).Info("hello")
	if !strings.Contains(out.String(), "\tINFO\thello") {
		t.Errorf("console: %q", out.String())
	}
}

// The console is where console.enabled puts it, and makes no tokens there; without the key it is nowhere.
func TestServeConsole(t *testing.T) {
	t.Parallel()
	keys, _ := keyFile(t)
	for _, c := range []struct {
		args          []string
		public, admin int
	}{
		{nil, http.StatusNotFound, http.StatusNotFound},
		{[]string{"--console.enabled"}, http.StatusNotFound, http.StatusOK},
	} {
		r := serveHere(t, append([]string{"--auth.keys=" + keys}, c.args...)...)
		for base, want := range map[string]int{"http" + strings.TrimSuffix(strings.TrimPrefix(r.url, "ws"), "/v1/ws"): c.public, r.admin: c.admin} {
			if status, body := testkit.Get(t, base+"/console/"); status != want {
				t.Errorf("%q: %s/console/: %d %s", c.args, base, status, body)
			}
			resp, err := http.Post(base+"/console/token", "application/json", strings.NewReader(`{"subscribe":[">"],"seconds":60}`))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%q: a token from %s: %d", c.args, base, resp.StatusCode)
			}
		}
	}
}

func TestInvocation(t *testing.T) {
	cached := strings.Repeat("0123456789abcdef", 4)
	for arg0, want := range map[string]string{
		"notifyd":                "notifyd",
		"/usr/local/bin/notifyd": "/usr/local/bin/notifyd",
		"/tmp/go-build3877906909/b001/exe/notifyd": "go run ./cmd/notifyd",
		"/cache/01/" + cached + "-d/notifyd":       "go run ./cmd/notifyd",
	} {
		if got := invocation(arg0); got != want {
			t.Errorf("%s: %s", arg0, got)
		}
	}
}
