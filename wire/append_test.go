package wire

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

var update = flag.Bool("update", false, "write the golden files anew")

type golden struct {
	name  string
	frame []byte
}

// goldens has one frame, at least, from every encoder.
func goldens() []golden {
	now := time.Date(2026, 2, 1, 11, 0, 0, 7e6, time.FixedZone("", 3600))
	data := []byte(`{"any" : "JSON"}`)
	id := []byte("7")
	return []golden{
		{"welcome", AppendWelcome(nil, "c-1", "node-a", now, 25*time.Second, 65536)},
		{"ack", AppendAck(nil, id)},
		{"ack-subscribe", AppendSubscribeAck(nil, id, 1770000000)},
		{"event", AppendEvent(nil, "rooms.42", "", data)},
		{"event-pattern", AppendEvent(nil, "rooms.42", "rooms.*", data)},
		{"expiring", AppendExpiring(nil, "rooms.*", 1770000000)},
		{"expired", AppendExpired(nil, `quo"ted\.*`)},
		{"error", AppendError(nil, id, []byte("rooms.42"), TokenExpired, "")},
		{"error-bare", AppendError(nil, nil, nil, BadEnvelope, ErrUTF8.Detail)},
		{"error-hostile", AppendError(nil, []byte("\x00\x1f\x7f\n\r\t\"\\"), []byte("\xff<é>\u2028"), BadTopic, "")},
		{"error-longest-topic", AppendError(nil, id, bytes.Repeat([]byte("x"), MaxTopicBytes), BadTopic, "")},
		{"error-long-topic", AppendError(nil, id, bytes.Repeat([]byte("x"), MaxTopicBytes+1), BadTopic, "")},
		{"result", AppendResult(nil, nil, OK, "")},
		{"result-id", AppendResult(nil, id, OK, "")},
		{"result-refused", AppendResult(nil, id, TokenExpired, "")},
		{"result-hostile", AppendResult(nil, []byte("\n\x00\""), BadEnvelope, "\n")},
		{"pong", AppendPong(nil, []byte("2"))},
		{"pong-bare", AppendPong(nil, nil)},
		{"restart", AppendRestart(nil, 2500*time.Millisecond)},
		{"publish", AppendPublish(nil, "7", "rooms.42", "eyJ", data, "order-991")},
		{"publish-least", AppendPublish(nil, "", "rooms.42", "", data, "")},
		{"subscribe", AppendSubscribe(nil, "8", "rooms.*", "eyJ")},
		{"unsubscribe", AppendUnsubscribe(nil, "9", `quo"ted\.*`)},
		{"ping", AppendPing(nil, "2")},
		{"publish-ttl", AppendPublishTTL(nil, "7", "orders.7", "eyJ", data, "order-991", 3600)},
		{"subscribe-seq", AppendSubscribeSince(nil, "8", "orders.*", "eyJ", Since{Kind: SinceSeq, N: 1042, Epoch: []byte("k3x9")})},
		{"subscribe-last", AppendSubscribeSince(nil, "8", "orders.*", "eyJ", Since{Kind: SinceLast, N: 1})},
		{"subscribe-time", AppendSubscribeSince(nil, "8", "orders.*", "", Since{Kind: SinceTime, Time: 1770000000_500000000})},
		{"stored", AppendStoredEvent(nil, "", storedExample())},
		{"stored-pattern", AppendStoredEvent(nil, "orders.*", &StoredEvent{Topic: "orders.7", Data: data, Seq: 1, Time: 1770000000_000000000, From: `se"rvice`})},
		{"stored-unchained", AppendStoredEvent(nil, "", &StoredEvent{Topic: "orders.7", Data: data, Seq: math.MaxUint64, Prev: PrevUnknown})},
		{"stored-ack", AppendStoredAck(nil, []byte("7"), 1042, false)},
		{"stored-duplicate", AppendStoredAck(nil, []byte("7"), 1042, true)},
		{"stored-result", AppendStoredResult(nil, []byte("7"), 1042, false)},
		{"stored-result-duplicate", AppendStoredResult(nil, nil, 1042, true)},
		{"resumed", AppendResumeAck(nil, []byte("8"), 1770000000, &Resumption{Stream: "orders", Epoch: "k3x9", Seq: 1042, Recovered: 3, Complete: true})},
		{"resumed-in-part", AppendResumeAck(nil, []byte("8"), 1770000000, &Resumption{Stream: "orders", Epoch: "k3x9", Seq: 1042, Recovered: 3, First: 1000})},
		{"gap", AppendGap(nil, "orders.*", "", 1042, 2000)},
		{"gap-epoch", AppendGap(nil, "orders.*", "k3xa", 0, 1)},
	}
}

