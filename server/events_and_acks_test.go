package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/wire"
)

// Each request with an id is answered once; one without is answered only when
// it is refused.
func TestAnswers(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		p, token := n.dial(t), n.all(t)
		for _, x := range []struct{ request, answer string }{
			{`{"id":"%s","type":"ping"}`, `{"type":"pong","id":"%s"}`},
			{`{"type":"subscribe","id":"%s","topic":"a","token":"%T"}`, `{"type":"ack","id":"%s","exp":`},
			{`{"type":"subscribe","id":"%s","topic":"a","token":"%T"}`, `{"type":"ack","id":"%s","exp":`},
			{`{"type":"publish","id":"%s","topic":"b","token":"%T","data":1}`, `{"type":"ack","id":"%s"}`},
			{`{"type":"unsubscribe","id":"%s","topic":"a"}`, `{"type":"ack","id":"%s"}`},
			{`{"type":"unsubscribe","id":"%s","topic":"never.there"}`, `{"type":"ack","id":"%s"}`},
			{`{"type":"publish","id":"%s","topic":"b","data":1}`, `{"type":"error","id":"%s","topic":"b","code":"token_missing","message":"`},
		} {
			request := strings.ReplaceAll(x.request, "%T", token)
			for _, id := range []string{"1", "é\\n", strings.Repeat("i", wire.MaxIDBytes)} {
				p.send("%s", strings.ReplaceAll(request, "%s", id))
				if m, want := p.next(), strings.ReplaceAll(x.answer, "%s", id); !strings.HasPrefix(m, want) {
					t.Errorf("%.60s is answered with %s, want %s", request, m, want)
				}
				p.fence()
			}
			p.send("%s", strings.ReplaceAll(request, `"id":"%s",`, ""))
			switch {
			case strings.Contains(x.answer, `"error"`):
				p.want(`{"type":"error","topic":"b","code":"token_missing"`)
			case strings.Contains(x.answer, `"pong"`):
				p.wantExactly(`{"type":"pong"}`)
			}
			p.fence()
		}
	})
}

// One event a subscription, with the pattern where there is one; none after
// the unsubscribe.
func TestOneEventASubscription(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		token := n.all(t)
		p, pub := n.dial(t), n.dial(t)
		for _, pattern := range []string{"rooms.42", "rooms.*", "rooms.>", "*.42", "rooms.43"} {
			p.subscribe(pattern, token)
		}
		receive := func(data string, want ...string) {
			t.Helper()
			got := make(map[string]int)
			for range want {
				got[p.next()]++
			}
			for _, w := range want {
				if w != "" {
					w = `"pattern":"` + w + `",`
				}
				if m := `{"type":"event","topic":"rooms.42",` + w + `"data":` + data + `}`; got[m] != 1 {
					t.Fatalf("%s came %d times: %v", m, got[m], got)
				}
			}
			p.fence()
		}
		pub.publish("rooms.42", token, "1")
		receive("1", "", "rooms.*", "rooms.>", "*.42")
		for i, pattern := range []string{"rooms.>", "rooms.42"} {
			p.send(`{"type":"unsubscribe","id":"u","topic":%q}`, pattern)
			p.wantExactly(`{"type":"ack","id":"u"}`)
			pub.publish("rooms.42", token, fmt.Sprint(2+i))
			receive(fmt.Sprint(2+i), []string{"rooms.*", "*.42", ""}[:3-i]...)
		}
		// The publisher can be its own subscriber.
		pub.subscribe("own", token)
		pub.send(`{"type":"publish","topic":"own","token":%q,"data":1}`, token)
		pub.wantExactly(`{"type":"event","topic":"own","data":1}`)
	})
}

// Data reaches subscribers byte for byte.
func TestDataByteForByte(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		token := n.all(t)
		p, pub := n.dial(t), n.dial(t)
		p.subscribe("a.日本", token)
		for _, data := range []string{
			`null`, `true`, `0`, `-0.0E+07`, `1e999`, `123456789012345678901234567890.0000`, `""`, `"\/\u002F\ud83d\ude00\ud800"`,
			"{ \"b\" : 1,\t\"a\":\r\n[ ] ,\"b\":2 , \"token\":\"x\"}", `"</script>&"`, "\"\u2028\u007f\U0001f600é\"", `{"":{"":[[],{}]}}`,
			`"` + strings.Repeat("x", 60_000) + `"`, "[" + strings.Repeat(" ", 60_000) + "]",
		} {
			pub.publish("a.日本", token, data)
			p.wantExactly(`{"type":"event","topic":"a.日本","data":` + data + `}`)
		}
	})
}

