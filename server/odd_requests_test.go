package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// oddNode is a node for odd requests, with a pair of clients that must not notice any of them.
type oddNode struct {
	*node
	page            string // its Origin
	pub, sub        *peer
	token, operator string
	published       int
	asked           int
}

func startOdd(t *testing.T, patience time.Duration) *oddNode {
	t.Helper()
	const page = "https://app.example"
	n := start(t, setup{server: server.Options{
		Origins: []string{page}, TicketsPerSubject: -1, TicketsPerIP: -1,
		Loop: loop.Options{MessageBytes: 20000, MessageTimeout: patience},
	}})
	x := &oddNode{node: n, page: page, pub: n.dial(t), sub: n.dial(t), token: n.all(t)}
	x.operator = sign(t, n.key, authz.Claims{Subject: "operator", Expires: time.Now().Add(hour), Admin: true})
	x.sub.subscribe("a.>", x.token)
	return x
}

// unharmed requires that the pair has got nothing but what it sent itself.
func (x *oddNode) unharmed() {
	x.published++
	data := strconv.Itoa(x.published)
	x.pub.publish("a.pair", x.token, data)
	x.sub.want(`"topic":"a.pair"`, `"data":`+data+"}")
	x.sub.fence()
}

// say sends the parts of a request, and waits after each but the last until the node has begun to answer, for 100
// Continue, or for a moment. It returns the final answer; status 0 is an end of the connection without one.
func (x *oddNode) say(t *testing.T, cut bool, parts ...string) (r reply) {
	t.Helper()
	x.asked++
	c := x.dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+x.asked%100)) // nobody asks so much that it is held back
	r.peer = &peer{t: t, conn: c, r: bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(patience))
	for i, part := range parts {
		_, _ = io.WriteString(c, part) // it may have been refused already
		if i < len(parts)-1 {
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = r.r.Peek(1)
			_ = c.SetReadDeadline(time.Now().Add(patience))
		}
	}
	if cut {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	for {
		got, err := http.ReadResponse(r.r, &http.Request{Method: method(parts[0])})
		if err != nil {
			return r
		}
		body, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got.StatusCode != http.StatusContinue {
			r.status, r.header, r.body = got.StatusCode, got.Header, string(body)
			return r
		}
		r.continued = true
	}
}

func method(request string) string {
	m, _, _ := strings.Cut(request, " ")
	return m
}

