//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRevocationAcrossNodes revokes tokens on one node while their subscriptions on another receive events. Each ends
// with an error, after which nothing comes, and a token that was revoked publishes nothing more either. The delays are
// printed: docs/authentication.md quotes them.
func TestRevocationAcrossNodes(t *testing.T) {
	t.Parallel()
	const n = 50
	grant := func(jti string, notify map[string]any) map[string]any {
		return map[string]any{"sub": "user", "jti": jti, "notify": notify}
	}
	claims := []map[string]any{
		grant("admin", map[string]any{"admin": true}),
		grant("publisher", map[string]any{"publish": []string{"revoked.*"}, "subscribe": []string{"revoked.*"}}),
	}
	for i := range n {
		claims = append(claims, grant(fmt.Sprint("user ", i), map[string]any{
			"publish": []string{topicOf(i)}, "subscribe": []string{topicOf(i)},
		}))
	}
	keys := mintWithJose(t, claims...)["EdDSA"]
	admin, publisherToken, tokens := keys.Tokens[0], keys.Tokens[1], keys.Tokens[2:]

	_, address := natsProcess(t, ownHost()+":0")
	var nodes [2]*server
	for i := range nodes {
		nodes[i] = serve(t, fmt.Sprintf("node %d", i), nil, "--nats.url=nats://"+address,
			"--auth.keys="+keyFile(t, "key.json", string(keys.JWK)), "--limits.auth-failures=1000")
	}
	publisher := dialCoder(t, "publisher on node 0", nodes[0].url)
	subscriber := dialCoder(t, "subscriber on node 1", nodes[1].url)
	witness := dialCoder(t, "a subscriber on node 1 that is not revoked", nodes[1].url)
	witness.subscribe(t, "revoked.*", publisherToken)
	for i := range n {
		subscriber.subscribe(t, topicOf(i), tokens[i])
	}
	if status, body := nodes[0].post(t, "revocations", publisherToken, `{"jti":"user 0"}`); status != http.StatusForbidden {
		t.Fatalf("revocation without notify.admin: %d %s", status, body)
	}

	var notice, events []time.Duration
	for i := range n {
		topic := topicOf(i)
		stop, stopped := make(chan struct{}), make(chan struct{})
		told, seenByWitness := subscriber.got.len(), witness.got.len()
		go func() {
			defer close(stopped)
			for number := 0; ; number++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
				}
				if err := publisher.send(publishFrame(fmt.Sprint(topic, number), topic, publisherToken, now())); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		subscriber.got.await(t, "event on "+topic, told, func(frame string) bool { return decode(t, frame).Topic == topic })
		called := time.Now()
		status, body := nodes[0].post(t, "revocations", admin, fmt.Sprintf(`{"jti":"user %d"}`, i))
		if status != http.StatusNoContent {
			t.Fatalf("revocation: %d %s", status, body)
		}
		// On this node it is in force already, on the other from when the subscriber is told.
		asked, seen := publisher.nextID(), publisher.got.len()
		if err := publisher.send(publishFrame(asked, topic, tokens[i], "0")); err != nil {
			t.Fatal(err)
		}
		subscriber.got.await(t, "the end of "+topic, told, func(frame string) bool { return ends(decode(t, frame), topic) })
		notice = append(notice, time.Since(called))
		for _, m := range []message{publisher.answer(t, asked, seen), subscriber.publish(t, topic, tokens[i], "0")} {
			if m.Code != "token_revoked" {
				t.Errorf("publish with a revoked token: %+v", m)
			}
		}
		close(stop)
		<-stopped
		last := now()
		if m := publisher.publish(t, topic, publisherToken, last); m.Type != "ack" {
			t.Fatalf("publish: %+v", m)
		}
		witness.got.await(t, "the last event", seenByWitness, func(frame string) bool { return string(decode(t, frame).Data) == last })
		events = append(events, max(0, lastEvent(t, subscriber, told, topic).Sub(called)))
	}
	for _, frame := range publisher.got.all() {
		if m := decode(t, frame); m.Type == "error" && m.Code != "token_revoked" {
			t.Errorf("publisher: %s", frame)
		}
	}
	slices.Sort(notice)
	slices.Sort(events)
	t.Logf("%d revocations, from the call on one node on: the subscriber on the other was told after p50 %v, p99 %v; the last event that it got had been published after p50 %v, p99 %v",
		n, notice[n/2], notice[n*99/100], events[n/2], events[n*99/100])
}

