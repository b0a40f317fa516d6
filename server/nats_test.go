package server_test

import (
	"strings"
	"testing"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// startNATS runs a NATS with a port, for tests that look at it from outside.
func startNATS(t testing.TB) *natsd.Server {
	t.Helper()
	return runNATS(t, natsd.RANDOM_PORT)
}

func runNATS(t testing.TB, port int) *natsd.Server {
	t.Helper()
	s, err := natsd.NewServer(&natsd.Options{
		Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), MaxPayload: 4 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// spy is a NATS client that sees everything that is published.
type spy struct {
	t    testing.TB
	conn *nats.Conn
	sub  *nats.Subscription
}

func newSpy(t testing.TB, s *natsd.Server) *spy {
	t.Helper()
	c, err := nats.Connect(s.ClientURL(), nats.SyncQueueLen(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	sub, err := c.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := c.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	return &spy{t, c, sub}
}

// next returns the next message as "subject payload".
func (s *spy) next() string {
	s.t.Helper()
	m, err := s.sub.NextMsg(patience)
	for err == nil && strings.HasPrefix(m.Subject, "$JS.EVENT.") { // NATS's own
		m, err = s.sub.NextMsg(patience)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return m.Subject + " " + string(m.Data)
}

// wantExactly requires that this is the next message, so that nothing was
// published before it since.
func (s *spy) wantExactly(subject, data string) {
	s.t.Helper()
	if m := s.next(); m != subject+" "+data {
		s.t.Fatalf("published %.300s, want %s %s", m, subject, data)
	}
}

// publish publishes as any NATS client can.
func (s *spy) publish(subject string, data []byte) {
	s.t.Helper()
	if err := s.conn.Publish(subject, data); err != nil {
		s.t.Fatal(err)
	}
	if err := s.conn.FlushTimeout(patience); err != nil {
		s.t.Fatal(err)
	}
}
