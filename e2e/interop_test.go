//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

var algorithms = []string{"EdDSA", "ES256", "RS256", "HS256"}

// minted is what npm jose made for one algorithm.
type minted struct {
	JWK    json.RawMessage
	Tokens []string
}

// mintWithJose makes a key for each algorithm and signs one token for each of the claims.
func mintWithJose(t *testing.T, claims ...map[string]any) map[string]minted {
	t.Helper()
	request := map[string]any{}
	for _, alg := range algorithms {
		request[alg] = claims
	}
	stdin, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	cmd := nodeScript(t, "mint.mjs")
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("mint.mjs: %v\n%s", err, &stderr)
	}
	result := map[string]minted{}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return result
}

// values are JSON values whose bytes a server that decodes and encodes them again would change.
var values = []string{
	`{"n":1}`,
	`{ "b" : 1,  "a" : [ 1.0, 1e2, -0, 1.50 ] }`,
	`12345678901234567890.12345678901234567890`,
	`"\u0041\/\u00e9é😀\ud83d\ude00\u2028<&>"`,
	`null`,
	`""`,
	`[]`,
	"[\t1 ,\r\n 2]",
	`{"__proto__":{},"type":"publish","topic":"other","data":{"data":[]}}`,
}

// value is the i-th event of a stream: all differ, so that order, loss and repetition show.
func value(i int) string { return fmt.Sprintf("[%d,%s]", i, values[i%len(values)]) }

func TestInterop(t *testing.T) {
	t.Parallel()
	const topic, n = "interop.main", 400
	publish := func(i int) map[string]any {
		return map[string]any{"sub": "pub", "jti": fmt.Sprint(i), "notify": map[string]any{"publish": []string{"interop.*"}}}
	}
	subscribe := map[string]any{"sub": "sub", "authorization_details": []any{
		map[string]any{"type": "notifyd", "actions": []string{"subscribe"}, "topics": []string{"interop.>"}},
	}}
	// The fourth is for another topic.
	elsewhere := map[string]any{"sub": "pub", "notify": map[string]any{"publish": []string{"elsewhere"}}}
	byAlg := mintWithJose(t, publish(0), publish(1), publish(2), elsewhere, subscribe)

	set := map[string]any{"keys": []any{byAlg["EdDSA"].JWK, byAlg["ES256"].JWK, byAlg["RS256"].JWK}}
	jwks, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	_, natsURL := natsProcess(t, ownHost()+":0")
	natsURL = "nats://" + natsURL
	node := serve(t, "notifyd", nil, "--nats.url="+natsURL, "--limits.auth-failures=1000", "--origins=*",
		"--auth.keys="+keyFile(t, "jwks.json", string(jwks)),
		"--auth.keys="+keyFile(t, "hmac.json", string(byAlg["HS256"].JWK)))
	spy := spyOnNATS(t, natsURL)

	publisher := dialNPM(t, "publisher (npm ws)", node.url)
	subscribers := []*peer{
		dialNPM(t, "subscriber (npm ws)", node.url),
		dialCoder(t, "subscriber (coder/websocket)", node.url),
		dialChromium(t, "subscriber (Chromium)", node.url),
		dialChromium(t, "subscriber (Chromium, pattern)", node.url),
	}
	for i, alg := range algorithms {
		subscribers[i].subscribe(t, map[bool]string{true: "interop.*", false: topic}[alg == "HS256"], byAlg[alg].Tokens[4])
	}

	var tokens []string
	for _, alg := range algorithms {
		tokens = append(tokens, byAlg[alg].Tokens...)
	}
	tokens = append(tokens, refused(t, publisher, topic, byAlg)...)

	// Every event with another algorithm and another token than the one before; nothing waits for an answer, so tokens
	// that were never seen are verified amid tokens that are remembered.
	before := publisher.got.len()
	want := make([]string, n)
	for i := range n {
		want[i] = value(i)
		token := byAlg[algorithms[i%4]].Tokens[i/4%3]
		if err := publisher.send(publishFrame(fmt.Sprintf("event-%d", i), topic, token, want[i])); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if m := publisher.answer(t, fmt.Sprintf("event-%d", i), before); m.Type != "ack" {
			t.Fatalf("event %d: %s %s: %s", i, m.Type, m.Code, m.Message)
		}
	}

	for i, s := range subscribers {
		s.awaitEvents(t, n)
		s.ping(t)
		var got []string
		for _, e := range s.events(t) {
			got = append(got, string(e.Data))
			if pattern := map[bool]string{true: "interop.*"}[algorithms[i] == "HS256"]; e.Topic != topic || e.Pattern != pattern {
				t.Errorf("%s: topic %q, pattern %q; want %q, %q", s.name, e.Topic, e.Pattern, topic, pattern)
			}
		}
		sameValues(t, s.name, got, want)
	}

	spy.await(t, "the last event", 0, func(entry string) bool { return strings.HasSuffix(entry, want[n-1]) })
	var payloads []string
	for _, entry := range spy.all() {
		if payload, ok := strings.CutPrefix(entry, "notify.ev."+topic+"\n"); ok {
			payloads = append(payloads, payload)
		}
	}
	sameValues(t, "NATS", payloads, want)

	status, metrics := node.get("/metrics")
	if status != 200 {
		t.Errorf("/metrics: %d", status)
	}
	searchForTokens(t, tokens, "metrics", []string{metrics})
	searchForTokens(t, tokens, "a NATS message", spy.all())
	for _, p := range append(subscribers, publisher) {
		searchForTokens(t, tokens, "a frame to "+p.name, p.got.all())
	}
	node.kill()
	searchForTokens(t, tokens, "the log", node.output.all())
}

// refused sends tokens that must not work, so that what the server says of them is searched as well. It returns them.
func refused(t *testing.T, p *peer, topic string, byAlg map[string]minted) (tokens []string) {
	t.Helper()
	refuse := func(token, code string) {
		if m := p.publish(t, topic, token, `"refused"`); m.Type != "error" || m.Code != code {
			t.Errorf("%s: %s %q, want error %q", token, m.Type, m.Code, code)
		}
		tokens = append(tokens, token)
	}
	for _, alg := range algorithms {
		good := byAlg[alg].Tokens[0]
		head, signature := good[:strings.LastIndex(good, ".")+1], good[strings.LastIndex(good, ".")+1:]
		other := "A"
		if signature[10] == 'A' {
			other = "B"
		}
		refuse(head+signature[:10]+other+signature[11:], "token_invalid")
		refuse(byAlg[alg].Tokens[3], "forbidden")
		refuse(good+"."+signature, "token_malformed")
	}
	return tokens
}

// spyOnNATS writes down every message on every subject, and what else it carries, as "SUBJECT[ REPLY][ HEADERS]\nDATA".
func spyOnNATS(t *testing.T, url string) *journal {
	t.Helper()
	seen := newJournal("NATS spy")
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	_, err = conn.Subscribe(">", func(m *nats.Msg) {
		entry := m.Subject
		if m.Reply != "" {
			entry += " " + m.Reply
		}
		if len(m.Header) > 0 {
			entry += fmt.Sprint(" ", m.Header)
		}
		seen.add(entry + "\n" + string(m.Data))
	})
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func sameValues(t *testing.T, who string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s got %d events, want %d", who, len(got), len(want))
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: event %d is %s, want %s", who, i, got[i], want[i])
			return
		}
	}
}