// Events of one publisher on one topic keep their order under 2,000 pipelined
// publishes, each with an answer, although every third waits for a worker to
// verify a token that nobody has seen before.
func TestOrder(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		pub, known := n.dial(t), n.all(t)
		subs := []*peer{n.dial(t), n.dial(t), n.dial(t)}
		for i, pattern := range []string{"a", "*", ">"} {
			subs[i].subscribe(pattern, known)
		}
		const events = 2000
		frames := make([]string, events)
		for i := range frames {
			token := known
			if i%3 == 0 {
				token = n.all(t)
			}
			frames[i] = fmt.Sprintf(`{"type":"publish","id":"%d","topic":"a","token":%q,"data":%d}`, i, token, i)
		}
		pub.pipeline(frames)
		for i := range events {
			pub.wantExactly(fmt.Sprintf(`{"type":"ack","id":"%d"}`, i))
		}
		for s, pattern := range []string{``, `"pattern":"*",`, `"pattern":">",`} {
			for i := range events {
				subs[s].wantExactly(fmt.Sprintf(`{"type":"event","topic":"a",%s"data":%d}`, pattern, i))
			}
			subs[s].fence()
		}
	})
}

// An event comes after the ack of its subscription, never before, and from
// then on none is missing.
func TestEventsBeginWithTheAck(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		n := start(t, with)
		token := n.all(t)
		n.dial(t).flood("a", token)
		for round := range 20 {
			p := n.dial(t)
			pattern, middle := "a", ""
			if round%2 == 1 {
				pattern, middle = "*", `"pattern":"*",`
			}
			p.subscribe(pattern, token) // requires that the ack is the next that comes
			first := 0
			if _, err := fmt.Sscanf(p.next(), `{"type":"event","topic":"a",`+middle+`"data":%d}`, &first); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				p.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a",%s"data":%d}`, middle, first+1+i))
			}
			_ = p.conn.Close()
		}
	})
}

// Any NATS client is a publisher, and can send anything.
func TestFromNATS(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		nats := startNATS(t)
		with.bus = bus.Options{URL: nats.ClientURL()}
		n := start(t, with)
		token := n.all(t)
		plain, wild := n.dial(t), n.dial(t)
		plain.subscribe("a", token)
		wild.subscribe(">", token)
		s := newSpy(t, nats)

		s.publish("notify.ev.a", []byte(`{"from": "outside"}`))
		plain.wantExactly(`{"type":"event","topic":"a","data":{"from": "outside"}}`)
		wild.wantExactly(`{"type":"event","topic":"a","pattern":">","data":{"from": "outside"}}`)

		drops := n.metrics(t)["notifyd_invalid_events_total"]
		for _, data := range []string{
			``, ` `, `x`, `{`, `1 2`, `1},{"type":"event","topic":"b","data":2`, `1}{"type":"expired","topic":"a"}`, `1,"topic":"b"`,
			"\"\xff\"", "\"\n\"", "\x00", "\ufeff1", strings.Repeat("[", 64) + strings.Repeat("]", 64),
		} {
			s.publish("notify.ev.a", []byte(data))
			drops += 2 // one for each subscription
		}
		for _, topic := range []string{
			"$SYS.a", "$JS.API.INFO", "_INBOX.a", "a\x01b", "a\x7fb", "a\xff", "a\u0085b", "a\u2028b", "a*", "a>b",
			strings.Repeat("a", 256), strings.Repeat("a.", 16) + "a",
		} {
			s.publish("notify.ev."+topic, []byte("1"))
			drops++
		}
		s.publish("notify.ev.a", []byte("2"))
		plain.wantExactly(`{"type":"event","topic":"a","data":2}`)
		wild.wantExactly(`{"type":"event","topic":"a","pattern":">","data":2}`)
		plain.fence()
		wild.fence()
		if got := n.metrics(t)["notifyd_invalid_events_total"]; got != drops {
			t.Errorf("%v dropped, want %v", got, drops)
		}
	})
}
