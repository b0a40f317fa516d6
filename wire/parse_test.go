package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// envelopes are valid, and together use every member in every form.
var envelopes = []string{
	`{"type":"publish","id":"7","topic":"rooms.42","token":"eyJ.e30.x","data":{"any":["JSON",1,-0.5e+3,true,false,null,{}]},"msg_id":"order-991"}`,
	`{"type":"subscribe","id":"8","topic":"rooms.*","token":"eyJ.e30.x","since":{"seq":1041}}`,
	`{"type":"subscribe","topic":"rooms.>","since":{"last":10}}`,
	`{"type":"subscribe","topic":"rooms.>","since":{"time":"2026-02-01T10:00:00.5Z"}}`,
	`{"type":"subscribe","topic":"rooms.>","since":{"epoch":"x","time":"2026-02-01T10:00:00+01:00"}}`,
	`{"type":"unsubscribe","id":"9","topic":"rooms.*"}`,
	`{"type":"auth","id":"1","token":"eyJ"}`,
	`{"type":"ping","id":"2"}`,
	"\t{\n\"type\" : \"ping\"\r , \"x\" : [ ] , \"y\":{ } } ",
	`{"ty\u0070e":"pi\u006eg","\u0069d":"\ud83d\ude00x\"\\\/\b\f\n\r\t"}`,
	`{"type":"ping","":"empty name","new":{"a":1,"a":2}}`,
	`{"type":"publish","topic":"é.日本","data":"\ud800"}`,
	`{"data":{"a":1,"a":2,"\udead":0},"topic":"a","type":"publish"}`,
	`{"type":"publish","topic":"a","data":null}`,
}

