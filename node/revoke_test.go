package node_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/node"
	"github.com/notifyd/notifyd/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func mint(t *testing.T, key authz.Key, c authz.Claims) string {
	t.Helper()
	c.IssuedAt, c.Expires = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	token, err := authz.Sign(key, c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// revoke makes the call and gives its answer.
func revoke(t *testing.T, n *node.Node, admin, body string) (status int, answer string) {
	t.Helper()
	return testkit.Post(t, "http://"+n.Addr().String()+"/v1/revocations", admin, body)
}

func send(t *testing.T, c *websocket.Conn, frame []byte) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, frame); err != nil {
		t.Fatal(err)
	}
}

// answer reads the next frame.
func answer(t *testing.T, c *websocket.Conn) (m struct{ Type, Code string }) {
	t.Helper()
	_, frame, err := c.Read(t.Context())
	if err == nil {
		err = json.Unmarshal(frame, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// publish gives the code of the answer, "" for an ack.
func publish(t *testing.T, n *node.Node, topic, token string) string {
	t.Helper()
	c := dial(t, n)
	defer func() { _ = c.CloseNow() }()
	send(t, c, wire.AppendPublish(nil, "1", topic, token, []byte("1"), ""))
	return answer(t, c).Code
}

// On the wrong side of a partition an administrator stops a token on the own node, and is told that no other knows.
// When NATS is back, they all do.
func TestRevokeWhileCutOff(t *testing.T) {
	nats := testkit.StartJetStream(t)
	key, auth := trusted(t)
	auth.RevocationMaxAge = time.Hour
	o := node.Options{Auth: auth, AdminListen: "127.0.0.1:0", Bus: bus.Options{URL: nats.URL()}}
	here, there := start(t, o), start(t, o)
	for _, n := range []*node.Node{here, there} {
		testkit.Eventually(t, "ready", func() bool { status, _ := get(t, n, "/readyz"); return status == http.StatusOK })
	}
	admin := mint(t, key, authz.Claims{Admin: true})
	tokens := map[string]string{
		`{"jti":"j"}`: mint(t, key, authz.Claims{ID: "j", Publish: []string{"a"}, Subscribe: []string{"a"}}),
		`{"sub":"s"}`: mint(t, key, authz.Claims{Subject: "s", Publish: []string{"a"}, Subscribe: []string{"a"}}),
	}
	holders := map[string]*websocket.Conn{}
	for body, token := range tokens {
		c := dial(t, here)
		send(t, c, wire.AppendSubscribe(nil, "1", "a", token))
		if m := answer(t, c); m.Type != "ack" {
			t.Fatalf("%+v", m)
		}
		holders[body] = c
		if code := publish(t, there, "b", token); code != wire.Forbidden.String() { // the other node remembers it too
			t.Fatal(code)
		}
	}
	nats.Kill(t)
	testkit.Eventually(t, "both are cut off", func() bool { return !here.Bus.Connected() && !there.Bus.Connected() })
	for body, token := range tokens {
		status, text := revoke(t, here, admin, body)
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "in force on this node; the others do not know") {
			t.Errorf("%s: %d %s", body, status, text)
		}
		if m := answer(t, holders[body]); m.Code != wire.TokenRevoked.String() {
			t.Errorf("%s: the subscription got %+v", body, m)
		}
		if code := publish(t, here, "a", token); code != wire.TokenRevoked.String() {
			t.Errorf("%s: here it is %q", body, code)
		}
		if code := publish(t, there, "a", token); code != wire.Unavailable.String() {
			t.Errorf("%s: there it is %q", body, code)
		}
	}
	if _, metrics := get(t, here, "/metrics"); !strings.Contains(metrics, "\nnotifyd_revocations_unsaved 2\n") {
		t.Error("the metric does not say that two are not stored")
	}
	nats.Start(t)
	for body, token := range tokens {
		testkit.Eventually(t, body+" is known there", func() bool { return publish(t, there, "a", token) == wire.TokenRevoked.String() })
	}
	testkit.Eventually(t, "all are stored", func() bool {
		_, metrics := get(t, here, "/metrics")
		return strings.Contains(metrics, "\nnotifyd_revocations_unsaved 0\n")
	})
}

// A bucket of revocations that was deleted or purged is filled again by the nodes that know what was in it, except for
// what somebody has removed by hand.
func TestLostRevocationsAreWrittenBack(t *testing.T) {
	server := testkit.StartJetStream(t)
	key, auth := trusted(t)
	auth.RevocationMaxAge = time.Hour
	o := node.Options{Auth: auth, AdminListen: "127.0.0.1:0", Bus: bus.Options{URL: server.URL()}}
	n := start(t, o)
	testkit.Eventually(t, "ready", func() bool { status, _ := get(t, n, "/readyz"); return status == http.StatusOK })
	admin := mint(t, key, authz.Claims{Admin: true})
	for _, body := range []string{`{"jti":"j"}`, `{"sub":"s"}`, `{"sub":"s","before":"2020-01-01T00:00:00Z"}`, `{"jti":"by hand"}`} {
		if status, text := revoke(t, n, admin, body); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, text)
		}
	}
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	byJTI := mint(t, key, authz.Claims{ID: "j", Publish: []string{"a"}})
	bySub := mint(t, key, authz.Claims{Subject: "s", Publish: []string{"a"}})
	byHand := mint(t, key, authz.Claims{ID: "by hand", Publish: []string{"a"}})
	for _, lose := range []string{"delete", "purge"} {
		testkit.Eventually(t, "the bucket has been looked at", func() bool {
			s, err := js.Stream(t.Context(), "KV_notify_revocations")
			if err != nil {
				return false
			}
			info, err := s.Info(t.Context(), jetstream.WithSubjectFilter("$KV.*.probe.>"))
			return err == nil && len(info.State.Subjects) == 1
		})
		switch lose {
		case "delete":
			err = js.DeleteStream(t.Context(), "KV_notify_revocations")
		case "purge":
			var s jetstream.Stream
			if s, err = js.Stream(t.Context(), "KV_notify_revocations"); err == nil {
				err = s.Purge(t.Context())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		held := func() (n int) {
			kv, err := js.KeyValue(t.Context(), "notify_revocations")
			if err != nil {
				return 0
			}
			keys, err := kv.ListKeys(t.Context())
			if err != nil {
				return 0
			}
			for range keys.Keys() {
				n++
			}
			return n
		}
		testkit.Eventually(t, lose+": they are written back", func() bool { return held() == 3 }) // of "s" the one that reaches farther
		testkit.Eventually(t, lose+": ready", func() bool { status, _ := get(t, n, "/readyz"); return status == http.StatusOK })
	}
	late := start(t, o)
	for name, token := range map[string]string{"jti": byJTI, "sub": bySub, "by hand": byHand} {
		if code := publish(t, late, "a", token); code != wire.TokenRevoked.String() {
			t.Errorf("%s, on a node that came later: %q", name, code)
		}
	}
	testkit.Eventually(t, "the losses are counted", func() bool {
		_, metrics := get(t, n, "/metrics")
		return strings.Contains(metrics, `notifyd_store_losses_total{bucket="revocations"} 2`)
	})

	// Removed by hand and loaded anew: it stays so.
	kv, err := js.KeyValue(t.Context(), "notify_revocations")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), authz.Revocation{JTI: "by hand"}.Key()); err != nil {
		t.Fatal(err)
	}
	server.Kill(t)
	testkit.Eventually(t, "disconnected", func() bool { return !n.Bus.Connected() })
	server.Start(t)
	at := time.Now()
	testkit.Eventually(t, "loaded anew", func() bool {
		_, metrics := get(t, n, "/metrics")
		return n.Bus.Connected() && time.Since(at) > 4*time.Second && strings.Contains(metrics, "\nnotifyd_revocations_unsaved 0\n")
	})
	last := start(t, o)
	if code := publish(t, last, "a", byHand); code != "" {
		t.Errorf("what was removed by hand is back: %q", code)
	}
}

