//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/notifyd/notifyd/internal/testkit"
)

// natsAddress makes this test binary a nats-server that listens there and keeps its files in natsStore. With natsRoute it
// is the member of a cluster that listens there for the others, whose addresses are in natsRoutes.
const (
	natsAddress = "NOTIFYD_E2E_NATS_ADDRESS"
	natsStore   = "NOTIFYD_E2E_NATS_STORE"
	natsRoute   = "NOTIFYD_E2E_NATS_ROUTE"
	natsRoutes  = "NOTIFYD_E2E_NATS_ROUTES"
	natsConfig  = "NOTIFYD_E2E_NATS_CONFIG" // alone: this configuration file says all
)

var (
	scratch    string // holds the binary; removed at the end
	buildFlags []string
)

func TestMain(m *testing.M) {
	if file := os.Getenv(natsConfig); file != "" {
		o, err := natsserver.ProcessConfigFile(file)
		if err != nil {
			panic(err)
		}
		o.NoSigs = true
		serveNATS(o)
	}
	if address := os.Getenv(natsAddress); address != "" {
		runNATS(address)
	}
	// Most tests wait most of the time, so more of them run at once than there are processors.
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	err := testkit.EndAtOnce()
	if err == nil && !given {
		err = flag.Set("test.parallel", "6")
	}
	if err != nil {
		panic(err)
	}
	if scratch, err = os.MkdirTemp("", "notifyd-e2e-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// leftOut skips the test because this machine lacks something; with NOTIFYD_E2E=required that is a failure.
func leftOut(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("NOTIFYD_E2E") == "required" {
		t.Fatalf("must not be left out: %s", why)
	}
	t.Skip(why)
}

var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "notifyd")
	args := append(append([]string{"build"}, buildFlags...), "-o", path, "../cmd/notifyd")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return path, nil
})

// binary builds the program once and returns its path.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a subcommand that ends by itself and returns what it printed.
func run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := try(t, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("notifyd %s: %w", strings.Join(args, " "), err)
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
	}
	return string(out), err
}

// process is a child that lives no longer than the test.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *journal      // standard output and error
	gone   chan struct{} // closed when it has ended; cmd.ProcessState is set then
}

func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, output: newJournal(name), gone: make(chan struct{})}
	if cmd.Stderr = p.output; cmd.Stdout == nil {
		cmd.Stdout = p.output
	}
	// A group of its own, so that what a shell or "go run" starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		_ = cmd.Wait() // the state tells
		p.output.end()
		close(p.gone)
	}()
	t.Cleanup(func() {
		p.kill()
		for _, line := range p.output.all() {
			if strings.Contains(line, "WARNING: DATA RACE") {
				t.Errorf("%s has a data race", name)
			}
		}
		if t.Failed() {
			t.Logf("the last lines of %s (%v):\n%s", name, cmd.ProcessState, p.output.tail())
		}
	})
	return p
}

// kill ends the process and all it started, by force, and waits for the end.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails when it has ended already
	<-p.gone
}

// terminate asks it to end, with SIGTERM.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("%s: SIGTERM: %v", p.output.name, err)
	}
}

// server is a running "notifyd serve".
type server struct {
	*process
	url   string // of the WebSocket
	admin string // base URL of the admin listener
}

// serve starts a node on ports of the kernel's choice, logging everything as JSON; the log line "listening" tells the
// ports. wrap is the command that starts it, such as a shell with a limit; usually nil.
func serve(t *testing.T, name string, wrap []string, args ...string) *server {
	t.Helper()
	command := append(append([]string{}, wrap...), binary(t), "serve",
		"--listen=127.0.0.1:0", "--admin.listen=127.0.0.1:0", "--log.level=debug", "--log.format=json")
	command = append(command, args...)
	return listening(t, start(t, name, exec.Command(command[0], command[1:]...)))
}

// listening waits until a node that logs JSON says where it listens.
func listening(t *testing.T, p *process) *server {
	t.Helper()
	s := &server{process: p}
	line := s.output.await(t, `log line with "msg":"listening"`, 0, func(line string) bool {
		var log struct{ Msg, Addr, Admin string }
		return json.Unmarshal([]byte(line), &log) == nil && log.Msg == "listening" && log.Addr != "" && log.Admin != ""
	})
	var log struct{ Addr, Admin string }
	if err := json.Unmarshal([]byte(line), &log); err != nil {
		t.Fatal(err)
	}
	s.url, s.admin = "ws://"+log.Addr+"/v1/ws", "http://"+log.Admin
	return s
}

// get asks the admin listener; an unreachable one gives status 0.
func (s *server) get(path string) (status int, body string) {
	resp, err := http.Get(s.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

var hosts atomic.Int32

// ownHost is an address of this machine that nobody else uses: a port of it that was free stays so, and a server can
// come back to one.
func ownHost() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8&63, pid&255, 1+hosts.Add(1)%254)
}

// freeAddress is an address and a port on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ownHost()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// natsProcess starts nats-server in a process of its own, on address (port 0 for any). The next one of the
// same test finds its files.
func natsProcess(t *testing.T, address string) (p *process, bound string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), natsAddress+"="+address, natsStore+"="+filepath.Join(scratch, "nats", t.Name()))
	p = start(t, "nats-server", cmd)
	line := p.output.await(t, "line with its address", 0, func(line string) bool {
		return strings.HasPrefix(line, "nats listens on ")
	})
	return p, strings.TrimPrefix(line, "nats listens on ")
}

// runNATS is the child's side of natsProcess. It does not return.
func runNATS(address string) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	port := tcp.Port
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	o := &natsserver.Options{Host: tcp.IP.String(), Port: port, NoSigs: true, JetStream: true, StoreDir: os.Getenv(natsStore)}
	if route := os.Getenv(natsRoute); route != "" {
		at, err := net.ResolveTCPAddr("tcp", route)
		if err != nil {
			panic(err)
		}
		o.ServerName, o.Routes = "nats-"+address, natsserver.RoutesFromStr("nats://"+strings.ReplaceAll(os.Getenv(natsRoutes), ",", ",nats://"))
		o.Cluster.Name, o.Cluster.Host, o.Cluster.Port = "e2e", at.IP.String(), at.Port
	}
	serveNATS(o)
}

// serveNATS runs until the process ends.
func serveNATS(o *natsserver.Options) {
	s, err := natsserver.NewServer(o)
	if err != nil {
		panic(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		panic("nats-server is not ready")
	}
	fmt.Println("nats listens on", s.Addr())
	s.WaitForShutdown()
	os.Exit(0)
}
