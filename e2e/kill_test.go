//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/notifyd/notifyd/internal/testkit"
)

// rounds is how often each test below kills something; "make kill" does 20.
var rounds = flag.Int("kill.rounds", 2, "how often each test of durable topics kills something")

// durable declares the stream k.
func durable(replicas int) string {
	return fmt.Sprintf(`--streams=[{name: k, topics: ["k.>"], max_age: 1h, replicas: %d}]`, replicas)
}

// freeAddresses gives n addresses on which nothing listens.
func freeAddresses(t *testing.T, n int) (list []string) {
	t.Helper()
	for range n {
		list = append(list, freeAddress(t))
	}
	return list
}

// A member is a process that is killed and started again.
type member struct {
	name    string
	command func() *exec.Cmd
	process *process
}

func (m *member) start(t *testing.T) { m.process = start(t, m.name, m.command()) }

// restart kills it, and starts it after a while.
func (m *member) restart(t *testing.T, after time.Duration) {
	t.Helper()
	m.process.kill()
	time.Sleep(after)
	m.start(t)
}

// a few hundred milliseconds or more, so that faults hit at any moment.
func atRandom(most time.Duration) time.Duration { return 50*time.Millisecond + rand.N(most) }

// natsMembers are nats-servers that form a cluster, or one alone.
func natsMembers(t *testing.T, n int) (members []*member, addresses []string) {
	t.Helper()
	addresses = freeAddresses(t, n)
	routes := freeAddresses(t, n)
	dir := t.TempDir()
	for i := range n {
		members = append(members, &member{name: fmt.Sprint("nats ", i), command: func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), natsAddress+"="+addresses[i], natsStore+"="+filepath.Join(dir, fmt.Sprint(i)))
			if n > 1 {
				cmd.Env = append(cmd.Env, natsRoute+"="+routes[i], natsRoutes+"="+strings.Join(routes, ","))
			}
			return cmd
		}})
		members[i].start(t)
	}
	return members, addresses
}

// notifydMembers are nodes with these flags, node i with those of own(i), too.
func notifydMembers(t *testing.T, n int, own func(i int) []string, flags ...string) (members []*member, urls []string) {
	t.Helper()
	program := binary(t)
	return programMembers(t, n, func(int) string { return program }, own, flags...)
}

// programMembers are nodes whose program is asked for at each start.
func programMembers(t *testing.T, n int, program func(i int) string, own func(i int) []string, flags ...string) (members []*member, urls []string) {
	t.Helper()
	addresses := freeAddresses(t, 2*n)
	for i := range n {
		members = append(members, &member{name: fmt.Sprint("node ", i), command: func() *exec.Cmd {
			args := append([]string{"serve", "--listen=" + addresses[2*i], "--admin.listen=" + addresses[2*i+1], "--log.level=info", "--limits.connections-per-ip=0"}, flags...)
			if own != nil {
				args = append(args, own(i)...)
			}
			return exec.Command(program(i), args...)
		}})
		members[i].start(t)
		urls = append(urls, "ws://"+addresses[2*i]+"/v1/ws")
	}
	return members, urls
}

// The all-in-one is killed while events are published and read. What it acknowledged it still has.
func TestKillAllInOne(t *testing.T) {
	keys := newIssuer(t)
	dir, listen := filepath.Join(t.TempDir(), "data"), freeAddresses(t, 1)[0]
	nodes, urls := notifydMembers(t, 1, nil, "--auth.keys="+keys.public, durable(1), "--data-dir="+dir, "--nats.listen=operator:pass@"+listen)
	l := startLoad(t, keys, urls)
	for range *rounds {
		l.goesOn(t, 50)
		time.Sleep(atRandom(500 * time.Millisecond))
		nodes[0].restart(t, atRandom(300*time.Millisecond))
	}
	l.goesOn(t, 50)
	l.finish(t, "operator:pass@"+listen)
}

// external has two nodes on an external NATS cluster of three.
func external(t *testing.T) (servers []*member, addresses []string, nodes []*member, l *workload) {
	t.Helper()
	keys := newIssuer(t)
	servers, addresses = natsMembers(t, 3)
	nodes, urls := notifydMembers(t, 2, nil, "--auth.keys="+keys.public, durable(3), "--nats.url=nats://"+strings.Join(addresses, ",nats://"))
	l = startLoad(t, keys, urls)
	l.goesOn(t, 20)
	return servers, addresses, nodes, l
}

// Nodes are killed in turn; clients go on with the other one.
func TestKillNode(t *testing.T) {
	_, addresses, nodes, l := external(t)
	for i := range *rounds {
		l.goesOn(t, 50)
		time.Sleep(atRandom(500 * time.Millisecond))
		nodes[i%2].restart(t, atRandom(500*time.Millisecond))
	}
	l.goesOn(t, 50)
	l.finish(t, addresses[0])
}

