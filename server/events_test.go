package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// stream is a client of GET /v1/events.
type stream struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	id   string // of the last event that had one
}

func eventsPath(topics ...string) string { return "/v1/events?" + url.Values{"topic": topics}.Encode() }

func get(path string, headers ...string) string {
	return strings.Replace(request("GET", path, "", headers...), "Content-Length: 0\r\n", "", 1)
}

// streamFrom opens a stream, and waits until its topics are subscribed.
func (n *node) streamFrom(t testing.TB, from, text string, topics ...string) *stream {
	t.Helper()
	c := n.dialFrom(t, from)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	s := &stream{t: t, conn: c, r: bufio.NewReader(c)}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %v %s", resp.Status, resp.Header, body)
	}
	s.r = bufio.NewReader(resp.Body)
	if name, data := s.next(); name != "welcome" || !strings.HasPrefix(data, `{"type":"welcome","conn":"`) {
		t.Fatalf("%s %s", name, data)
	}
	for range topics {
		if name, data := s.next(); name != "ack" || !strings.HasPrefix(data, `{"type":"ack","id":"`) {
			t.Fatalf("%s %s", name, data)
		}
	}
	return s
}

func (n *node) stream(t testing.TB, token string, topics ...string) *stream {
	t.Helper()
	return n.streamFrom(t, "127.0.0.1", get(eventsPath(topics...), "Authorization: Bearer "+token), topics...)
}

// read reads an event; io.EOF is the end of the stream.
func (s *stream) read() (name, data string, err error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(patience))
	var lines []string
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			if line != "" || lines != nil || name != "" {
				s.t.Errorf("half an event: %q %q %q", name, lines, line)
			}
			return "", "", err
		}
		switch field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":"); {
		case line == "\n" && lines == nil: // behind a comment
		case line == "\n":
			return name, strings.Join(lines, "\n"), nil
		case field == "event":
			name = strings.TrimPrefix(value, " ")
		case field == "id":
			s.id = strings.TrimPrefix(value, " ")
		case field == "data":
			lines = append(lines, strings.TrimPrefix(value, " "))
		case field != "":
			s.t.Errorf("line %q", line)
		default:
			return "comment", value, nil
		}
	}
}

// next reads an event that is no comment.
func (s *stream) next() (name, data string) {
	s.t.Helper()
	for began := time.Now(); ; {
		name, data, err := s.read()
		if err == nil && time.Since(began) > patience {
			s.t.Fatal("nothing but comments")
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if name != "comment" {
			return name, data
		}
	}
}

func (s *stream) want(name, data string) {
	s.t.Helper()
	if n, d := s.next(); n != name || !strings.HasPrefix(d, data) {
		s.t.Fatalf("%q %s, want %q %s", n, d, name, data)
	}
}

// wantEnd expects the close event, and then the end.
func (s *stream) wantEnd(code wire.CloseCode) {
	s.t.Helper()
	s.want("close", fmt.Sprintf(`{"code":%d,"reason":`, code))
	if name, data, err := s.read(); !errors.Is(err, io.EOF) {
		s.t.Errorf("behind the end: %s %s %v", name, data, err)
	}
}

// A stream brings the envelopes that a WebSocket brings, in the same order.
func TestEvents(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		token := n.all(t)
		p, pub := n.dial(t), n.dial(t)
		s := n.streamFrom(t, "127.0.0.1", get(eventsPath("a.*", "b", "b"), "Authorization: Bearer "+token), "a.*", "b")
		other := n.stream(t, token, "b")
		p.subscribe("a.*", token)
		p.subscribe("b", token)
		const events = 200
		values := []string{"1", `{"n": 1}`, `"\n"`, `"é😀"`, `"` + strings.Repeat("x", 20000) + `"`}
		for i := range events {
			pub.publish([]string{"a.b", "b"}[i%2], token, values[i%len(values)])
		}
		inOrder := map[string][]string{}
		for range events {
			m := p.next()
			key := m[:strings.Index(m, `"data"`)]
			inOrder[key] = append(inOrder[key], m)
		}
		for range events {
			name, m := s.next()
			key := m[:strings.Index(m, `"data"`)]
			if len(inOrder[key]) == 0 || name != "" || m != inOrder[key][0] {
				t.Fatalf("%s %.100s, want %.100s", name, m, inOrder[key])
			}
			inOrder[key] = inOrder[key][1:]
		}
		for range events / 2 {
			other.want("", `{"type":"event","topic":"b","data":`)
		}
		// White space that JSON has between its tokens may hold line breaks.
		pub.publish("b", token, "[1,\r\n2,\r3,\n4]")
		s.want("", "{\"type\":\"event\",\"topic\":\"b\",\"data\":[1,\n2,\n3,\n4]}")
		other.want("", "{\"type\":\"event\",\"topic\":\"b\",\"data\":[1,\n2,\n3,\n4]}")

		if _, err := io.WriteString(s.conn, "GET / HTTP/1.1\r\n\r\nwhat a stream is sent has no meaning"); err != nil {
			t.Fatal(err)
		}
		pub.publish("b", token, "5")
		s.want("", `{"type":"event","topic":"b","data":5}`)
		if got := n.metrics(t)["notifyd_subscriptions"]; got != 5 {
			t.Errorf("%v subscriptions", got)
		}
		_ = s.conn.Close()
		_ = other.conn.Close()
		eventually(t, "they have gone", func() bool {
			m := n.metrics(t)
			return m["notifyd_subscriptions"] == 2 && m["notifyd_connections"] == 2
		})
		pub.publish("b", token, "6")
		p.want("2,")
		p.want(`"data":5`)
		p.want(`"data":6`)
	})
}

