package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/internal/testkit"
)

// child is a program of this test binary in a process of its own.
type child struct {
	cmd    *exec.Cmd
	stderr *buffer
	ended  chan error
}

// begin starts a process, and does not wait for anything. It is killed when the test ends.
func begin(t *testing.T, program string, args ...string) *child {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{exec.Command(path, args...), &buffer{}, make(chan error, 1)}
	c.cmd.Stderr = c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	go func() { c.ended <- c.cmd.Wait() }()
	return c
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err, c.stderr)
	}
}

func (c *child) logs(t *testing.T, what string) {
	t.Helper()
	eventually(t, what, func() bool { return strings.Contains(c.stderr.String(), what) })
}

// stops asserts that the process exits with 0.
func (c *child) stops(t *testing.T) {
	t.Helper()
	var err error
	eventually(t, "the end of the process", func() bool {
		select {
		case err = <-c.ended:
			return true
		default:
			return false
		}
	})
	if err != nil {
		t.Errorf("%v\n%s", err, c.stderr)
	}
}

// heldJWKS serves a set of keys as soon as release is called, and says when it is asked.
func heldJWKS(t *testing.T) (url string, asked <-chan struct{}, release func()) {
	t.Helper()
	_, key := keyFile(t)
	set, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	requests, gate := make(chan struct{}, 16), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- struct{}{}
		select {
		case <-gate:
			_, _ = w.Write(set)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, requests, func() { close(gate) }
}

var quietly = []string{"serve", "--listen=127.0.0.1:0", "--admin.listen=", "--drain-window=0s"}

// A SIGHUP that comes while keys are fetched ends nothing: it is heeded when the node is up.
func TestHangupDuringStart(t *testing.T) {
	t.Parallel()
	url, asked, release := heldJWKS(t)
	c := begin(t, "notifyd", append(quietly, "--auth.keys", url)...)
	<-asked
	c.signal(t, syscall.SIGHUP)
	c.signal(t, syscall.SIGHUP)
	release()
	c.logs(t, "listening")
	c.logs(t, "keys unchanged")
	c.signal(t, syscall.SIGTERM)
	c.stops(t)
}

// SIGTERM ends a start whatever it waits for, and that is no failure.
func TestTerminateDuringStart(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	dialled := make(chan struct{}, 16)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			dialled <- struct{}{}
		}
	}()
	url, asked, _ := heldJWKS(t)
	file, _ := keyFile(t)
	nats := strings.TrimSuffix(strings.Repeat("nats://"+silent.Addr().String()+",", 100), ",")
	for name, start := range map[string]struct {
		args  []string
		waits func(*child)
	}{
		"keys": {[]string{"--auth.keys", url, "--auth.jwks-timeout=1h", "--auth.jwks-max-age=0"}, func(*child) { <-asked }},
		"NATS": {[]string{"--auth.keys", file, "--nats.url", nats}, func(*child) { <-dialled }},
		"cluster": {
			[]string{
				"--auth.keys", file, "--data-dir", t.TempDir(), "--nats.cluster-name=c", "--nats.cluster-listen", natsPort(t),
				"--nats.routes=nats://127.0.0.1:1",
			},
			func(c *child) { c.logs(t, "Waiting for routing to be established") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, "notifyd", append(quietly, start.args...)...)
			start.waits(c)
			c.signal(t, syscall.SIGTERM)
			c.stops(t)
			if text := c.stderr.String(); !strings.Contains(text, "stopped during the start") || strings.Contains(text, "listening") {
				t.Error(text)
			}
		})
	}
}

// A reload says which kids came and went, or that none did.
func TestReloadSaysWhatChanged(t *testing.T) {
	t.Parallel()
	file, first := keyFile(t)
	other, second := keyFile(t)
	c := begin(t, "notifyd", append(quietly, "--log.format=json", "--auth.keys", file)...)
	c.logs(t, "listening")
	c.signal(t, syscall.SIGHUP)
	c.logs(t, `"msg":"keys unchanged"`)
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	c.signal(t, syscall.SIGHUP)
	c.logs(t, fmt.Sprintf(`"source":%q,"added":[%q],"removed":[%q]`, file, kid(t, second), kid(t, first)))
	c.signal(t, syscall.SIGTERM)
	c.stops(t)
}

// kid is the one that the log quotes.
func kid(t *testing.T, key authz.Key) string {
	t.Helper()
	_, quoted, ok := strings.Cut(key.String(), `key "`)
	if !ok {
		t.Fatal(key)
	}
	return strings.TrimSuffix(quoted, `"`)
}

// A NATS that is too old is named, and not the prefix of its subjects.
func TestOldNATS(t *testing.T) {
	t.Parallel()
	file, _ := keyFile(t)
	c := begin(t, "notifyd", append(quietly, "--auth.keys", file, "--nats.url", testkit.NATSVersion(t, testkit.ServeNATS(t, natsserver.Options{JetStream: true, StoreDir: t.TempDir()}), "2.10.7"))...)
	c.logs(t, "the NATS server is version 2.10.7, and 2.11 is the oldest that will do")
	if text := c.stderr.String(); strings.Contains(text, "prefix") {
		t.Error(text)
	}
	c.signal(t, syscall.SIGTERM)
	c.stops(t)
}

// Exit code 2 is that of a configuration that cannot work, after which nobody need start the program again. A panic has
// another end, and so has the signal with which Go dumps its goroutines.
func TestPanicIsNoConfigurationError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"notifyd-panics"}, append([]string{"notifyd", "serve", "--dev"}, quietly[1:]...)} {
		c := begin(t, args[0], args[1:]...)
		if len(args) > 1 {
			c.logs(t, "listening")
			c.signal(t, syscall.SIGQUIT)
		}
		var exit *exec.ExitError
		if err := <-c.ended; !errors.As(err, &exit) {
			t.Fatal(err)
		}
		status, ok := exit.Sys().(syscall.WaitStatus)
		if !ok || status.Signal() != syscall.SIGABRT || status.CoreDump() {
			t.Errorf("%q: %v, core %v", args, exit, status.CoreDump())
		}
		if !strings.Contains(c.stderr.String(), "goroutine ") {
			t.Errorf("%q: no trace in %s", args, c.stderr)
		}
	}
}
