package server_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// Each refused request is counted by its reason and, at debug, logged with it; no token is in the log.
func TestRefusalsSayWhy(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	n := start(t, setup{log: zap.New(core), server: server.Options{
		Strategies: server.StrategyHeader | server.StrategyTicket, RequireConnection: true, Origins: []string{"https://a.example"},
	}})
	good := n.all(t)
	expired := sign(t, n.key, authz.Claims{Expires: time.Now().Add(-hour)})
	early := sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), NotBefore: time.Now().Add(hour / 2)})
	forged := good[:len(good)-10] + "AAAAAAAAAA"
	const bearer = "Authorization: Bearer "
	for _, x := range []struct{ reason, request, why string }{
		{"path", strings.Replace(head(""), "/v1/ws", "/v2/ws", 1), "/v2/ws"},
		{"origin", head("", "Origin: https://b.example"), "https://b.example"},
		{"subprotocol", head("", "Sec-WebSocket-Protocol: mqtt"), ""},
		{"two_credentials", head("?ticket=x", bearer+good), ""},
		{"query", head("?ticket=%zz"), ""},
		{"no_credential", head(""), ""},
		{"strategy_disabled", head("?access_token=" + good), ""},
		{"authorization", head("", "Authorization: Bearrer x"), ""},
		{"token_malformed", head("", bearer+"x.y.z"), ""},
		{"token_invalid", head("", bearer+forged), ""},
		{"token_expired", head("", bearer+expired), ""},
		{"token_not_yet_valid", head("", bearer+early), ""},
		{"token_replayed", head("?ticket=unknown"), "the ticket is unknown, used or too old"},
		{loop.RefusedHead, head("", "X: "+strings.Repeat("x", 40_000)), ""},
		{loop.RefusedMalformed, strings.Replace(head(""), "Sec-WebSocket-Key", "X-Key", 1), ""},
		{loop.RefusedTLS, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""},
	} {
		t.Run(x.reason, func(t *testing.T) {
			c := n.dialFrom(t, "127.0.0.1")
			if _, err := io.WriteString(c, x.request); err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(c)
			if x.reason == loop.RefusedTLS && string(answer) != "\x15\x03\x01\x00\x02\x02\x28" || len(answer) == 0 {
				t.Errorf("answer %q", answer)
			}
			if got := n.metrics(t)[`notifyd_handshakes_refused_total{reason="`+x.reason+`"}`]; got != 1 {
				t.Errorf("counted %v", got)
			}
			found := lines.Filter(func(e observer.LoggedEntry) bool {
				return e.Message == "handshake refused" && e.ContextMap()["reason"] == x.reason
			}).All()
			if len(found) != 1 || found[0].Level != zapcore.DebugLevel || found[0].ContextMap()["addr"] != "127.0.0.1" ||
				!strings.Contains(found[0].ContextMap()["why"].(string), x.why) {
				t.Errorf("logged %v", found)
			}
		})
	}
	for result, token := range map[string]string{"ok": good, "token_malformed": "x.y.z", "token_invalid": forged, "token_expired": expired} {
		_ = n.ask(t, request("POST", postTickets, "", bearer+token)).conn.Close()
		if got := n.metrics(t)[`notifyd_tickets_total{result="`+result+`"}`]; got != 1 {
			t.Errorf("tickets, %s: %v", result, got)
		}
	}
	p := n.ask(t, head("", bearer+good)).opened()
	p.send(`{"type":"publish","topic":"a","token":%q,"data":1}`, expired)
	_ = p.next()
	p.fence()
	found := lines.FilterMessage("request refused").All()
	if len(found) != 1 || found[0].ContextMap()["type"] != "publish" || found[0].ContextMap()["code"] != "token_expired" {
		t.Errorf("logged %v", found)
	}
	for _, e := range lines.All() {
		for _, field := range e.Context {
			if strings.Contains(field.String, good[10:30]) || strings.Contains(field.String, expired[10:30]) {
				t.Errorf("a token is in the log: %s %v", e.Message, e.ContextMap())
			}
		}
	}
}

// What comes to a port with the PROXY protocol without its header, or with an odd one, is logged too.
func TestProxyHeaderRefused(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	n := start(t, setup{log: zap.New(core), server: server.Options{Loop: loop.Options{ProxyProtocol: true}}})
	for _, x := range []struct{ text, reason string }{
		{head(""), loop.RefusedNoProxy},
		{"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n" + head(""), loop.RefusedProxy},
		{"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c", loop.RefusedProxy},
	} {
		before := n.metrics(t)[`notifyd_handshakes_refused_total{reason="`+x.reason+`"}`]
		c := n.dialFrom(t, "127.0.0.1")
		if _, err := io.WriteString(c, x.text); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(c)
		if got := n.metrics(t)[`notifyd_handshakes_refused_total{reason="`+x.reason+`"}`]; got != before+1 {
			t.Errorf("counted %v after %v", got, before)
		}
		found := lines.FilterMessage("handshake refused").All()
		if len(found) == 0 || found[len(found)-1].ContextMap()["addr"] != "127.0.0.1" || found[len(found)-1].ContextMap()["reason"] != x.reason {
			t.Errorf("logged %v", found)
		}
	}
}
