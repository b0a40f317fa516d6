//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// This program is also the processes that a test shares connections with.
const workEnv, tokenEnv = "LOAD_TEST_WORK", "LOAD_TEST_TOKEN"

func TestMain(m *testing.M) {
	switch os.Getenv(workEnv) {
	case "":
		os.Exit(m.Run())
	case "plain":
		if err := PlainWork(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	if err := Work(context.Background(), &Notifyd{Token: os.Getenv(tokenEnv)}, os.Stdin, os.Stdout); err != nil {
		os.Exit(1)
	}
}

func colleague(token string) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), workEnv+"=1", tokenEnv+"="+token), os.Stderr
		return cmd
	}
}

// natsAlone is a process with NATS and without notifyd.
func natsAlone() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), workEnv+"=plain"), os.Stderr
	return cmd
}

func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(p[0]), unix.Close(p[1]) })
	return p[0], p[1]
}

// TestWindowOfAll: the next window is published when every process that has
// readers of the topic reports it, and not before.
func TestWindowOfAll(t *testing.T) {
	target := &scrapbook{}
	e, err := newEngine(target, newMessages(target, []string{"a", "b"}, MinSize))
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	_, sink := pipe(t)
	e.writers = [][]*conn{{{fd: sink}}, {{fd: sink}}}
	// Both processes read the first topic, one of them the second.
	rs := &receivers{all: []*receiver{{readers: []int{3, 0}}, {readers: []int{1, 5}}}}
	theirs := make([]*link, 2)
	for i, m := range rs.all {
		theirs[i] = &link{}
		m.in, theirs[i].out = pipe(t)
	}
	e.readers = []int{4, 5}
	if err := e.listen(rs.links(), func(i int, n note) error { return rs.heard(e, i, n) }); err != nil {
		t.Fatal(err)
	}
	e.begin(Load{Window: 2}, rs.expect())
	for i, step := range []struct {
		from int
		done []int
		want [2]int // published by then
	}{
		{0, nil, [2]int{2, 2}},
		{0, []int{0}, [2]int{2, 2}},
		{1, []int{1}, [2]int{2, 4}},
		{1, []int{0, 1}, [2]int{4, 6}},
		{1, []int{0}, [2]int{4, 6}},
		{0, []int{0}, [2]int{6, 6}},
	} {
		if err := theirs[step.from].send(note{Done: step.done, Count: uint64(i + 1)}); err != nil {
			t.Fatal(err)
		}
		if err := e.poll(t.Context(), make([]unix.EpollEvent, 4), time.Minute); err != nil {
			t.Fatal(err)
		}
		for more := true; more; more = e.next < len(e.queue) {
			if err := e.publishDue(true); err != nil {
				t.Fatal(err)
			}
		}
		if got := [2]int(e.publishedTo); got != step.want {
			t.Errorf("step %d: published %v, want %v", i, got, step.want)
		}
	}
	if e.count.awaited != 6*4+6*5 || e.count.delivered != 6+5 {
		t.Errorf("%+v", e.count)
	}
}

// TestRoundOfOne: a process that only receives reports a topic once for each
// window that it has in full.
func TestRoundOfOne(t *testing.T) {
	e, err := newEngine(&scrapbook{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	in, out := pipe(t)
	parent := &link{in: in}
	e.links = []*link{{out: out}}
	e.begin(Load{Window: 2}, []int{4, 2})
	for i, want := range []string{"[]", "[1]", "[]", "[]", "[0 1]"} {
		for _, topic := range [][]int{{0, 1}, {1}, {0}, {0, 1}, {0, 1}}[i] {
			e.arrived(topic)
		}
		if err := e.report(); err != nil {
			t.Fatal(err)
		}
		notes, err := parent.receive()
		if err != nil {
			t.Fatal(err)
		}
		done := []int{}
		for _, n := range notes {
			done = append(done, n.Done...)
		}
		if got := fmt.Sprint(done); got != want {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
	}
}

// TestReadsAmidPublishing: a window that takes long to make is published bit by
// bit, in order, and what completes meanwhile waits its turn.
func TestReadsAmidPublishing(t *testing.T) {
	const topics = 3000
	names := make([]string, topics)
	e, err := newEngine(&scrapbook{}, newMessages(&scrapbook{}, names, MinSize))
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	null, err := unix.Open("/dev/null", unix.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(null) }()
	expect := make([]int, topics)
	for i := range topics {
		e.writers = append(e.writers, []*conn{{fd: null}})
		expect[i] = 1
	}
	e.readers = expect
	e.begin(Load{Window: 1}, expect)
	for n := range 10 * topics {
		if err := e.publishDue(false); err != nil {
			t.Fatal(err)
		}
		if e.count.published != uint64(n+1) || e.publishedTo[n%topics] != n/topics+1 {
			t.Fatalf("call %d: %d published, %d of them to its topic", n, e.count.published, e.publishedTo[n%topics])
		}
		e.arrived(n % topics)
	}
	if cap(e.queue) > 4*topics {
		t.Errorf("a queue of %d for %d topics", cap(e.queue), topics)
	}
}

func TestNotesInPieces(t *testing.T) {
	in, out := pipe(t)
	l := &link{in: in}
	var got []note
	for _, b := range []byte(`{"count":1}` + "\n" + `{"done":[1,2]}` + "\n") {
		if _, err := unix.Write(out, []byte{b}); err != nil {
			t.Fatal(err)
		}
		notes, err := l.receive()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, notes...)
	}
	if len(got) != 2 || got[0].Count != 1 || len(got[1].Done) != 2 {
		t.Errorf("%+v", got)
	}
	for line, want := range map[string]string{`{"error":"full"}`: "full", `nonsense`: "nonsense"} {
		_, _ = unix.Write(out, []byte(line+"\n"))
		if _, err := (&link{in: in}).receive(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	_ = unix.Close(out)
	if _, err := l.receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestHistogramsAddUp(t *testing.T) {
	sum := hdrhistogram.New(minLatency, maxLatency, latencyDigits)
	for _, v := range []int64{minLatency, 5_000_000, maxLatency} {
		h := hdrhistogram.New(minLatency, maxLatency, latencyDigits)
		_ = h.RecordValues(v, 3)
		packed, err := packHistogram(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := unpackHistogram(sum, packed); err != nil {
			t.Fatal(err)
		}
	}
	if l := newLatency(sum); l.Count != 9 || l.P50 < 4990 || l.P50 > 5010 || l.Max < 59.9e6 {
		t.Errorf("%+v", l)
	}
}

// TestProcessesThatFail: the reason reaches whoever asked.
func TestProcessesThatFail(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("ws://%s/", l.Addr())
	_ = l.Close() // nobody is there
	for name, c := range map[string]struct {
		worker func() *exec.Cmd
		want   string
	}{
		"refused":      {colleague(""), "connection refused"},
		"ends at once": {func() *exec.Cmd { return exec.Command("true") }, "it ended"},
		"is not there": {func() *exec.Cmd { return exec.Command("/nowhere") }, "/nowhere"},
		"not given":    {nil, "Worker"},
	} {
		_, err := Run(t.Context(), Options{
			Plan: Fanout(4), Loads: []Load{{Window: 1}}, Target: &Notifyd{}, URL: url, Size: MinSize,
			Duration: time.Minute, Processes: 2, Worker: c.worker,
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