// A server of a NATS cluster is killed, any of three.
func TestKillNATS(t *testing.T) {
	servers, addresses, _, l := external(t)
	for range *rounds {
		l.goesOn(t, 50)
		time.Sleep(atRandom(500 * time.Millisecond))
		servers[rand.N(3)].restart(t, atRandom(time.Second))
	}
	l.goesOn(t, 50)
	l.finish(t, addresses[0])
}

// The whole load stops, and all servers of the stream die together right after: nothing follows the last events, so
// nothing but a look at the stream can reveal those that were stored and never passed on.
func TestKillBeforeSilence(t *testing.T) {
	servers, addresses, _, l := external(t)
	for range *rounds {
		l.goesOn(t, 50)
		servers[rand.N(3)].restart(t, atRandom(time.Second))
	}
	l.goesOn(t, 20)
	close(l.quit)
	for _, done := range l.wrote {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	servers[rand.N(3)].restart(t, 0)
	l.quit, l.wrote = make(chan struct{}), nil
	l.finish(t, addresses[0])
}

// A NATS server hangs, and goes on.
func TestStopNATS(t *testing.T) {
	servers, addresses, _, l := external(t)
	hang := 3 * time.Second
	if *rounds > 5 {
		hang = 20 * time.Second
	}
	for range *rounds {
		l.goesOn(t, 50)
		p := servers[rand.N(3)].process
		if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(hang)
		if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	l.goesOn(t, 50)
	l.finish(t, addresses[0])
}

// The network between a node and its NATS is cut for some seconds.
func TestCutNATS(t *testing.T) {
	keys := newIssuer(t)
	_, addresses := natsMembers(t, 1)
	c := newCutter(t, addresses[0])
	_, urls := notifydMembers(t, 1, nil, "--auth.keys="+keys.public, durable(1), "--nats.url=nats://"+c.address)
	l := startLoad(t, keys, urls)
	for range *rounds {
		l.goesOn(t, 50)
		time.Sleep(atRandom(500 * time.Millisecond))
		c.cut(5 * time.Second)
	}
	l.goesOn(t, 50)
	l.finish(t, addresses[0])
}

// Three nodes whose embedded servers form a cluster; one is killed.
func TestKillMember(t *testing.T) {
	keys := newIssuer(t)
	routes, listens, dir := freeAddresses(t, 3), freeAddresses(t, 3), t.TempDir()
	for i := range routes {
		routes[i] = "member:pass@" + routes[i]
	}
	nodes, urls := notifydMembers(t, 3, func(i int) []string {
		return []string{
			"--data-dir=" + filepath.Join(dir, fmt.Sprint(i)), "--nats.listen=operator:pass@" + listens[i],
			"--nats.cluster-listen=" + routes[i],
		}
	}, "--auth.keys="+keys.public, durable(3), "--nats.cluster-name=c", "--nats.routes="+strings.Join(routes, ","))
	l := startLoad(t, keys, urls)
	for i := range *rounds {
		l.goesOn(t, 50)
		time.Sleep(atRandom(500 * time.Millisecond))
		nodes[i%3].restart(t, atRandom(time.Second))
	}
	l.goesOn(t, 50)
	l.finish(t, "operator:pass@"+listens[0])
}

// A cutter is a network between a node and NATS: it passes bytes on, but while it is cut. Then nothing arrives and
// nothing is refused, as where a cable was pulled.
type cutter struct {
	address string
	mu      sync.RWMutex // held while it is cut
	to      string
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	c := &cutter{to: to}
	c.address = testkit.ServeTCP(t, c.join)
	return c
}

func (c *cutter) join(from net.Conn) {
	defer func() { _ = from.Close() }()
	c.mu.RLock()
	target, err := net.Dial("tcp", c.to)
	c.mu.RUnlock()
	if err != nil {
		return
	}
	defer func() { _ = target.Close() }()
	go func() {
		_, _ = io.Copy(cutWriter{target, c}, from)
		_ = target.Close()
	}()
	_, _ = io.Copy(cutWriter{from, c}, target)
}

func (c *cutter) cut(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	time.Sleep(d)
}

// turn sends new connections elsewhere.
func (c *cutter) turn(to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = to
}

type cutWriter struct {
	io.Writer
	c *cutter
}

// Write waits while the network is cut.
func (w cutWriter) Write(p []byte) (int, error) {
	w.c.mu.RLock()
	defer w.c.mu.RUnlock()
	return w.Writer.Write(p)
}
