package server_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// page is an answer of GET /v1/history.
type page struct {
	Events []struct {
		Type, Topic, Time, From string
		Data                    json.RawMessage
		Seq                     uint64
		Prev                    *uint64
	}
	Stream, Epoch, Next string
	Complete, More      bool
	First               uint64
}

// seqs are those of the events, as text.
func (p page) seqs() string {
	var b strings.Builder
	for _, e := range p.Events {
		fmt.Fprintf(&b, " %d", e.Seq)
	}
	return strings.TrimSpace(b.String())
}

func (n *node) history(t *testing.T, token, topic string, parameters ...string) page {
	t.Helper()
	r := n.ask(t, request("GET", historyOf(topic, parameters...), "", "Authorization: Bearer "+token)).wantStatus(200)
	var p page
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	if got := r.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	return p
}

// historyOf is the target of a request; parameters are since and limit.
func historyOf(topic string, parameters ...string) string {
	q := url.Values{"topic": {topic}}
	for i, name := range []string{"since", "limit"} {
		if i < len(parameters) && parameters[i] != "" {
			q.Set(name, parameters[i])
		}
	}
	return "/v1/history?" + q.Encode()
}

// A history is read page by page, and each page says where the next one begins.
func TestHistory(t *testing.T) {
	n, s := durable(t, setup{})
	token := n.all(t)
	if p := n.history(t, token, "d.>"); len(p.Events) != 0 || p.More || !p.Complete || p.Next != "e1.0" || p.Stream != "orders" {
		t.Errorf("of nothing: %+v", p)
	}
	s.fill("d.a", 1, 3) // 1 to 3
	s.fill("d.b", 4, 5) // 4, 5
	s.fill("d.a", 6, 6) // 6
	between := time.Now()
	s.fill("d.a", 7, 7)
	for _, c := range []struct {
		topic, since, limit string
		seqs, next          string
		more                bool
	}{
		{"d.>", "", "", "1 2 3 4 5 6 7", "e1.7", false},
		{"d.*", "0", "3", "1 2 3", "e1.3", true},
		{"d.>", "e1.3", "3", "4 5 6", "e1.6", true},
		{"d.>", "e1.6", "3", "7", "e1.7", false},
		{"d.>", "e1.7", "3", "", "e1.7", false},
		{"d.a", "3", "", "6 7", "e1.7", false},
		{"d.b", "", "", "4 5", "e1.7", false},
		{"d.b", "", "1", "4", "e1.4", true},
		{"d.a", "last:2", "", "6 7", "e1.7", false},
		{"d.a", "last:100", "", "1 2 3 6 7", "e1.7", false},
		{"d.>", "last:1", "", "5 7", "", false},
		{"d.c", "", "", "", "e1.7", false},
		{"d.>", between.UTC().Format(time.RFC3339Nano), "", "7", "e1.7", false},
	} {
		p := n.history(t, token, c.topic, c.since, c.limit)
		if p.seqs() != c.seqs || p.Next != c.next || p.More != c.more || !p.Complete || p.First != 0 || p.Epoch != "e1" {
			t.Errorf("%s since %s: %+v, want %s", c.topic, c.since, p, c.seqs)
		}
	}
	p := n.history(t, token, "d.a", "2", "1")
	if e := p.Events[0]; e.Type != "event" || e.Topic != "d.a" || string(e.Data) != "3" || e.Prev == nil || *e.Prev != 2 || e.Time == "" || e.From != "" {
		t.Errorf("an event: %+v", e)
	}
}

// What is gone is said.
func TestHistoryThatIsGone(t *testing.T) {
	n, s := durable(t, setup{})
	token := n.all(t)
	s.fill("d.a", 1, 9)
	s.discard(4)
	for since, complete := range map[string]bool{"0": true, "e1.4": true, "8": true, "9": true, "3": false, "1": false, "e0.8": false, "10": false} {
		p := n.history(t, token, "d.a", since)
		if p.Complete != complete || (p.First == 5) == complete || complete && p.First != 0 {
			t.Errorf("since %s: complete %v, first %d", since, p.Complete, p.First)
		}
	}
	if p := n.history(t, token, "d.a", "e0.8"); p.seqs() != "5 6 7 8 9" {
		t.Errorf("of another life: %s", p.seqs())
	}
	s.fill("d.b", 1, 1)
	s.with(func() { s.kept[len(s.kept)-1].Data = []byte("no JSON") })
	if p := n.history(t, token, "d.>", "8"); p.seqs() != "9" || p.Complete || p.Next != "e1.10" {
		t.Errorf("with an event that is no JSON: %+v", p)
	}
}