// Each call is asked in ways that no good client has, and some that few have. Every answer is one that says what is wrong
// and that a page may read; nothing is published but what was good; other connections notice nothing.
func TestOddRequests(t *testing.T) {
	x := startOdd(t, 2*patience)
	good := "Authorization: Bearer " + x.token
	operator := "Authorization: Bearer " + x.operator
	one := event("a.odd", "1")
	chunked := func(target, media, body string) string {
		return "POST " + target + " HTTP/1.1\r\nHost: notifyd\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n" + lines([]string{media, good, "Origin: " + x.page}) + "\r\n" + body
	}
	ask := func(method, target, body string, headers ...string) string {
		return request(method, target, body, append(headers, "Origin: "+x.page)...)
	}
	wide := strings.Repeat("x", 30000)
	head, body, _ := strings.Cut(ask("POST", "/v1/publish", one, asJSON, good, "Expect: 100-continue"), "\r\n\r\n")
	expects := []string{head + "\r\n\r\n", body}
	for _, row := range []struct {
		name   string
		send   []string // parts, with a pause behind each
		cut    bool     // the client ends its side
		status int      // 0: no answer is possible
		code   wire.Code
		events int // of a.odd
		// The body was asked for.
		continued bool
		// The answer is net/http's own, or a loop's: text, that any page may read.
		bare bool
	}{
		// Targets and methods.
		{name: "a trailing slash", send: []string{ask("POST", "/v1/publish/", one, asJSON, good)}, status: 404, code: wire.BadEnvelope},
		{name: "two slashes", send: []string{ask("POST", "//v1/publish", one, asJSON, good)}, status: 404, code: wire.BadEnvelope},
		{name: "a path with dots", send: []string{ask("POST", "/v1/x/../publish", one, asJSON, good)}, status: 404, code: wire.BadEnvelope},
		{name: "capitals", send: []string{ask("POST", "/V1/publish", one, asJSON, good)}, status: 404, code: wire.BadEnvelope},
		{name: "an encoded path", send: []string{ask("POST", "/v1/%70ublish", one, asJSON, good)}, status: 404, code: wire.BadEnvelope},
		{name: "an encoded slash", send: []string{ask("POST", "/v1%2Fpublish", one, asJSON, good)}, status: 404, code: wire.BadEnvelope},
		{name: "half an escape", send: []string{ask("POST", "/v1/%7", one, asJSON, good)}, status: 400, bare: true},
		{name: "an absolute target", send: []string{ask("POST", "http://notifyd/v1/publish", one, asJSON, good)}, status: 200, events: 1},
		{name: "an absolute target elsewhere", send: []string{ask("POST", "http://other.example/v1/publish", one, asJSON, good)}, status: 200, events: 1},
		{name: "a query to publish", send: []string{ask("POST", "/v1/publish?access_token="+x.token+"&a;b=%zz", one, asJSON)}, status: 401, code: wire.TokenMissing},
		{name: "an asterisk", send: []string{ask("GET", "*", "")}, status: 404, code: wire.BadEnvelope},
		{name: "CONNECT", send: []string{ask("CONNECT", "notifyd:80", "")}, status: 404, code: wire.BadEnvelope},
		{name: "TRACE", send: []string{ask("TRACE", "/v1/publish", "", good)}, status: 405, code: wire.BadEnvelope},
		{name: "HEAD of a publish", send: []string{ask("HEAD", "/v1/publish", "", good)}, status: 405},
		{name: "HEAD of events", send: []string{ask("HEAD", "/v1/events?topic=a.odd", "", good)}, status: 200},
		{name: "PUT", send: []string{ask("PUT", "/v1/publish", one, asJSON, good)}, status: 405, code: wire.BadEnvelope},
		{name: "a method of our own", send: []string{ask("publish", "/v1/publish", one, asJSON, good)}, status: 405, code: wire.BadEnvelope},
		{name: "OPTIONS that is no preflight", send: []string{ask("OPTIONS", "/v1/events", "")}, status: 405, code: wire.BadEnvelope},
		{name: "a preflight", send: []string{ask("OPTIONS", "/v1/publish", "", "Access-Control-Request-Method: POST")}, status: 204},
		{name: "POST to events", send: []string{ask("POST", "/v1/events?topic=a.odd", "", good)}, status: 405, code: wire.BadEnvelope},
		{name: "GET of tickets", send: []string{ask("GET", "/v1/tickets", "", good)}, status: 405, code: wire.BadEnvelope},
		{name: "GET of the socket without an upgrade", send: []string{ask("GET", wire.Path, "", good)}, status: 426, code: wire.BadEnvelope},
		{name: "POST to the socket", send: []string{ask("POST", wire.Path, one, asJSON, good)}, status: 426, code: wire.BadEnvelope},
		{name: "HTTP/1.0", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "HTTP/1.1", "HTTP/1.0", 1)}, status: 200, events: 1},
		{name: "HTTP/1.0 without Host", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "HTTP/1.1\r\nHost: notifyd", "HTTP/1.0", 1)}, status: 200, events: 1},
		{name: "HTTP/1.1 without Host", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "Host: notifyd\r\n", "", 1)}, status: 400, bare: true},
		{name: "two Hosts", send: []string{ask("POST", "/v1/publish", one, asJSON, good, "Host: other")}, status: 400, bare: true},
		{name: "HTTP/2 without asking", send: []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, status: 404, code: wire.BadEnvelope},
		{name: "HTTP/3.0", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "HTTP/1.1", "HTTP/3.0", 1)}, status: 505, bare: true},

		// Headers.
		{name: "no Content-Type", send: []string{ask("POST", "/v1/publish", one, good)}, status: 415, code: wire.BadEnvelope},
		{name: "two Content-Types", send: []string{ask("POST", "/v1/publish", one, good, asJSON, asLines)}, status: 415, code: wire.BadEnvelope},
		{name: "one Content-Type twice", send: []string{ask("POST", "/v1/publish", one, good, asJSON, asJSON)}, status: 415, code: wire.BadEnvelope},
		{name: "two in one", send: []string{ask("POST", "/v1/publish", one, good, asJSON+", application/x-ndjson")}, status: 415, code: wire.BadEnvelope},
		{name: "a parameter without a value", send: []string{ask("POST", "/v1/publish", one, good, asJSON+"; charset")}, status: 415, code: wire.BadEnvelope},
		{name: "a charset", send: []string{ask("POST", "/v1/publish", one, good, asJSON+`; charset="utf-8"`)}, status: 200, events: 1},
		{name: "Latin-1", send: []string{ask("POST", "/v1/publish", event("a.odd", "\"\xe9\""), good, asJSON+"; charset=iso-8859-1")}, status: 400, code: wire.BadEnvelope},
		{name: "UTF-16", send: []string{ask("POST", "/v1/publish", "\xff\xfe{\x00}\x00", good, asJSON+"; charset=utf-16")}, status: 400, code: wire.BadEnvelope},
		{name: "gzip", send: []string{ask("POST", "/v1/publish", "\x1f\x8b\x08\x00", good, asJSON, "Content-Encoding: gzip")}, status: 415, code: wire.BadEnvelope},
		{name: "gzip under another name", send: []string{ask("POST", "/v1/publish", one, good, asJSON, "Content-Encoding: identity, br")}, status: 415, code: wire.BadEnvelope},
		{name: "gzip to revocations", send: []string{ask("POST", "/v1/revocations", "\x1f\x8b\x08\x00", operator, asJSON, "Content-Encoding: gzip")}, status: 400, code: wire.BadEnvelope},
		{name: "two tokens", send: []string{ask("POST", "/v1/publish", one, asJSON, good, good)}, status: 401, code: wire.TokenMissing},
		{name: "two tokens for events", send: []string{ask("GET", "/v1/events?topic=a.odd", "", good, good)}, status: 401, code: wire.TokenMalformed},
		{name: "two tokens for a ticket", send: []string{ask("POST", "/v1/tickets", "", good, good)}, status: 401, code: wire.TokenMissing},
		{name: "a space before the colon", send: []string{ask("POST", "/v1/publish", one, asJSON, good, "X-Odd : 1")}, status: 400, bare: true},
		{name: "NUL in a header", send: []string{ask("POST", "/v1/publish", one, asJSON, good, "X-Odd: \x00")}, status: 400, bare: true},
		{name: "a header without a name", send: []string{ask("POST", "/v1/publish", one, asJSON, good, ": 1")}, status: 400, bare: true},
		{name: "a large head", send: []string{ask("POST", "/v1/publish", one, asJSON, good, "X-Odd: "+wide+wide)}, status: 431, bare: true},
		{name: "a thousand headers", send: []string{ask("POST", "/v1/publish", one, append([]string{asJSON, good}, strings.Split(strings.Repeat("X-Odd: 1\n", 999)+"X-Odd: 1", "\n")...)...)}, status: 200, events: 1},

		// Bodies.
		{name: "100-continue", send: expects, status: 200, events: 1, continued: true},
		{name: "100-continue without a token", send: []string{strings.Replace(expects[0], good, "X-Odd: 1", 1), expects[1]}, status: 401, code: wire.TokenMissing, continued: true},
		{name: "100-continue of text", send: []string{strings.Replace(expects[0], asJSON, "Content-Type: text/plain", 1)}, status: 415, code: wire.BadEnvelope},
		{name: "another expectation", send: []string{strings.NewReplacer("100-continue", "200-ok", "Origin", "X").Replace(expects[0]), expects[1]}, status: 417}, // a page cannot ask so,
		{name: "more than the length says", send: []string{ask("POST", "/v1/publish", one, asJSON, good) + one}, status: 200, events: 1},
		{name: "less than the length says", send: []string{strings.TrimSuffix(ask("POST", "/v1/publish", one, asJSON, good), "}")}, cut: true, status: 400, code: wire.BadEnvelope},
		{name: "two lengths", send: []string{ask("POST", "/v1/publish", one, asJSON, good, "Content-Length: 1")}, status: 400, bare: true},
		{name: "a negative length", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "Content-Length: ", "Content-Length: -", 1)}, status: 400, bare: true},
		{name: "a length beyond all numbers", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "Content-Length: ", "Content-Length: 99999999999999999999", 1)}, status: 400, bare: true},
		{name: "a length beyond the limit", send: []string{strings.Replace(ask("POST", "/v1/publish", one, asJSON, good), "Content-Length: ", "Content-Length: 9999", 1) + wide}, status: 413, code: wire.TooLarge},
		{name: "a large revocation", send: []string{ask("POST", "/v1/revocations", `{"jti":"`+wide+`"}`, operator, asJSON)}, status: 413, code: wire.TooLarge},
		{name: "half a revocation", send: []string{strings.TrimSuffix(ask("POST", "/v1/revocations", `{"jti":"x"}`, operator, asJSON), "}")}, cut: true, status: 400, code: wire.BadEnvelope},
		{name: "two revocations", send: []string{ask("POST", "/v1/revocations", `{"jti":"x"}{"jti":"y"}`, operator, asJSON)}, status: 400, code: wire.BadEnvelope},
		{name: "a revocation that is an array", send: []string{ask("POST", "/v1/revocations", `[{"jti":"x"}]`, operator, asJSON)}, status: 400, code: wire.BadEnvelope},
		{name: "a revocation of a number", send: []string{ask("POST", "/v1/revocations", `{"jti":1}`, operator, asJSON)}, status: 400, code: wire.BadEnvelope},
		{name: "a revocation of two kinds", send: []string{ask("POST", "/v1/revocations", `{"jti":"x","jti":"y"}`, operator, asJSON)}, status: 400, code: wire.BadEnvelope},
		{name: "a revocation of nothing", send: []string{ask("POST", "/v1/revocations", `null`, operator, asJSON)}, status: 400, code: wire.BadEnvelope},
		{name: "a ticket with a body", send: []string{ask("POST", "/v1/tickets", wide, good)}, status: 201},
		{name: "events with a body", send: []string{ask("GET", "/v1/events?topic=*.x&topic=$SYS", one, good)}, status: 400, code: wire.BadTopic},
		{name: "a long query", send: []string{ask("GET", "/v1/events?x="+wide+"&topic=x.*x", "", good)}, status: 400, code: wire.BadTopic},
		{name: "a longer query", send: []string{ask("GET", "/v1/events?x="+wide+wide+"&topic=x", "", good)}, status: 431, bare: true},
		{name: "a topic in half an escape", send: []string{ask("GET", "/v1/events?topic=a%2", "", good)}, status: 400, code: wire.BadTopic},

		// Chunks.
		{name: "chunks", send: []string{chunked("/v1/publish", asJSON, fmt.Sprintf("%x;odd=1\r\n%s\r\n0\r\nX-Odd: 1\r\n\r\n", len(one), one))}, status: 200, events: 1},
		{name: "a byte in each", send: []string{chunked("/v1/publish", asJSON, bytewise(one)+"0\r\n\r\n")}, status: 200, events: 1},
		{name: "chunks and a length", send: []string{strings.Replace(chunked("/v1/publish", asJSON, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(one), one)), "\r\n", "\r\nContent-Length: 3\r\n", 1)}, status: 200, events: 1},
		{name: "a chunk whose size is no number", send: []string{chunked("/v1/publish", asJSON, "x\r\n"+one+"\r\n0\r\n\r\n")}, status: 400, code: wire.BadEnvelope},
		{name: "a chunk beyond all numbers", send: []string{chunked("/v1/publish", asJSON, "ffffffffffffffffff\r\n"+one)}, status: 400, code: wire.BadEnvelope},
		{name: "a chunk that is longer than it says", send: []string{chunked("/v1/publish", asJSON, "3\r\n"+one+"\r\n0\r\n\r\n")}, status: 400, code: wire.BadEnvelope},
		{name: "an endless extension of a chunk", send: []string{chunked("/v1/publish", asJSON, "1;"+wide+"\r\n{\r\n0\r\n\r\n")}, status: 400, code: wire.BadEnvelope},
		{name: "chunks without an end", send: []string{chunked("/v1/publish", asJSON, fmt.Sprintf("%x\r\n%s\r\n", len(one), one))}, cut: true, status: 400, code: wire.BadEnvelope},
		{name: "gzip as a transfer", send: []string{strings.Replace(chunked("/v1/publish", asJSON, "0\r\n\r\n"), "chunked", "gzip, chunked", 1)}, status: 501, bare: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			x.pub.t, x.sub.t = t, t
			r := x.say(t, row.cut, row.send...)
			if r.status != row.status {
				t.Fatalf("status %d, want %d: %v %s", r.status, row.status, r.header, r.body)
			}
			page := r.header.Get("Access-Control-Allow-Origin")
			if strings.Contains(row.send[0], "\r\nOrigin: ") && page != x.page && (!row.bare || page != "*") {
				t.Errorf("a page may not read it: %v %s", r.header, r.body)
			}
			if row.code != wire.OK {
				r.t = t
				r.wantProblem(row.status, row.code)
			}
			if r.continued != row.continued {
				t.Errorf("100 Continue: %v", r.continued)
			}
			if (row.status == 405) != (r.header.Get("Allow") != "") {
				t.Errorf("Allow: %q", r.header.Get("Allow"))
			}
			for range row.events {
				x.sub.want(`"topic":"a.odd"`, `"data":1}`)
			}
			x.unharmed()
		})
	}
}