// What a client is refused is said before the stream begins.
func TestEventsRefused(t *testing.T) {
	n := start(t, setup{server: server.Options{Subscriptions: 2, Origins: []string{"https://app.example.com"}}})
	claims := authz.Claims{ID: "1", Expires: time.Now().Add(hour), Subscribe: []string{"a.>", "b"}}
	with := func(change func(*authz.Claims)) string {
		c := claims
		change(&c)
		return "Authorization: Bearer " + sign(t, n.key, c)
	}
	good := with(func(*authz.Claims) {})
	for _, x := range []struct {
		name, path string
		headers    []string
		status     int
		code       wire.Code
	}{
		{"no topic", "/v1/events", []string{good}, 400, wire.BadTopic},
		{"an empty topic", eventsPath(""), []string{good}, 400, wire.BadTopic},
		{"no pattern", eventsPath("a.*b"), []string{good}, 400, wire.BadTopic},
		{"too many", eventsPath("a.b", "a.c", "a.d"), []string{good}, 400, wire.TooManySubscriptions},
		{"history", eventsPath("b") + "&since=1", []string{good}, 400, wire.HistoryUnavailable},
		{"without the grant", eventsPath("a.b", "c"), []string{good}, 403, wire.Forbidden},
		{"more than the grant", eventsPath(">"), []string{good}, 403, wire.Forbidden},
		{"a grant to publish", eventsPath("b"), []string{with(func(c *authz.Claims) { c.Publish, c.Subscribe = []string{">"}, nil })}, 403, wire.Forbidden},
		{"no token", eventsPath("b"), nil, 401, wire.TokenMissing},
		{"a scheme of a proxy", eventsPath("b"), []string{"Authorization: Basic dTpw"}, 401, wire.TokenMissing},
		{"another scheme", eventsPath("b"), []string{"Authorization: x y"}, 401, wire.TokenInvalid},
		{"malformed", eventsPath("b"), []string{"Authorization: Bearer x"}, 401, wire.TokenMalformed},
		{"two tokens", eventsPath("b") + "&ticket=x", []string{good}, 401, wire.TokenMalformed},
		{"a ticket that is none", eventsPath("b") + "&ticket=x", nil, 401, wire.TokenInvalid},
		{"a strategy that is not enabled", eventsPath("b") + "&access_token=x", nil, 401, wire.TokenInvalid},
		{"a stranger's", eventsPath("b"), []string{"Authorization: Bearer " + sign(t, newKey(t, "EdDSA"), claims)}, 401, wire.TokenInvalid},
		{"expired", eventsPath("b"), []string{with(func(c *authz.Claims) { c.Expires = time.Now().Add(-time.Second) })}, 401, wire.TokenExpired},
		{"for one message", eventsPath("b"), []string{with(func(c *authz.Claims) { c.Once = true })}, 403, wire.Forbidden},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := n.ask(t, get(x.path, x.headers...))
			if x.code == wire.TooManySubscriptions || x.code == wire.HistoryUnavailable {
				r.wantStatus(x.status)
				return
			}
			r.wantProblem(x.status, x.code)
		})
	}
	n.ask(t, get(eventsPath("b"), good, "Origin: https://evil.example")).wantStatus(403)
	n.ask(t, request("POST", eventsPath("b"), "", good)).wantStatus(405)
	c := n.dialFrom(t, "127.0.0.1")
	if _, err := io.WriteString(c, strings.Replace(get(eventsPath("b"), good), "GET", "HEAD", 1)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("HEAD: %q %v", line, err)
	}
	r := n.streamFrom(t, "127.0.0.1", get(eventsPath("b"), good, "Origin: https://app.example.com"), "b")
	_ = r.conn.Close()
}

