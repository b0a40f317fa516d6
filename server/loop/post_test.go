package loop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const postHead = "POST /p HTTP/1.1\r\nHost: h\r\n"

// aPost is a plain request.
func aPost(body string, headers ...string) string {
	var head strings.Builder
	head.WriteString(postHead + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	for _, line := range headers {
		head.WriteString(line + "\r\n")
	}
	return head.String() + "\r\n" + body
}

// What is plain is read as net/http reads it; what two parsers may read in two ways is not plain.
func TestPlainRequests(t *testing.T) {
	for _, row := range []struct {
		name, head string // without Host, Content-Length and the blank line
		plain      bool
	}{
		{"nothing more", "", true},
		{"what is of no interest", "User-Agent: x\r\nAccept: */*\r\nX-Any: \xe9\r\ntraceparent: 00-1\r\n", true},
		{"headers that are used", "Content-Type: application/json\r\nAuthorization: Bearer x\r\nIdempotency-Key: \"k\"\r\n", true},
		{"other capitals", "content-TYPE: application/json\r\nAUTHORIZATION: Bearer x\r\n", true},
		{"blanks round a value", "Authorization: \t Bearer x \t\r\n", true},
		{"a tab in a value", "X-Any: a\tb\r\n", true},
		{"an empty value", "Idempotency-Key:\r\n", true},
		{"close", "Connection: Close\r\n", true},
		{"keep-alive", "Connection: keep-alive\r\n", true},
		{"proxies", "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.2\r\n", true},

		{"two Hosts", "Host: h\r\n", false},
		{"two lengths", "Content-Length: 3\r\n", false},
		{"two types", "Content-Type: a/b\r\nContent-Type: a/b\r\n", false},
		{"two tokens", "Authorization: Bearer x\r\nAuthorization: Bearer x\r\n", false},
		{"two keys", "Idempotency-Key: x\r\nIdempotency-Key: x\r\n", false},
		{"Connection twice", "Connection: close\r\nConnection: keep-alive\r\n", false},
		{"another option", "Connection: keep-alive, Authorization\r\n", false},
		{"an upgrade", "Connection: Upgrade\r\nUpgrade: h2c\r\n", false},
		{"Upgrade alone", "Upgrade: h2c\r\n", false},
		{"chunks", "Transfer-Encoding: chunked\r\n", false},
		{"identity", "transfer-encoding: identity\r\n", false},
		{"Trailer", "Trailer: X\r\n", false},
		{"Expect", "Expect: 100-continue\r\n", false},
		{"Origin", "Origin: https://app.example\r\n", false},
		{"an empty Origin", "Origin:\r\n", false},
		{"gzip", "Content-Encoding: gzip\r\n", false},
		{"a folded line", "X-Any: a\r\n b\r\n", false},
		{"a folded line with a colon", "X-Any: a\r\n Content-Length: 1\r\n", false},
		{"a bare LF", "X-Any: a\n", false},
		{"a bare CR", "X-Any: a\rContent-Length: 1\r\n", false},
		{"two CR", "X-Any: a\r\r\n", false},
		{"NUL", "X-Any: a\x00\r\n", false},
		{"DEL", "X-Any: a\x7f\r\n", false},
		{"a blank before the colon", "X-Any : a\r\n", false},
		{"a tab before the colon", "X-Any\t: a\r\n", false},
		{"a blank in front", " X-Any: a\r\n", false},
		{"no colon", "X-Any\r\n", false},
		{"no name", ": a\r\n", false},
		{"a name that is none", "X(Any): a\r\n", false},
		{"a name beyond ASCII", "X-\xc3\xa9: a\r\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			checkPlain(t, postHead+row.head+"Content-Length: 3\r\n\r\n", row.plain)
			checkPlain(t, postHead+"Content-Length: 3\r\n"+row.head+"\r\n", row.plain)
		})
	}
	for value, plain := range map[string]bool{
		"1": true, "17": true, "999999999": true,
		"": false, "0": false, "03": false, "+3": false, "-3": false, "3 ": true, "3\t": true, "3,3": false, "3, 3": false, "0x3": false, "3.0": false,
		"3e0": false, "1_0": false, "٣": false, "9999999999": false, "18446744073709551619": false,
	} {
		checkPlain(t, postHead+"Content-Length: "+value+"\r\n\r\n", plain)
	}
	for line, plain := range map[string]bool{
		"POST /p HTTP/1.1": true, "POST http://h/p HTTP/1.1": true, // Options.Posts looks at the target
		"GET /p HTTP/1.1": false, "post /p HTTP/1.1": false, "POST /p HTTP/1.0": false, "POST /p HTTP/1.10": false, "POST /p http/1.1": false,
		"POST /p HTTP/2.0": false, "POST /p": false, "POST HTTP/1.1": false, "POST  HTTP/1.1": false, "POST\t/p\tHTTP/1.1": false, "": false, " POST /p HTTP/1.1": false,
	} {
		var p Post
		if got := p.parse([]byte(line + "\r\nHost: h\r\nContent-Length: 3\r\n\r\n")); got != plain {
			t.Errorf("%q: %v", line, got)
		}
	}
	for host, plain := range map[string]bool{
		"h": true, "H.example:80": true, "[2001:db8::1]:80": true, "a_b-c": true,
		"": false, "h,h": false, "h h": false, "u@h": false, "h/": false, "h\\h": false, "ä": false,
	} {
		checkPlain(t, "POST /p HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 3\r\n\r\n", plain)
	}
	for name, head := range map[string]string{
		"no Host": "POST /p HTTP/1.1\r\nContent-Length: 3\r\n\r\n", "no length": postHead + "\r\n",
		"an end with a bare LF": postHead + "Content-Length: 3\r\n\n", "no blank line": postHead + "Content-Length: 3\r\n",
		"more behind the blank line": postHead + "Content-Length: 3\r\n\r\nX",
	} {
		var p Post
		if p.parse([]byte(head)) {
			t.Errorf("%s: plain", name)
		}
	}
}

