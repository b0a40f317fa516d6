package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

const (
	postPublish = "/v1/publish"
	asJSON      = "Content-Type: application/json"
	asLines     = "Content-Type: application/x-ndjson"
)

// problem is the body of a refusal.
type problem struct {
	Title, Code, Message string
	Status               int
}

func (r reply) wantProblem(status int, code wire.Code) {
	r.t.Helper()
	r.wantStatus(status)
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || p.Status != status || p.Code != code.String() || p.Title == "" || p.Message == "" {
		r.t.Errorf("body %q, %v; want %s", r.body, err, code)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		r.t.Errorf("Content-Type %q", got)
	}
	if again := r.header.Get("Retry-After"); (again != "") != code.Retry() {
		r.t.Errorf("Retry-After %q with %s", again, code)
	}
	if challenge := r.header.Get("WWW-Authenticate"); (challenge != "") != (status == 401 || status == 403) {
		r.t.Errorf("WWW-Authenticate %q with %d", challenge, status)
	}
}

func event(topic, data string) string { return fmt.Sprintf(`{"topic":%q,"data":%s}`, topic, data) }

// An event that comes by HTTP reaches subscribers like any other: with a token of its own, or that of the request.
func TestPublishByHTTP(t *testing.T) {
	n := start(t, setup{})
	sub := n.dial(t)
	sub.subscribe("a.>", n.all(t))
	good := "Authorization: Bearer " + n.all(t)
	for i, x := range []struct {
		body    string
		headers []string
		answer  string
	}{
		{event("a.b", "%d"), []string{asJSON, good}, "{}\n"},
		{`{"topic":"a.b","data":%d,"token":"` + n.all(t) + `"}`, []string{asJSON}, "{}\n"},
		{`{"topic":"a.b","data":%d,"token":"` + n.all(t) + `"}`, []string{asJSON, "Authorization: Bearer x"}, "{}\n"}, // its own counts
		{`{"topic":"a.b","data":%d,"token":"` + n.all(t) + `"}`, []string{asJSON, "Authorization: Basic dTpw"}, "{}\n"},
		{`{"type":"publish","id":"7","topic":"a.b","data":%d}`, []string{asJSON, good}, `{"ok":true,"id":"7"}` + "\n"},
		{`{"msg_id":"7","topic":"a.b","data":%d}`, []string{"content-type: Application/JSON; charset=utf-8", good}, "{}\n"},
		{" \r\n" + `{"topic":"a.b","data":%d} ` + "\n", []string{asJSON, strings.Replace(good, "Bearer", "bearer", 1)}, "{}\n"},
		{event("a.b", "%d"), []string{asJSON, good, "Content-Encoding: Identity"}, "{}\n"},
		{event("a.b", "%d"), []string{asLines, good}, `{"ok":true}` + "\n"},
	} {
		r := n.ask(t, request("POST", postPublish, fmt.Sprintf(x.body, i), x.headers...)).wantStatus(200)
		if r.body != x.answer {
			t.Errorf("%d: answer %q, want %q", i, r.body, x.answer)
		}
		sub.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a.b","pattern":"a.>","data":%d}`, i))
	}
	if got := n.metrics(t)[`notifyd_publishes_total{result="ok"}`]; got != 9 {
		t.Errorf("%v counted", got)
	}
}

