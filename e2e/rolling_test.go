//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// roll ends a member as an update does, starts it again, and waits until it is ready.
func (m *member) roll(t *testing.T) {
	t.Helper()
	m.process.terminate(t)
	select {
	case <-m.process.gone:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v of SIGTERM", m.name, patience)
	}
	if code := m.process.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s: exit code %d", m.name, code)
	}
	m.start(t)
	m.ready(t)
}

// ready waits until the member, a node, takes clients.
func (m *member) ready(t *testing.T) {
	t.Helper()
	node := listening(t, m.process)
	eventually(t, m.name+" is ready", func() bool { status, _ := node.get("/readyz"); return status == 200 })
}

// rollAll restarts all in turn under load, as docs/operations.md says, and the first one once more, right after the last.
func rollAll(t *testing.T, l *workload, nodes []*member) {
	t.Helper()
	for _, m := range nodes {
		m.ready(t)
	}
	for _, m := range append(nodes, nodes[0]) {
		l.goesOn(t, 50)
		m.roll(t)
	}
	l.goesOn(t, 50)
}

// Two nodes on an external NATS are restarted in turn: every publish is acknowledged, at once or when it is repeated, and
// each reader that resumes has the whole history.
func TestRollNodes(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	_, addresses := natsMembers(t, 3)
	nodes, urls := notifydMembers(t, 2, nil, "--auth.keys="+keys.public, durable(3), "--drain-window=2s", "--log.format=json", "--nats.url=nats://"+strings.Join(addresses, ",nats://"))
	l := startLoad(t, keys, urls)
	rollAll(t, l, nodes)
	l.finish(t, addresses[0])
}

// So are three nodes whose embedded servers form a cluster, where each restart takes a replica of the stream away.
func TestRollMembers(t *testing.T) {
	t.Parallel()
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
	}, "--auth.keys="+keys.public, durable(3), "--drain-window=2s", "--log.format=json", "--nats.cluster-name=c", "--nats.routes="+strings.Join(routes, ","))
	l := startLoad(t, keys, urls)
	rollAll(t, l, nodes)
	l.finish(t, "operator:pass@"+listens[0])
}