// Where only a publish is expected its type may be left out, and another one is refused.
func TestParsePublish(t *testing.T) {
	var env Envelope
	for _, text := range []string{`{"topic":"a","data":1}`, `{"topic":"a","data":1,"type":"publish"}`} {
		if err := ParsePublish([]byte(text), &env); err != nil || env.Kind != Publish || string(env.Topic) != "a" {
			t.Errorf("%s: %+v, %v", text, env, err)
		}
	}
	for text, want := range map[string]*Error{
		`{"topic":"a","type":"subscribe"}`: errNotPublish, `{"type":"ping"}`: errNotPublish,
		`{"topic":"a","data":1,"type":"x"}`: errNotPublish, `{"topic":"a","data":1,"type":1}`: errNotPublish,
		`{}`: errNoTopic, `{"topic":"a"}`: errNoData, `{"topic":1,"data":1}`: errTopic, ``: errNotObject,
	} {
		if err := ParsePublish([]byte(text), &env); err != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	hour := time.Date(2026, 2, 1, 10, 0, 0, 0, time.UTC)
	since := func(kind SinceKind, n uint64, at int64) Envelope {
		return Envelope{Kind: Subscribe, Topic: []byte("rooms.>"), Since: Since{Kind: kind, N: n, Time: at}}
	}
	want := []Envelope{
		{Kind: Publish, ID: []byte("7"), Topic: []byte("rooms.42"), Token: []byte("eyJ.e30.x"), Data: []byte(`{"any":["JSON",1,-0.5e+3,true,false,null,{}]}`), MsgID: []byte("order-991")},
		{Kind: Subscribe, ID: []byte("8"), Topic: []byte("rooms.*"), Token: []byte("eyJ.e30.x"), Since: Since{Kind: SinceSeq, N: 1041}},
		since(SinceLast, 10, 0),
		since(SinceTime, 0, hour.UnixNano()+5e8),
		{Kind: Subscribe, Topic: []byte("rooms.>"), Since: Since{Kind: SinceTime, Time: hour.Add(-time.Hour).UnixNano(), Epoch: []byte("x")}},
		{Kind: Unsubscribe, ID: []byte("9"), Topic: []byte("rooms.*")},
		{Kind: Auth, ID: []byte("1"), Token: []byte("eyJ")},
		{Kind: Ping, ID: []byte("2")},
		{Kind: Ping},
		{Kind: Ping, ID: []byte("😀x\"\\/\b\f\n\r\t")},
		{Kind: Ping},
		{Kind: Publish, Topic: []byte("é.日本"), Data: []byte(`"\ud800"`)},
		{Kind: Publish, Topic: []byte("a"), Data: []byte(`{"a":1,"a":2,"\udead":0}`)},
		{Kind: Publish, Topic: []byte("a"), Data: []byte(`null`)},
	}
	for i, frame := range envelopes {
		var env Envelope
		if err := Parse([]byte(frame), &env); err != nil {
			t.Errorf("%s: %v", frame, err)
		} else if !sameEnvelope(env, want[i]) {
			t.Errorf("%s:\n got %+v\nwant %+v", frame, env, want[i])
		}
	}
}

// sameEnvelope compares members, and nil with nil: absent is not empty.
func sameEnvelope(a, b Envelope) bool {
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	return a.Kind == b.Kind && a.TTL == b.TTL && a.Since.Kind == b.Since.Kind && a.Since.N == b.Since.N &&
		a.Since.Time == b.Since.Time && same(a.Since.Epoch, b.Since.Epoch) && same(a.ID, b.ID) && same(a.Topic, b.Topic) &&
		same(a.Token, b.Token) && same(a.Data, b.Data) && same(a.MsgID, b.MsgID)
}

func TestParseEmptyTokenIsNotAbsent(t *testing.T) {
	var env Envelope
	if err := Parse([]byte(`{"type":"publish","topic":"a","token":"","data":1}`), &env); err != nil || env.Token == nil {
		t.Errorf("token %v, error %v", env.Token, err)
	}
}

func TestParseRefuses(t *testing.T) {
	publish := func(members string) string { return `{"type":"publish","topic":"a","data":1,` + members + `}` }
	data := func(data string) string { return `{"type":"publish","topic":"a","data":` + data + `}` }
	since := func(since string) string { return `{"type":"subscribe","topic":"a","since":` + since + `}` }
	nested := func(n int) string { return data(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	var many strings.Builder
	for i := range MaxMembers {
		fmt.Fprintf(&many, `,"m%d":0`, i)
	}
	for _, c := range []struct {
		name, frame string
		want        *Error
	}{
		// One name, one value.
		{"topic twice", publish(`"topic":"b"`), errDuplicate},
		{"topic twice, escaped", publish(`"to\u0070ic":"b"`), errDuplicate},
		{"type twice, the same", publish(`"type":"publish"`), errDuplicate},
		{"data twice", publish(`"data":1`), errDuplicate},
		{"id twice", publish(`"id":"1","id":"2"`), errDuplicate},
		{"two tokens, the first good", publish(`"token":"good","token":"bad"`), errDuplicate},
		{"two tokens, the second good", publish(`"token":"bad","token":"good"`), errDuplicate},
		{"unknown twice", publish(`"x":1,"x":1`), errDuplicate},
		{"unknown twice, escaped", publish(`"xé":1,"x\u00e9":1`), errDuplicate},
		{"empty name twice", publish(`"":1,"":1`), errDuplicate},
		{"since.seq twice", since(`{"seq":1,"seq":1}`), errDuplicate},
		{"unknown in since twice", since(`{"seq":1,"x":1,"\u0078":1}`), errDuplicate},
		{"topic with Topic", publish(`"Topic":"b"`), errCase},
		{"only TOPIC", `{"type":"publish","TOPIC":"a","data":1}`, errCase},
		{"only toKen", publish(`"toKen":"x"`), errCase},
		{"Kelvin sign", publish("\"to\u212Aen\":\"x\""), errCase},
		{"Kelvin sign, escaped", publish(`"to\u212aen":"x"`), errCase},
		{"long s", publish("\"m\u017Fg_id\":\"x\""), errCase},
		{"Seq", since(`{"Seq":1}`), errCase},
		{"the 31st name twice", `{"type":"ping"` + strings.Split(many.String(), `,"m30"`)[0] + `,"m29":1}`, errDuplicate},
		{"too many members", `{"type":"ping"` + many.String() + `}`, errMembers},
		{"data twice, a lone surrogate in the second", publish(`"data":"\ud800"`), errDuplicate},
		{"a name twice, without the second value", publish(`"x":1,"x":,"y":1`), errSyntax},
		{"too many members in since", since(`{"seq":1` + many.String() + `}`), errMembers},

		// Nesting.
		{"64 levels of data", nested(64), errDepth},
		{"9,990 levels", nested(9_990), errDepth},
		{"20,000 levels", nested(20_000), errDepth},
		{"a million levels", nested(1_000_000), errDepth},
		{"a million levels, unclosed", data(strings.Repeat(`{"":`, 1_000_000)), errDepth},
		{"a million levels, no envelope", strings.Repeat("[", 1_000_000), errNotObject},
		{"deep unknown", publish(`"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), errDepth},
		{"deep since", since(`{"x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`), errDepth},
		{"deep topic", `{"type":"publish","topic":` + strings.Repeat("[", 64), errDepth},

		// Text.
		{"raw ff in topic", `{"type":"publish","topic":"` + "\xff" + `","data":1}`, ErrUTF8},
		{"raw ff in data", data("\"\xff\""), ErrUTF8},
		{"raw ff in a name in data", data("{\"\xff\":1}"), ErrUTF8},
		{"raw ff in unknown", publish("\"x\":\"\xff\""), ErrUTF8},
		{"raw ff between members", "{\xff}", ErrUTF8},
		{"raw ff behind the envelope", data("1") + "\xff", ErrUTF8},
		{"raw ff behind a fault of syntax", "{,\xff", ErrUTF8},
		{"overlong NUL", data("\"\xc0\x80\""), ErrUTF8},
		{"surrogate in UTF-8", data("\"\xed\xa0\x80\""), ErrUTF8},
		{"above U+10FFFF", data("\"\xf4\x90\x80\x80\""), ErrUTF8},
		{"cut character", data("\"\xe2\x82\""), ErrUTF8},
		{"raw NUL in topic", `{"type":"publish","topic":"` + "\x00" + `","data":1}`, errControl},
		{"raw LF in data", data("\"\n\""), errControl},
		{"lone surrogate in topic", `{"type":"publish","topic":"\ud800","data":1}`, errSurrogate},
		{"halves in the wrong order", publish(`"token":"\udc00\ud800"`), errSurrogate},
		{"lone surrogate in a name", publish(`"\ud800":1`), errSurrogate},
		{"lone surrogate in unknown", publish(`"x":{"a":"\ud800"}`), errSurrogate},
		{"lone surrogate in a topic of the wrong type", `{"topic":["\ud800"]}`, errSurrogate},
		{"lone surrogate in since of the wrong type", since(`["\ud800"]`), errSurrogate},
		{"lone surrogate in a number", since(`{"seq":"\ud800"}`), errSurrogate},
		{"escape in time", since(`{"time":"\x"}`), errEscape},
		{"escape x", publish(`"id":"\x41"`), errEscape},
		{"escape u+", publish(`"id":"\u+041"`), errEscape},
		{"escape x at the end", `{"id":"\x`, errEscape},
		{"escape U", data(`"\U0041"`), errEscape},

		// The frame as a whole.
		{"empty", "", errNotObject},
		{"space", " ", errNotObject},
		{"null", "null", errNotObject},
		{"array", "[]", errNotObject},
		{"string", `"x"`, errNotObject},
		{"number", "1", errNotObject},
		{"BOM", "\ufeff" + data("1"), errNotObject},
		{"binary", "\x00\x01", errNotObject},
		{"trailing text", data("1") + "x", errTrailing},
		{"two envelopes", data("1") + data("1"), errTrailing},
		{"trailing NUL", data("1") + "\x00", errTrailing},
		{"trailing BOM", data("1") + "\ufeff", errTrailing},
		{"trailing newline and brace", data("1") + "\n}", errTrailing},
		{"truncated", data("1")[:20], errTruncated},
		{"empty object", "{}", errNoType},

		// Not JSON, though some parsers take it.
		{"trailing comma", `{"type":"ping",}`, errSyntax},
		{"leading comma", `{,"type":"ping"}`, errSyntax},
		{"no comma", `{"type":"ping" "id":"1"}`, errSyntax},
		{"semicolon for a comma", `{"type":"ping";"id":"1"}`, errSyntax},
		{"no colon", `{"type" "ping"}`, errSyntax},
		{"semicolon for a colon", `{"type";"ping"}`, errSyntax},
		{"no colon in data", data(`{"a" 1}`), errSyntax},
		{"no colon in a later member in data", data(`{"a":1,"b" 2}`), errSyntax},
		{"semicolon for a colon in data", data(`{"a";1}`), errSyntax},
		{"semicolon for a comma in data", data(`{"a":1;"b":2}`), errSyntax},
		{"semicolon for a comma in an array", data(`[1;2]`), errSyntax},
		{"no value in since", since(`{"seq":,"x":1}`), errSyntax},
		{"comment", `{"type":"ping"/**/}`, errSyntax},
		{"single quotes", `{'type':'ping'}`, errSyntax},
		{"bare name", `{type:"ping"}`, errSyntax},
		{"trailing comma in data", data(`[1,]`), errSyntax},
		{"trailing comma in an object in data", data(`{"a":1,}`), errSyntax},
		{"mismatched", data(`[1}`), errSyntax},
		{"mismatched object", data(`{"a":1]`), errSyntax},
		{"form feed as space", "{\f}", errSyntax},
		{"no-break space", "{\u00a0}", errSyntax},
		{"NaN", data("NaN"), errSyntax},
		{"Infinity", data("-Infinity"), errSyntax},
		{"True", data("True"), errSyntax},
		{"nul", data("nul"), errSyntax},
		{"plus", data("+1"), errSyntax},
		{"leading zero", data("01"), errSyntax},
		{"leading dot", data(".5"), errSyntax},
		{"trailing dot", data("1."), errSyntax},
		{"hex", data("0x1"), errSyntax},
		{"empty exponent", data("1e"), errSyntax},
		{"minus alone", data("-"), errSyntax},
		{"colon behind a digit", data("1:"), errSyntax},
		{"colon in a fraction", data("1.:"), errSyntax},
		{"colon in an exponent", data("1e:"), errSyntax},
		{"colon for a digit", data(":"), errSyntax},
		{"minus at the end", `{"data":-`, errTruncated},
		{"dot at the end", `{"data":1.`, errTruncated},
		{"exponent at the end", `{"data":1e`, errTruncated},
		{"signed exponent at the end", `{"data":1e+`, errTruncated},
		{"no data value", data(""), errSyntax},

		// Members of the wrong type.
		{"type null", `{"type":null}`, errType},
		{"type number", `{"type":1}`, errType},
		{"type unknown", `{"type":"event"}`, errType},
		{"type in capitals", `{"type":"Publish"}`, errType},
		{"type empty", `{"type":""}`, errType},
		{"id null", publish(`"id":null`), errID},
		{"id number", publish(`"id":7`), errID},
		{"id empty", publish(`"id":""`), errID},
		{"id of 65 bytes", publish(`"id":"` + strings.Repeat("x", 65) + `"`), errID},
		{"topic null", `{"topic":null}`, errTopic},
		{"topic array", `{"type":"publish","topic":["a"],"data":1}`, errTopic},
		{"token null", publish(`"token":null`), errToken},
		{"token nested", publish(`"token":{"token":"x"}`), errToken},
		{"token array", publish(`"token":["x"]`), errToken},
		{"token true", publish(`"token":true`), errToken},
		{"msg_id null", publish(`"msg_id":null`), errMsgID},
		{"msg_id number", publish(`"msg_id":1`), errMsgID},
		{"msg_id empty", publish(`"msg_id":""`), errMsgID},
		{"msg_id of 65 bytes", publish(`"msg_id":"` + strings.Repeat("x", 65) + `"`), errMsgID},
		{"topic wrong in a ping", `{"type":"ping","topic":5}`, errTopic},

		// Members missing.
		{"no type", `{"topic":"a","data":1}`, errNoType},
		{"publish without topic", `{"type":"publish","data":1}`, errNoTopic},
		{"publish without data", `{"type":"publish","topic":"a","token":"x"}`, errNoData},
		{"data only inside data", `{"type":"publish","topic":"a","x":{"data":1}}`, errNoData},
		{"subscribe without topic", `{"type":"subscribe","token":"x"}`, errNoTopic},
		{"unsubscribe without topic", `{"type":"unsubscribe"}`, errNoTopic},

		// TTL.
		{"ttl null", publish(`"ttl":null`), errTTL},
		{"ttl string", publish(`"ttl":"60"`), errTTL},
		{"ttl zero", publish(`"ttl":0`), errTTL},
		{"ttl negative", publish(`"ttl":-1`), errTTL},
		{"ttl fraction", publish(`"ttl":1.5`), errTTL},
		{"ttl over 31 bits", publish(`"ttl":2147483648`), errTTL},

		// Since.
		{"epoch null", since(`{"seq":1,"epoch":null}`), errSinceEpoch},
		{"epoch number", since(`{"epoch":1,"seq":1}`), errSinceEpoch},
		{"epoch empty", since(`{"seq":1,"epoch":""}`), errSinceEpoch},
		{"epoch of 33 bytes", since(`{"seq":1,"epoch":"` + strings.Repeat("x", 33) + `"}`), errSinceEpoch},
		{"epoch alone", since(`{"epoch":"x"}`), errSince},
		{"epoch twice", since(`{"seq":1,"epoch":"x","epoch":"x"}`), errDuplicate},
		{"Epoch", since(`{"seq":1,"Epoch":"x"}`), errCase},
		{"since null", since(`null`), errSince},
		{"since array", since(`[1]`), errSince},
		{"since empty", since(`{}`), errSince},
		{"since of nothing known", since(`{"x":1}`), errSince},
		{"since of two", since(`{"seq":1,"last":1}`), errSince},
		{"seq string", since(`{"seq":"1"}`), errSinceSeq},
		{"seq null", since(`{"seq":null}`), errSinceSeq},
		{"seq negative", since(`{"seq":-1}`), errSinceSeq},
		{"seq fraction", since(`{"seq":1.0}`), errSinceSeq},
		{"seq exponent", since(`{"seq":1e3}`), errSinceSeq},
		{"seq over 64 bits", since(`{"seq":18446744073709551616}`), errSinceSeq},
		{"seq of many digits", since(`{"seq":` + strings.Repeat("9", 60_000) + `}`), errSinceSeq},
		{"last true", since(`{"last":true}`), errSinceLast},
		{"time number", since(`{"time":1}`), errSinceTime},
		{"time without zone", since(`{"time":"2026-02-01T10:00:00"}`), errSinceTime},
		{"time with a comma", since(`{"time":"2026-02-01T10:00:00,5Z"}`), errSinceTime},
		{"time of one digit", since(`{"time":"2026-02-01T1:00:00Z"}`), errSinceTime},
		{"time with an empty fraction", since(`{"time":"2026-02-01T10:00:00.Z"}`), errSinceTime},
		{"time with small letters", since(`{"time":"2026-02-01t10:00:00z"}`), errSinceTime},
		{"leap second", since(`{"time":"2016-12-31T23:59:60Z"}`), errSinceTime},
		{"hour 24", since(`{"time":"2026-02-01T24:00:00Z"}`), errSinceTime},
		{"month 0", since(`{"time":"2026-00-01T10:00:00Z"}`), errSinceTime},
		{"month 13", since(`{"time":"2026-13-01T10:00:00Z"}`), errSinceTime},
		{"day 0", since(`{"time":"2026-01-00T10:00:00Z"}`), errSinceTime},
		{"offset of 24 hours", since(`{"time":"2026-02-01T10:00:00+24:00"}`), errSinceTime},
		{"offset without colon", since(`{"time":"2026-02-01T10:00:00+0100"}`), errSinceTime},
		{"text behind the zone", since(`{"time":"2026-02-01T10:00:00Zulu"}`), errSinceTime},
		{"time empty", since(`{"time":""}`), errSinceTime},
		{"30 February", since(`{"time":"2026-02-30T10:00:00Z"}`), errSinceTime},
		{"time before 1678", since(`{"time":"1677-12-31T23:59:59Z"}`), errSinceTime},
		{"time after 2261", since(`{"time":"2262-01-01T00:00:00Z"}`), errSinceTime},
	} {
		var env Envelope
		if err := Parse([]byte(c.frame), &env); err != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseTakesWhatIsAtTheBound(t *testing.T) {
	x64 := strings.Repeat("x", 64)
	var many strings.Builder
	for i := range MaxMembers - 1 {
		fmt.Fprintf(&many, `,"m%d":0`, i)
	}
	for _, frame := range []string{
		`{"type":"publish","topic":"a","data":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		`{"type":"subscribe","topic":"a","since":{"seq":1,"x":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + `}}`,
		`{"type":"ping","id":"` + x64 + `","msg_id":"` + x64 + `"}`,
		`{"type":"ping","id":"` + strings.Repeat(`\u0041`, 64) + `"}`,
		`{"type":"ping"` + many.String() + `}`,
		`{"type":"subscribe","topic":"a","since":{"seq":18446744073709551615}}`,
		`{"type":"subscribe","topic":"a","since":{"last":0}}`,
		`{"type":"subscribe","topic":"a","since":{"time":"1678-01-01T00:00:00Z"}}`,
		`{"type":"subscribe","topic":"a","since":{"time":"2024-02-29T23:59:59.` + strings.Repeat("9", 60_000) + `-23:59"}}`,
		`{"type":"subscribe","topic":"a","since":{"time":"2261-12-31T23:59:59.999999999Z"}}`,
	} {
		var env Envelope
		if err := Parse([]byte(frame), &env); err != nil {
			t.Errorf("%.80s: %v", frame, err)
		}
	}
}

// Names and strings are unescaped in place, which may leave half a character behind them. A fault that is found later is
// still named rightly, and a frame that was UTF-8 when it came is not refused as if it had not been.
func TestParseNamesTheFaultBehindUnescapedText(t *testing.T) {
	for rest, want := range map[string]*Error{
		`"x`: errTruncated, `"x\x"`: errEscape, `"x\ud800":0}`: errSurrogate, "\"x\n": errControl, `"x"`: errTruncated, `"x":`: errTruncated,
		`x`: errSyntax, `"x";`: errSyntax, `"x":;`: errSyntax, `"x":tru;`: errSyntax, `"x":tru`: errTruncated, `"x":1.;`: errSyntax,
		`"x":-`: errTruncated, `"x":00`: errSyntax, `"x":[1;`: errSyntax, `"x":[1`: errTruncated, `"x":[`: errTruncated, `"x":{`: errTruncated,
		`"x":{1`: errSyntax, `"x":{"y"`: errTruncated, `"x":{"y";`: errSyntax, `"x":{"y":1,2}`: errSyntax, `"x":{"y\x":1}`: errEscape,
		`"x":"\x"`: errEscape, "\"x\":\"\n\"": errControl, `"x":"`: errTruncated, `"x":"\ud800"`: errSurrogate, `"id":"\x"`: errEscape,
		`"x":` + strings.Repeat("[", 64): errDepth, `"x":1}x`: errTrailing, `"x":1;`: errSyntax, `"x":1`: errTruncated,
		`"since":{"\n日":1,;`: errSyntax, `"since":{"time":"\n日",;`: errSyntax, `"since":{"\n日":"\x"`: errEscape,
		"\"x\":\"\xff": ErrUTF8, "\"x\":;\xff": ErrUTF8, "\"since\":{\"\\n日\":1,;\xff": ErrUTF8,
	} {
		var env Envelope
		frame := `{"\n日":0,"token":"\n日",` + rest
		if err := Parse([]byte(frame), &env); err != want {
			t.Errorf("%q: got %v, want %v", frame, err, want)
		}
		var m Message
		frame = `{"\n日":0,"topic":"\n日",` + rest
		if err := ParseMessage([]byte(frame), &m); err != want {
			t.Errorf("message %q: got %v, want %v", frame, err, want)
		}
	}
}

// An envelope that is parsed into holds nothing of the one before.
func TestParseForgetsTheEnvelopeBefore(t *testing.T) {
	var env Envelope
	for _, frame := range []string{envelopes[0], envelopes[1], `{"type":"ping"}`} {
		if err := Parse([]byte(frame), &env); err != nil {
			t.Fatal(err)
		}
	}
	if want := (Envelope{Kind: Ping}); !sameEnvelope(env, want) {
		t.Errorf("got %+v, want %+v", env, want)
	}
}

// An id that is refused is not kept: it would be sent back.
func TestParseKeepsNoIDThatItRefuses(t *testing.T) {
	for _, id := range []string{`""`, `"` + strings.Repeat("x", MaxIDBytes+1) + `"`, `7`} {
		var env Envelope
		frame := `{"type":"ping","id":` + id + `,"msg_id":` + id + `}`
		if err := Parse([]byte(frame), &env); err != errID || env.ID != nil || env.MsgID != nil {
			t.Errorf("%s: id %q, msg_id %q, error %v", frame, env.ID, env.MsgID, err)
		}
	}
}

// The bounds are part of the contract (docs/protocol.md).
func TestBounds(t *testing.T) {
	got := [...]int{MaxTopicBytes, MaxTopicTokens, MaxIDBytes, MaxMsgIDBytes, MaxDepth, MaxMembers}
	if want := [...]int{255, 16, 64, 64, 64, 32}; got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// An error is answered under the id of the envelope, wherever in it that stands.
func TestParseKeepsTheIDOfWhatItRefuses(t *testing.T) {
	for _, frame := range []string{
		`{"id":"7","type":"publish"}`,
		`{"type":"nonsense","id":"7"}`,
		`{"type":"publish","topic":"a","topic":"b","data":1,"id":"7"}`,
		`{"Type":"publish","id":"7"}`,
		`{"id":"7","type":"ping"} x`,
		`{"id":"7","type":`,
	} {
		var env Envelope
		if err := Parse([]byte(frame), &env); err == nil || string(env.ID) != "7" {
			t.Errorf("%s: id %q, error %v", frame, env.ID, err)
		}
	}
}

func TestParseRefusesEveryPrefix(t *testing.T) {
	for _, frame := range envelopes {
		frame = strings.TrimRight(frame, " ")
		for n := range len(frame) {
			var env Envelope
			if Parse([]byte(frame[:n]), &env) == nil {
				t.Errorf("accepted %q", frame[:n])
			}
		}
	}
}

func TestParseLeavesDataAlone(t *testing.T) {
	const data = `{"\u0061":"\n\ud83d\ude00", "b" : [ 1.0e5 ]}`
	frame := []byte(`{"ty\u0070e":"publish","t\u006fpic":"\u0061","data": ` + data + ` }`)
	var env Envelope
	if err := Parse(frame, &env); err != nil || string(env.Data) != data || string(env.Topic) != "a" {
		t.Errorf("data %s, topic %s, error %v", env.Data, env.Topic, err)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	frames := append([]string{
		`{"type":"publish","topic":"a","topic":"b"}`, `{"type":"ping","x":"\ud800"}`, "\xff", `{"type":`,
		`{"type":"subscribe","topic":"a","since":{"seq":"` + strings.Repeat("9", 100) + `"}}`,
	}, envelopes...)
	for _, frame := range frames {
		buf := make([]byte, len(frame))
		var env Envelope
		if n := testing.AllocsPerRun(100, func() {
			copy(buf, frame)
			_ = Parse(buf, &env)
		}); n != 0 {
			t.Errorf("%s: %v allocations", frame, n)
		}
	}
}

func TestErrorsAreFoundByCode(t *testing.T) {
	var env Envelope
	var err error = Parse([]byte("{"), &env)
	if !errors.Is(err, BadEnvelope) || errors.Is(err, BadTopic) {
		t.Errorf("%v is not told by its code", err)
	}
	if got := err.Error(); got != "bad_envelope: the JSON text ends too early" {
		t.Error(got)
	}
	if got := (&Error{Code: Unavailable}).Error(); got != "unavailable: "+Unavailable.Text() {
		t.Error(got)
	}
}
