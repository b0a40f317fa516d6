package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Shutdown waits no longer than it may for a client that does not answer.
func TestShutdownCutsOff(t *testing.T) {
	n := one(t, server.Options{})
	p := n.dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p.wantExactly("close 1012")
	if m, err := p.read(); err == nil {
		t.Error(m)
	}
}

// No line of the log holds any part of a token, whatever comes.
func TestLogsHoldNoToken(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	nats := startNATS(t)
	with := setup{log: zap.New(core)}
	with.bus.URL = nats.ClientURL()
	n := start(t, with)
	good := n.all(t)
	bad := sign(t, newKey(t, "EdDSA"), authz.Claims{Expires: time.Now().Add(hour), Publish: []string{">"}})
	p := n.dial(t)
	p.subscribe("a", good)
	p.publish("b", good, "1")
	p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, bad)
	p.wantError(wire.TokenInvalid, "1")
	p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1`, good)
	p.wantError(wire.BadEnvelope, "1")
	newSpy(t, nats).publish("notify.ev.a", []byte(good))
	eventually(t, "it was dropped", func() bool { return lines.FilterMessage("dropped a message from NATS").Len() == 1 })
	_ = p.conn.Close()
	eventually(t, "the end was logged", func() bool { return lines.FilterMessage("connection closed").Len() == 1 })
	n.stop()
	parts := append(strings.Split(good, "."), strings.Split(bad, ".")...)
	for _, line := range lines.All() {
		var text strings.Builder
		text.WriteString(line.Message)
		for name, value := range line.ContextMap() {
			text.WriteString(" " + name + "=" + fmt.Sprint(value))
		}
		for _, part := range parts {
			if strings.Contains(text.String(), part[:16]) {
				t.Errorf("logged: %s", text.String())
			}
		}
	}
}

// Requests that their clients never end, and readers that never read, do not make a stop fail.
func TestShutdownDespiteHangingClients(t *testing.T) {
	n := start(t, setup{server: server.Options{Loop: loop.Options{CloseTimeout: time.Second, IdleTimeout: 10 * time.Minute, PendingBytes: 64 << 10}}})
	half := n.dialFrom(t, "127.0.0.1")
	post := strings.Replace(request("POST", "/v1/revocations", "", n.admin(t)), "Content-Length: 0", "Content-Length: 100", 1)
	if _, err := io.WriteString(half, post); err != nil {
		t.Fatal(err)
	}
	token := n.all(t)
	slow, pub := n.dial(t), n.dial(t)
	slow.subscribe("a", token)
	for n.metrics(t)["notifyd_slow_closes_total"] == 0 {
		pub.publish("a", token, `"`+strings.Repeat("x", 60_000)+`"`)
	}
	n.stop() // fails the test when it fails
}
