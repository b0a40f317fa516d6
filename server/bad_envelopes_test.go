package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// scene is a server with a client that behaves, so that a test sees whether what
// an attacker sends reaches NATS, a subscriber, or the node itself.
type scene struct {
	*node
	spy       *spy
	bystander *peer // subscribed to everything
	token     string
	marks     int
}

func newScene(t *testing.T, o server.Options) *scene {
	nats := startNATS(t)
	n := start(t, setup{server: o, bus: bus.Options{URL: nats.ClientURL(), MaxPayload: 4 << 20}})
	s := &scene{node: n, bystander: n.dial(t), token: n.all(t)}
	s.bystander.subscribe(">", s.token)
	s.spy = newSpy(t, nats)
	return s
}

// unharmed publishes from p and requires that this is the next thing that NATS
// and the bystander see: nothing was published before it.
func (s *scene) unharmed(p *peer) {
	p.t.Helper()
	s.marks++
	data := fmt.Sprint(s.marks)
	p.publish("mark", s.token, data)
	s.spy.t, s.bystander.t = p.t, p.t
	s.spy.wantExactly("notify.ev.mark", data)
	s.bystander.wantExactly(`{"type":"event","topic":"mark","pattern":">","data":` + data + `}`)
}

// attack is one thing that an attacker sends and how it is answered.
type attack struct {
	name  string
	frame string // %T is a good token
	id    string // that the error echoes
	code  wire.Code
	end   wire.CloseCode // 0: the connection stays
}

func (s *scene) suffers(t *testing.T, a attack, op ws.OpCode) {
	t.Helper()
	p := s.dial(t)
	p.raw(op, []byte(strings.ReplaceAll(a.frame, "%T", s.token)))
	p.wantError(a.code, a.id)
	if a.end != 0 {
		p.wantEnd(a.end)
		p = s.dial(t)
	}
	s.unharmed(p)
}

