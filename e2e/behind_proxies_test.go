//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const everyStrategy = "--auth.strategies=message,first-message,header,subprotocol,ticket,query"

// Each way to present a credential passes each proxy, with a token as long as may be, on a connection that has carried
// other requests and on one that has not; so do refusals, with what they say. A browser that speaks HTTP/2 with the
// proxy gets its ticket and its socket, and runs the README's example.
func TestCredentialsBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	home := website(t)
	long := keys.tokenFor(t, fmt.Sprintf(`{"sub":"ann","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]},"filler":%q}`, strings.Repeat("x", 5820)))
	if len(long) < 8000 || len(long) > 8192 {
		t.Fatalf("a token of %d bytes", len(long))
	}
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, nil, everyStrategy, "--origins="+home)
		const client = "127.0.0.7"
		opened := func(v *visitor, answer reply) {
			t.Helper()
			if answer.StatusCode != http.StatusSwitchingProtocols {
				t.Errorf("%s %q", answer.Status, answer.body)
				return
			}
			v.send(`{"type":"subscribe","id":"1","topic":"rooms.1"}`)
			v.want(`{"type":"ack","id":"1"`)
		}
		for name, present := range map[string]struct{ query, header string }{
			"header":      {"", "Authorization: Bearer " + long},
			"subprotocol": {"", "Sec-WebSocket-Protocol: notifyd.v1, bearer." + long},
			"query":       {"?access_token=" + long, "X-Nothing: 0"},
		} {
			t.Run(name, func(t *testing.T) {
				v := x.visit(t, client)
				opened(v, v.upgrade("/v1/ws"+present.query, present.header))
			})
		}
		for name, frame := range map[string]string{
			"first-message": `{"type":"auth","id":"a","token":"` + long + `"}`,
			"message":       `{"type":"subscribe","id":"a","topic":"rooms.2","token":"` + long + `"}`,
		} {
			t.Run(name, func(t *testing.T) {
				v := x.visit(t, client)
				if answer := v.upgrade("/v1/ws"); answer.StatusCode != http.StatusSwitchingProtocols {
					t.Fatal(answer.Status, answer.body)
				}
				v.send(frame)
				v.want(`{"type":"ack","id":"a"`)
			})
		}
		t.Run("ticket on the same connection", func(t *testing.T) {
			for _, present := range []func(v *visitor, ticket string) reply{
				func(v *visitor, ticket string) reply { return v.upgrade("/v1/ws?ticket=" + ticket) },
				func(v *visitor, ticket string) reply {
					return v.upgrade("/v1/ws", "Sec-WebSocket-Protocol: notifyd.v1, ticket."+ticket)
				},
			} {
				v := x.visit(t, client)
				ticket, answer := v.ticket("/v1/tickets", long)
				if ticket == "" {
					t.Fatal(answer.Status, answer.body)
				}
				opened(v, present(v, ticket))
			}
		})
		t.Run("refusals", func(t *testing.T) {
			for _, row := range []struct {
				status       int
				header, text string
				answer       reply
			}{
				{401, `Bearer error="invalid_token"`, "the credential is not valid", x.visit(t, client).upgrade("/v1/ws", "Authorization: Bearer "+long[:len(long)-8])},
				{403, "", "this origin is not allowed", x.visit(t, client).upgrade("/v1/ws", "Origin: https://elsewhere.example")},
				{400, "", "notifyd.v1", x.visit(t, client).upgrade("/v1/ws", "Sec-WebSocket-Protocol: mqtt")},
				{426, "", "upgrade", x.visit(t, client).ask("GET", "/v1/ws")},
			} {
				if row.answer.StatusCode != row.status || !strings.Contains(row.answer.body, row.text) || row.answer.Header.Get("WWW-Authenticate") != row.header {
					t.Errorf("want %d: %v %q %q", row.status, row.answer.Status, row.answer.Header, row.answer.body)
				}
			}
		})
		t.Run("HTTP version", func(t *testing.T) {
			config := speaking("h2")
			config.NextProtos = append(config.NextProtos, "http/1.1")
			tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
			defer tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get("https://" + x.address + "/v1/openapi.json")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK || (resp.ProtoMajor == 2) == p.tcp {
				t.Errorf("%s, %s", resp.Status, resp.Proto)
			}
		})
		t.Run("browser", func(t *testing.T) { browserBehind(t, x, keys, home) })
	})
}

