package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// A request that is no upgrade gets an answer that says what to do.
func TestHTTP(t *testing.T) {
	get := func(n *node, path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + n.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Body.Close() }()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	n := one(t, server.Options{})
	if code, body := get(n, wire.Path); code != http.StatusUpgradeRequired || !strings.Contains(body, "WebSocket") {
		t.Error(code, body)
	}
	if code, _ := get(n, "/"); code != http.StatusNotFound {
		t.Error(code)
	}
	n.dial(t).fence()
}

func TestUpgrade(t *testing.T) {
	n := one(t, server.Options{})
	for _, x := range []struct {
		path      string
		protocols []string
		status    int // 0: accepted
		protocol  string
	}{
		{wire.Path, nil, 0, ""},
		{wire.Path + "?x=y", []string{wire.Subprotocol}, 0, wire.Subprotocol},
		{wire.Path, []string{"mqtt", wire.Subprotocol}, 0, wire.Subprotocol},
		{wire.Path, []string{wire.Subprotocol, "mqtt"}, 0, wire.Subprotocol},
		{wire.Path, []string{"mqtt"}, 400, ""},
		{wire.Path, []string{"notifyd.v2"}, 400, ""},
		{wire.Path, []string{"Notifyd.v1"}, 400, ""},
		{wire.Path, []string{"bearer.SECRET"}, 400, ""},
		{wire.Path + "/", nil, 404, ""},
		{"/v1", nil, 404, ""},
		{"/", nil, 404, ""},
	} {
		t.Run(fmt.Sprint(x.path, x.protocols), func(t *testing.T) {
			status := 0
			d := ws.Dialer{Timeout: patience, Protocols: x.protocols, OnStatusError: func(s int, _ []byte, r io.Reader) {
				status = s
				if body, _ := io.ReadAll(io.LimitReader(r, 4096)); strings.Contains(string(body), "SECRET") {
					t.Errorf("echoed: %s", body)
				}
			}}
			conn, _, hs, err := d.Dial(t.Context(), "ws://"+n.addr+x.path)
			if err == nil {
				_ = conn.Close()
			}
			if status != x.status || hs.Protocol != x.protocol || (err == nil) != (x.status == 0) {
				t.Errorf("status %d, protocol %q, %v", status, hs.Protocol, err)
			}
		})
	}
}

// A connection that has carried other requests can be upgraded like a new one:
// proxies keep connections alive, and browsers use one for a fetch and a socket.
func TestUpgradeBehindOtherRequests(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.server.Loop.ConnectionsPerIP = 2
		n := start(t, with)
		token := n.all(t)
		ticket := func(c net.Conn) string {
			t.Helper()
			post := strings.Replace(request("POST", "/v1/tickets", "", "Authorization: Bearer "+token), "Connection: close\r\n", "", 1)
			if _, err := io.WriteString(c, post); err != nil {
				t.Fatal(err)
			}
			var answer struct{ Ticket string }
			if err := json.Unmarshal([]byte(readReply(t, c).wantStatus(201).body), &answer); err != nil {
				t.Fatal(err)
			}
			return answer.Ticket
		}
		var first bytes.Buffer
		_ = wsutil.WriteClientText(&first, []byte(`{"type":"ping","id":"early"}`))
		for _, row := range []struct {
			name, upgrade string
			status        int
		}{
			{"plainly", head(""), 101},
			{"with a ticket", "", 101},
			{"with a frame in the same segment", head("") + first.String(), 101},
			{"with chunks", head("", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", 400},
			{"with chunks and a length", head("", "Transfer-Encoding: chunked", "Content-Length: 3") + "3\r\nabc\r\n0\r\n\r\n", 400},
			{"with a length", head("", "Content-Length: 3") + "abc", 400},
			{"without a key", strings.Replace(head(""), "Sec-WebSocket-Key", "X-Key", 1), 400},
			{"with a wrong credential", head("", "Authorization: Bearer x"), 401},
			{"elsewhere", strings.Replace(head(""), wire.Path, wire.Path+"x", 1), 404},
		} {
			t.Run(row.name, func(t *testing.T) {
				c := n.dialFrom(t, "127.0.0.1")
				ticket(c)
				if made := ticket(c); row.upgrade == "" {
					row.upgrade = head("?ticket=" + made)
				}
				if _, err := io.WriteString(c, row.upgrade); err != nil {
					t.Fatal(err)
				}
				r := readReply(t, c).wantStatus(row.status)
				if row.status == 101 {
					p := r.opened()
					if strings.HasSuffix(row.name, "segment") {
						p.wantExactly(`{"type":"pong","id":"early"}`)
					}
					p.subscribe("a", token)
					p.publish("a", token, "1")
					p.want(`{"type":"event","topic":"a"`)
				}
				_ = c.Close()
				eventually(t, "the connection is counted out", func() bool { return n.metrics(t)["notifyd_connections"] == 0 })
			})
		}
		// Each gives its place back, though not at once.
		eventually(t, "there is room for two", func() bool {
			a, b := n.ask(t, head("")), n.ask(t, head(""))
			_ = a.conn.Close()
			_ = b.conn.Close()
			return a.status == 101 && b.status == 101
		})
	})
}

// A request target may come in its absolute form (RFC 9112 §3.2.2).
func TestAbsoluteForm(t *testing.T) {
	n := one(t, server.Options{})
	for target, status := range map[string]int{
		"ws://" + n.addr + wire.Path:          101,
		"http://" + n.addr + wire.Path + "?x": 101,
		"ws://" + n.addr + "/else":            404,
		"ws://" + n.addr:                      404,
		"ws://" + n.addr + "?" + wire.Path:    404,
	} {
		t.Run(target, func(t *testing.T) {
			_ = n.ask(t, strings.Replace(head(""), wire.Path, target, 1)).wantStatus(status).conn.Close()
		})
	}
}

// Heads that two parsers may read in two ways are refused.
func TestAmbiguousHeads(t *testing.T) {
	n := one(t, server.Options{})
	good := head("")
	for name, text := range map[string]string{
		"a bare LF":            strings.Replace(good, "\r\n", "\n", 2),
		"a bare LF at the end": good[:len(good)-2] + "\n",
		"HTTP/1.01":            strings.Replace(good, "HTTP/1.1", "HTTP/1.01", 1),
		"HTTP/01.1":            strings.Replace(good, "HTTP/1.1", "HTTP/01.1", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_ = n.ask(t, text).wantStatus(400).conn.Close()
		})
	}
}
