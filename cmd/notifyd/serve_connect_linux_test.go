package main

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"

	"github.com/notifyd/notifyd/internal/testkit"
)

// mint makes a token that lasts an hour.
func mint(t *testing.T, key authz.Key, claims authz.Claims) string {
	t.Helper()
	if claims.Expires.IsZero() {
		claims.Expires = time.Now().Add(time.Hour)
	}
	token, err := authz.Sign(key, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func as(token string) map[string]string { return map[string]string{"NOTIFYD_TOKEN": token} }

// call makes an HTTP call on the clients' port.
func (r *running) call(t *testing.T, method, path string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	return testkit.Call(t, method, "http"+strings.TrimSuffix(strings.TrimPrefix(r.url, "ws"), wire.Path)+path, header, body)
}

// dial makes a handshake; conn is nil when the server refused it.
func (r *running) dial(t *testing.T, query string, header map[string]string) (conn *websocket.Conn, status int) {
	t.Helper()
	h := http.Header{}
	for name, value := range header {
		h.Set(name, value)
	}
	conn, resp, err := websocket.Dial(t.Context(), r.url+query, &websocket.DialOptions{HTTPHeader: h})
	if resp == nil {
		t.Fatal(err)
	}
	if err != nil {
		return nil, resp.StatusCode
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, resp.StatusCode
}

// natsPort is a free port for the NATS of a node.
func natsPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Where one strategy is enabled, that one works and no other.
func TestStrategies(t *testing.T) {
	t.Parallel()
	file, key := keyFile(t)
	all := []string{"message", "first-message", "header", "subprotocol", "ticket"}
	for _, enabled := range all {
		t.Run(enabled, func(t *testing.T) {
			args := []string{"--auth.keys", file, "--auth.strategies", enabled}
			if enabled != "message" {
				args = append(args, "--auth.require=connection")
			}
			r := serveHere(t, args...)
			token := mint(t, key, authz.Claims{Subject: "ann", Publish: []string{"a"}, Subscribe: []string{"a"}})
			for _, tried := range all {
				if tried == enabled {
					continue
				}
				if got := invoke(t, as(token), "", "sub", "--url", r.url, "--strategy", tried, "a"); got.code != exitFailed {
					t.Errorf("--strategy %s: %+v", tried, got)
				}
			}
			sub := background(t.Context(), as(token), "sub", "--url", r.url, "--strategy", enabled, "--count", "1", "a")
			r.subscribed(t, 1)
			if p := invoke(t, as(token), "", "pub", "--url", r.url, "--strategy", enabled, "a", "1"); p != (result{}) {
				t.Errorf("pub: %+v", p)
			}
			if got := <-sub; got != (result{stdout: `{"type":"event","topic":"a","data":1}` + "\n"}) {
				t.Errorf("sub: %+v", got)
			}
			if conn, status := r.dial(t, "?access_token="+token, nil); conn != nil || status != http.StatusUnauthorized {
				t.Errorf("query: %d", status)
			}
		})
	}
	t.Run("query", func(t *testing.T) {
		r := serveHere(t, "--auth.keys", file, "--auth.strategies", "query", "--auth.require=connection")
		token := mint(t, key, authz.Claims{Subject: "ann", Subscribe: []string{"a"}})
		if _, status := r.dial(t, "?access_token="+token, nil); status != http.StatusSwitchingProtocols {
			t.Errorf("status %d", status)
		}
		for part := range strings.SplitSeq(token, ".") {
			if strings.Contains(r.log.String(), part) {
				t.Error("the log holds a part of the token")
			}
		}
	})
}

// A client that brings no credential in time is sent away.
func TestAuthDeadline(t *testing.T) {
	t.Parallel()
	file, _ := keyFile(t)
	r := serveHere(t, "--auth.keys", file, "--auth.require=connection", "--auth.deadline=1s")
	conn, status := r.dial(t, "", nil)
	if conn == nil {
		t.Fatalf("status %d", status)
	}
	_, _, err := conn.Read(t.Context()) // welcome
	if err == nil {
		_, _, err = conn.Read(t.Context())
	}
	if code := websocket.CloseStatus(err); code != websocket.StatusCode(wire.CloseAuthTimeout) {
		t.Errorf("%v", err)
	}
}

// A ticket of one node is good on another, once, for the address that asked, behind the operator's proxy too.
func TestTickets(t *testing.T) {
	file, key := keyFile(t)
	nats := natsPort(t)
	common := []string{"--auth.keys", file, "--auth.require=connection", "--auth.ticket-ttl=17s", "--trusted-proxies=127.0.0.1"}
	one := serveHere(t, append(common, "--nats.listen", "u:pw@"+nats)...)
	two := serveHere(t, append(common, "--nats.url", "nats://u:pw@"+nats)...)
	bearer := map[string]string{"Authorization": "Bearer " + mint(t, key, authz.Claims{Subject: "ann", Subscribe: []string{"a"}})}
	ticket := func(header map[string]string) string {
		t.Helper()
		maps.Copy(header, bearer)
		resp, body := one.call(t, http.MethodPost, "/v1/tickets", header, "")
		var answer struct {
			Ticket    string
			ExpiresIn int `json:"expires_in"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != http.StatusCreated || answer.ExpiresIn != 17 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		return answer.Ticket
	}
	query := "?ticket=" + ticket(map[string]string{})
	if conn, status := two.dial(t, query, nil); conn == nil {
		t.Fatalf("status %d", status)
	}
	for _, r := range []*running{one, two} {
		if _, status := r.dial(t, query, nil); status != http.StatusUnauthorized {
			t.Errorf("used ticket: status %d", status)
		}
	}
	proxied := map[string]string{"X-Forwarded-For": "192.0.2.7"}
	if _, status := two.dial(t, "?ticket="+ticket(maps.Clone(proxied)), map[string]string{"X-Forwarded-For": "192.0.2.8"}); status != http.StatusUnauthorized {
		t.Errorf("another address: status %d", status)
	}
	if conn, status := two.dial(t, "?ticket="+ticket(maps.Clone(proxied)), proxied); conn == nil {
		t.Errorf("the same address: status %d", status)
	}
}

// A token for one message publishes that message, once in the cluster.
func TestOneMessage(t *testing.T) {
	t.Parallel()
	_, key := keyFile(t)
	private, err := key.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, string(private))
	nats := natsPort(t)
	one := serveHere(t, "--auth.keys", file, "--nats.listen", "u:pw@"+nats)
	two := serveHere(t, "--auth.keys", file, "--nats.url", "nats://u:pw@"+nats)
	made := invoke(t, nil, "", "token", "--key", file, "--once", "--digest-of", "a.b", `{"x": 1}`)
	token := as(strings.TrimSpace(made.stdout))
	for _, c := range []struct {
		on                *running
		topic, data, want string
	}{
		{one, "a.b", `{"x":1}`, "digest_mismatch"},
		{one, "a.c", `{"x": 1}`, "forbidden"},
		{two, "a.b", `{"x": 1}`, ""},
		{two, "a.b", `{"x": 1}`, "token_replayed"},
		{one, "a.b", `{"x": 1}`, "token_replayed"},
	} {
		got := invoke(t, token, "", "pub", "--url", c.on.url, c.topic, c.data)
		if (got.code == exitOK) != (c.want == "") || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s %s: %+v, want %q", c.topic, c.data, got, c.want)
		}
	}
}

// Pages of other origins get neither a socket nor an answer.
func TestOrigins(t *testing.T) {
	file, key := keyFile(t)
	r := serveHere(t, "--auth.keys", file, "--origins=https://app.example.com", "--origins=*.example.org")
	bearer := "Bearer " + mint(t, key, authz.Claims{Subject: "ann", Subscribe: []string{"a"}})
	for origin, allowed := range map[string]bool{
		"https://app.example.com": true, "http://a.example.org": true,
		"http://app.example.com": false, "https://example.org": false, "https://app.example.com.evil.example": false, "null": false,
	} {
		if conn, status := r.dial(t, "", map[string]string{"Origin": origin}); (conn != nil) != allowed {
			t.Errorf("%s: handshake %d", origin, status)
		}
		resp, _ := r.call(t, http.MethodPost, "/v1/tickets", map[string]string{"Origin": origin, "Authorization": bearer}, "")
		if (resp.StatusCode == http.StatusCreated) != allowed || (resp.Header.Get("Access-Control-Allow-Origin") == origin) != allowed {
			t.Errorf("%s: ticket %d %v", origin, resp.StatusCode, resp.Header)
		}
		resp, _ = r.call(t, http.MethodOptions, "/v1/tickets", map[string]string{"Origin": origin, "Access-Control-Request-Method": "POST"}, "")
		if (resp.StatusCode == http.StatusNoContent) != allowed {
			t.Errorf("%s: preflight %d", origin, resp.StatusCode)
		}
	}
}

// With proxy-protocol a node believes the proxy's header, and refuses who sends none.
func TestServeProxyProtocol(t *testing.T) {
	r := serveHere(t, "--dev", "--proxy-protocol")
	addr := strings.TrimSuffix(strings.TrimPrefix(r.url, "ws://"), "/v1/ws")
	ask := func(header string) string {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, header+"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		status, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(status)
	}
	if got := ask("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\x7f\x00\x00\x01\x30\x39\x1f\x90"); got != "HTTP/1.1 101 Switching Protocols" {
		t.Error(got)
	}
	eventually(t, "the log names the client", func() bool { return strings.Contains(r.log.String(), `"addr":"192.0.2.1"`) })
	if got := ask(""); got != "HTTP/1.1 400 Bad Request" {
		t.Error(got)
	}
}