// checkPlain parses a head and, where it is plain, compares what it says with what net/http reads.
func checkPlain(t *testing.T, head string, plain bool) {
	t.Helper()
	text := []byte(head)
	var p Post
	if got := p.parse(text); got != plain {
		t.Errorf("%q: plain: %v", head, got)
		return
	}
	if string(text) != head {
		t.Errorf("%q was changed to %q", head, text)
	}
	if plain {
		asNetHTTP(t, head, &p)
	}
}

// asNetHTTP requires that net/http reads a head as p does.
func asNetHTTP(t *testing.T, head string, p *Post) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Errorf("%q: net/http: %v", head, err)
		return
	}
	one := func(name string, value []byte) {
		t.Helper()
		if got := r.Header.Values(name); len(got) > 1 || (len(got) == 0) != (value == nil) || r.Header.Get(name) != string(value) {
			t.Errorf("%q: %s is %q, net/http has %q", head, name, value, got)
		}
	}
	one("Content-Type", p.ContentType)
	one("Authorization", p.Authorization)
	one("Idempotency-Key", p.IdempotencyKey)
	for name, value := range map[string][]byte{"Forwarded": p.Forwarded, "X-Forwarded-For": p.ForwardedFor} {
		if got := strings.Join(r.Header.Values(name), ","); got != string(value) {
			t.Errorf("%q: %s is %q, net/http has %q", head, name, value, got)
		}
	}
	if r.Method != http.MethodPost || r.RequestURI != string(p.Target) || r.Proto != "HTTP/1.1" || r.Close != p.Close ||
		r.ContentLength != int64(p.length) || len(r.TransferEncoding) > 0 || len(r.Trailer) > 0 || r.Host == "" {
		t.Errorf("%q: %+v, net/http has %s %s %s, close %v, length %d, %q", head, p, r.Method, r.RequestURI, r.Proto, r.Close, r.ContentLength, r.TransferEncoding)
	}
}

// Whatever bytes come, what is plain to the loop is the same request to net/http, and ends at the same byte.
func FuzzPost(f *testing.F) {
	for _, seed := range []string{
		aPost("abc"), aPost("abc", "Connection: close"), aPost("a", "Authorization: Bearer x", "Idempotency-Key: k", "X-Forwarded-For: 192.0.2.1"),
		postHead + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", postHead + "Content-Length: +3\r\n\r\nabc",
		postHead + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", postHead + "X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		end := headEnd(data)
		var p Post
		if end == 0 || !p.parse(data[:end]) || !bytes.HasPrefix(p.Target, []byte("/p")) || bytes.ContainsAny(p.Target[1:], " \t/%#?") {
			return // what Options.Posts takes is compared with all of the target
		}
		for _, b := range p.Target {
			if b <= ' ' || b >= 0x7f {
				return
			}
		}
		asNetHTTP(t, string(data[:end]), &p)
	})
}

// poster is an engine that answers plain posts to /p with their bodies.
func poster(t testing.TB, opts Options, h *hooks) *server {
	t.Helper()
	opts.Posts = func(p *Post) bool { return string(p.Target) == "/p" }
	if h.post == nil {
		h.post = answerPost
	}
	return start(t, opts, h)
}

