package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// httpClient keeps a connection for its requests.
type httpClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (n *node) keepAlive(t testing.TB, from string) *httpClient {
	t.Helper()
	c := n.dialFrom(t, from)
	_ = c.SetDeadline(time.Now().Add(patience))
	return &httpClient{t, c, bufio.NewReader(c)}
}

func (c *httpClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// next reads an answer.
func (c *httpClient) next() (reply, bool) {
	c.t.Helper()
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply{peer: &peer{t: c.t}, status: r.StatusCode, header: r.Header, body: string(body)}, r.Close
}

func (c *httpClient) wantBody(body string) {
	c.t.Helper()
	if r, _ := c.next(); r.status != http.StatusOK || r.body != body {
		c.t.Fatalf("%d %s, want %s", r.status, r.body, body)
	}
}

func (c *httpClient) wantProblem(status int, code wire.Code) {
	c.t.Helper()
	r, _ := c.next()
	r.wantProblem(status, code)
}

// onLoops requires that net/http has no request.
func onLoops(t *testing.T, with setup) setup {
	with.before = func(n *node) {
		n.OnNetHTTP(func(r *http.Request) { t.Errorf("net/http has %s %s", r.Method, r.URL) })
	}
	return with
}

// A request whose event a stream keeps is answered when the stream has answered, and later requests after it.
func TestPostToStream(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n, s := durable(t, onLoops(t, with))
		c, auth := n.keepAlive(t, "127.0.0.1"), "Authorization: Bearer "+n.token(t, hour, []string{">"}, nil)
		s.hold(true)
		c.send(post(event("d.a", "1"), asJSON, auth) + post(event("other", "1"), asJSON, auth) +
			post(`{"id":"3","topic":"d.a","data":2,"ttl":60}`, asJSON, auth, "Idempotency-Key: k"))
		eventually(t, "the first has come to its stream", func() bool { held := 0; s.with(func() { held = len(s.held) }); return held == 1 })
		_ = c.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if b, err := c.r.Peek(1); err == nil {
			t.Errorf("answered before its stream has: %q", b)
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		s.hold(false)
		c.wantBody(`{"ok":true,"seq":1}` + "\n")
		c.wantBody("{}\n")
		c.wantBody(`{"ok":true,"id":"3","seq":2}` + "\n")
		c.send(post(`{"topic":"d.a","data":2,"msg_id":"k"}`, asJSON, auth))
		c.wantBody(`{"ok":true,"seq":2,"duplicate":true}` + "\n")
		s.with(func() {
			if x := s.stored[1]; string(x.MsgID) != "k" || x.TTL != 60 || x.From != "tester" || string(x.Data) != "2" {
				t.Errorf("stored %+v", x)
			}
			s.answer = wire.Unavailable
		})
		c.send(post(event("d.a", "3"), asJSON, auth))
		c.wantProblem(503, wire.Unavailable)
		s.with(func() { s.answer, s.refuse = wire.OK, wire.TooLarge })
		c.send(post(event("d.a", "4"), asJSON, auth))
		c.wantProblem(413, wire.TooLarge)
		m := n.metrics(t)
		if m[`notifyd_publishes_total{result="ok"}`] != 4 || m[`notifyd_publishes_total{result="unavailable"}`] != 1 || m[`notifyd_publishes_total{result="too_large"}`] != 1 {
			t.Errorf("counted %v", m)
		}
		// A client that goes before its stream has answered harms nobody.
		s.with(func() { s.refuse = wire.OK })
		s.hold(true)
		gone := n.keepAlive(t, "127.0.0.1")
		gone.send(post(event("d.a", "5"), asJSON, auth) + post(event("d.a", "6"), asJSON, auth))
		eventually(t, "it has come to its stream", func() bool { held := 0; s.with(func() { held = len(s.held) }); return held == 1 })
		_ = gone.conn.(*net.TCPConn).SetLinger(0) // RST
		_ = gone.conn.Close()
		s.hold(false)
		c.send(post(event("d.a", "7"), asJSON, auth))
		if r, _ := c.next(); r.status != 200 {
			t.Error(r.body)
		}
	})
}