// The envelope part of what attackers and accidents send.
func TestEnvelopeAbuse(t *testing.T) {
	s := newScene(t, server.Options{Loop: loopWithMessages(4 << 20)})
	deep := func(n int) string {
		return `{"type":"publish","id":"1","topic":"a","token":"%T","data":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	const good = `{"type":"publish","id":"1","topic":"a","token":"%T","data":1}`
	bad := func(name, frame string) attack { return attack{name, frame, "1", wire.BadEnvelope, 0} }
	anonymous := func(name, frame string) attack { return attack{name, frame, "", wire.BadEnvelope, 0} }
	for _, a := range []attack{
		bad("duplicate topic", `{"type":"publish","id":"1","topic":"a","topic":"b","token":"%T","data":1}`),
		bad("duplicate topic, the same", `{"type":"publish","id":"1","topic":"a","topic":"a","token":"%T","data":1}`),
		bad("duplicate topic, one escaped", `{"type":"publish","id":"1","topic":"a","to\u0070ic":"b","token":"%T","data":1}`),
		bad("duplicate type", `{"type":"ping","id":"1","type":"publish","topic":"a","token":"%T","data":1}`),
		bad("duplicate data", `{"type":"publish","id":"1","topic":"a","token":"%T","data":1,"data":2}`),
		bad("duplicate id", `{"type":"publish","id":"1","id":"1","topic":"a","token":"%T","data":1}`),
		bad("duplicate of an unknown member", `{"type":"publish","id":"1","x":1,"x":1,"topic":"a","token":"%T","data":1}`),
		bad("topic and Topic", `{"type":"publish","id":"1","topic":"a","Topic":"b","token":"%T","data":1}`),
		bad("Topic and topic", `{"type":"publish","id":"1","Topic":"b","topic":"a","token":"%T","data":1}`),
		bad("TOPIC alone", `{"type":"publish","id":"1","TOPIC":"a","token":"%T","data":1}`),
		bad("toKen alone", `{"type":"publish","id":"1","topic":"a","toKen":"%T","data":1}`),
		bad("to\u212aen, with the Kelvin sign", "{\"type\":\"publish\",\"id\":\"1\",\"topic\":\"a\",\"to\u212aen\":\"%T\",\"data\":1}"),
		bad("two tokens, the good one first", `{"type":"publish","id":"1","topic":"a","token":"%T","token":"x","data":1}`),
		bad("two tokens, the good one last", `{"type":"publish","id":"1","topic":"a","token":"x","token":"%T","data":1}`),
		bad("nesting of 64 below the envelope", deep(64)),
		bad("nesting of 9,990", deep(9_990)),
		bad("nesting of 20,000", deep(20_000)),
		bad("nesting of a million", deep(1_000_000)),
		bad("nesting in an unknown member", `{"type":"ping","id":"1","x":`+strings.Repeat(`{"a":`, 70)+"1"+strings.Repeat("}", 70)+"}"),
		{"raw ff in a topic", "{\"type\":\"publish\",\"id\":\"1\",\"topic\":\"a\xff\",\"token\":\"%T\",\"data\":1}", "", wire.BadEnvelope, wire.CloseBadUTF8},
		{"raw ff in data", "{\"type\":\"publish\",\"id\":\"1\",\"topic\":\"a\",\"token\":\"%T\",\"data\":\"\xff\"}", "", wire.BadEnvelope, wire.CloseBadUTF8},
		{"a surrogate in UTF-8", "{\"type\":\"ping\",\"id\":\"1\",\"x\":\"\xed\xa0\x80\"}", "", wire.BadEnvelope, wire.CloseBadUTF8},
		{"NUL in a topic", `{"type":"publish","id":"1","topic":"a\u0000b","token":"%T","data":1}`, "1", wire.BadTopic, 0},
		bad("raw NUL in a topic", "{\"type\":\"publish\",\"id\":\"1\",\"topic\":\"a\x00\",\"token\":\"%T\",\"data\":1}"),
		bad("raw LF in a topic", "{\"type\":\"publish\",\"id\":\"1\",\"topic\":\"a\n\",\"token\":\"%T\",\"data\":1}"),
		bad("half a surrogate in a topic", `{"type":"publish","id":"1","topic":"a\ud800","token":"%T","data":1}`),
		bad("truncated", strings.TrimSuffix(good, "}")),
		bad("truncated in data", `{"type":"publish","id":"1","topic":"a","token":"%T","data":[1`),
		bad("trailing text", good+"x"),
		bad("trailing NUL", good+"\x00"),
		bad("two envelopes", good+good),
		bad("two envelopes in lines", good+"\n"+good),
		anonymous("byte order mark", "\ufeff"+good),
		anonymous("array of envelopes", "["+good+"]"),
		anonymous("null", "null"),
		anonymous("number", "1"),
		anonymous("string", `"publish"`),
		anonymous("empty array", "[]"),
		anonymous("empty object", "{}"),
		anonymous("empty frame", ""),
		anonymous("white space", " \n"),
		anonymous("topic null", `{"topic":null}`),
		bad("topic null in a publish", `{"type":"publish","id":"1","topic":null,"token":"%T","data":1}`),
		bad("topic array", `{"type":"publish","id":"1","topic":["a"],"token":"%T","data":1}`),
		bad("token array", `{"type":"publish","id":"1","topic":"a","token":["%T"],"data":1}`),
		bad("token object", `{"type":"publish","id":"1","topic":"a","token":{"token":"%T"},"data":1}`),
		bad("token null", `{"type":"publish","id":"1","topic":"a","token":null,"data":1}`),
		{"token nested in data", `{"type":"publish","id":"1","topic":"a","data":{"token":"%T"}}`, "1", wire.TokenMissing, 0},
		{"token nested in an unknown member", `{"type":"publish","id":"1","topic":"a","auth":{"token":"%T"},"data":1}`, "1", wire.TokenMissing, 0},
		{"token empty", `{"type":"publish","id":"1","topic":"a","token":"","data":1}`, "1", wire.TokenMissing, 0},
		bad("no topic", `{"type":"publish","id":"1","token":"%T","data":1}`),
		bad("no data", `{"type":"publish","id":"1","topic":"a","token":"%T"}`),
		bad("data NaN", `{"type":"publish","id":"1","topic":"a","token":"%T","data":NaN}`),
		bad("data with a comma too many", `{"type":"publish","id":"1","topic":"a","token":"%T","data":[1,]}`),
		bad("data 01", `{"type":"publish","id":"1","topic":"a","token":"%T","data":01}`),
		bad("data that ends the envelope", `{"type":"publish","id":"1","topic":"a","token":"%T","data":1},{"type":"event","data":2}`),
		bad("comment", `{"type":"publish","id":"1","topic":"a","token":"%T",/**/"data":1}`),
		bad("comma too many", `{"type":"publish","id":"1","topic":"a","token":"%T","data":1,}`),
		bad("no type", `{"id":"1","topic":"a","token":"%T","data":1}`),
		bad("type of another case", `{"type":"Publish","id":"1","topic":"a","token":"%T","data":1}`),
		bad("type of the server's", `{"type":"event","id":"1","topic":"a","token":"%T","data":1}`),
		bad("type number", `{"type":1,"id":"1","topic":"a","token":"%T","data":1}`),
		anonymous("id number", `{"type":"publish","id":1,"topic":"a","token":"%T","data":1}`),
		anonymous("id empty", `{"type":"publish","id":"","topic":"a","token":"%T","data":1}`),
		anonymous("id of 65 bytes", `{"type":"publish","id":"`+strings.Repeat("i", 65)+`","topic":"a","token":"%T","data":1}`),
		bad("msg_id number", `{"type":"publish","id":"1","msg_id":1,"topic":"a","token":"%T","data":1}`),
		bad("since of two", `{"type":"subscribe","id":"1","topic":"a","token":"%T","since":{"seq":1,"last":1}}`),
		{"since", `{"type":"subscribe","id":"1","topic":"a","token":"%T","since":{"seq":1}}`, "1", wire.HistoryUnavailable, 0},
		bad("33 members", `{"type":"ping","id":"1"`+members(31)+`}`),
		{"over the limit", `{"type":"publish","id":"1","topic":"a","token":"%T","data":"` + strings.Repeat("x", 4<<20) + `"}`, "", wire.TooLarge, wire.CloseTooBig},
	} {
		t.Run(a.name, func(t *testing.T) { s.suffers(t, a, ws.OpText) })
	}
	t.Run("binary", func(t *testing.T) { s.suffers(t, anonymous("", good), ws.OpBinary) })
	t.Run("binary, empty", func(t *testing.T) { s.suffers(t, anonymous("", ""), ws.OpBinary) })

	// As near to the border, on the right side of it.
	for name, frame := range map[string]string{
		"nesting of 63 below the envelope": deep(63),
		"32 members":                       `{"type":"publish","id":"1","topic":"a","token":"%T","data":1` + members(27) + `}`,
		"white space everywhere":           " {\n\"type\" :\t\"publish\" , \"id\":\"1\",\"topic\":\"a\",\"token\":\"%T\",\"data\":1 }\r\n",
		"escapes":                          `{"type":"pub\u006cish","\u0069d":"\u0031","t\u006fpic":"a","token":"%T","data":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := s.dial(t)
			p.send("%s", strings.ReplaceAll(frame, "%T", s.token))
			p.wantExactly(`{"type":"ack","id":"1"}`)
			s.spy.t, s.bystander.t = t, t
			if m := s.spy.next(); !strings.HasPrefix(m, "notify.ev.a ") {
				t.Fatal(m)
			}
			s.bystander.want(`"topic":"a"`)
		})
	}
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":0`, i)
	}
	return b.String()
}

// The topic part. The token permits everything, so the grammar alone protects.
func TestTopicAbuse(t *testing.T) {
	s := newScene(t, server.Options{})
	js, err := s.spy.conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "X", Subjects: []string{"kept"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the request and NATS's answer
		s.spy.next()
	}
	for _, topic := range []string{
		`a.*`, `a.>`, `>`, `*`, `*.a`, `a.*.b`, `a.**`, `a.*b`, `a.b*`, `a.>b`, `a.>.b`,
		`a..b`, `.a`, `a.`, `.`, `..`, ``,
		`a b`, ` a`, `a `, `a\tb`, `a\rb`, `a\nb`, `a 5\r\nhello\r\nPUB b`, `a\r\nPUB b 1\r\n1`,
		`a\u0000`, `\u0000`, `a\u007f`, `a\u0001b`, `a\u001bb`, `a\u0085b`, `a\u009fb`, `a\u00a0b`, `a\u2028b`, `a\u3000b`,
		strings.Repeat("a", 5_000), strings.Repeat("a", 256), strings.Repeat("é", 128), strings.Repeat("a.", 16) + "a",
		`$JS.API.STREAM.DELETE.X`, `$SYS.x`, `$SYS.REQ.SERVER.PING`, `$KV.a.b`, `$`, `$a`, `_INBOX.x`, `_a`, `\u0024SYS.x`,
	} {
		name := fmt.Sprintf("%.40q", topic)
		t.Run("publish "+name, func(t *testing.T) {
			s.suffers(t, attack{"", `{"type":"publish","id":"1","topic":"` + topic + `","token":"%T","data":1}`, "1", wire.BadTopic, 0}, ws.OpText)
		})
		pattern, err := jsonString(topic)
		if err != nil {
			t.Fatal(err)
		}
		if wire.ValidPattern(pattern) {
			continue
		}
		for _, kind := range []string{"subscribe", "unsubscribe"} {
			t.Run(kind+" "+name, func(t *testing.T) {
				s.suffers(t, attack{"", `{"type":"` + kind + `","id":"1","topic":"` + topic + `","token":"%T"}`, "1", wire.BadTopic, 0}, ws.OpText)
			})
		}
	}
	if _, err := js.StreamInfo("X"); err != nil {
		t.Error("the stream is gone:", err)
	}
}

// A grant is for exactly what it says.
func TestGrants(t *testing.T) {
	s := newScene(t, server.Options{})
	mint := func(grants ...string) string { return s.node.token(t, hour, grants, grants) }
	for _, x := range []struct{ grant, topic string }{
		{"room.1", "room.10"},
		{"room.1", "Room.1"},
		{"room.1", "room"},
		{"room.1", "room.1.1"},
		{"room.1", "room/1"},
		{"a.b", "a/b"},
		{"room.*", "room"},
		{"room.*", "room.1.2"},
		{"room.>", "room"},
		{"room.>", "rooms.1"},
		{"é", "e\u0301"},
	} {
		t.Run(x.grant+" and "+x.topic, func(t *testing.T) {
			p := s.dial(t)
			for _, kind := range []string{"publish", "subscribe"} {
				p.send(`{"type":%q,"id":"1","topic":%q,"token":%q,"data":1}`, kind, x.topic, mint(x.grant))
				p.wantError(wire.Forbidden, "1")
			}
			s.unharmed(p)
		})
	}
	for _, x := range []struct{ grant, pattern string }{
		{"room.*", ">"}, {"room.*", "*"}, {"room.*", "*.*"}, {"room.*", "room.>"}, {"room.1", "room.*"}, {"room.>", ">"}, {"*.1", "*.*"}, {"*", ">"},
	} {
		t.Run("subscribe "+x.grant+" and "+x.pattern, func(t *testing.T) {
			p := s.dial(t)
			p.send(`{"type":"subscribe","id":"1","topic":%q,"token":%q}`, x.pattern, mint(x.grant))
			p.wantError(wire.Forbidden, "1")
			s.unharmed(p)
		})
	}
	t.Run("for the other direction", func(t *testing.T) {
		p := s.dial(t)
		p.send(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, s.node.token(t, hour, nil, []string{"a"}))
		p.wantError(wire.Forbidden, "1")
		p.send(`{"type":"subscribe","id":"2","topic":"a","token":%q}`, s.node.token(t, hour, []string{"a"}, nil))
		p.wantError(wire.Forbidden, "2")
		s.unharmed(p)
	})
	t.Run("a/b is another topic than a.b", func(t *testing.T) {
		p := s.dial(t)
		p.subscribe("a.b", s.token)
		p.publish("a/b", s.token, "1")
		p.publish("a.b", s.token, "2")
		p.wantExactly(`{"type":"event","topic":"a.b","data":2}`)
	})
}