func browserBehind(t *testing.T, x *proxied, keys issuer, home string) {
	b := browser{startScript(t, "page.mjs", chromium(t))}
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	for range 3 {
		o := b.fetch(t, home, map[string]any{
			"url": "https://" + x.address + "/v1/tickets", "method": "POST", "headers": map[string]string{"Authorization": "Bearer " + token},
		})
		var answer struct{ Ticket string }
		if err := json.Unmarshal([]byte(o.Body), &answer); err != nil || o.Status != http.StatusCreated {
			t.Fatalf("%v: %+v", err, o)
		}
		if o := b.socket(t, home, "wss://"+x.address+"/v1/ws?ticket="+answer.Ticket, "notifyd.v1"); !o.Open || o.Protocol != "notifyd.v1" {
			t.Errorf("%+v", o)
		}
	}
	for _, example := range readDocument(t, "README.md").blocks {
		if example.lang != "js" || !strings.Contains(example.text, "new WebSocket(") {
			continue
		}
		source := strings.ReplaceAll(example.text, "ws://127.0.0.1:8080", "wss://"+x.address)
		if o := b.do(t, home, "console", map[string]any{"source": source, "token": token}); o.Body != `rooms.42 {"text":"hello"}` {
			t.Errorf("%+v from\n%s", o, source)
		}
	}
}

// What counts by address counts the clients of a proxy, each by itself, whatever they write into the headers
// themselves; the log names them.
func TestClientsBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.subscriber(t, time.Hour, "rooms.>")
	forged := []string{"X-Forwarded-For: 192.0.2.66", "Forwarded: for=192.0.2.66", "X-Real-IP: 192.0.2.66"}
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, nil, "--limits.connections-per-ip=2", "--limits.tickets-per-ip=2")
		const client, other = "127.0.0.7", "127.0.0.8"
		first := x.visit(t, client)
		if answer := first.upgrade("/v1/ws", forged...); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(answer.Status)
		}
		_ = first.conn.Close()
		x.node.output.await(t, "log line that names the client", 0, func(line string) bool {
			return strings.Contains(line, `"msg":"connection closed"`) && strings.Contains(line, `"addr":"`+client+`"`)
		})

		var open [2]*visitor
		for i := range open {
			eventually(t, "the place of the closed connection is free", func() bool {
				open[i] = x.visit(t, client)
				return open[i].upgrade("/v1/ws", forged...).StatusCode == http.StatusSwitchingProtocols
			})
		}
		third := x.visit(t, client)
		if answer := third.upgrade("/v1/ws"); answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") != "10" ||
			!p.tcp && !strings.Contains(answer.body, "too many connections") {
			t.Errorf("a third: %s %q %q", answer.Status, answer.Header, answer.body)
		}
		for _, v := range open {
			_ = v.conn.Close()
		}
		for i, want := range []int{201, 201, 429} {
			var answer reply
			eventually(t, "an answer to a request for a ticket", func() bool {
				_, answer = x.visit(t, client).ticket("/v1/tickets", token, append(forged, "Connection: close")...)
				return answer.Header.Get("Retry-After") != "10" // no place for the connection yet
			})
			if answer.StatusCode != want || (want == 429) == (answer.Header.Get("Retry-After") == "") {
				t.Errorf("ticket %d: %s %q %q", i+1, answer.Status, answer.Header, answer.body)
			}
		}
		v := x.visit(t, other)
		ticket, answer := v.ticket("/v1/tickets", token)
		if ticket == "" {
			t.Errorf("another client's ticket: %s %q", answer.Status, answer.body)
		}
		if answer := v.upgrade("/v1/ws?ticket=" + ticket); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("another client: %s %q", answer.Status, answer.body)
		}
	})
}

// A node that is full says so through each proxy.
func TestFullBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, nil, "--limits.connections=2")
		for i := range 2 {
			v := x.visit(t, "127.0.0.7")
			if answer := v.upgrade("/v1/ws"); answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("connection %d: %s", i+1, answer.Status)
			}
		}
		for range 30 {
			answer := x.visit(t, "127.0.0.7").upgrade("/v1/ws")
			if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "10" {
				t.Errorf("%s %q", answer.Status, answer.Header)
			}
		}
	})
}