// A token reads as far back as it may, and its issuer permits.
func TestHistoryOfATokenWithABound(t *testing.T) {
	n, s := durable(t, setup{})
	with := func(history string) string {
		return sign(t, n.key, authz.Claims{Expires: time.Now().Add(hour), Subscribe: []string{"d.>"}, History: history})
	}
	s.fill("d.a", 1, 4)
	s.with(func() {
		for i := range 2 {
			s.kept[i].Time -= int64(2 * hour)
		}
	})
	if p := n.history(t, with("1h"), "d.a"); p.seqs() != "3 4" || p.Complete || p.First != 3 {
		t.Errorf("an hour: %+v", p)
	}
	if p := n.history(t, with("3h"), "d.a"); p.seqs() != "1 2 3 4" || !p.Complete {
		t.Errorf("three hours: %+v", p)
	}
	n.ask(t, request("GET", historyOf("d.a"), "", "Authorization: Bearer "+with("none"))).wantProblem(400, wire.HistoryUnavailable)
}

func TestHistoryRefused(t *testing.T) {
	n, s := durable(t, setup{})
	good := "Authorization: Bearer " + n.all(t)
	narrow := "Authorization: Bearer " + n.token(t, hour, nil, []string{"d.a"})
	for _, c := range []struct {
		target string
		header string
		status int
		code   wire.Code
	}{
		{"/v1/history", good, 400, wire.BadTopic},
		{"/v1/history?topic=", good, 400, wire.BadTopic},
		{"/v1/history?topic=d.a&topic=d.b", good, 400, wire.BadTopic},
		{historyOf("d..a"), good, 400, wire.BadTopic},
		{historyOf("d.a b"), good, 400, wire.BadTopic},
		{historyOf("d.b"), narrow, 403, wire.Forbidden},
		{historyOf("d.*"), narrow, 403, wire.Forbidden},
		{historyOf("other"), good, 400, wire.HistoryUnavailable},
		{historyOf(">"), good, 400, wire.HistoryUnavailable},
		{historyOf("d.a", "x"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "-1"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "e1."), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "2026-13-01T00:00:00Z"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "last:x"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "0") + "&since=1", good, 400, wire.BadEnvelope},
		{historyOf("d.*", "last:2"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "", "0"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "", "1001"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "", "ten"), good, 400, wire.BadEnvelope},
		{historyOf("d.a", "", "1") + "&limit=2", good, 400, wire.BadEnvelope},
		{historyOf("d.a"), "X: y", 401, wire.TokenMissing},
		{historyOf("d.a"), "Authorization: Bearer x", 401, wire.TokenMalformed},
	} {
		n.ask(t, request("GET", c.target, "", c.header)).wantProblem(c.status, c.code)
	}
	n.ask(t, request("GET", historyOf("d.a")+"&unknown=1", "", good)).wantStatus(200)
	s.with(func() { s.away = true })
	n.ask(t, request("GET", historyOf("d.a"), "", good)).wantProblem(503, wire.Unavailable)
}

// A token that ends while the stream is read gets nothing of it.
func TestHistoryOfATokenThatEnds(t *testing.T) {
	n, s := durable(t, setup{})
	s.fill("d.a", 1, 3)
	token := sign(t, n.key, authz.Claims{ID: "1", Expires: time.Now().Add(hour), Subscribe: []string{"d.>"}})
	s.with(func() {
		s.gate = func() {
			r, err := n.auth.Complete(authz.Revocation{JTI: "1"})
			if err == nil {
				err = n.auth.Revoke(r)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	n.ask(t, request("GET", historyOf("d.a"), "", "Authorization: Bearer "+token)).wantProblem(401, wire.TokenRevoked)
}