func now() string { return strconv.FormatInt(time.Now().UnixNano(), 10) }

func topicOf(i int) string { return fmt.Sprint("revoked.", i) }

// ends says whether a message tells that a subscription was revoked.
func ends(m message, topic string) bool {
	return m.Type == "error" && m.ID == "" && m.Topic == topic && m.Code == "token_revoked"
}

// lastEvent is when the last event of a topic was published that came before the end of its subscription, among the
// frames from index seen on. One that came behind it fails the test.
func lastEvent(t *testing.T, p *peer, seen int, topic string) (sent time.Time) {
	t.Helper()
	p.ping(t)
	ended := false
	for _, frame := range p.got.all()[seen:] {
		m := decode(t, frame)
		if m.Topic != topic {
			continue
		}
		if m.Type != "event" {
			ended = ended || ends(m, topic)
			continue
		}
		if ended {
			t.Errorf("%s: an event behind the end of the subscription: %s", topic, frame)
		}
		var at int64
		if err := json.Unmarshal(m.Data, &at); err != nil {
			t.Fatal(err)
		}
		sent = time.Unix(0, at)
	}
	return sent
}

// TestRevocationOutage takes NATS away from three nodes. Once one of them might have missed a revocation, it lets in the
// tokens that it remembers and no others; another, whose operator wants it so, lets all in; the third none, and ends their
// subscriptions. What was revoked stays
// revoked, for a node that starts after NATS was back, too.
func TestRevocationOutage(t *testing.T) {
	t.Parallel()
	claims := func(jti string) map[string]any {
		return map[string]any{"sub": "user", "jti": jti, "notify": map[string]any{
			"admin": jti == "admin", "publish": []string{"outage"}, "subscribe": []string{"outage"},
		}}
	}
	keys := mintWithJose(t, claims("admin"), claims("known"), claims("revoked"), claims("fresh"))["EdDSA"]
	admin, known, revoked, fresh := keys.Tokens[0], keys.Tokens[1], keys.Tokens[2], keys.Tokens[3]
	natsServer, address := natsProcess(t, ownHost()+":0")
	start := func(name, outage string) *server {
		return serve(t, name, nil, "--nats.url=nats://"+address, "--auth.keys="+keyFile(t, "key.json", string(keys.JWK)),
			"--auth.strategies=query,message", "--auth.revocation-max-age=5s", "--auth.revocation-outage="+outage)
	}
	closed, open, strict := start("closed", "closed"), start("open", "open"), start("strict", "strict")
	handshake := func(node *server, token string, want string) {
		t.Helper()
		_, err := tryCoder(t, "peer", node.url+"?access_token="+token)
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("%s: handshake: %v, want %s", node.output.name, err, want)
		}
	}
	const accepted = "<nil>"

	handshake(closed, known, accepted)
	if status, body := closed.post(t, "revocations", admin, `{"jti":"revoked"}`); status != http.StatusNoContent {
		t.Fatalf("revocation: %d %s", status, body)
	}
	handshake(closed, revoked, "401")
	eventually(t, "the other node knows of the revocation", func() bool {
		_, metrics := open.get("/metrics")
		return strings.Contains(metrics, "\nnotifyd_revocations 1\n")
	})
	reader := dialCoder(t, "reader", closed.url)
	reader.subscribe(t, "outage", known)
	strictReader := dialCoder(t, "reader of the strict node", strict.url)
	strictReader.subscribe(t, "outage", known)
	natsServer.kill()
	eventually(t, "revocations are out of date", func() bool {
		_, metrics := closed.get("/metrics")
		_, age, _ := strings.Cut(metrics, "\nnotifyd_revocations_age_seconds ")
		age, _, _ = strings.Cut(age, "\n")
		seconds, err := strconv.ParseFloat(age, 64)
		return err == nil && seconds > 5.5
	})
	handshake(closed, fresh, "503")
	handshake(closed, known, accepted)
	handshake(closed, revoked, "401")
	handshake(open, fresh, accepted)
	handshake(open, revoked, "401")
	strictReader.got.await(t, "the end of the subscription", 0, func(frame string) bool {
		m := decode(t, frame)
		return m.Type == "error" && m.Topic == "outage" && m.Code == "unavailable"
	})
	handshake(strict, known, "503")
	handshake(strict, revoked, "401")
	if m := strictReader.publish(t, "outage", known, "0"); m.Code != "unavailable" {
		t.Errorf("a publish on the strict node: %+v", m)
	}

	natsProcess(t, address)
	eventually(t, "the node is ready again", func() bool {
		status, _ := closed.get("/readyz")
		return status == http.StatusOK
	})
	handshake(closed, fresh, accepted)
	handshake(closed, revoked, "401")
	handshake(start("started later", "closed"), revoked, "401")
	eventually(t, "the strict node accepts what it remembered", func() bool {
		id := strictReader.nextID()
		return strictReader.ask(t, id, fmt.Sprintf(`{"type":"subscribe","id":%q,"topic":"outage","token":%q}`, id, known)).Type == "ack"
	})
	eventually(t, "an event reaches both", func() bool {
		strictReader.publish(t, "outage", known, "1")
		return len(reader.events(t)) > 0 && len(strictReader.events(t)) > 0
	})
	handshake(strict, revoked, "401")
}

