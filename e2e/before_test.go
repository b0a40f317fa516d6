//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// programBefore names the notifyd of the version before: its program, or a revision of this repository that is built.
	// Without it, that is the last tag before this revision.
	programBefore = "NOTIFYD_BEFORE"
	// firstBefore is what counts as the version before while there is no tag. Later nodes have to work with it.
	firstBefore = "c08d3645002330dcfee4c37458f0b5e7576a4a7e"
)

// binaryBefore is the program of the version before. The revision is taken out of this clone's history.
func binaryBefore(t *testing.T) string {
	t.Helper()
	revision := os.Getenv(programBefore)
	if info, err := os.Stat(revision); err == nil && info.Mode().IsRegular() {
		path, err := filepath.Abs(revision)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", ".."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	if revision == "" {
		revision = firstBefore
		if tag, err := git("describe", "--tags", "--abbrev=0", "HEAD^"); err == nil {
			revision = tag
		}
	}
	if _, err := git("cat-file", "-e", revision+"^{commit}"); err != nil {
		leftOut(t, "this is no clone with the revision "+revision+", or a shallow one (git fetch --unshallow): the version before cannot be built. "+programBefore+" may name its program")
	}
	dir := t.TempDir()
	take := exec.Command("sh", "-c", `git -c safe.directory="*" -C .. archive "$1" | tar -x -C "$2"`, "sh", revision, dir)
	if out, err := take.CombinedOutput(); err != nil {
		t.Fatalf("git archive %s: %v\n%s", revision, err, out)
	}
	path := filepath.Join(t.TempDir(), "notifyd-before")
	build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", path, "./cmd/notifyd")...)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", revision, err, out)
	}
	t.Logf("the version before is %s", revision)
	return path
}

// Three nodes of the version before, whose embedded servers form a cluster, are updated one after the other under load.
// Old and new ones talk to each other; nothing that was acknowledged is lost, and readers that resume see each event once.
func TestUpdateMembers(t *testing.T) {
	t.Parallel()
	old, updated := binaryBefore(t), binary(t)
	keys := newIssuer(t)
	routes, listens, dir := freeAddresses(t, 3), freeAddresses(t, 3), t.TempDir()
	for i := range routes {
		routes[i] = "member:pass@" + routes[i]
	}
	programs := []string{old, old, old}
	nodes, urls := programMembers(t, 3, func(i int) string { return programs[i] }, func(i int) []string {
		return []string{
			"--data-dir=" + filepath.Join(dir, fmt.Sprint(i)), "--nats.listen=operator:pass@" + listens[i],
			"--nats.cluster-listen=" + routes[i],
		}
	}, "--auth.keys="+keys.public, durable(3), "--drain-window=2s", "--log.format=json", "--nats.cluster-name=c", "--nats.routes="+strings.Join(routes, ","))
	l := startLoad(t, keys, urls)
	for _, m := range nodes {
		m.ready(t)
	}
	l.goesOn(t, 50)
	for i, m := range nodes {
		programs[i] = updated
		m.roll(t)
		l.goesOn(t, 50)
		if i+1 < len(nodes) {
			talk(t, keys, i, listening(t, m.process), listening(t, nodes[i+1].process))
		}
	}
	l.finish(t, "operator:pass@"+listens[0])
}

// talk sends between a node of this version and one of the version before, both ways, all that nodes tell each other: events
// of topics without a stream, tickets and revocations. One of them has just joined the cluster: until its NATS knows the others
// and the buckets have their leaders, an event may be lost, and a call be told to come again.
func talk(t *testing.T, keys issuer, round int, updated, old *server) {
	t.Helper()
	admin := keys.mint(t, "admin", time.Hour, "--admin")
	for _, way := range []struct {
		name     string
		from, to *server
	}{{"from old to new", old, updated}, {"from new to old", updated, old}} {
		topic := fmt.Sprintf("talk.%d.%s", round, strings.ReplaceAll(way.name, " ", "-"))
		reads, writes := keys.subscriber(t, time.Hour, topic), keys.mint(t, topic, time.Hour, "--publish="+topic)
		reader, writer := dialCoder(t, "reader "+way.name, way.to.url), dialCoder(t, "writer "+way.name, way.from.url)
		reader.subscribe(t, topic, reads)
		eventually(t, way.name+": an event arrives", func() bool {
			if m := writer.publish(t, topic, writes, `"hello"`); m.Type != "ack" {
				t.Fatalf("%s: publish: %+v", way.name, m)
			}
			return len(reader.events(t)) > 0
		})

		eventually(t, way.name+": a ticket is good", func() bool {
			status, body := way.from.post(t, "tickets", reads, "")
			var answer struct{ Ticket string }
			if status == http.StatusServiceUnavailable {
				return false
			}
			if err := json.Unmarshal([]byte(body), &answer); status != http.StatusCreated || err != nil {
				t.Fatalf("%s: ticket: %d %s", way.name, status, body)
			}
			p, err := tryCoder(t, "ticket "+way.name, way.to.url+"?ticket="+answer.Ticket)
			return err == nil && p.subscribeAs(t, topic).Type == "ack"
		})

		eventually(t, way.name+": a revocation is stored", func() bool {
			status, body := way.from.post(t, "revocations", admin, `{"sub":`+quote(topic)+`}`)
			if status != http.StatusNoContent && status != http.StatusServiceUnavailable {
				t.Fatalf("%s: revocation: %d %s", way.name, status, body)
			}
			return status == http.StatusNoContent
		})
		witness := dialCoder(t, "revoked "+way.name, way.to.url)
		eventually(t, way.name+": a revocation is in force", func() bool { return witness.publish(t, topic, writes, "0").Code == "token_revoked" })
	}
}