// seconds are the idle timeouts of the samples.
var seconds = strings.NewReplacer("60s", "3s", "Timeout 60", "Timeout 3")

// A silent connection outlives the proxy's idle timeout because of the pings, and not without them. Then the node
// restarts: its notice and the close code arrive.
func TestSilenceBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, seconds.Replace, "--ping-interval=1s", "--drain-window=4s")
		rare := behind(t, p, keys, seconds.Replace, "--ping-interval=50s", "--limits.idle-timeout=150s")
		v := x.visit(t, "127.0.0.7")
		if answer := v.upgrade("/v1/ws"); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(answer.Status)
		}
		v.want(`"type":"welcome"`)
		ends := make(chan string, 1)
		if p.name != "Caddy" { // it has no such timeout
			w := rare.visit(t, "127.0.0.7")
			if answer := w.upgrade("/v1/ws"); answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(answer.Status)
			}
			w.want(`"type":"welcome"`)
			go func() {
				m, pings, err := w.next()
				ends <- fmt.Sprint(m, pings, err)
			}()
		} else {
			ends <- ""
		}
		go func() { // the proxy's patience, three times
			time.Sleep(9 * time.Second)
			x.node.terminate(t)
		}()
		m, pings, err := v.next()
		if err != nil || !strings.Contains(m, `"type":"restart"`) || pings < 3 {
			t.Fatalf("%q after %d pings, %v", m, pings, err)
		}
		if m, _, err = v.next(); m != "close 1012" {
			t.Errorf("%q, %v", m, err)
		}
		if got := <-ends; strings.Contains(got, "timeout") {
			t.Errorf("without pings the connection did not end: %s", got)
		}
	})
}

// Events over HTTP pass each proxy as they come, within HTTP/2 where it speaks that, and a stream that is silent for longer
// than the proxy waits lives by its comments. When the node restarts, its notice and the close code arrive.
func TestEventsBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, seconds.Replace, "--ping-interval=1s", "--drain-window=4s")
		config := speaking("h2")
		config.NextProtos = append(config.NextProtos, "http/1.1")
		tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		ask := func(method, path, body string) *http.Response {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), method, "https://"+x.address+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			resp, err := (&http.Client{Transport: tr}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		publish := func(data string) {
			t.Helper()
			resp := ask(http.MethodPost, "/v1/publish", `{"topic":"rooms.42","data":`+data+`}`)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("a publish: %s", resp.Status)
			}
		}
		resp := ask(http.MethodGet, "/v1/events?topic=rooms.*", "")
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK || (resp.ProtoMajor == 2) == p.tcp || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%s %s %q", resp.Proto, resp.Status, resp.Header)
		}
		says := newJournal("events through " + p.name)
		go func() {
			_, _ = io.Copy(says, resp.Body)
			says.end()
		}()
		has := func(part string) {
			t.Helper()
			says.await(t, part, 0, func(line string) bool { return strings.Contains(line, part) })
		}
		has(`"id":"rooms.*"`)
		publish(`"one"`)
		has(`"data":"one"`)
		eventually(t, "comments for three times as long as the proxy waits", func() bool {
			comments := 0
			for _, line := range says.all() {
				if strings.HasPrefix(line, ":") {
					comments++
				}
			}
			return comments >= 9
		})
		publish(`"two"`)
		has(`"data":"two"`)
		x.node.terminate(t)
		has(`{"type":"restart"`)
		has(`{"code":1012,`)
	})
}

// With a prefix that the proxy leaves on the path, everything is below it.
func TestPrefixBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.subscriber(t, time.Hour, "rooms.>")
	eachProxy(t, false, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, func(sample string) string { return strings.ReplaceAll(sample, "/v1/", "/push/v1/") }, "--path-prefix=/push")
		v := x.visit(t, "127.0.0.7")
		ticket, answer := v.ticket("/push/v1/tickets", token)
		if ticket == "" {
			t.Fatal(answer.Status, answer.body)
		}
		if answer := v.upgrade("/push/v1/ws?ticket=" + ticket); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s %q", answer.Status, answer.body)
		}
		if answer := x.visit(t, "127.0.0.7").upgrade("/v1/ws"); answer.StatusCode == http.StatusSwitchingProtocols {
			t.Error("there is a WebSocket without the prefix, too")
		}
	})
}

