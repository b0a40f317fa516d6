package testkit

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	natsPort  = "NOTIFYD_TEST_NATS_PORT"
	natsStore = "NOTIFYD_TEST_NATS_STORE" // empty: no JetStream
)

// NATS is a NATS server in a process of its own, on a port of 127.0.0.1 that it keeps through restarts. The
// test binary is its program: a package that uses it calls [Main].
type NATS struct {
	Port  int
	store string    // JetStream's directory; "": none
	cmd   *exec.Cmd // nil: not running
}

// Main is the TestMain of a package that uses [NATS].
func Main(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

// Child is for a TestMain that does more: it does not return in a process that is a [NATS].
func Child() {
	if port := os.Getenv(natsPort); port != "" {
		serveNATS(port)
	}
}

// serveNATS is what the process of a NATS runs. It does not return.
func serveNATS(port string) {
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	store := os.Getenv(natsStore)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: n, NoSigs: true, NoLog: true, JetStream: store != "", StoreDir: store,
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test, however that ends
	os.Exit(0)
}

// NewNATS gives a server that is not running, on a free port below those that the system gives to outgoing
// connections. At the end of the test it is killed, after everything that was opened later was closed.
func NewNATS(t testing.TB) *NATS {
	t.Helper()
	s := &NATS{}
	Eventually(t, "a free port", func() bool {
		s.Port = 10_000 + rand.N(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
		return err == nil && l.Close() == nil
	})
	t.Cleanup(func() { s.Kill(t) })
	return s
}

// StartNATS starts a server without JetStream.
func StartNATS(t testing.TB) *NATS {
	t.Helper()
	s := NewNATS(t)
	s.Start(t)
	return s
}

// StartJetStream starts a server with JetStream, whose files outlive the process.
func StartJetStream(t testing.TB) *NATS {
	t.Helper()
	store := t.TempDir()
	s := NewNATS(t)
	s.store = store
	s.Start(t)
	return s
}

// Start starts the process, and does not wait until the server answers.
func (s *NATS) Start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", natsPort, s.Port), natsStore+"="+s.store)
	s.cmd.Stderr = os.Stderr
	ownGroup(s.cmd)
	if _, err := s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the process with SIGKILL.
func (s *NATS) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = s.cmd.Wait() // says "signal: killed"
	s.cmd = nil
}

// Pid is that of the process.
func (s *NATS) Pid() int { return s.cmd.Process.Pid }

// Store is JetStream's directory.
func (s *NATS) Store() string { return s.store }

// URL is where clients connect.
func (s *NATS) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.Port) }

// ServeNATS runs a NATS server in this process and gives its URL without user info.
func ServeNATS(t testing.TB, o server.Options) string {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	return "nats://" + s.Addr().String()
}