// Whatever becomes of the rest of a body, the lines that came whole before are published and have their results.
func TestOddLines(t *testing.T) {
	x := startOdd(t, time.Second)
	head := func(how string, headers ...string) string {
		return "POST /v1/publish HTTP/1.1\r\nHost: notifyd\r\nConnection: close\r\n" +
			lines(append([]string{asLines, "Authorization: Bearer " + x.token, "Origin: " + x.page, how}, headers...)) + "\r\n"
	}
	const length, chunks = "Content-Length: 999999", "Transfer-Encoding: chunked"
	one := event("a.odd", "1") + "\n"
	chunk := func(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }
	exactly := func(text string) string { return "Content-Length: " + strconv.Itoa(len(text)) }
	wide := strings.Repeat(" ", 30000)
	for _, row := range []struct {
		name    string
		send    []string
		cut     bool
		results string
		events  int
	}{
		{"a line that never ends", []string{head(length) + one + one + `{"topic":"a.odd",`}, false, " ok, ok", 2},
		{"a chunk that never ends", []string{head(chunks) + chunk(one) + "ff\r\n" + one[:9]}, false, " ok", 1},
		{"nothing more", []string{head(length) + one}, false, " ok", 1},
		{"a cut between lines", []string{head(length) + one + one}, true, " ok, ok", 2},
		{"a cut in the size of a chunk", []string{head(chunks) + chunk(one) + "f"}, true, " ok", 1},
		{"a size that is no number", []string{head(chunks) + chunk(one) + "no\r\n" + one + "\r\n"}, false, " ok", 1},
		{"a chunk that is longer than it says", []string{head(chunks) + chunk(one) + "3\r\n" + one}, false, " ok", 1},
		{"lines that chunks cut", []string{head(chunks) + chunk(one[:5]), chunk(one[5:] + one[:7]), chunk(one[7:]) + "0\r\n\r\n"}, false, " ok, ok", 2},
		{"line ends in a chunk of their own", []string{head(chunks) + chunk(one[:len(one)-1]), chunk("\r"), chunk("\n"), chunk("\n"), chunk(one) + "0\r\n\r\n"}, false, " ok, ok", 2},
		{"a byte in each", []string{head(chunks) + bytewise(one) + "0\r\n\r\n"}, false, " ok", 1},
		{"a long line amid", []string{head(exactly(one+wide+"\n"+one)) + one + wide + "\n" + one}, false, " ok, too_large, ok", 2},
		{"a long line at the end", []string{head(length) + one + wide}, true, " ok", 1},
		{"one that is not UTF-8", []string{head(exactly(one+"\xff\n"+one)) + one + "\xff\n" + one}, false, " ok, bad_envelope, ok", 2},
		{"UTF-16", []string{head(exactly("{\x00}\x00\n\x00"+one)) + "{\x00}\x00\n\x00" + one}, false, " bad_envelope, bad_envelope", 0},
		{"a byte order mark", []string{head(exactly("\xef\xbb\xbf"+one+one)) + "\xef\xbb\xbf" + one + one}, false, " bad_envelope, ok", 1},
		{"a JSON array", []string{head(exactly("[\n"+one+"]\n")) + "[\n" + one + "]\n"}, false, " bad_envelope, ok, bad_envelope", 1},
		{"old line ends", []string{head(exactly(one[:len(one)-1]+"\r"+one)) + one[:len(one)-1] + "\r" + one}, false, " bad_envelope", 0},
		{"nothing", []string{head("Content-Length: 0")}, false, "", 0},
		{"white space", []string{head(exactly("\n \r\n\t\n")) + "\n \r\n\t\n"}, false, "", 0},
		{"100-continue", []string{head(exactly(one), "Expect: 100-continue"), one}, false, " ok", 1},
		{"HTTP/1.0", []string{strings.Replace(head(exactly(one)), "HTTP/1.1", "HTTP/1.0", 1) + one}, false, " ok", 1},
		{"more than the length says", []string{head(exactly(one)) + one + one}, false, " ok", 1},
		{"a trailer", []string{head(chunks) + chunk(one) + "0\r\nContent-Type: text/plain\r\n\r\n"}, false, " ok", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			x.pub.t, x.sub.t = t, t
			r := x.say(t, row.cut, row.send...)
			if got := strings.Join(results(t, r.body), ","); r.status != http.StatusOK || got != row.results {
				t.Errorf("status %d, results %q, want %q", r.status, got, row.results)
			}
			if r.header.Get("Access-Control-Allow-Origin") != x.page {
				t.Errorf("a page may not read it: %v", r.header)
			}
			for range row.events {
				x.sub.want(`"topic":"a.odd"`, `"data":1}`)
			}
			x.unharmed()
		})
	}
}