// A page's EventSource has no headers: a ticket in the query, or the token where the operator allows that.
func TestEventsByQuery(t *testing.T) {
	n := start(t, setup{server: server.Options{Strategies: server.DefaultStrategies | server.StrategyQuery, RequireConnection: true, AuthDeadline: time.Second}})
	token := n.all(t)
	ticket := n.ticket(t, token)
	a := n.streamFrom(t, "127.0.0.1", get(eventsPath("a")+"&ticket="+ticket), "a")
	n.ask(t, get(eventsPath("a")+"&ticket="+ticket)).wantProblem(401, wire.TokenInvalid)
	b := n.streamFrom(t, "127.0.0.1", get(eventsPath("a")+"&access_token="+token+"&utm=a;b&%"), "a")
	pub := n.ask(t, bearer(token)).opened()
	time.Sleep(2500 * time.Millisecond) // longer than a WebSocket without credential would have
	pub.publish("a", token, "1")
	a.want("", `{"type":"event","topic":"a","data":1}`)
	b.want("", `{"type":"event","topic":"a","data":1}`)
}

// A stream ends with its token, and nothing is delivered after that.
func TestEventsExpire(t *testing.T) {
	n := start(t, setup{alg: "HS256", fake: new(memBus), server: server.Options{ExpiryNotice: time.Minute}})
	stays, pub := n.stream(t, n.all(t), "a"), n.dial(t)
	exp, token := n.soon(t)
	s := n.stream(t, token, "a", "b")
	stop := pub.flood("a", n.all(t))
	events, expired := 0, 0
	for expired < 2 {
		switch name, data := s.next(); name {
		case "":
			if want := fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, events); data != want || expired > 0 {
				t.Fatalf("%s, want %s", data, want)
			}
			events++
		case "expired":
			expired++
		case "expiring":
		default:
			t.Fatal(name, data)
		}
	}
	if time.Now().Before(exp) {
		t.Errorf("ended %v early", time.Until(exp))
	}
	s.wantEnd(wire.CloseUnauthenticated)
	if sent := stop(); sent < events || events == 0 {
		t.Errorf("%d events of %d", events, sent)
	}
	stays.want("", `{"type":"event","topic":"a","data":0}`)
}

// So it is when the token is revoked, or its key withdrawn.
func TestEventsRevoked(t *testing.T) {
	n := start(t, setup{})
	falls := sign(t, n.key, authz.Claims{ID: "j", Expires: time.Now().Add(hour), Subscribe: []string{">"}})
	s, stays, pub := n.stream(t, falls, "a", "b"), n.stream(t, n.all(t), "a"), n.dial(t)
	n.ask(t, request("POST", postRevocations, `{"jti":"j"}`, n.admin(t))).wantStatus(204)
	pub.publish("a", n.all(t), "1")
	s.want("error", `{"type":"error","topic":`)
	s.want("error", `{"type":"error","topic":`)
	s.wantEnd(wire.CloseUnauthenticated)
	stays.want("", `{"type":"event","topic":"a","data":1}`)
	n.ask(t, get(eventsPath("a"), "Authorization: Bearer "+falls)).wantProblem(401, wire.TokenRevoked)

	if err := n.auth.SetKeys([]authz.Key{newKey(t, "EdDSA")}); err != nil {
		t.Fatal(err)
	}
	n.Recheck()
	stays.want("error", `{"type":"error","topic":"a","code":"token_invalid"`)
	stays.wantEnd(wire.CloseUnauthenticated)
}