// A proxy that writes Forwarded instead (RFC 7239).
func TestForwardedBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	x := behind(t, proxySamples[0], keys, func(sample string) string {
		return strings.Replace(sample, "X-Forwarded-For $remote_addr", `Forwarded "for=$remote_addr;proto=https"`, 1)
	}, "--proxy-header=forwarded", "--limits.connections-per-ip=1")
	for i, status := range []int{101, 429} {
		v := x.visit(t, "127.0.0.7")
		if answer := v.upgrade("/v1/ws", "X-Forwarded-For: 192.0.2."+strconv.Itoa(i), "Forwarded: for=192.0.2."+strconv.Itoa(i)); answer.StatusCode != status {
			t.Errorf("%d: %s", i, answer.Status)
		}
	}
	if answer := x.visit(t, "127.0.0.8").upgrade("/v1/ws"); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Error(answer.Status)
	}
}

// Backends publish through a proxy, which keeps its own connections and puts the requests of several clients on them: each has
// its own answer.
func TestPublishesBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	good := keys.publisher(t, time.Hour, "rooms.>")
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, nil, "--limits.rate=0")
		var clients sync.WaitGroup
		for client := range 4 {
			clients.Go(func() {
				transport := &http.Transport{TLSClientConfig: speaking("http/1.1")}
				defer transport.CloseIdleConnections()
				for i := range 50 {
					topic, status, want := "rooms.1", http.StatusOK, fmt.Sprintf(`{"ok":true,"id":"%d-%d"}`, client, i)
					if i%10 == 9 {
						topic, status, want = "elsewhere", http.StatusForbidden, `"code":"forbidden"`
					}
					body := fmt.Sprintf(`{"id":"%d-%d","topic":%q,"data":%q}`, client, i, topic, strings.Repeat("x", 300*i))
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+x.address+"/v1/publish", strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Content-Type", "application/json")
					req.Header.Set("Authorization", "Bearer "+good)
					answer, err := transport.RoundTrip(req)
					if err != nil {
						t.Error(err)
						return
					}
					text, err := io.ReadAll(answer.Body)
					_ = answer.Body.Close()
					if err != nil || answer.StatusCode != status || !strings.Contains(string(text), want) {
						t.Errorf("%d, %d: %s %s, %v", client, i, answer.Status, text, err)
					}
				}
			})
		}
		clients.Wait()
	})
}

// The pause after bad signatures is for the client that sent them: not for others behind the same proxy, and for each of
// its connections.
func TestPenaltyBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.publisher(t, time.Hour, "rooms.>")
	signature := strings.LastIndexByte(token, '.') + 1
	forged := func(n int) string { // another for each n
		wrong := "A"
		if token[signature+n] == 'A' {
			wrong = "B"
		}
		return token[:signature+n] + wrong + token[signature+n+1:]
	}
	const offender, other = "127.0.0.7", "127.0.0.8"
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, nil, "--limits.penalty=10m")
		open := func(from string) *visitor {
			t.Helper()
			v := x.visit(t, from)
			if answer := v.upgrade("/v1/ws"); answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(answer.Status, answer.body)
			}
			return v
		}
		forge := func(v *visitor, n int) {
			t.Helper()
			v.send(publishFrame("forged", "rooms.1", forged(n), "1"))
			v.want(`"code":"token_invalid"`)
		}
		// Each is answered at once, and its connection read on after a pause: 160 s for the sixteenth.
		var last *visitor
		for n := range 16 {
			last = open(offender)
			forge(last, n)
		}
		last.send(`{"type":"ping","id":"held"}`)
		v := open(other)
		for n := range 2 {
			forge(v, 30+n)
		}
		v.send(publishFrame("good", "rooms.1", token, "1"))
		v.want(`{"type":"ack","id":"good"}`)
		// A good token from the offender's address is no offence.
		w := open(offender)
		w.send(publishFrame("good", "rooms.1", token, "1"))
		w.want(`{"type":"ack","id":"good"}`)
		_ = last.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if b, err := last.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the offender is read on: %q, %v", b, err)
		}
	})
}
