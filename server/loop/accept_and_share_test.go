//go:build linux

package loop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// TestMain runs an echo server instead of the tests when a test has asked for
// one in a process of its own.
func TestMain(m *testing.M) {
	if n, err := strconv.ParseUint(os.Getenv("LOOP_TEST_NOFILE"), 10, 64); err == nil {
		if err := echoWithFew(n); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// echoWithFew serves with at most n descriptors until standard input ends.
func echoWithFew(n uint64) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return err
	}
	var failures int
	opts := Options{Loops: 1, AcceptError: func(err error) {
		failures++
		fmt.Println("accept:", failures, err)
	}}
	e, err := New(opts, &hooks{message: echo})
	if err != nil {
		return err
	}
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	if err := e.Start(ln); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return e.Drain(context.Background(), 0)
}

// With no descriptor left, accepting rests without spinning, connections are
// served, and clients that wait are accepted as soon as there is room.
func TestOutOfDescriptors(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOOP_TEST_NOFILE=40")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if t.Failed() {
			_ = cmd.Process.Kill() // it need not be able to end any more
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	lines := bufio.NewScanner(stdout)
	line := func() string {
		if !lines.Scan() {
			t.Fatal("the server ended")
		}
		return lines.Text()
	}
	s := &server{t: t, addr: line()}
	var all []*client
	for range 60 {
		c := s.connect()
		c.send([]byte(request))
		all = append(all, c)
	}
	first, last := all[0], all[59]
	first.status("101")
	if got := line(); !strings.Contains(got, "too many open files") {
		t.Fatal(got)
	}
	before := cpuTicks(t, cmd.Process.Pid)
	for range 2 { // each a second after the one before
		if got := line(); !strings.Contains(got, "too many open files") {
			t.Fatal(got)
		}
		first.alive()
	}
	// A spinning loop would take about 200 hundredths.
	if used := cpuTicks(t, cmd.Process.Pid) - before; used > 50 {
		t.Errorf("%d hundredths of a second of CPU while it waited", used)
	}
	go func() { // what is still said must not block the server
		_, _ = io.Copy(io.Discard, stdout)
	}()
	for _, c := range all[1:40] {
		_ = c.Close()
	}
	last.status("101")
	last.alive()
	first.alive()
	for _, c := range all {
		_ = c.Close()
	}
	_ = stdin.Close()
}

// cpuTicks is the processor time of a process in hundredths of a second.
func cpuTicks(t testing.TB, pid int) (n int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest) // from the third on: proc_pid_stat(5)
	for _, f := range fields[11:13] {
		v, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		n += v
	}
	return n
}

// Several loops share the connections evenly.
func TestLoopsShare(t *testing.T) {
	s := start(t, Options{Loops: 3}, &hooks{message: echo})
	var all []*client
	for range 30 {
		all = append(all, s.dial())
	}
	for _, c := range all {
		c.alive()
	}
	var open [3]int
	s.Do(func(l *Loop) {
		l.Conns(func(c *Conn) bool {
			if c.Loop() != l {
				t.Error("a connection of another loop")
			}
			open[l.Index()]++
			return true
		})
	})
	if open != [3]int{10, 10, 10} {
		t.Errorf("%v", open)
	}
	if st := s.Stats(); st.Open != 30 || st.Upgraded != 30 || st.Accepted != 30 || st.FramesIn != 30 || st.FramesOut != 30 {
		t.Errorf("%+v", st)
	}
}

// Conns stops when it is told to.
func TestConnsStops(t *testing.T) {
	s := start(t, Options{}, &hooks{})
	s.dial()
	s.dial()
	n := 0
	s.Do(func(l *Loop) { l.Conns(func(*Conn) bool { n++; return false }) })
	if n != 1 {
		t.Errorf("%d", n)
	}
}

// A listener that is not TCP is refused, and nothing is left behind.
func TestStartRefuses(t *testing.T) {
	fds := descriptors(t)
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Loops: 2}, &hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ln); err == nil {
		t.Error("started")
	}
	_ = ln.Close()
	if n := descriptors(t); n > fds {
		t.Errorf("%d descriptors, %d before", n, fds)
	}
}

// What a peer does not read waits where it is shared and counted, and not in the
// kernel, which has a copy for each.
func TestUnsent(t *testing.T) {
	opened := make(chan *Conn, 1)
	s := start(t, Options{PendingBytes: 64 << 20}, &hooks{open: func(c *Conn) { opened <- c }})
	s.dial()
	c := <-opened
	const n, size = 512, 16 << 10
	var unsent, pending int
	s.Do(func(*Loop) {
		for range n {
			c.Send(ws.OpBinary, make([]byte, size))
		}
	})
	s.Do(func(*Loop) { pending = c.Pending() })
	unsent, err := unix.IoctlGetInt(int(c.fd), unix.SIOCOUTQNSD)
	if err != nil {
		t.Fatal(err)
	}
	if unsent > unsentBytes+64<<10 {
		t.Errorf("%d bytes wait in the kernel", unsent)
	}
	if pending == 0 {
		t.Error("nothing waits here")
	}
}

func TestLoopsAreAsManyAsWanted(t *testing.T) {
	s := start(t, Options{Loops: 3}, &hooks{})
	seen := map[*Loop]bool{}
	for _, l := range s.Loops() {
		seen[l] = true
	}
	if len(seen) != 3 || seen[nil] {
		t.Errorf("%d loops, want 3", len(seen))
	}
}
