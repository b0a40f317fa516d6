package node_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/node"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

func start(t *testing.T, o node.Options) *node.Node {
	t.Helper()
	log, _ := testkit.Log()
	n, err := node.Start(t.Context(), o, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func trusted(t *testing.T) (authz.Key, authz.Options) {
	t.Helper()
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	return key, authz.Options{Trusted: []authz.Key{key}}
}

func get(t *testing.T, n *node.Node, path string) (int, string) {
	t.Helper()
	return testkit.Get(t, "http://"+n.AdminAddr()+path)
}

func dial(t *testing.T, n *node.Node) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), "ws://"+n.Addr().String()+wire.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	if _, _, err := c.Read(t.Context()); err != nil { // welcome
		t.Fatal(err)
	}
	return c
}

// In the drain window /readyz says no while clients are still there; then they are gone with 1012, and so is everything
// that the node ran.
func TestDrain(t *testing.T) {
	before := goleak.IgnoreCurrent()
	_, auth := trusted(t)
	n := start(t, node.Options{AdminListen: "127.0.0.1:0", Auth: auth, Server: server.Options{DrainWindow: time.Second}})
	if status, body := get(t, n, "/readyz"); status != http.StatusOK {
		t.Errorf("before the drain: %d %s", status, body)
	}
	c := dial(t, n)
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	testkit.Eventually(t, "/readyz says that the node drains", func() bool {
		status, body := get(t, n, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "draining")
	})
	if _, body := get(t, n, "/metrics"); !strings.Contains(body, "\nnotifyd_ready 0\n") {
		t.Error("the metric says that it is ready")
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the client was sent away with %v", err)
	}
	if err := errors.Join(<-closed, n.Close()); err != nil { // a second call does no harm
		t.Error(err)
	}
	if _, err := net.Dial("tcp", n.AdminAddr()); err == nil {
		t.Error("the admin listener is still there")
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// A start that fails names the option and leaves nothing behind.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, auth := trusted(t)
	before := goleak.IgnoreCurrent()
	for field, o := range map[string]node.Options{
		"Auth":        {Auth: authz.Options{Keys: []string{"/nowhere"}}},
		"Listen":      {Auth: auth, Listen: taken.Addr().String()},
		"AdminListen": {Auth: auth, AdminListen: taken.Addr().String()},
		"Bus":         {Auth: auth, AdminListen: "127.0.0.1:0", Bus: bus.Options{Prefix: "*"}},
	} {
		_, err := node.Start(t.Context(), o, zap.NewNop())
		var failed *node.StartError
		if !errors.As(err, &failed) || failed.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	o := node.Options{Auth: auth}
	o.Store.Replicas = 9
	if _, err := node.Start(t.Context(), o, zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), "Store: ") {
		t.Errorf("Store: %v", err)
	}
	goleak.VerifyNone(t, before)
}

// Several nodes run in one process, each on ports of its own; without AdminListen there is one.
func TestZeroOptions(t *testing.T) {
	key, auth := trusted(t)
	one, two := start(t, node.Options{Auth: auth}), start(t, node.Options{Auth: auth, AdminListen: "127.0.0.1:0"})
	if one.Addr().String() == two.Addr().String() || one.AdminAddr() != "" {
		t.Errorf("%v, %v, admin %q", one.Addr(), two.Addr(), one.AdminAddr())
	}
	token, err := authz.Sign(key, authz.Claims{Expires: time.Now().Add(time.Hour), Publish: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node.Node{one, two} {
		c := dial(t, n)
		if err := c.Write(t.Context(), websocket.MessageText, wire.AppendPublish(nil, "1", "a", token, []byte("1"), "")); err != nil {
			t.Fatal(err)
		}
		if _, answer, err := c.Read(t.Context()); err != nil || !strings.Contains(string(answer), `"ack"`) {
			t.Errorf("%s %v", answer, err)
		}
	}
	if status, _ := get(t, two, "/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("pprof: %d", status)
	}
	if _, metrics := get(t, two, "/metrics"); !strings.Contains(metrics, "\nnotifyd_verify_seconds_count 1\n") {
		t.Error("the verified token is not counted")
	}
}

// At debug the log names the check that a token failed, and no part of the token.
func TestRefusedTokensAreExplained(t *testing.T) {
	key, auth := trusted(t)
	auth.Issuer = "https://issuer.example"
	log, seen := testkit.Log()
	n, err := node.Start(t.Context(), node.Options{Auth: auth}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	token, err := authz.Sign(key, authz.Claims{Issuer: "https://else.example", Expires: time.Now().Add(time.Hour), Publish: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, code := n.Verifier.Verify([]byte(token)); code != wire.TokenInvalid {
		t.Fatal(code)
	}
	lines := seen.FilterMessage("token refused").All()
	if len(lines) != 1 {
		t.Fatalf("logged %v", lines)
	}
	text := fmt.Sprint(lines[0].ContextMap())
	if lines[0].ContextMap()["reason"] != "issuer" || !strings.Contains(text, "https://else.example") || !strings.Contains(text, "https://issuer.example") {
		t.Errorf("logged %s", text)
	}
	for part := range strings.SplitSeq(token, ".") {
		if strings.Contains(text, part) {
			t.Errorf("a part of the token is in the log: %s", text)
		}
	}
}

// A loop that hangs makes /healthz say so; a stop names it, and does not wait for it.
func TestHangingLoop(t *testing.T) {
	_, auth := trusted(t)
	log, _ := testkit.Log()
	var hang atomic.Bool
	hung, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	var once sync.Once
	o := node.Options{AdminListen: "127.0.0.1:0", Auth: auth}
	o.Server.Loop = loop.Options{Loops: 1, OnTurn: func(*loop.Loop, int) {
		if hang.Load() {
			once.Do(func() { close(hung) })
			<-release
		}
	}}
	n, err := node.Start(t.Context(), o, log)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, n, "/healthz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	hang.Store(true)
	_, _ = net.Dial("tcp", n.Addr().String())
	<-hung
	if status, body := get(t, n, "/healthz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "loop 0 hangs") {
		t.Errorf("%d %s", status, body)
	}
	if err := n.Close(); err == nil || !strings.Contains(err.Error(), "loop 0 hangs") {
		t.Error(err)
	}
}

// What a node can hold is told beside what it holds, so that an alert can compare them.
func TestLimitsAmongTheMetrics(t *testing.T) {
	_, auth := trusted(t)
	n := start(t, node.Options{AdminListen: "127.0.0.1:0", Auth: auth, Server: server.Options{Loop: loop.Options{Connections: 123}}})
	_, body := get(t, n, "/metrics")
	for _, want := range []string{"notifyd_connections_limit 123\n", "notifyd_revocations_limit 1.048576e+06\n"} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}
