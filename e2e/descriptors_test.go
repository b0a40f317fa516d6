//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDescriptorsExhausted takes all descriptors of a server that may have 64. It must not spin on an accept that
// cannot succeed, must go on serving the clients it has, and must accept again when descriptors are free.
func TestDescriptorsExhausted(t *testing.T) {
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

	// Connections that say nothing. The kernel completes more of them than the server can accept.
	address := strings.TrimSuffix(strings.TrimPrefix(node.url, "ws://"), "/v1/ws")
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
