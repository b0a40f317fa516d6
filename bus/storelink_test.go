package bus

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/wire"
)

// newStoreLink connects a storeLink to a server that the test plays, as newLink does.
func newStoreLink(t *testing.T) (*Stream, <-chan *script) {
	t.Helper()
	b := &Bus{log: zap.NewNop(), sink: bustest.NewRecorder(), subject: "notify.ev.", quit: make(chan struct{}), maxPayload: 100}
	sc := &streamConn{b: b, inbox: "_INBOX.x."}
	sc.flights.room = func() {}
	dial, conns := scripted()
	var err error
	if sc.store, err = openStoreLink(sc, dial, "", "", 100); err != nil {
		t.Fatal(err)
	}
	b.sc = sc
	sc.up.Store(true)
	sc.store.run()
	t.Cleanup(func() {
		close(b.quit)
		sc.store.close()
		b.running.Wait()
	})
	s := &Stream{bus: b}
	s.made.Store(true)
	return s, conns
}

func storeOne(t *testing.T, s *Stream, m wire.ToStore) *bustest.Receipt {
	t.Helper()
	r := bustest.NewReceipt()
	if code := s.Store(&m, r); code != wire.OK {
		t.Fatal(code)
	}
	return r
}

// What is written is NATS's protocol; what comes may be cut anywhere.
func TestStoreLinkReadsPieces(t *testing.T) {
	s, conns := newStoreLink(t)
	server := <-conns
	server.line(t, "SUB _INBOX.x.a.* 1\r\n")
	for cut := range 1000 {
		plain := storeOne(t, s, wire.ToStore{Topic: []byte("a.b"), Data: []byte("one")})
		number := server.stored(t, "PUB notify.ev.a.b _INBOX.x.a.%s 3\r\n", "one\r\n")
		full := storeOne(t, s, wire.ToStore{Topic: []byte("a.c"), Data: []byte("\r\n"), MsgID: []byte("m"), TTL: 9, From: "ann\r\n", JTI: "7"})
		head := "NATS/1.0\r\nNats-Msg-Id: a.c m\r\nNats-TTL: 9\r\nNotifyd-From: ann%0D%0A\r\nNotifyd-Jti: 7\r\n\r\n"
		other := server.stored(t, fmt.Sprintf("HPUB notify.ev.a.c _INBOX.x.a.%%s %d %d\r\n", len(head), len(head)+2), head+"\r\n\r\n")
		none := storeOne(t, s, wire.ToStore{Topic: []byte("a.b")})
		third := server.stored(t, "PUB notify.ev.a.b _INBOX.x.a.%s 0\r\n", "\r\n")
		ack, dup := `{"stream":"s","seq":7}`, `{"stream":"s", "seq":8, "duplicate":true}`
		text := fmt.Sprintf("MSG _INBOX.x.a.%s 1 %d\r\n%s\r\nINFO {}\r\nMSG _INBOX.x.a.zzz 1 1\r\nx\r\n-ERR 'x'\r\nMSG _INBOX 1 0\r\n\r\n"+
			"HMSG _INBOX.x.a.%s 1 reply 12 %d\r\nNATS/1.0\r\n\r\n%s\r\nPONG\r\nHMSG _INBOX.x.a.%s 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
			number, len(ack), ack, other, len(dup)+12, dup, third)
		for _, part := range []string{text[:min(cut, len(text))], text[min(cut, len(text)):]} {
			if part != "" {
				server.write(t, part)
			}
		}
		for i, want := range []bustest.Answer{{Seq: 7}, {Seq: 8, Duplicate: true}, {Code: wire.Unavailable}} {
			if got := []*bustest.Receipt{plain, full, none}[i].Wait(t); got != want {
				t.Fatalf("cut at %d, event %d: %+v, want %+v", cut, i, got, want)
			}
		}
		if cut > len(text) {
			return
		}
	}
	t.Fatal("the text is longer")
}

// stored reads a line with the number of an answer in it, and what follows it.
func (s *script) stored(t *testing.T, line, rest string) (number string) {
	t.Helper()
	begins, ends, _ := strings.Cut(line, "%s")
	got, err := s.r.ReadString('\n')
	number = strings.TrimSuffix(strings.TrimPrefix(got, begins), ends)
	if err != nil || begins+number+ends != got {
		t.Fatalf("the link wrote %q (%v), not %q", got, err, line)
	}
	data := make([]byte, len(rest))
	for n := 0; n < len(data); {
		m, err := s.r.Read(data[n:])
		if n += m; err != nil {
			t.Fatal(err)
		}
	}
	if string(data) != rest {
		t.Fatalf("behind %q the link wrote %q, not %q", got, data, rest)
	}
	return number
}