func storedExample() *StoredEvent {
	return &StoredEvent{Topic: "orders.7", Data: []byte(`{"a":1}`), Seq: 1042, Prev: 1038, Time: 1770000000_007999999}
}

func TestGolden(t *testing.T) {
	for _, g := range goldens() {
		file := filepath.Join("testdata", g.name+".json")
		got := append(g.frame, '\n')
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %swant %s", g.name, got, want)
		}
		if !jsontext.Value(got).IsValid() {
			t.Errorf("%s is not strict JSON: %s", g.name, got)
		}
	}
}

// nasty is text that needs every kind of escape, and none.
const nasty = "a\"\\/\b\f\n\r\t\x00\x1f\x7fé\u2028😀"

func TestServerRoundTrip(t *testing.T) {
	id, data := []byte(nasty), []byte(`{"a": "\u0041"}`)
	deepest := strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)
	for _, c := range []struct {
		frame []byte
		want  Message
	}{
		{AppendWelcome(nil, nasty, "n", time.Unix(0, 0), 1500*time.Millisecond, 1000), Message{Kind: MessageWelcome, Conn: []byte(nasty), Node: []byte("n"), Time: []byte("1970-01-01T00:00:00.000Z"), PingInterval: 2, MaxMessageBytes: 1000}},
		{AppendWelcome(nil, "c", "n", time.Unix(0, 0), time.Second, 1000), Message{Kind: MessageWelcome, Conn: []byte("c"), Node: []byte("n"), Time: []byte("1970-01-01T00:00:00.000Z"), PingInterval: 1, MaxMessageBytes: 1000}},
		{AppendWelcome(nil, "c", "n", time.Unix(0, 0), time.Second+1, 1000), Message{Kind: MessageWelcome, Conn: []byte("c"), Node: []byte("n"), Time: []byte("1970-01-01T00:00:00.000Z"), PingInterval: 2, MaxMessageBytes: 1000}},
		{AppendAck(nil, id), Message{Kind: MessageAck, ID: id}},
		{AppendSubscribeAck(nil, id, 5), Message{Kind: MessageAck, ID: id, Exp: 5}},
		{AppendEvent(nil, nasty, "", data), Message{Kind: MessageEvent, Topic: []byte(nasty), Data: data}},
		{AppendEvent(nil, "a.b", nasty, data), Message{Kind: MessageEvent, Topic: []byte("a.b"), Pattern: []byte(nasty), Data: data}},
		{AppendEvent(nil, "a", "", []byte(`"\ud800"`)), Message{Kind: MessageEvent, Topic: []byte("a"), Data: []byte(`"\ud800"`)}},
		{AppendEvent(nil, "a", "", []byte(deepest)), Message{Kind: MessageEvent, Topic: []byte("a"), Data: []byte(deepest)}},
		{AppendExpiring(nil, nasty, 5), Message{Kind: MessageExpiring, Topic: []byte(nasty), Exp: 5}},
		{AppendExpired(nil, nasty), Message{Kind: MessageExpired, Topic: []byte(nasty)}},
		{AppendError(nil, id, []byte(nasty), Forbidden, nasty), Message{Kind: MessageError, ID: id, Topic: []byte(nasty), Code: Forbidden, Detail: []byte(nasty)}},
		{AppendPong(nil, id), Message{Kind: MessagePong, ID: id}},
		{AppendRestart(nil, time.Minute), Message{Kind: MessageRestart, Within: 60}},
		{AppendRestart(nil, 3999*time.Millisecond), Message{Kind: MessageRestart, Within: 3}},
		{[]byte(`{"type":"error","code":"from_the_future","new":{}}`), Message{Kind: MessageError, Code: UnknownCode}},
		{[]byte(`{"type":"error"}`), Message{Kind: MessageError, Code: UnknownCode}},
		{[]byte(`{"type":"from_the_future","x":1}`), Message{}},
		{AppendStoredEvent(nil, "", storedExample()), Message{Kind: MessageEvent, Topic: []byte("orders.7"), Data: []byte(`{"a":1}`), Seq: 1042, Prev: 1038, Time: []byte("2026-02-02T02:40:00.007Z")}},
		{AppendStoredEvent(nil, nasty, &StoredEvent{Topic: "a", Data: data, Seq: 1, From: nasty}), Message{Kind: MessageEvent, Topic: []byte("a"), Pattern: id, Data: data, Seq: 1, Time: []byte("1970-01-01T00:00:00.000Z"), From: id}},
		{AppendStoredEvent(nil, "", &StoredEvent{Topic: "a", Data: data, Seq: 2, Prev: PrevUnknown}), Message{Kind: MessageEvent, Topic: []byte("a"), Data: data, Seq: 2, Prev: PrevUnknown, Time: []byte("1970-01-01T00:00:00.000Z")}},
		{AppendStoredAck(nil, id, math.MaxUint64, true), Message{Kind: MessageAck, ID: id, Seq: math.MaxUint64, Duplicate: true}},
		{AppendStoredAck(nil, nil, 1, false), Message{Kind: MessageAck, Seq: 1}},
		{AppendResumeAck(nil, id, 5, &Resumption{Stream: nasty, Epoch: nasty, Seq: 1042, Recovered: 3, Complete: true}), Message{Kind: MessageAck, ID: id, Exp: 5, Stream: id, Epoch: id, Seq: 1042, Recovered: 3, Complete: true}},
		{AppendResumeAck(nil, id, 5, &Resumption{Stream: "s", Epoch: "e", Seq: 1042, First: 7}), Message{Kind: MessageAck, ID: id, Exp: 5, Stream: []byte("s"), Epoch: []byte("e"), Seq: 1042, First: 7}},
		{AppendGap(nil, nasty, nasty, 7, 9), Message{Kind: MessageGap, Topic: id, Epoch: id, After: 7, First: 9}},
		{[]byte(`{"type":"ack","prev":7,"duplicate":false}`), Message{Kind: MessageAck}},
	} {
		var m Message
		if err := ParseMessage(bytes.Clone(c.frame), &m); err != nil {
			t.Errorf("%s: %v", c.frame, err)
		} else if !reflect.DeepEqual(m, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.frame, m, c.want)
		}
	}
}