// A reader that is too slow is told so behind a whole event.
func TestEventsToASlowReader(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.server.Loop.PendingBytes = 100 << 10
		with.fake = new(memBus)
		n := start(t, with)
		token := n.all(t)
		s, pub := n.stream(t, token, "a"), n.dial(t)
		value := `"` + strings.Repeat("x", 30000) + `"`
		for n.metrics(t)["notifyd_slow_closes_total"] == 0 {
			pub.publish("a", token, value)
		}
		for {
			name, data := s.next()
			if name == "" && strings.HasSuffix(data, `x"}`) && len(data) > 30000 {
				continue
			}
			if name != "close" || data != fmt.Sprintf(`{"code":%d,"reason":"slow consumer"}`, wire.CloseSlowConsumer) {
				t.Fatalf("%s %.100s", name, data)
			}
			break
		}
		if _, _, err := s.read(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

// While nothing happens a comment comes, for what is between client and server; a node that ends says so.
func TestEventsPingAndDrain(t *testing.T) {
	n := start(t, setup{server: server.Options{Loop: loop.Options{PingInterval: time.Second, IdleTimeout: 2 * time.Second}}})
	s := n.stream(t, n.all(t), "a")
	for range 4 { // longer than a WebSocket may be silent
		if name, data, err := s.read(); name != "comment" || data != "" || err != nil {
			t.Fatal(name, data, err)
		}
	}
	n.stop()
	s.wantEnd(1012)
}

// An event that many of a stream's patterns match comes by each of them.
func TestEventsOfManyPatterns(t *testing.T) {
	n := start(t, setup{})
	token := n.all(t)
	var patterns []string
	for i := range 24 {
		pattern := []string{"a", "b", "c", "d", "e"}
		for bit := range 5 {
			if i>>bit&1 == 1 {
				pattern[bit] = "*"
			}
		}
		patterns = append(patterns, strings.Join(pattern, "."))
	}
	s, p := n.stream(t, token, patterns...), n.dial(t)
	p.subscribe("a.>", token)
	p.publish("a.b.c.d.e", token, "1")
	p.want(`"data":1}`)
	seen := map[string]bool{}
	for range patterns {
		name, data := s.next()
		if name != "" || seen[data] {
			t.Fatal(name, data)
		}
		seen[data] = true
	}
}

// Streams count with the connections of their clients, behind proxies too.
func TestEventsPerAddress(t *testing.T) {
	n := start(t, setup{server: server.Options{
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Loop: loop.Options{ConnectionsPerIP: 2},
	}})
	good := "Authorization: Bearer " + n.all(t)
	via := func(client string) string { return get(eventsPath("a"), good, "X-Forwarded-For: "+client) }
	for range 2 {
		n.streamFrom(t, "127.0.0.2", via("192.0.2.1"), "a")
	}
	n.askFrom(t, "127.0.0.2", via("192.0.2.1")).wantProblem(429, wire.RateLimited)
	s := n.streamFrom(t, "127.0.0.2", via("192.0.2.2"), "a")
	_ = s.conn.Close()
	if got := n.metrics(t)["notifyd_connections"]; got > 4 {
		t.Errorf("%v connections", got)
	}
}

// A subscribe that the bus cannot make good on ends a stream that has no other.
func TestEventsWithoutBus(t *testing.T) {
	b := new(memBus)
	n := start(t, setup{fake: b})
	b.holds(true)
	s := n.streamFrom(t, "127.0.0.1", get(eventsPath("a", "b"), "Authorization: Bearer "+n.all(t)))
	eventually(t, "the bus is asked", func() bool { return b.waiting() == 2 })
	b.release(wire.Unavailable)
	for range 2 {
		s.want("error", `{"type":"error","id":`)
	}
	s.wantEnd(wire.CloseTryLater)
	if got := n.metrics(t)["notifyd_subscriptions"]; got != 0 {
		t.Error(strconv.FormatFloat(got, 'f', -1, 64), "subscriptions")
	}
}
