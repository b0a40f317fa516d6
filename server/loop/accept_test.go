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
	"time"

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
	ln, err := net.Listen("tcp", "127.0.0.1:0")
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

// With no descriptor left, accepting rests without spinning, who is connected
// is served, and who waits is accepted as soon as there is room.
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

// A drain tells everybody, behind what they were sent before, and ends with
// nothing left.
func TestDrain(t *testing.T) {
	for _, loops := range []int{1, 3} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			var groups [3]Group
			h := &hooks{open: func(c *Conn) { groups[c.Loop().Index()].Join(&Member{Conn: c, Until: 1<<63 - 1}) }}
			// Their members are gone with the engine: nobody leaves.
			s := start(t, Options{Loops: loops}, h)
			var all []*client
			for range 40 {
				all = append(all, s.dial())
			}
			handshake := s.connect()
			handshake.send([]byte("GET"))
			eventually(t, "all accepted", func() bool { return s.Stats().Accepted == 41 })
			for i, l := range s.loops {
				b := NewBatch()
				b.B, b.N = append(AppendHeader(b.B, 1, 4), "last"...), 1
				l.Deliver(&groups[i], b)
			}
			drained := make(chan error, 1)
			go func() { drained <- s.Drain(context.Background(), 50*time.Millisecond) }()
			for _, c := range all {
				c.want(1, "last")
				c.wantClose(1012)
				c.send(masked(8, true, "\x03\xf4"))
				c.wantEOF()
				_ = c.Close()
			}
			handshake.status("503")
			_ = handshake.Close()
			if err := <-drained; err != nil {
				t.Error(err)
			}
			if conn, err := net.Dial("tcp", s.addr); err == nil {
				_ = conn.Close()
				t.Error("still listening")
			}
			if n := h.count("closed 1012"); n != 40 {
				t.Errorf("%d closed with 1012", n)
			}
			if s.loops[0].Post(func() {}) {
				t.Error("a stopped loop takes posts")
			}
			s.Do(func(*Loop) { t.Error("a stopped loop does something") })
			b := NewBatch()
			b.Retain(1)
			if s.loops[0].Deliver(&groups[0], b); b.refs.Load() != 1 {
				t.Error("a stopped loop keeps what it was delivered")
			}
		})
	}
}

// The window is used evenly, so that the clients do not all come back at once.
func TestDrainSpread(t *testing.T) {
	h := &hooks{}
	l := idle(t, Options{}, h)
	for range 10 {
		ours, _ := pair(t)
		l.member(ours)
	}
	l.beginDrain(time.Second)
	for _, step := range []struct {
		at   time.Duration
		told int
	}{{0, 0}, {99, 0}, {100, 1}, {550, 5}, {999, 9}, {1000, 10}, {2000, 10}} {
		l.now = l.drain.from + int64(step.at*time.Millisecond)
		if l.drainSome(); h.count("closed 1012") != step.told {
			t.Errorf("%d told after %d ms, want %d", h.count("closed 1012"), step.at, step.told)
		}
	}
	// One that comes from another loop's accept is turned away.
	ours, theirs := pair(t)
	l.add(ours, [16]byte{})
	l.eng.load[0].Add(1)
	l.bury()
	var b [100]byte
	if n, _ := unix.Read(theirs, b[:]); !strings.HasPrefix(string(b[:max(n, 0)]), "HTTP/1.1 503 ") {
		t.Errorf("%q", b[:max(n, 0)])
	}
	for _, c := range l.conns {
		c.kill()
	}
	l.bury()
}

// Peers that do not answer hold a drain up until its context ends.
func TestDrainCutShort(t *testing.T) {
	h := &hooks{}
	s := start(t, Options{}, h)
	mute := s.dial()
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx, 0) }()
	mute.wantClose(1012)
	cancel()
	if err := <-drained; err != context.Canceled { //nolint:errorlint // the very value
		t.Error(err)
	}
	mute.gone()
	if n := h.count("closed 1012"); n != 1 {
		t.Errorf("%q", h.noted())
	}
	if err := s.Drain(context.Background(), 0); err != nil {
		t.Errorf("drained twice: %v", err)
	}
}