// bytewise is text in chunks of a byte.
func bytewise(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, "1\r\n%c\r\n", c)
	}
	return b.String()
}

// A body that does not come is answered when its time is over, on each call that reads one.
func TestSlowBodies(t *testing.T) {
	x := startOdd(t, time.Second)
	for target, token := range map[string]string{"/v1/publish": x.token, "/v1/revocations": x.operator} {
		t.Run(target, func(t *testing.T) {
			x.pub.t, x.sub.t = t, t
			body := event("a.odd", "1")
			text := request("POST", target, body, asJSON, "Authorization: Bearer "+token)
			r := x.say(t, false, text[:len(text)-1])
			r.t = t
			r.wantProblem(http.StatusBadRequest, wire.BadEnvelope)
			if !strings.Contains(r.body, "within 1s") {
				t.Errorf("body %s", r.body)
			}
			x.unharmed()
		})
	}
}

// Any number of lines, and a line of any length, take bounded memory.
func TestLinesTakeBoundedMemory(t *testing.T) {
	n := start(t, setup{fake: new(memBus), server: server.Options{Loop: loop.Options{MessageBytes: 1 << 20}}})
	one := event("a", `"`+strings.Repeat("x", 1000)+`"`) + "\n"
	for name, piece := range map[string]string{
		"lines":      strings.Repeat(one, 100),
		"one line":   strings.Repeat("x", 100<<10),
		"bad lines":  strings.Repeat("x\n", 100),
		"blank ones": strings.Repeat("\n", 100<<10),
	} {
		t.Run(name, func(t *testing.T) {
			c := n.dialFrom(t, "127.0.0.1")
			answers := make(chan int64, 1)
			go func() {
				read, _ := io.Copy(io.Discard, c)
				answers <- read
			}()
			if _, err := io.WriteString(c, "POST /v1/publish HTTP/1.1\r\nHost: notifyd\r\nConnection: close\r\n"+
				lines([]string{asLines, "Authorization: Bearer " + n.all(t), "Transfer-Encoding: chunked"})+"\r\n"); err != nil {
				t.Fatal(err)
			}
			var first, most uint64
			pieces := max(100, 10<<20/len(piece)/10) // 10 MB and more, but for the bad lines
			for i := range pieces {
				if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(piece), piece); err != nil {
					t.Fatal(err)
				}
				if i%20 != 0 {
					continue
				}
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				if i == 0 {
					first = m.HeapAlloc
				}
				most = max(most, m.HeapAlloc)
			}
			if _, err := io.WriteString(c, "0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if read := <-answers; read < 100 {
				t.Errorf("the answer has %d bytes", read)
			}
			if most > first+6<<20 {
				t.Errorf("%d MiB more are in use than at the beginning", (most-first)>>20)
			}
		})
	}
}

// A page can read why its request was refused also when net/http did so, behind a request that was good.
func TestLargeHeadBehindAnotherRequest(t *testing.T) {
	x := startOdd(t, patience)
	c := x.dialFrom(t, "127.0.0.1")
	good := strings.Replace(request("GET", "/v1/openapi.json", "", "Origin: "+x.page), "Connection: close\r\n", "", 1)
	for _, row := range []struct {
		text   string
		status int
		page   string
	}{
		{good, 200, x.page},
		{good, 200, x.page},
		{strings.Replace(good, "\r\n", "\r\nX-Odd: "+strings.Repeat("x", 60000)+"\r\n", 1), 431, "*"},
	} {
		if _, err := io.WriteString(c, row.text); err != nil {
			t.Fatal(err)
		}
		r := readReply(t, c).wantStatus(row.status)
		if got := r.header.Get("Access-Control-Allow-Origin"); got != row.page {
			t.Errorf("%d: %q, want %q", row.status, got, row.page)
		}
	}
}