// A request that waits for its token's signature holds back those behind it, and nobody else; the token is looked at
// again when it goes on.
func TestPostWaitsForSignature(t *testing.T) {
	entered, open := make(chan bool, 100), make(chan bool)
	n := start(t, onLoops(t, setup{gate: func(nth int) {
		if nth == 2 {
			entered <- true
			<-open
		}
	}}))
	known := "Authorization: Bearer " + n.all(t)
	other := n.keepAlive(t, "127.0.0.1")
	other.send(post(event("a", "0"), asJSON, known))
	other.wantBody("{}\n")
	c := n.keepAlive(t, "127.0.0.1")
	revoked := sign(t, n.key, authz.Claims{ID: "revoked", Subject: "ann", Expires: time.Now().Add(hour), Publish: []string{">"}})
	c.send(post(event("a", "1"), asJSON, "Authorization: Bearer "+revoked) + post(event("a", "2"), asJSON, known))
	<-entered
	other.send(post(event("a", "3"), asJSON, known))
	other.wantBody("{}\n")
	if err := n.revoke(t.Context(), server.Revocation{ID: "revoked"}); err != nil {
		t.Fatal(err)
	}
	close(open)
	c.wantProblem(401, wire.TokenRevoked)
	c.wantBody("{}\n")
}

// A one-use token publishes once, on whatever connection.
func TestPostOnce(t *testing.T) {
	n := start(t, onLoops(t, setup{}))
	once := n.bound(t, "a.b", "1", true)
	body := fmt.Sprintf(`{"topic":"a.b","data":1,"token":%q}`, once)
	c := n.keepAlive(t, "127.0.0.1")
	c.send(strings.Repeat(post(body, asJSON), 3))
	c.wantBody("{}\n")
	c.wantProblem(409, wire.TokenReplayed)
	c.wantProblem(409, wire.TokenReplayed)
}

// A request waits for room, as long as a client may be asked to, and is refused then.
func TestPostWaitsForRoom(t *testing.T) {
	bus := new(memBus)
	n := start(t, onLoops(t, setup{fake: bus}))
	sub := n.dial(t)
	sub.subscribe(">", n.all(t))
	auth := "Authorization: Bearer " + n.all(t)
	a, b := n.keepAlive(t, "127.0.0.1"), n.keepAlive(t, "127.0.0.1")
	bus.fill(true)
	a.send(post(event("a", "1"), asJSON, auth) + post(event("a", "2"), asJSON, auth))
	b.send(post(event("a", "3"), asJSON, auth))
	eventually(t, "both wait", func() bool { return n.WaitForRoom() == 2 })
	n.NoRoom() // as when their time is over
	for _, c := range []*httpClient{a, b} {
		r, _ := c.next()
		r.wantProblem(503, wire.Unavailable)
		if !strings.Contains(r.body, "does not keep up") {
			t.Error(r.body)
		}
	}
	eventually(t, "the next one waits", func() bool { return n.WaitForRoom() == 1 })
	bus.fill(false)
	a.wantBody("{}\n")
	sub.want(`"data":2}`)
	sub.fence()
	n.NoRoom() // nobody is refused late
	b.send(post(event("a", "4"), asJSON, auth))
	b.wantBody("{}\n")
}

// Requests that do nothing are answered so many times a second for each address; then the answer waits, and the
// connection ends behind it.
func TestFruitlessPosts(t *testing.T) {
	n := start(t, onLoops(t, setup{fake: new(memBus)}))
	c := n.keepAlive(t, "127.0.0.2")
	ended := 0
	for range 100_000 { // a slow machine sends a hundred a second
		c.send(post("x", asJSON))
		r, last := c.next()
		r.wantProblem(400, wire.BadEnvelope)
		if last {
			ended++
			break
		}
	}
	if _, err := c.r.ReadByte(); ended != 1 || err == nil {
		t.Errorf("ended %d times, %v", ended, err)
	}
	other := n.keepAlive(t, "127.0.0.3")
	other.send(post("x", asJSON))
	if _, last := other.next(); last {
		t.Error("another address is held back")
	}
}

// Bad signatures cost their sender time on the loops as elsewhere, on however many connections.
func TestForgedPostsArePenalised(t *testing.T) {
	n := start(t, onLoops(t, setup{server: server.Options{Penalty: hour, Loop: loop.Options{MessageTimeout: 2 * patience, CloseTimeout: time.Second}}}))
	forged := func() string {
		token := n.all(t)
		at := strings.LastIndexByte(token, '.') + 10
		token = token[:at] + map[bool]string{true: "B", false: "A"}[token[at] == 'A'] + token[at+1:]
		return post(event("a", "1"), asJSON, "Authorization: Bearer "+token)
	}
	for range 4 { // 0, 10, 20, 40 ms
		c := n.keepAlive(t, "127.0.0.2")
		c.send(forged())
		c.wantProblem(401, wire.TokenInvalid)
	}
	// Many more at once: the last ones wait for 20 s and more, and nobody else does.
	var answered atomic.Int64
	for range 12 {
		c := n.keepAlive(t, "127.0.0.2")
		c.send(forged() + forged())
		go func() {
			for {
				if _, err := c.r.ReadString('}'); err != nil {
					return
				}
				answered.Add(1)
			}
		}()
	}
	eventually(t, "all have been checked", func() bool {
		m := n.metrics(t)
		return m["notifyd_verify_queue"] == 0 && m[`notifyd_publishes_total{result="token_invalid"}`] >= 16
	})
	good := n.keepAlive(t, "127.0.0.2")
	good.send(post(event("a", "1"), asJSON, "Authorization: Bearer "+n.all(t)))
	good.wantBody("{}\n")
	if got := answered.Load(); got > 10 {
		t.Errorf("%d have been answered", got)
	}
}

