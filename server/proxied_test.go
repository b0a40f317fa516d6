package server_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// Behind a trusted proxy limits.connections_per_ip is for the clients, not for the proxy, and so are the addresses in the
// log.
func TestLimitsBehindAProxy(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		core, lines := observer.New(zap.DebugLevel)
		with.log = zap.New(core)
		with.server.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
		with.server.Loop.ConnectionsPerIP = 2
		n := start(t, with)
		const proxy, other = "127.0.0.2", "127.0.0.3"
		via := func(client string) reply { return n.askFrom(t, proxy, head("", "X-Forwarded-For: "+client)) }
		a := via("192.0.2.1").wantStatus(101)
		_ = via("192.0.2.1").wantStatus(101)
		if r := via("192.0.2.1").wantStatus(429); r.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		_ = via("192.0.2.2").wantStatus(101)
		_ = via("2001:db8::1").wantStatus(101)
		_ = via("2001:db8::2").wantStatus(101)
		_ = via("2001:db8::3").wantStatus(429) // the same /64
		for _, status := range []int{101, 101, 429} {
			_ = n.askFrom(t, other, head("", "X-Forwarded-For: 192.0.2.9")).wantStatus(status) // not a proxy
		}
		_ = a.conn.Close()
		testkit.Eventually(t, "the place of a closed connection is free", func() bool { return via("192.0.2.1").status == 101 })
		if lines.FilterMessage("connection closed").FilterField(zap.Stringer("addr", netip.MustParseAddr("192.0.2.1"))).Len() == 0 {
			t.Errorf("logged %v", lines.FilterMessage("connection closed").All())
		}
	})
}

// With a prefix every path has it, and none is there without.
func TestPathPrefix(t *testing.T) {
	n := start(t, setup{server: server.Options{PathPrefix: "/push/here"}})
	token := n.all(t)
	at := func(text string) string {
		return strings.NewReplacer(" /v1/", " /push/here/v1/").Replace(text)
	}
	r := n.ask(t, at(request("POST", postTickets, "", "Authorization: Bearer "+token))).wantStatus(201)
	var got struct{ Ticket string }
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatal(err)
	}
	p := n.ask(t, at(head("?ticket="+got.Ticket))).opened()
	p.subscribe("a", token)
	p.publish("a", token, "1")
	p.want(`"data":1`)
	_ = n.ask(t, at(request("GET", "/v1/ws", ""))).wantStatus(426)
	_ = n.ask(t, head("")).wantStatus(404)
	_ = n.ask(t, strings.Replace(head(""), "/v1/ws", "/push/v1/ws", 1)).wantStatus(404)
	_ = n.ask(t, request("POST", postTickets, "", "Authorization: Bearer "+token)).wantStatus(404)
}

// A token that is good in a message is good in a header and for a ticket, beside the cookies of a site.
func TestLongTokensInHeads(t *testing.T) {
	n := start(t, setup{})
	long := sign(t, n.key, authz.Claims{
		Subject: strings.Repeat("s", 1000), Expires: time.Now().Add(hour), Publish: many(360), Subscribe: []string{">"},
	})
	if len(long) < 7500 || len(long) > authz.DefaultMaxTokenBytes {
		t.Fatalf("a token of %d bytes", len(long))
	}
	p := n.dial(t)
	p.publish("t.1", long, "1")
	cookies := "Cookie: " + strings.Repeat("c", 8<<10)
	n.ask(t, head("", "Authorization: Bearer "+long, cookies)).opened().fence()
	n.ask(t, head("", "Sec-WebSocket-Protocol: notifyd.v1, bearer."+long, cookies)).opened().fence()
	_ = n.ask(t, request("POST", postTickets, "", "Authorization: Bearer "+long, cookies)).wantStatus(201)
	// What is too large even so can be told apart by a page.
	if r := n.ask(t, head("", "X: "+strings.Repeat("x", 40_000))).wantStatus(431); r.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("431 with %v", r.header)
	}
}

func many(n int) (topics []string) {
	for i := range n {
		topics = append(topics, fmt.Sprintf("t.%d.*.x", i+1000))
	}
	return append(topics, "t.*")
}

// The address of the socket counts for its own limit where no proxy is trusted, whatever the headers say.
func TestNoProxyTrusted(t *testing.T) {
	n := start(t, setup{server: server.Options{Loop: loop.Options{ConnectionsPerIP: 1}}})
	_ = n.ask(t, head("", "X-Forwarded-For: 192.0.2.1")).wantStatus(101)
	_ = n.ask(t, head("", "X-Forwarded-For: 192.0.2.2")).wantStatus(429)
}
