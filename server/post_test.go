package server_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// twoWays is a node that answers plain requests on its loops, and one that has net/http answer all of them.
type twoWays struct {
	key   authz.Key
	nodes [2]*postNode
	asked int
}

// postNode is one of them, with a subscriber and what tells it that all has come.
type postNode struct {
	*node
	sub, pub *peer
	fences   int
	byHTTP   atomic.Int64 // requests that net/http has had
}

func startTwoWays(t *testing.T, with setup) *twoWays {
	t.Helper()
	x := &twoWays{key: newKey(t, "EdDSA")}
	for i := range x.nodes {
		w := &postNode{}
		with := with
		with.key = x.key
		with.fake = new(memBus)
		with.before = func(n *node) {
			if i == 1 {
				n.PublishByNetHTTP()
			}
			n.OnNetHTTP(func(*http.Request) { w.byHTTP.Add(1) })
		}
		w.node = start(t, with)
		w.sub, w.pub = w.dial(t), w.dial(t)
		w.sub.subscribe("a.>", w.all(t))
		x.nodes[i] = w
	}
	return x
}

// said is what a node made of some bytes.
type said struct {
	answers []string // status, headers without Date, and body
	events  []string
	byHTTP  int64 // requests that net/http has had
}

// say sends the parts, with a moment between them, ends the client's side if it cuts, and reads until the node ends its own.
func (w *postNode) say(t *testing.T, from string, cut bool, parts ...string) (x said) {
	t.Helper()
	before := w.byHTTP.Load()
	c := w.dialFrom(t, from)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() {
		for i, part := range parts {
			if i > 0 {
				time.Sleep(5 * time.Millisecond) // the parts come one by one, as a rule
			}
			_, _ = io.WriteString(c, part) // it may have been refused already
		}
		if cut {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
	text, err := io.ReadAll(c)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Errorf("the node does not end the connection; it has said %q", text)
	}
	for r := bufio.NewReader(bytes.NewReader(text)); ; {
		if _, err := r.Peek(1); err != nil {
			break
		}
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil && time.Since(date).Abs() > time.Minute {
			t.Errorf("Date %v", date)
		}
		hadDate := answer.Header.Get("Date") != ""
		answer.Header.Del("Date")
		x.answers = append(x.answers, fmt.Sprint(answer.Status, " ", answer.Header, " date ", hadDate, " close ", answer.Close, " length ", answer.ContentLength, " ", string(body)))
	}
	w.fences++
	end := fmt.Sprintf(`"fence%d"`, w.fences)
	w.pub.publish("a.fence", w.all(t), end)
	for {
		m := w.sub.next()
		if strings.Contains(m, end) {
			break
		}
		x.events = append(x.events, m)
	}
	x.byHTTP = w.byHTTP.Load() - before
	return x
}

// same has both nodes answer the same bytes, and requires the same answers and events. It returns what they were.
func (x *twoWays) same(t *testing.T, cut bool, parts ...string) said {
	t.Helper()
	x.asked++
	from := fmt.Sprintf("127.0.2.%d", 1+x.asked%200) // nobody asks so much that it is held back
	var both [2]said
	for i, w := range x.nodes {
		w.sub.t, w.pub.t = t, t
		both[i] = w.say(t, from, cut, parts...)
	}
	for i := range both {
		for j, answer := range both[i].answers {
			if strings.Contains(answer, "date false") {
				answer = answer[:len("400")] // nobody's that knows the call: a loop has no body for it
			}
			if strings.Contains(answer, "did not come whole") {
				answer = strings.Replace(answer, "close true", "close false", 1) // net/http does not say so
			}
			both[i].answers[j] = answer
		}
	}
	if loops, ref := both[0], both[1]; !slices.Equal(loops.answers, ref.answers) || !slices.Equal(loops.events, ref.events) {
		t.Errorf("the loops say\n%s\nand publish\n%s\nnet/http says\n%s\nand publishes\n%s",
			strings.Join(loops.answers, "\n"), strings.Join(loops.events, "\n"), strings.Join(ref.answers, "\n"), strings.Join(ref.events, "\n"))
	}
	return both[0]
}

// post is a request whose connection is kept.
func post(body string, headers ...string) string {
	return strings.Replace(request("POST", postPublish, body, headers...), "Connection: close\r\n", "", 1)
}

// The loops answer what is plain as net/http would, byte for byte but for the order of headers, and give it the rest.
func TestPublishesTwoWays(t *testing.T) {
	x := startTwoWays(t, setup{server: server.Options{
		Origins: []string{"https://app.example"}, Loop: loop.Options{MessageBytes: 3000, HeadBytes: 8000, MessageTimeout: time.Second, HandshakeTimeout: time.Second},
	}})
	n := x.nodes[0]
	token := func(change func(*authz.Claims)) string {
		c := authz.Claims{ID: fmt.Sprint(serial.Add(1)), Expires: time.Now().Add(hour), Publish: []string{"a.>"}}
		if change != nil {
			change(&c)
		}
		return sign(t, x.key, c)
	}
	good := "Authorization: Bearer " + token(nil)
	other := token(nil)
	one := event("a.b", "1")
	last := request("POST", postPublish, event("a.b", `"last"`), asJSON, good)
	own := func(token string) string { return fmt.Sprintf(`{"topic":"a.b","data":1,"token":%q}`, token) }
	length := "Content-Length: " + strconv.Itoa(len(one)) + "\r\n"
	lengths := func(lines string) string {
		return strings.Replace(post(one, asJSON, good), length, lines, 1)
	}
	raw := func(old, with string) string { return strings.Replace(post(one, asJSON, good), old, with, 1) }
	twenty := strings.Repeat("x", 20)
	for i, row := range []struct {
		name  string
		text  string // a plain request with Connection: close comes behind it
		plain bool   // net/http has nothing of it
	}{
		{"one event", post(one, asJSON, good), true},
		{"an id", post(`{"id":"7","topic":"a.b","data":1}`, asJSON, good), true},
		{"an id with escapes", post(`{"id":"\u0041\"<&>","topic":"a.b","data":1}`, asJSON, good), true},
		{"a type", post(`{"type":"publish","topic":"a.b","data":1}`, asJSON, good), true},
		{"white space", post(" \r\n"+one+" \n", asJSON, good), true},
		{"a token of its own", post(own(other), asJSON), true},
		{"a token of its own beside another", post(own(other), asJSON, good), true},
		{"a bad token of its own beside a good one", post(own("x.y.z"), asJSON, good), true},
		{"an empty token of its own", post(own(""), asJSON, good), true},
		{"no token", post(one, asJSON), true},
		{"an empty header", post(one, asJSON, "Authorization:"), true},
		{"no token in the header", post(one, asJSON, "Authorization: Bearer"), true},
		{"blanks for a token", post(one, asJSON, "Authorization: Bearer \t "), true},
		{"two blanks in front", post(one, asJSON, strings.Replace(good, "Bearer ", "Bearer  ", 1)), true},
		{"another scheme", post(one, asJSON, "Authorization: Basic dTpw"), true},
		{"a scheme in capitals", post(one, asJSON, strings.Replace(good, "Bearer", "BEARER", 1)), true},
		{"a token beyond ASCII", post(one, asJSON, good+"\xe9"), true},
		{"a malformed token", post(one, asJSON, "Authorization: Bearer x"), true},
		{"a stranger's", post(one, asJSON, "Authorization: Bearer "+sign(t, newKey(t, "EdDSA"), authz.Claims{Expires: time.Now().Add(hour), Publish: []string{">"}})), true},
		{"expired", post(own(token(func(c *authz.Claims) { c.Expires = time.Now().Add(-time.Minute) })), asJSON), true},
		{"not yet valid", post(own(token(func(c *authz.Claims) { c.NotBefore = time.Now().Add(hour) })), asJSON), true},
		{"without the grant", post(event("b", "1"), asJSON, good), true},
		{"for another message", post(own(n.bound(t, "a.b", "2", false)), asJSON), true},
		{"for this message", post(own(n.bound(t, "a.b", "1", false)), asJSON), true},
		{"once, without a store", post(own(n.bound(t, "a.b", "1", true)), asJSON), true},
		{"a wildcard", post(event("a.*", "1"), asJSON, good), true},
		{"a ttl", post(`{"topic":"a.b","data":1,"ttl":5}`, asJSON, good), true},
		{"no JSON", post("x<>&\"", asJSON, good), true},
		{"an unknown type", post(`{"type":"<x>","topic":"a.b","data":1}`, asJSON, good), true},
		{"a subscribe", post(`{"type":"subscribe","topic":"a.b"}`, asJSON, good), true},
		{"not UTF-8", post(event("a.b", "\"\xff\""), asJSON, good), true},
		{"the largest body", post(event("a.b", `"`+strings.Repeat("x", 3000-len(event("a.b", `""`)))+`"`), asJSON, good), true},
		{"a key", post(one, asJSON, good, "Idempotency-Key: k"), true},
		{"a key in quotes", post(one, asJSON, good, `Idempotency-Key: "k"`), true},
		{"an empty key", post(one, asJSON, good, "Idempotency-Key:"), true},
		{"a key of quotes", post(one, asJSON, good, `Idempotency-Key: ""`), true},
		{"a long key", post(one, asJSON, good, "Idempotency-Key: "+strings.Repeat(twenty, 10)), true},
		{"a key that is not UTF-8", post(one, asJSON, good, "Idempotency-Key: \xff"), true},
		{"a key beside msg_id", post(`{"msg_id":"m","topic":"a.b","data":1}`, asJSON, good, "Idempotency-Key: k"), true},
		{"a key beside msg_id and a bad topic", post(`{"msg_id":"m","topic":"*","data":1}`, asJSON, good, "Idempotency-Key: k"), true},
		{"a charset", post(one, asJSON+"; charset=UTF-8", good), true},
		{"a charset without a blank", post(one, asJSON+";charset=utf-8", good), true},
		{"headers in small letters", strings.Replace(strings.ToLower(post(one, asJSON)), "post /", "POST /", 1), false}, // http/1.1
		{"keep-alive", post(one, asJSON, good, "Connection: keep-alive"), true},
		{"headers of no interest", post(one, asJSON, good, "User-Agent: x", "Accept: */*", "X-Any: \xe9\tx", "Cookie: a=b", "TE: gzip", "Range: bytes=0-1"), true},
		{"a hundred", strings.Repeat(post(one, asJSON, good), 100), true},
		{"good and bad ones", post(one, asJSON, good) + post("x", asJSON, good) + post(one, asJSON) + post(`{"id":"4","topic":"a.b","data":4}`, asJSON, good), true},
		{"a body that looks like a request", post(event("a.b", `"POST /v1/publish HTTP/1.1\r\nHost: x\r\n\r\n"`), asJSON, good), true},

		{"no type", post(one, good), false},
		{"another type", post(one, good, "Content-Type: text/plain"), false},
		{"a type with a long s", post(one, good, "Content-Type: application/j\u017fon"), false},
		{"a parameter with a long s", post(one, good, "Content-Type: application/json; char\u017fet=utf-8"), false},
		{"two types", post(one, asJSON, asJSON, good), false},
		{"another charset", post(one, asJSON+"; charset=latin-1", good), false},
		{"a charset in quotes", post(one, asJSON+`; charset="utf-8"`, good), false},
		{"lines", post(one+"\n"+one, asLines, good), false},
		{"two tokens", post(one, asJSON, good, good), false},
		{"two keys", post(one, asJSON, good, "Idempotency-Key: k", "Idempotency-Key: k"), false},
		{"a page's", post(one, asJSON, good, "Origin: https://app.example"), false},
		{"a stranger's page", post(one, asJSON, good, "Origin: https://other.example"), false},
		{"identity", post(one, asJSON, good, "Content-Encoding: identity"), false},
		{"gzip", post("\x1f\x8b", asJSON, good, "Content-Encoding: gzip"), false},
		{"too large", post(strings.Repeat("x", 3001), asJSON, good), false},
		{"a large head", post(one, asJSON, good, "X: "+strings.Repeat(twenty, 450)), false},
		{"a head without end", post(one, asJSON, good, "X: "+strings.Repeat(twenty, 4000)), false},
		{"chunks", strings.Replace(post("", asJSON, good), "Content-Length: 0", "Transfer-Encoding: chunked", 1) + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(one), one), false},
		{"chunks and a length", lengths(length+"Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", false},
		{"identity for chunked", lengths(length + "Transfer-Encoding: identity\r\n"), false},
		{"a length twice", lengths(length + length), false},
		{"two lengths", lengths(length + "Content-Length: 5\r\n"), false},
		{"two lengths in one", lengths("Content-Length: " + strconv.Itoa(len(one)) + ", 5\r\n"), false},
		{"a signed length", lengths("Content-Length: +" + strconv.Itoa(len(one)) + "\r\n"), false},
		{"a negative length", lengths("Content-Length: -1\r\n"), false},
		{"a length in hex", lengths(fmt.Sprintf("Content-Length: 0x%x\r\n", len(one))), false},
		{"a length with a zero in front", lengths("Content-Length: 0" + strconv.Itoa(len(one)) + "\r\n"), false},
		{"a length that overflows", lengths("Content-Length: 99999999999999999999999\r\n"), false},
		{"an empty length", lengths("Content-Length:\r\n"), false},
		{"a length of nothing", post("", asJSON, good), false},
		{"no length", lengths(""), false},
		{"a length with a blank before the colon", lengths("Content-Length : " + strconv.Itoa(len(one)) + "\r\n"), false},
		{"a length under the wrong name", lengths("Content_Length: " + strconv.Itoa(len(one)) + "\r\n"), false},
		{"100-continue", post(one, asJSON, good, "Expect: 100-continue"), false},
		{"Trailer", post(one, asJSON, good, "Trailer: X"), false},
		{"h2c", post(one, asJSON, good, "Upgrade: h2c", "Connection: Upgrade"), false},
		{"a header for the connection", post(one, asJSON, good, "Connection: keep-alive, Authorization"), false},
		{"a folded line", post(one, asJSON, good, "X: a\r\n b"), false},
		{"a folded length", lengths("Content-Length:\r\n " + strconv.Itoa(len(one)) + "\r\n"), false},
		{"a bare LF", raw("Host: notifyd\r\n", "Host: notifyd\n"), false},
		{"a bare CR", post(one, asJSON, good, "X: a\rb"), false},
		{"NUL", post(one, asJSON, good, "X: a\x00b"), false},
		{"a name that is none", post(one, asJSON, good, "X(y): a"), false},
		{"no colon", post(one, asJSON, good, "X"), false},
		{"two Hosts", post(one, asJSON, good, "Host: other"), false},
		{"no Host", raw("Host: notifyd\r\n", ""), false},
		{"an empty Host", raw("Host: notifyd", "Host:"), false},
		{"a Host that is none", raw("Host: notifyd", "Host: a b"), false},
		{"HTTP/1.0", raw("HTTP/1.1", "HTTP/1.0"), false},
		{"HTTP/1.2", raw("HTTP/1.1", "HTTP/1.2"), false},
		{"a method in small letters", raw("POST", "post"), false},
		{"tabs in the request line", raw("POST "+postPublish+" ", "POST\t"+postPublish+"\t"), false},
		{"two blanks in the request line", raw("POST ", "POST  "), false},
		{"an absolute target", raw(postPublish, "http://notifyd"+postPublish), false},
		{"a query", raw(postPublish, postPublish+"?"), false},
		{"a fragment", raw(postPublish, postPublish+"#x"), false},
		{"an encoded target", raw("publish", "%70ublish"), false},
		{"another call", "GET /v1/openapi.json HTTP/1.1\r\nHost: notifyd\r\n\r\n", false},
		{"an upgrade without a key", strings.Replace(head(""), "Sec-WebSocket-Key", "X-Key", 1), false},
		{"a blank line in front", "\r\n" + post(one, asJSON, good), true}, // the first of a connection is refused

		{"a body that is longer than it says", post(one, asJSON, good) + "xx", false},
		{"a request behind a short length", raw("Content-Length: "+strconv.Itoa(len(one)), "Content-Length: 1"), false},
		{"nothing that is HTTP", "hello\r\n\r\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, before := range []string{"", post(event("a.b", "0"), asJSON, good)} {
				got := x.same(t, false, before+row.text+last)
				if len(got.answers) == 0 || (got.byHTTP == 0) != row.plain && !refusedByNetHTTP(got) {
					t.Errorf("net/http has had %d requests; plain: %v", got.byHTTP, row.plain)
				}
			}
			at := 1 + i*31%(len(row.text)-1)
			x.same(t, false, row.text[:at], row.text[at:]+last)
		})
	}
	for name, text := range map[string]string{
		"in the body":               post(one, asJSON, good)[:len(post(one, asJSON, good))-1],
		"before the body":           strings.TrimSuffix(post(one, asJSON, good), one),
		"in the head":               post(one, asJSON, good)[:60],
		"in the body, behind one":   post(one, asJSON, good) + post(one, asJSON, good)[:len(post(one, asJSON, good))-1],
		"in the head, behind one":   post(one, asJSON, good) + "POST",
		"behind one":                post(one, asJSON, good),
		"at the beginning":          "",
		"in a body for net/http":    post(one, asJSON, good, "Origin: https://app.example")[:len(post(one, asJSON, good))],
		"behind a bad one":          post("x", asJSON, good),
		"in a body that is refused": post(one, asJSON)[:len(post(one, asJSON))-1],
	} {
		t.Run("cut "+name, func(t *testing.T) {
			x.same(t, true, text)
			x.same(t, true, text[:len(text)/2], text[len(text)/2:])
		})
	}
	for name, text := range map[string]string{ // the client goes on to wait
		"late in the body":             post(one, asJSON, good)[:len(post(one, asJSON, good))-1],
		"late in the body, behind one": post(one, asJSON, good) + post(one, asJSON, good)[:len(post(one, asJSON, good))-1],
		"late in the head, behind one": post(one, asJSON, good) + "POST",
	} {
		t.Run(name, func(t *testing.T) { x.same(t, false, text) })
	}
	t.Run("byte by byte", func(t *testing.T) {
		for i, w := range x.nodes {
			c := w.dialFrom(t, "127.0.3.1")
			for _, b := range []byte(post(one, asJSON, good) + last) {
				if _, err := c.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			r := bufio.NewReader(c)
			for range 2 {
				answer, err := http.ReadResponse(r, nil)
				if err != nil || answer.StatusCode != http.StatusOK {
					t.Fatal(i, answer, err)
				}
				_, _ = io.Copy(io.Discard, answer.Body)
			}
			w.sub.want(`"data":1}`)
			w.sub.want(`"data":"last"}`)
		}
	})
}

// refusedByNetHTTP says whether a request was refused before a handler was asked.
func refusedByNetHTTP(x said) bool {
	return slices.ContainsFunc(x.answers, func(a string) bool { return len(a) == len("400") })
}