// Once a revocation was answered with 204, nothing that is published later is delivered to those who hold the token,
// however many they are and however much is published.
func TestNothingComesAfterTheAnswer(t *testing.T) {
	const subscribers, rounds = 2500, 2
	key, auth := trusted(t)
	n := start(t, node.Options{Auth: auth})
	admin := mint(t, key, authz.Claims{Admin: true})
	write := mint(t, key, authz.Claims{Subject: "publisher", Publish: []string{">"}})
	publisher := dial(t, n)
	for round := range rounds {
		subject := fmt.Sprint("subscriber", round)
		read := mint(t, key, authz.Claims{Subject: subject, Subscribe: []string{">"}})
		var holding sync.WaitGroup
		stop := make(chan struct{}) // closed when the answer is there and what follows it was published
		for range subscribers {
			c := dial(t, n)
			send(t, c, wire.AppendSubscribe(nil, "1", "a", read))
			if m := answer(t, c); m.Type != "ack" {
				t.Fatalf("%+v", m)
			}
			holding.Go(func() {
				defer func() { _ = c.CloseNow() }()
				ended := false
				for {
					_, frame, err := c.Read(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					switch text := string(frame); {
					case strings.Contains(text, `"after"`):
						t.Errorf("delivered: %s", text)
					case strings.Contains(text, "token_revoked"):
						ended = true
						<-stop
						// What was sent before the pong has come before it.
						if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"ping","id":"p"}`)); err != nil {
							t.Error(err)
							return
						}
					case strings.Contains(text, "pong"):
						return
					case ended:
						t.Errorf("behind the end: %s", text)
					}
				}
			})
		}
		loud, quiet := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(quiet)
			c, _, err := websocket.Dial(t.Context(), "ws://"+n.Addr().String()+wire.Path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.CloseNow() }()
			for {
				select {
				case <-loud:
					return
				default:
				}
				if err := c.Write(t.Context(), websocket.MessageText, wire.AppendPublish(nil, "1", "a", write, []byte(`"before"`), "")); err != nil {
					t.Error(err)
					return
				}
				if _, _, err := c.Read(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		if status, text := revoke(t, n, admin, fmt.Sprintf(`{"sub":%q}`, subject)); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, text)
		}
		for range 20 {
			send(t, publisher, wire.AppendPublish(nil, "1", "a", write, []byte(`"after"`), ""))
			if m := answer(t, publisher); m.Type != "ack" && m.Type != "welcome" {
				t.Fatalf("%+v", m)
			}
		}
		close(loud)
		<-quiet
		close(stop)
		holding.Wait()
	}
}
