//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestDescriptorsExhausted takes all descriptors of a server that may have 64. It must not spin on an accept that
// cannot succeed, must go on serving the clients it has, and must accept again when descriptors are free.
func TestDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	const topic = "descriptors"
	keys := newIssuer(t)
	node := serve(t, "notifyd with 64 descriptors", []string{"sh", "-c", `ulimit -n 64 && exec "$0" "$@"`},
		"--auth.keys="+keys.public, "--limits.handshake-timeout=10m")
	publisher := dialCoder(t, "publisher", node.url)
	subscriber := dialCoder(t, "subscriber", node.url)
	subscriber.subscribe(t, topic, keys.subscriber(t, time.Hour, topic))
	token := keys.publisher(t, time.Hour, topic)
	works := func(when string) {
		seen := subscriber.got.len()
		if m := publisher.publish(t, topic, token, quote(when)); m.Type != "ack" {
			t.Fatalf("publish %s: %+v", when, m)
		}
		subscriber.got.await(t, "event "+when, seen, func(frame string) bool { return decode(t, frame).Type == "event" })
	}
	works("before")

	// Connections that say nothing, to the port for operators: those of clients are bounded so that descriptors are left.
	// The kernel completes more of them than the server can accept.
	address := strings.TrimPrefix(node.admin, "http://")
	var silent []net.Conn
	for range 100 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	t.Cleanup(func() {
		for _, conn := range silent {
			_ = conn.Close() // most are closed already
		}
	})
	pid := node.cmd.Process.Pid
	eventually(t, "the server has used up its descriptors", func() bool { return descriptors(t, pid) >= 60 })
	works("while no descriptor is free")

	began, used := time.Now(), cpuTime(t, pid)
	time.Sleep(3 * time.Second)
	elapsed, used := time.Since(began), cpuTime(t, pid)-used
	if used > elapsed/4 {
		t.Errorf("with no descriptor free the idle server used %v of CPU in %v: it spins", used, elapsed)
	}
	works("after that")

	for _, conn := range silent {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "a new client connects", func() bool {
		p, err := tryCoder(t, "new client", node.url)
		if err == nil {
			p.ping(t)
		}
		return err == nil
	})
	works("at the end")
}

// TestConnectionStorm opens far more connections than a server has descriptors for. It keeps some back: the health check
// answers, a new key is fetched, and NATS, which goes away and comes back, is reached again, while the storm lasts.
func TestConnectionStorm(t *testing.T) {
	t.Parallel()
	const topic = "storm"
	keys, later := newIssuer(t), newIssuer(t)
	var set atomic.Pointer[string]
	publish := func(file string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := string(text)
		set.Store(&s)
	}
	publish(keys.public)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, *set.Load()) }))
	defer issuer.Close()
	nats, natsAt := natsProcess(t, ownHost()+":0")
	node := serve(t, "notifyd with 80 descriptors", []string{"sh", "-c", `ulimit -n 80 && exec "$0" "$@"`},
		"--auth.keys="+issuer.URL, "--auth.jwks-refresh=1s", "--auth.jwks-cooldown=1s", "--nats.url=nats://"+natsAt,
		"--limits.connections=10000", "--limits.handshake-timeout=10m")
	publisher := dialCoder(t, "publisher", node.url)

	address := strings.TrimSuffix(strings.TrimPrefix(node.url, "ws://"), "/v1/ws")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		var open []net.Conn
		defer func() {
			for _, conn := range open {
				_ = conn.Close()
			}
		}()
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if conn, err := net.Dial("tcp", address); err == nil {
				open = append(open, conn)
			}
			if len(open) > 500 { // those that the server refused among them
				_ = open[0].Close()
				open = open[1:]
			}
		}
	}()
	eventually(t, "the server refuses connections", func() bool {
		_, metrics := node.get("/metrics")
		return strings.Contains(metrics, `notifyd_handshakes_refused_total{reason="too_many_connections"}`) &&
			!strings.Contains(metrics, `notifyd_handshakes_refused_total{reason="too_many_connections"} 0`)
	})
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := node.get(path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	nats.kill()
	eventually(t, "NATS is away", func() bool { status, _ := node.get("/readyz"); return status == http.StatusServiceUnavailable })
	natsProcess(t, natsAt)
	eventually(t, "NATS is reached again", func() bool { status, _ := node.get("/readyz"); return status == http.StatusOK })
	publish(later.public)
	token := later.publisher(t, time.Hour, topic)
	eventually(t, "the new key is fetched", func() bool { return publisher.publish(t, topic, token, "1").Type == "ack" })
	if _, metrics := node.get("/metrics"); !strings.Contains(metrics, "\nnotifyd_accept_errors_total 0\n") {
		t.Error("the descriptors ran out")
	}
	warned := false
	for _, line := range node.output.all() {
		warned = warned || strings.Contains(line, "too few descriptors for limits.connections")
	}
	if !warned {
		t.Error("nothing is said of limits.connections")
	}
	close(stop)
	<-stopped
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// cpuTime is what the process has used so far, in the kernel's ticks of 10 ms (proc_pid_stat(5), utime and stime).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