func TestParseMessageRefuses(t *testing.T) {
	for _, frame := range []string{
		``, `[]`, `{"type":"ack"} x`, `{"type":1}`, `{"exp":-1}`, `{"exp":9223372036854775808}`, `{"ping_interval":2147483648}`,
		`{"max_message_bytes":1.5}`, `{"id":null}`, `{"seq":-1}`, `{"seq":18446744073709551616}`, `{"prev":"1"}`, `{"prev":18446744073709551615}`, `{"time":1}`, `{"from":null}`, `{"duplicate":1}`,
		`{"duplicate":"true"}`, `{"stream":1}`, `{"epoch":1}`, `{"recovered":1.5}`, `{"complete":null}`, `{"first":[]}`, `{"after":{}}`, `{"Seq":1}`, `{"within":2147483648}`, `{"within":-1}`, `{"code":7}`, "{\"topic\":\"\xff\"}", `{"Topic":"a"}`, `{"id":"1","id":"2"}`,
	} {
		var m Message
		if ParseMessage([]byte(frame), &m) == nil {
			t.Errorf("accepted %s", frame)
		}
	}
}

func TestParseMessageNamesTheFault(t *testing.T) {
	deep := func(open, end string) string { return strings.Repeat(open, MaxDepth) + strings.Repeat(end, MaxDepth) }
	for frame, want := range map[string]*Error{
		`{"type":"event","data":` + deep("[", "]") + `}`: errDepth,
		`{"x":` + deep(`{"":`, "}") + `}`:                errDepth,
		`{"type":"ack",`:                                 errTruncated,
		`{"type":"ack";"id":"1"}`:                        errSyntax,
		`{"type":"ack"}x`:                                errTrailing,
		`{"type":7}`:                                     errMessage,
		`{"Id":"7"}`:                                     errCase,
		`{"id":"\ud800"}`:                                errSurrogate,
		`[]`:                                             errNotObject,
	} {
		var m Message
		if err := ParseMessage([]byte(frame), &m); err != want {
			t.Errorf("%.80s: got %v, want %v", frame, err, want)
		}
	}
}

// A message that is parsed into holds nothing of the one before.
func TestParseMessageForgetsTheMessageBefore(t *testing.T) {
	var m Message
	for _, g := range goldens() {
		_ = ParseMessage(g.frame, &m)
	}
	if err := ParseMessage([]byte(`{"type":"pong"}`), &m); err != nil || !reflect.DeepEqual(m, Message{Kind: MessagePong}) {
		t.Errorf("got %+v, error %v", m, err)
	}
}