// What is wrong with a request is said in one way, and publishes nothing.
func TestPublishByHTTPRefused(t *testing.T) {
	n := start(t, setup{server: server.Options{Loop: loop.Options{MessageBytes: 2000}}})
	claims := authz.Claims{ID: "1", Expires: time.Now().Add(hour), Publish: []string{"a.>"}}
	with := func(change func(*authz.Claims)) string {
		c := claims
		change(&c)
		return sign(t, n.key, c)
	}
	token := with(func(*authz.Claims) {})
	stranger := sign(t, newKey(t, "EdDSA"), claims)
	good := "Authorization: Bearer " + token
	one := event("a.b", "1")
	own := func(token string) string { return fmt.Sprintf(`{"topic":"a.b","data":1,"token":%q}`, token) }
	sub := n.dial(t)
	sub.subscribe(">", n.all(t))
	for _, x := range []struct {
		name, body string
		headers    []string
		status     int
		code       wire.Code
	}{
		{"no Content-Type", one, []string{good}, 415, wire.BadEnvelope},
		{"a form", one, []string{good, "Content-Type: application/x-www-form-urlencoded"}, 415, wire.BadEnvelope},
		{"text", one, []string{good, "Content-Type: text/plain"}, 415, wire.BadEnvelope},
		{"a Content-Type that is none", one, []string{good, "Content-Type: ;"}, 415, wire.BadEnvelope},
		{"JSON of another kind", one, []string{good, "Content-Type: application/json-seq"}, 415, wire.BadEnvelope},
		{"gzip", one, []string{good, asJSON, "Content-Encoding: gzip"}, 415, wire.BadEnvelope},
		{"gzip behind identity", one, []string{good, asJSON, "Content-Encoding: identity", "Content-Encoding: gzip"}, 415, wire.BadEnvelope},
		{"gzip of lines", one, []string{good, asLines, "Content-Encoding: gzip"}, 415, wire.BadEnvelope},

		{"no body", "", []string{good, asJSON}, 400, wire.BadEnvelope},
		{"not JSON", "x", []string{good, asJSON}, 400, wire.BadEnvelope},
		{"null", "null", []string{good, asJSON}, 400, wire.BadEnvelope},
		{"an array", "[" + one + "]", []string{good, asJSON}, 400, wire.BadEnvelope},
		{"two", one + one, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"cut", one[:len(one)-1], []string{good, asJSON}, 400, wire.BadEnvelope},
		{"a byte order mark", "\xef\xbb\xbf" + one, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"UTF-16", "{\x00}\x00", []string{good, asJSON}, 400, wire.BadEnvelope},
		{"not UTF-8", event("a.b", "\"\xff\""), []string{good, asJSON}, 400, wire.BadEnvelope},
		{"NUL", event("a.b", "\"\x00\""), []string{good, asJSON}, 400, wire.BadEnvelope},
		{"deep", event("a.b", strings.Repeat("[", 100)+strings.Repeat("]", 100)), []string{good, asJSON}, 400, wire.BadEnvelope},
		{"no topic", `{"data":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"no data", `{"topic":"a.b"}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"a topic that is a number", `{"topic":1,"data":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"a token that is a number", `{"topic":"a.b","data":1,"token":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"topic twice", `{"topic":"a.b","topic":"a.c","data":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"Topic", `{"Topic":"a.b","topic":"a.b","data":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"an empty id", `{"id":"","topic":"a.b","data":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"a subscribe", `{"type":"subscribe","topic":"a.b"}`, []string{good, asJSON}, 400, wire.BadEnvelope},
		{"an unknown type", `{"type":"x","topic":"a.b","data":1}`, []string{good, asJSON}, 400, wire.BadEnvelope},

		{"a wildcard", event("a.*", "1"), []string{good, asJSON}, 400, wire.BadTopic},
		{"an empty topic", event("", "1"), []string{good, asJSON}, 400, wire.BadTopic},
		{"a topic of NATS", event("$SYS.x", "1"), []string{good, asJSON}, 400, wire.BadTopic},
		{"a topic with white space", event("a b", "1"), []string{good, asJSON}, 400, wire.BadTopic},
		{"a long topic", event("a."+strings.Repeat("b", 300), "1"), []string{good, asJSON}, 400, wire.BadTopic},

		{"too large", event("a.b", `"`+strings.Repeat("x", 2000)+`"`), []string{good, asJSON}, 413, wire.TooLarge},

		{"no token", one, []string{asJSON}, 401, wire.TokenMissing},
		{"an empty token", own(""), []string{good, asJSON}, 401, wire.TokenMissing},
		{"another scheme", one, []string{asJSON, "Authorization: Basic dTpw"}, 401, wire.TokenMissing},
		{"two tokens", one, []string{asJSON, good, good}, 401, wire.TokenMissing},
		{"an empty header", one, []string{asJSON, "Authorization: Bearer "}, 401, wire.TokenMissing},
		{"a malformed token", one, []string{asJSON, "Authorization: Bearer x"}, 401, wire.TokenMalformed},
		{"a malformed token of its own", own("a.b.c.d"), []string{good, asJSON}, 401, wire.TokenMalformed},
		{"a stranger's", one, []string{asJSON, "Authorization: Bearer " + stranger}, 401, wire.TokenInvalid},
		{"a stranger's beside a good one", own(stranger), []string{good, asJSON}, 401, wire.TokenInvalid},
		{"expired", own(with(func(c *authz.Claims) { c.Expires = time.Now().Add(-time.Second) })), []string{asJSON}, 401, wire.TokenExpired},
		{"not yet valid", own(with(func(c *authz.Claims) { c.NotBefore = time.Now().Add(hour) })), []string{asJSON}, 401, wire.TokenNotYetValid},
		{"without the grant", event("b", "1"), []string{good, asJSON}, 403, wire.Forbidden},
		{"a grant to subscribe", one, []string{asJSON, "Authorization: Bearer " + with(func(c *authz.Claims) { c.Publish, c.Subscribe = nil, []string{">"} })}, 403, wire.Forbidden},
		{"for another message", own(n.bound(t, "a.b", "2", false)), []string{asJSON}, 422, wire.DigestMismatch},
		{"a stranger's beside a bad topic", fmt.Sprintf(`{"topic":"*","data":1,"token":%q}`, stranger), []string{asJSON}, 401, wire.TokenInvalid},
	} {
		t.Run(x.name, func(t *testing.T) {
			n.ask(t, request("POST", postPublish, x.body, x.headers...)).wantProblem(x.status, x.code)
		})
	}
	once := n.bound(t, "a.b", "1", true)
	n.ask(t, request("POST", postPublish, own(once), asJSON)).wantStatus(200)
	n.ask(t, request("POST", postPublish, own(once), asJSON)).wantProblem(409, wire.TokenReplayed)
	sub.want(`"a.b"`, `"data":1`)
	sub.fence() // and nothing else

	for method, status := range map[string]int{"GET": 405, "PUT": 405, "DELETE": 405} {
		n.ask(t, request(method, postPublish, one, good, asJSON)).wantStatus(status)
	}
	if got := n.metrics(t)[`notifyd_publishes_total{result="bad_envelope"}`]; got != 20 {
		t.Errorf("%v bad envelopes counted", got)
	}
}

// results are the lines of an answer.
func results(t *testing.T, body string) (codes []string) {
	t.Helper()
	for line := range strings.Lines(body) {
		var x struct {
			OK            bool
			Code, Message string
			ID            string
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil || x.OK == (x.Code != "") || x.OK == (x.Message != "") {
			t.Fatalf("%q: %v", line, err)
		}
		codes = append(codes, strings.TrimSuffix(x.ID+" "+map[bool]string{true: "ok", false: x.Code}[x.OK], " "))
	}
	return codes
}

// Each line has a result of its own, in order; a bad one stops none of the others.
func TestPublishLines(t *testing.T) {
	n := start(t, setup{server: server.Options{Loop: loop.Options{MessageBytes: 20000}}})
	sub := n.dial(t)
	sub.subscribe("a", n.all(t))
	long := strings.Repeat("x", 18000)
	lines := []struct{ text, result string }{
		{`{"topic":"a","data":0}`, " ok"},
		{"", ""},
		{"   \t", ""},
		{`{"topic":"a","data":1,"id":"one"}` + "\r", "one ok"},
		{`{"topic":"a","data":`, " bad_envelope"},
		{`{"id":"x","topic":"a.*","data":1}`, "x bad_topic"},
		{event("a", `"`+long+`"`), " ok"},
		{event("a", `"`+long+long+`"`), " too_large"},
		{strings.Repeat(" ", 19990) + `{}`, " bad_envelope"},
		{strings.Repeat(" ", 40000), " too_large"},
		{`{"topic":"a","data":1,"token":"x"}`, " token_malformed"},
		{fmt.Sprintf(`{"topic":"a","data":3,"token":%q}`, n.all(t)), " ok"},
		{"\xff", " bad_envelope"},
		{`{"topic":"a","data":4}`, " ok"},
	}
	var body strings.Builder
	var want []string
	for i, line := range lines {
		body.WriteString(line.text)
		if i < len(lines)-1 { // the last one needs no end
			body.WriteString("\n")
		}
		if line.result != "" {
			want = append(want, line.result)
		}
	}
	r := n.ask(t, request("POST", postPublish, body.String(), asLines, "Authorization: Bearer "+n.all(t))).wantStatus(200)
	if got := results(t, r.body); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("results %q, want %q", got, want)
	}
	if got := r.header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("Content-Type %q", got)
	}
	for _, data := range []string{"0", "1", `"` + long + `"`, "3", "4"} {
		sub.want(`"data":` + data + "}")
	}
	sub.fence()
}

// Results come while lines are sent, and more lines than any buffer holds keep their order.
func TestPublishLinesAsTheyCome(t *testing.T) {
	n := start(t, setup{})
	sub := n.dial(t)
	sub.subscribe("a", n.all(t))
	body, feed := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, "http://"+n.addr+postPublish, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer "+n.all(t))
	write := func(text string) {
		if _, err := io.WriteString(feed, text); err != nil {
			t.Error(err)
		}
	}
	go write(event("a", "0") + "\n")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answers := bufio.NewReader(resp.Body)
	next := func() {
		t.Helper()
		if line, err := answers.ReadString('\n'); err != nil || line != `{"ok":true}`+"\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	next()
	for i := 1; i < 10; i++ {
		line := event("a", strconv.Itoa(i)) + "\n"
		write(line[:7])
		write(line[7:])
		next() // before the next line is sent
	}
	const many = 30000
	var both sync.WaitGroup
	both.Go(func() {
		for i := 10; i < many; i++ {
			write(event("a", strconv.Itoa(i)) + "\n")
		}
		_ = feed.Close()
	})
	both.Go(func() {
		for i := range many {
			sub.want(`"data":` + strconv.Itoa(i) + "}")
		}
	})
	for range many - 10 {
		next()
	}
	both.Wait()
}

// A body that is cut publishes the lines that came whole, and not the piece behind them.
func TestPublishLinesCut(t *testing.T) {
	n := start(t, setup{})
	sub := n.dial(t)
	sub.subscribe("a", n.all(t))
	whole := event("a", "1") + "\n" + event("a", "12345")
	for _, text := range []string{
		strings.Replace(request("POST", postPublish, whole, asLines, "Authorization: Bearer "+n.all(t)),
			"Content-Length: "+strconv.Itoa(len(whole)), "Content-Length: "+strconv.Itoa(len(whole)+1), 1),
		strings.Replace(request("POST", postPublish, fmt.Sprintf("%x\r\n%s\r\n", len(whole), whole), asLines, "Authorization: Bearer "+n.all(t)),
			"Content-Length: ", "Transfer-Encoding: chunked\r\nX: ", 1),
	} {
		c := n.dialFrom(t, "127.0.0.1")
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		sub.want(`"data":1}`)
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		if r := readReply(t, c); strings.Join(results(t, r.body), ",") != " ok" {
			t.Errorf("results %q", r.body)
		}
		sub.fence()
	}
}

// An event that finds no room waits for it, and its token is looked at once more.
func TestPublishByHTTPWaitsForRoom(t *testing.T) {
	bus := new(memBus)
	n := start(t, setup{fake: bus})
	sub := n.dial(t)
	sub.subscribe(">", n.all(t))
	for _, media := range []string{asJSON, asLines} {
		bus.fill(true)
		c := n.dialFrom(t, "127.0.0.1")
		if _, err := io.WriteString(c, request("POST", postPublish, event("a", "1"), media, "Authorization: Bearer "+n.all(t))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it waits", func() bool { return n.AwaitsRoom() })
		sub.fence()
		bus.fill(false)
		if r := readReply(t, c).wantStatus(200); strings.Contains(r.body, "code") {
			t.Error(r.body)
		}
		sub.want(`"data":1}`)

		exp, token := n.soon(t)
		bus.fill(true)
		c = n.dialFrom(t, "127.0.0.1")
		if _, err := io.WriteString(c, request("POST", postPublish, event("a", "2"), media, "Authorization: Bearer "+token)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it waits", func() bool { return n.AwaitsRoom() })
		time.Sleep(time.Until(exp))
		bus.fill(false)
		if r := readReply(t, c); !strings.Contains(r.body, `"token_expired"`) {
			t.Error(r.body)
		}
		sub.fence()
	}
}

// limits.rate counts the owner of the token at its address: one event too many is refused, a line too many waits.
func TestPublishByHTTPRate(t *testing.T) {
	n := start(t, setup{server: server.Options{Rate: 1, Burst: 2}})
	token := func(sub string) string {
		return "Authorization: Bearer " + sign(t, n.key, authz.Claims{ID: fmt.Sprint(serial.Add(1)), Subject: sub, Expires: time.Now().Add(hour), Publish: []string{">"}})
	}
	post := func(from, sub string) reply {
		return n.askFrom(t, from, request("POST", postPublish, event("a", "1"), asJSON, token(sub)))
	}
	refused := false
	for range 100 { // it may take more than a second to send three
		r := post("127.0.0.1", "ann")
		if refused = r.status == http.StatusTooManyRequests; refused {
			r.wantProblem(429, wire.RateLimited)
			break
		}
	}
	if !refused {
		t.Error("a hundred events were taken")
	}
	post("127.0.0.1", "bob").wantStatus(200)
	post("127.0.0.2", "ann").wantStatus(200)
	r := n.ask(t, request("POST", postPublish, strings.Repeat(event("a", "1")+"\n", 4), asLines, token("carl"))).wantStatus(200)
	if got := strings.Join(results(t, r.body), ","); got != " ok, ok, ok, ok" {
		t.Error(got)
	}
}

// Bad signatures cost their sender time here as elsewhere.
func TestForgedPublishesByHTTPArePenalised(t *testing.T) {
	n := start(t, setup{server: server.Options{Penalty: hour, Loop: loop.Options{MessageTimeout: 2 * patience}}})
	var body strings.Builder
	for range 1000 {
		token := n.all(t)
		at := strings.LastIndexByte(token, '.') + 10
		token = token[:at] + map[bool]string{true: "B", false: "A"}[token[at] == 'A'] + token[at+1:]
		fmt.Fprintf(&body, `{"topic":"a","data":1,"token":%q}`+"\n", token)
	}
	c := n.dialFrom(t, "127.0.0.2")
	if _, err := io.WriteString(c, request("POST", postPublish, body.String(), asLines)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.ask(t, request("POST", postPublish, event("a", "1"), asJSON, "Authorization: Bearer "+n.all(t))).wantStatus(200)
	}
	if got := n.metrics(t)[`notifyd_publishes_total{result="token_invalid"}`]; got > 20 {
		t.Errorf("%v have been answered", got)
	}
}

// A client that goes while its token is verified harms nobody.
func TestPublishByHTTPGoesWhileItWaits(t *testing.T) {
	entered, open := make(chan struct{}, 100), make(chan struct{})
	n := start(t, setup{gate: func(int) { entered <- struct{}{}; <-open }, brief: true})
	for range 10 {
		c := n.dialFrom(t, "127.0.0.1")
		if _, err := io.WriteString(c, request("POST", postPublish, event("a", "1"), asJSON, "Authorization: Bearer "+n.all(t))); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	<-entered
	close(open)
	n.ask(t, request("POST", postPublish, event("a", "1"), asJSON, "Authorization: Bearer "+n.all(t))).wantStatus(200)
}