func answerPost(c *Conn, p *Post) {
	body := string(p.Body)
	if p.Cut {
		body = "cut"
	}
	c.Respond(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body), p.Close || p.Cut)
}

// answer reads a response and requires its body.
func (c *client) answer(want string) {
	c.t.Helper()
	r, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != want {
		c.t.Fatalf("%.100q, %v; want %.100q", body, err, want)
	}
}

// A hundred requests at once have a hundred answers in order, in few writes.
func TestPostsPipelined(t *testing.T) {
	s := poster(t, Options{}, &hooks{})
	c := s.connect()
	var all strings.Builder
	for i := range 100 {
		all.WriteString(aPost(strconv.Itoa(i)))
	}
	c.send([]byte(all.String()))
	for i := range 100 {
		c.answer(strconv.Itoa(i))
	}
	if st := s.Stats(); st.HTTP != 1 || st.Open != 0 || st.Writes > 10 {
		t.Errorf("%d of HTTP, %d open, %d writes", st.HTTP, st.Open, st.Writes)
	}
	if n := s.limits.open.Load(); n != 1 {
		t.Errorf("%d connections counted", n)
	}
	if s.Connections() != 0 {
		t.Error("it counts as one that waits for messages")
	}
	_ = c.Close()
	eventually(t, "it is counted out", func() bool { return s.limits.open.Load() == 0 })
}

