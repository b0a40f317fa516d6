package bus

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/wire"
)

// script is the server's side of a link: what it has read, and the connection to write to.
type script struct {
	net.Conn
	r *bufio.Reader
}

// line reads up to a line that begins like this; any before it must be PING, and is answered.
func (s *script) line(t *testing.T, begins string) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		got, err := s.r.ReadString('\n')
		if err == nil && strings.HasPrefix(got, begins) {
			return
		}
		if got != "PING\r\n" {
			t.Fatalf("the link wrote %q (%v), not %q", got, err, begins)
		}
		s.write(t, "PONG\r\n")
	}
}

func (s *script) write(t *testing.T, text string) {
	t.Helper()
	if _, err := s.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// newLink connects a link to a server that the test plays. Each connection comes out of the channel, greeted.
func newLink(t *testing.T, sink Sink) (*link, <-chan *script) {
	t.Helper()
	b := &Bus{log: zap.NewNop(), sink: sink, subject: "notify.ev.", group: "node", quit: make(chan struct{})}
	b.interest.init()
	dial, conns := scripted()
	l, err := b.openLink(dial, "", "")
	if err != nil {
		t.Fatal(err)
	}
	b.events = l
	l.run()
	t.Cleanup(func() {
		close(b.quit)
		l.close()
		b.running.Wait()
	})
	return l, conns
}

// scripted dials a server that a test plays. Each connection comes out of the channel, greeted.
func scripted() (dial func() (net.Conn, error), conns chan *script) {
	conns = make(chan *script, 10)
	return func() (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			s := &script{there, bufio.NewReader(there)}
			_, _ = there.Write([]byte("INFO {}\r\n"))
			for _, begins := range []string{"CONNECT {", "PING"} {
				if line, err := s.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, begins) {
					_ = there.Close()
					return
				}
			}
			_, _ = there.Write([]byte("PONG\r\n"))
			conns <- s
		}()
		return here, nil
	}, conns
}

func newSub(t *testing.T, l *link, handle uint64, pattern string) {
	t.Helper()
	sub := &subscription{pattern: pattern, wild: wire.HasWildcard(pattern)}
	sub.handle.Store(hasHandle | handle)
	if sub.wild {
		l.b.interest.patterns.add(sub)
	}
	if err := l.subscribe(sub); err != nil {
		t.Fatal(err)
	}
}

// What comes may be cut anywhere. What comes by a pattern that has just been unsubscribed is still for the others.
func TestLinkReadsPieces(t *testing.T) {
	sink := bustest.NewRecorder()
	l, conns := newLink(t, sink)
	s := <-conns
	newSub(t, l, 1, "a.b")
	newSub(t, l, 2, "a.>")
	s.line(t, "SUB notify.ev.a.b 2")
	s.line(t, "SUB notify.ev.a.> node 5")
	const text = "PONG\r\nMSG notify.ev.a.b 2 3\r\none\r\nMSG notify.ev.a.b 5 _INBOX.x 4\r\n\r\n\r\n\r\nINFO {}\r\nPONG\r\n" +
		"MSG notify.ev.a.c 8 1\r\nx\r\nMSG notify.ev. 5 1\r\nx\r\nMSG x 2 1\r\nx\r\nMSG notify.ev.a.c 7 0\r\n\r\n-ERR 'x'\r\nPONG\r\n"
	want := []bustest.Event{{Handle: 1, Topic: "a.b", Data: "one"}, {Handle: 2, Topic: "a.b", Data: "\r\n\r\n"}, {Handle: 2, Topic: "a.c"}}
	for cut := range len(text) {
		before := len(sink.Events())
		for _, part := range []string{text[:cut], text[cut:]} {
			if part != "" {
				s.write(t, part)
			}
		}
		got := sink.Wait(t, "three events", func(e []bustest.Event) bool { return len(e) >= before+3 })
		if fmt.Sprint(got[before:]) != fmt.Sprint(want) {
			t.Fatalf("cut at %d: %v", cut, got[before:])
		}
	}
}