// Nonsense ends the connection, and with it what was not answered; what is stored behind that goes by another one.
func TestStoreLinkConnectsAnew(t *testing.T) {
	for _, nonsense := range []string{
		"MSG\r\n", "MSG x\r\n", "MSG a 1 -1\r\n", "MSG a 1 9999999999\r\n", "HMSG a 1 5 3\r\nabc\r\n", "HMSG a 1 99999999999 99999999999\r\n",
		"HMSG \r\n", "HELLO\r\n", "", strings.Repeat("x", 3*linkRead),
	} {
		t.Run(fmt.Sprintf("%.12q", nonsense), func(t *testing.T) {
			s, conns := newStoreLink(t)
			server := <-conns
			server.line(t, "SUB")
			lost := storeOne(t, s, wire.ToStore{Topic: []byte("t"), Data: []byte("1")})
			server.stored(t, "PUB notify.ev.t _INBOX.x.a.%s 1\r\n", "1\r\n")
			if nonsense == "" {
				_ = server.Close()
			} else {
				_, _ = server.Write([]byte(nonsense)) // the link may hang up before it has read all
			}
			if a := lost.Wait(t); a.Code != wire.Unavailable {
				t.Errorf("%+v", a)
			}
			server = <-conns
			server.line(t, "SUB _INBOX.x.a.* 1\r\n")
			again := storeOne(t, s, wire.ToStore{Topic: []byte("t"), Data: []byte("2")})
			number := server.stored(t, "PUB notify.ev.t _INBOX.x.a.%s 1\r\n", "2\r\n")
			server.write(t, "MSG _INBOX.x.a."+number+" 1 9\r\n{\"seq\":5}\r\n")
			if a := again.Wait(t); a != (bustest.Answer{Seq: 5}) {
				t.Errorf("%+v", a)
			}
		})
	}
}

// The server ends a connection that brings more than it takes, headers included; so that is refused before.
func TestStoreLinkRefusesWhatIsTooLarge(t *testing.T) {
	s, conns := newStoreLink(t)
	server := <-conns
	server.line(t, "SUB")
	m := wire.ToStore{Topic: []byte("t"), Data: make([]byte, 100)}
	storeOne(t, s, m)
	server.stored(t, "PUB notify.ev.t _INBOX.x.a.%s 100\r\n", string(m.Data)+"\r\n")
	m.From = "ann"
	if code := s.Store(&m, bustest.NewReceipt()); code != wire.TooLarge {
		t.Errorf("with headers: %v", code)
	}
	if n := s.bus.sc.flights.count; n != 1 {
		t.Errorf("%d events are in flight", n)
	}
}

// Close waits until the server has what was stored before.
func TestStoreLinkConfirms(t *testing.T) {
	s, conns := newStoreLink(t)
	server := <-conns
	server.line(t, "SUB")
	storeOne(t, s, wire.ToStore{Topic: []byte("t"), Data: []byte("1")})
	done := make(chan error, 1)
	go func() { done <- s.bus.sc.store.confirm(t.Context()) }()
	server.stored(t, "PUB notify.ev.t _INBOX.x.a.%s 1\r\n", "1\r\n")
	server.line(t, "PING")
	select {
	case err := <-done:
		t.Fatalf("confirmed before the server has answered: %v", err)
	default:
	}
	server.write(t, "PING\r\n")
	server.line(t, "PONG")
	server.write(t, "PONG\r\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() { done <- s.bus.sc.store.confirm(t.Context()) }()
	server.line(t, "PING")
	_ = server.Close()
	if err := <-done; err == nil {
		t.Error("confirmed by a connection that was lost")
	}
}

// An event that is stored allocates nothing but its headers' values that have to be made.
func TestStoreLinkAllocates(t *testing.T) {
	l := &storeLink{sc: &streamConn{b: &Bus{subject: "notify.ev."}}, inbox: []byte("_INBOX.x.a."), maxPayload: 1000}
	l.some.L = &l.mu
	l.up.Store(true)
	m := wire.ToStore{Topic: []byte("orders.7"), Data: make([]byte, 128), From: "ann", JTI: "7"}
	if n := testing.AllocsPerRun(100, func() {
		if err := l.send(&m, 1<<40); err != nil {
			t.Fatal(err)
		}
		l.out = l.out[:0]
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