// An answer that waits holds back those behind it; other connections are served.
func TestPostWaits(t *testing.T) {
	waits := make(chan *Conn, 1)
	s := poster(t, Options{}, &hooks{post: func(c *Conn, p *Post) {
		if string(p.Body) == "wait" {
			c.Pause()
			waits <- c
			return
		}
		answerPost(c, p)
	}})
	c, other := s.connect(), s.connect()
	c.send([]byte(aPost("1") + aPost("wait") + aPost("3")))
	c.answer("1")
	conn := <-waits
	other.send([]byte(aPost("other")))
	other.answer("other")
	c.send([]byte(aPost("4")))
	c.unanswered()
	s.Do(func(*Loop) {
		conn.Respond([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"), false)
		conn.Resume()
	})
	for _, want := range []string{"2", "3", "4"} {
		c.answer(want)
	}
}

// The first request that is not plain goes to net/http with all that is behind it, behind the answers to those before it.
func TestPostsGoOnToHTTP(t *testing.T) {
	handoff := NewHandoffListener()
	s := poster(t, Options{HTTP: handoff, HeadBytes: 4096, MessageBytes: 1000}, &hooks{})
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %d", r.URL, len(b))
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(handoff) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	for name, row := range map[string]struct{ text, answer string }{
		"another target":  {strings.Replace(aPost("b"), "/p", "/q", 1), "/q 1"},
		"another method":  {"GET /p HTTP/1.1\r\nHost: h\r\n\r\n", "/p 0"},
		"chunks":          {postHead + "Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n", "/p 1"},
		"a large body":    {aPost(strings.Repeat("x", 1001)), "/p 1001"},
		"a large head":    {aPost("b", "X: "+strings.Repeat("x", 4090)), "/p 1"},
		"an empty length": {postHead + "\r\n", "/p 0"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, behind := range []bool{false, true} {
				c := s.connect()
				c.t = t
				if behind {
					c.send([]byte(aPost("one")))
					c.answer("one")
				}
				c.send([]byte(aPost("two") + row.text + aPost("three")))
				c.answer("two")
				c.answer(row.answer)
				c.answer("/p 5") // it stays there
				_ = c.Close()
			}
		})
	}
	eventually(t, "all are counted out", func() bool { return s.limits.open.Load() == 0 })
	if st := s.Stats(); st.HTTP != 12 {
		t.Errorf("%d connections of HTTP", st.HTTP)
	}
	if n := s.posts.Load(); n != 0 {
		t.Errorf("%d are still taken for such with plain requests", n)
	}
}

// Without net/http it is refused like any request that is no upgrade.
func TestPostsWithoutHTTP(t *testing.T) {
	s := poster(t, Options{}, &hooks{})
	c := s.connect()
	c.send([]byte(aPost("one") + "GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	c.answer("one")
	c.status("426")
	c.wantEOF()
}

// A body that does not come whole is the handler's to answer, whether its time is over or the client has ended its side;
// a head that does not is nobody's.
func TestPostsCutShort(t *testing.T) {
	h := &hooks{}
	s := poster(t, Options{HandshakeTimeout: 10 * time.Second, MessageTimeout: 30 * time.Second}, h)
	half := aPost("body")
	inBody, inHead := half[:len(half)-1], half[:20]
	end := func(c *client) { _ = c.Conn.(*net.TCPConn).CloseWrite() }
	for _, first := range []string{"", aPost("one")} {
		for name, row := range map[string]struct {
			text string
			cut  func(*client)
			says string
		}{
			"a body that ends":       {inBody, end, "cut"},
			"a body that is late":    {inBody, func(*client) { s.advance(32 * time.Second) }, "cut"},
			"a head that ends":       {inHead, end, "400"},
			"a head that is late":    {inHead, func(*client) { s.advance(12 * time.Second) }, "400"},
			"nothing, and an end":    {"", end, ""},
			"no body, and an end":    {half[:len(half)-4], end, "cut"},
			"silence after requests": {"", func(*client) { s.advance(62 * time.Second) }, ""},
		} {
			t.Run(name, func(t *testing.T) {
				s.t = t
				c := s.connect()
				c.send([]byte(first + row.text))
				if first != "" {
					c.answer("one")
				}
				eventually(t, "it has come", func() bool { in, _ := s.held(); return in > 0 || row.text == "" })
				row.cut(c)
				switch {
				case row.says == "400" && first == "": // no request has come yet: the loop has no answer for half a one
				case row.says == "400":
					c.status("400")
				case row.says != "":
					c.answer(row.says)
				}
				c.wantEOF()
				_ = c.Close()
				eventually(t, "it is counted out", func() bool { return s.limits.open.Load() == 0 })
			})
		}
	}
}

// A client that does not read its answers is not read either, and let go in time.
func TestUnreadPostAnswers(t *testing.T) {
	large := strings.Repeat("x", 60000)
	h := &hooks{post: func(c *Conn, _ *Post) {
		c.Respond(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(large), large), false)
	}}
	s := poster(t, Options{PendingBytes: 64 << 10}, h)
	stuck := func() *client {
		c := s.connect()
		go func() { _, _ = io.WriteString(c.Conn, strings.Repeat(aPost("one"), 400)) }()
		eventually(t, "it does not read", func() bool { _, out := s.held(); return out > 0 })
		return c
	}
	c := stuck()
	if _, out := s.held(); out > 1<<20 {
		t.Errorf("%d bytes wait", out)
	}
	for range 400 {
		c.answer(large)
	}
	_ = c.Close()
	eventually(t, "it is gone", func() bool { return s.limits.open.Load() == 0 })
	c = stuck()
	s.advance(40 * time.Second)
	eventually(t, "it is let go", func() bool { return s.limits.open.Load() == 0 })
	if st := s.Stats(); st.Slow != 0 || st.Pending != 0 {
		t.Errorf("%d slow, %d bytes wait", st.Slow, st.Pending)
	}
	_ = c.Close()
}

// A drain closes what is idle at once, answers what is in hand, and refuses what is half there.
func TestDrainOfPosts(t *testing.T) {
	waits := make(chan *Conn, 1)
	s := poster(t, Options{}, &hooks{post: func(c *Conn, p *Post) {
		if string(p.Body) == "wait" {
			c.Pause()
			waits <- c
			return
		}
		answerPost(c, p)
	}})
	quiet, half, busy := s.connect(), s.connect(), s.connect()
	for _, c := range []*client{quiet, half, busy} {
		c.send([]byte(aPost("one")))
		c.answer("one")
	}
	text := aPost("half")
	half.send([]byte(text[:len(text)-1]))
	eventually(t, "half has come", func() bool { in, _ := s.held(); return in > 0 })
	busy.send([]byte(aPost("wait") + aPost("never")))
	conn := <-waits
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(t.Context(), 0) }()
	quiet.wantEOF()
	half.status("503")
	half.wantEOF()
	busy.unanswered()
	s.Do(func(*Loop) {
		if !conn.IsLast() {
			t.Error("the handler cannot say that it is the last")
		}
		conn.Respond([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"), false)
		conn.Resume()
	})
	busy.answer("2")
	busy.wantEOF()
	for _, c := range []*client{quiet, half, busy} {
		_ = c.Close()
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A connection with requests is none that a handler walks over, or that is sent anything.
func TestPostsAreNoConns(t *testing.T) {
	s := poster(t, Options{PingInterval: time.Second, IdleTimeout: 5 * time.Second}, &hooks{})
	c := s.connect()
	c.send([]byte(aPost("one")))
	c.answer("one")
	s.Do(func(l *Loop) {
		l.Conns(func(*Conn) bool { t.Error("walked over"); return true })
		l.ConnsFrom(0, 100, func(*Conn) { t.Error("walked over") })
	})
	s.advance(20 * time.Second)
	c.unanswered()
	c.send([]byte(aPost("two")))
	c.answer("two")
}