// Behind a trusted proxy each request is of the client that the proxy names, on one connection.
func TestPostsBehindAProxy(t *testing.T) {
	n := start(t, onLoops(t, setup{server: server.Options{
		Rate: 1, Burst: 1, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Loop: loop.Options{ConnectionsPerIP: 1},
	}}))
	auth := "Authorization: Bearer " + n.all(t)
	ask := func(c *httpClient, header string) int {
		c.send(post(event("a", "1"), asJSON, auth, header))
		r, _ := c.next()
		return r.status
	}
	limited := func(c *httpClient, header string) bool { // a slow machine may take a second for two
		for range 100 {
			if ask(c, header) == http.StatusTooManyRequests {
				return true
			}
		}
		return false
	}
	a, b := n.keepAlive(t, "127.0.0.2"), n.keepAlive(t, "127.0.0.2") // the proxy's own do not count
	if ask(a, "X-Forwarded-For: 192.0.2.1") != 200 || !limited(b, "X-Forwarded-For: 192.0.2.1") || ask(b, "Forwarded: for=192.0.2.2") != 200 {
		t.Error("the client behind a proxy is not told from another")
	}
	stranger := n.keepAlive(t, "127.0.0.3")
	if ask(stranger, "X-Forwarded-For: 192.0.2.3") != 200 || !limited(stranger, "X-Forwarded-For: 192.0.2.4") {
		t.Error("what is no proxy is believed")
	}
}

// Clients that go in the middle of a request, the first of their connection or a later one, harm nobody.
func TestHalfPostsGo(t *testing.T) {
	n := start(t, onLoops(t, setup{fake: new(memBus)}))
	whole := post(event("a", "1"), asJSON, "Authorization: Bearer "+n.all(t))
	for _, first := range []string{"", whole} {
		for _, cut := range []int{10, len(whole) - 40, len(whole) - 1} {
			const in = `notifyd_bytes_total{direction="in"}`
			before := n.metrics(t)[in]
			c := n.keepAlive(t, "127.0.0.1")
			c.send(first + whole[:cut])
			if first != "" {
				c.wantBody("{}\n")
			}
			eventually(t, "it has come", func() bool { return n.metrics(t)[in] == before+float64(len(first)+cut) })
			_ = c.conn.(*net.TCPConn).SetLinger(0) // RST
			_ = c.conn.Close()
		}
	}
	c := n.keepAlive(t, "127.0.0.1")
	c.send(whole)
	c.wantBody("{}\n")
}

// A server that ends answers what is in hand, and waits for no client that is merely connected.
func TestShutdownWithPosts(t *testing.T) {
	s := newMemStream("orders", "d.>")
	n := start(t, onLoops(t, setup{fake: &memBus{kept: memStreams{s}}, server: server.Options{Loop: loop.Options{Loops: 1}}}))
	auth := "Authorization: Bearer " + n.all(t)
	half, quiet, busy := n.keepAlive(t, "127.0.0.1"), n.keepAlive(t, "127.0.0.1"), n.keepAlive(t, "127.0.0.1")
	half.send(strings.TrimSuffix(post(event("a", "1"), asJSON, auth), "}"))
	quiet.send(post(event("a", "1"), asJSON, auth))
	quiet.wantBody("{}\n")
	s.hold(true)
	busy.send(post(event("d.a", "1"), asJSON, auth))
	eventually(t, "it has come to its stream", func() bool { held := 0; s.with(func() { held = len(s.held) }); return held == 1 })
	stopped := make(chan bool)
	go func() { n.stop(); close(stopped) }()
	if _, err := quiet.r.ReadByte(); err == nil {
		t.Error("a byte")
	}
	_ = quiet.conn.Close()
	if r, last := half.next(); r.status != 503 || !last {
		t.Errorf("half a request: %d, last %v", r.status, last)
	}
	_ = half.conn.Close()
	s.hold(false)
	if r, last := busy.next(); r.status != 200 || r.body != `{"ok":true,"seq":1}`+"\n" || !last {
		t.Errorf("%d %s, last %v", r.status, r.body, last)
	}
	if _, err := busy.r.ReadByte(); err == nil {
		t.Error("a byte")
	}
	_ = busy.conn.Close()
	<-stopped
}