// A message as large as any is taken, whatever the buffer has been.
func TestLinkTakesTheLargest(t *testing.T) {
	sink := bustest.NewRecorder()
	l, conns := newLink(t, sink)
	s := <-conns
	newSub(t, l, 1, "t")
	go func() { _, _ = s.r.WriteTo(new(strings.Builder)) }()
	for _, size := range []int{1, linkRead, 2 * linkRead, maxPayloadBytes, 5} {
		data := strings.Repeat("x", size)
		s.write(t, fmt.Sprintf("PONG\r\nPONG\r\nMSG notify.ev.t 2 %d\r\n%s\r\n", size, data))
		sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: data})
	}
}

// Nonsense ends the connection; another one is made, with all subscriptions, and nothing that was promised
// an answer is left waiting.
func TestLinkConnectsAnew(t *testing.T) {
	for _, nonsense := range []string{"MSG\r\n", "MSG x\r\n", "MSG a 1 -1\r\n", "MSG a 1 9999999999\r\n", "MSG a b 1\r\n", "MSG a 1 1x\r\n", "", strings.Repeat("x", 3*linkRead)} {
		t.Run(fmt.Sprintf("%.12q", nonsense), func(t *testing.T) {
			sink := bustest.NewRecorder()
			l, conns := newLink(t, sink)
			s := <-conns
			newSub(t, l, 1, "t")
			go func() { _, _ = s.r.WriteTo(new(strings.Builder)) }()
			confirmed := make(chan error, 1)
			go func() { confirmed <- l.confirm(t.Context()) }()
			eventuallyIn(t, l, func() bool {
				return slices.ContainsFunc(l.pongs, func(c chan error) bool { return c != nil })
			})
			if nonsense == "" {
				_ = s.Close()
			} else {
				_, _ = s.Write([]byte(nonsense)) // the link may hang up before it has read all
			}
			if err := <-confirmed; err == nil {
				t.Error("confirmed by a connection that was lost")
			}
			s = <-conns
			s.line(t, "SUB notify.ev.t 2")
			go func() { _, _ = s.r.WriteTo(new(strings.Builder)) }()
			s.write(t, "MSG notify.ev.t 2 2\r\nhi\r\nPONG\r\n")
			sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "hi"})
			var st Stats
			if l.stats(&st); st.Reconnects != 1 {
				t.Errorf("%d reconnects", st.Reconnects)
			}
		})
	}
}

func eventuallyIn(t *testing.T, l *link, ok func() bool) {
	t.Helper()
	for range 4000 {
		l.mu.Lock()
		done := ok()
		l.mu.Unlock()
		if done {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("did not happen")
}

// A server that takes nothing holds publishers back, and what they published is bounded and not lost.
func TestLinkHoldsPublishersBack(t *testing.T) {
	for size, limit := range map[int]int{1000: linkBytes / 1000, 10: linkEvents} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { holdsBack(t, make([]byte, size), limit) })
	}
}

// holdsBack requires that there is no room behind about limit publishes of data, and room again behind them.
func holdsBack(t *testing.T, data []byte, limit int) {
	sink := bustest.NewRecorder()
	l, conns := newLink(t, sink)
	s := <-conns
	rooms, n := sink.Rooms(), 0 // the writer may be quick
	for l.hasRoom() {
		if n++; n > 2*limit+10 { // the writer may have taken as many
			t.Fatal("there is always room")
		}
		if code := l.publish([]byte("t"), data); code != wire.OK {
			t.Fatal(code)
		}
	}
	for range n {
		s.line(t, fmt.Sprintf("PUB notify.ev.t %d\r\n", len(data)))
		if _, err := s.r.Discard(len(data) + 2); err != nil {
			t.Fatal(err)
		}
	}
	sink.Wait(t, "the sink is told of room", func([]bustest.Event) bool { return sink.Rooms() > rooms })
	if !l.hasRoom() {
		t.Error("no room though all was taken")
	}
}

// A connection that has ended keeps nobody waiting for room.
func TestLinkEndsWaiting(t *testing.T) {
	sink := bustest.NewRecorder()
	l, conns := newLink(t, sink)
	s := <-conns
	rooms := sink.Rooms()
	for l.hasRoom() {
		if code := l.publish([]byte("t"), make([]byte, 60_000)); code != wire.OK {
			t.Fatal(code)
		}
	}
	_ = s.Close()
	sink.Wait(t, "the sink is told of room", func([]bustest.Event) bool { return sink.Rooms() > rooms })
}