// TestFullDisk fills the disk of a node with an embedded NATS: /readyz says that nothing can be stored before anybody
// has tried to, a revocation is in force on the node and says that it is not stored, and events flow as before.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mounts := []string{"unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=16m none " + dir + ` && exec "$0" "$@"`}
	if out, err := exec.Command(mounts[0], append(mounts[1:], "true")...).CombinedOutput(); err != nil {
		leftOut(t, fmt.Sprintf("a file system of a few MB cannot be mounted here: %v: %s", err, out))
	}
	keys := mintWithJose(t,
		map[string]any{"sub": "operator", "notify": map[string]any{"admin": true}},
		map[string]any{"jti": "stays", "notify": map[string]any{"publish": []string{"a"}, "subscribe": []string{"a"}}},
		map[string]any{"jti": "falls", "notify": map[string]any{"publish": []string{"a"}, "subscribe": []string{"a"}}})["EdDSA"]
	admin, stays, falls := keys.Tokens[0], keys.Tokens[1], keys.Tokens[2]
	node := serve(t, "node", mounts, "--data-dir="+dir, "--drain-window=0s", "--auth.keys="+keyFile(t, "key.json", string(keys.JWK)))
	subscriber, loser := dialCoder(t, "subscriber", node.url), dialCoder(t, "loser", node.url)
	subscriber.subscribe(t, "a", stays)
	loser.subscribe(t, "a", falls)
	eventually(t, "the node is ready", func() bool { status, _ := node.get("/readyz"); return status == http.StatusOK })

	full, err := os.Create(fmt.Sprintf("/proc/%d/root%s/full", node.cmd.Process.Pid, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := full.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	filled := time.Now()
	var why string
	eventually(t, "/readyz says that revocations cannot be stored", func() bool {
		var status int
		status, why = node.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(why, "revocations cannot be stored")
	})
	t.Logf("after %v: %s", time.Since(filled).Round(time.Second), strings.TrimSpace(why))
	if _, metrics := node.get("/metrics"); !strings.Contains(metrics, "\nnotifyd_store_writable 0\n") {
		t.Error("the metric says that revocations can be stored")
	}
	if status, body := node.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	if status, body := node.post(t, "revocations", admin, `{"jti":"falls"}`); status != http.StatusServiceUnavailable || !strings.Contains(body, "in force on this node") {
		t.Errorf("revocation: %d %s", status, body)
	}
	if m := loser.publish(t, "a", falls, "0"); m.Code != "token_revoked" {
		t.Errorf("publish with a revoked token: %+v", m)
	}
	if m := subscriber.publish(t, "a", stays, `"still"`); m.Type != "ack" {
		t.Errorf("publish: %+v", m)
	}
	subscriber.got.await(t, "the event", 0, func(frame string) bool { return strings.Contains(frame, `"still"`) })
	node.terminate(t)
	<-node.gone
	t.Logf("ended with %v after %v", node.cmd.ProcessState, time.Since(filled).Round(time.Second))
	for _, frame := range loser.got.all() {
		if strings.Contains(frame, `"still"`) {
			t.Error("an event came to a client whose token was revoked")
		}
	}
}