func TestClientRoundTrip(t *testing.T) {
	b := []byte(nasty)
	for _, c := range []struct {
		frame []byte
		want  Envelope
	}{
		{AppendPublish(nil, nasty, nasty, nasty, []byte(`"\u0041"`), nasty), Envelope{Kind: Publish, ID: b, Topic: b, Token: b, Data: []byte(`"\u0041"`), MsgID: b}},
		{AppendPublish(nil, "", "a", "", []byte("1"), ""), Envelope{Kind: Publish, Topic: []byte("a"), Data: []byte("1")}},
		{AppendSubscribe(nil, nasty, nasty, nasty), Envelope{Kind: Subscribe, ID: b, Topic: b, Token: b}},
		{AppendUnsubscribe(nil, nasty, nasty), Envelope{Kind: Unsubscribe, ID: b, Topic: b}},
		{AppendPublishTTL(nil, "", "a", "", []byte("1"), "", MaxTTL), Envelope{Kind: Publish, Topic: []byte("a"), Data: []byte("1"), TTL: MaxTTL}},
		{AppendSubscribeSince(nil, "", "a", "", Since{}), Envelope{Kind: Subscribe, Topic: []byte("a")}},
		{AppendSubscribeSince(nil, "", "a", "", Since{Kind: SinceSeq, N: math.MaxUint64, Epoch: b}), Envelope{Kind: Subscribe, Topic: []byte("a"), Since: Since{Kind: SinceSeq, N: math.MaxUint64, Epoch: b}}},
		{AppendSubscribeSince(nil, "", "a", "", Since{Kind: SinceLast, N: 3}), Envelope{Kind: Subscribe, Topic: []byte("a"), Since: Since{Kind: SinceLast, N: 3}}},
		{AppendSubscribeSince(nil, "", "a", "", Since{Kind: SinceTime, Time: 1770000000_123456789}), Envelope{Kind: Subscribe, Topic: []byte("a"), Since: Since{Kind: SinceTime, Time: 1770000000_123456789}}},
		{AppendPing(nil, nasty), Envelope{Kind: Ping, ID: b}},
		{AppendPing(nil, ""), Envelope{Kind: Ping}},
	} {
		var env Envelope
		if err := Parse(bytes.Clone(c.frame), &env); err != nil {
			t.Errorf("%s: %v", c.frame, err)
		} else if !sameEnvelope(env, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.frame, env, c.want)
		}
	}
}

func TestStringsThatAreNotUTF8(t *testing.T) {
	for in, want := range map[string]string{
		"\xff": `"�"`, "a\xc3": `"a�"`, "\xed\xa0\x80b": `"���b"`, "é\x80é": `"é�é"`,
	} {
		if got := string(appendString(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestEncodersAllocateNothing(t *testing.T) {
	dst := make([]byte, 0, 4096)
	id, data, now := []byte(nasty), []byte(strings.Repeat("1", 128)), time.Now()
	stored, resumed := storedExample(), &Resumption{Stream: nasty, Epoch: "e"}
	for name, encode := range map[string]func(){
		"welcome":     func() { AppendWelcome(dst, "c", "n", now, time.Second, 1) },
		"ack":         func() { AppendAck(dst, id) },
		"subscribed":  func() { AppendSubscribeAck(dst, id, 1) },
		"event":       func() { AppendEvent(dst, nasty, "a.*", data) },
		"expiring":    func() { AppendExpiring(dst, nasty, 1) },
		"expired":     func() { AppendExpired(dst, nasty) },
		"error":       func() { AppendError(dst, id, id, Forbidden, "") },
		"result":      func() { AppendResult(dst, id, Forbidden, "") },
		"pong":        func() { AppendPong(dst, id) },
		"restart":     func() { AppendRestart(dst, time.Second) },
		"publish":     func() { AppendPublish(dst, nasty, nasty, token300, data, nasty) },
		"subscribe":   func() { AppendSubscribe(dst, nasty, nasty, token300) },
		"unsubscribe": func() { AppendUnsubscribe(dst, nasty, nasty) },
		"ping":        func() { AppendPing(dst, nasty) },
		"since":       func() { AppendSubscribeSince(dst, nasty, nasty, token300, Since{Kind: SinceTime, Epoch: id}) },
		"stored":      func() { AppendStoredEvent(dst, "a.*", stored) },
		"stored ack":  func() { AppendStoredAck(dst, id, 1, true) },
		"stored line": func() { AppendStoredResult(dst, id, 1, true) },
		"resumed":     func() { AppendResumeAck(dst, id, 1, resumed) },
		"gap":         func() { AppendGap(dst, nasty, nasty, 1, 2) },
	} {
		if n := testing.AllocsPerRun(100, encode); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	var m Message
	for _, g := range goldens() {
		buf := make([]byte, len(g.frame))
		if n := testing.AllocsPerRun(100, func() { copy(buf, g.frame); _ = ParseMessage(buf, &m) }); n != 0 {
			t.Errorf("ParseMessage of %s: %v allocations", g.name, n)
		}
	}
}
