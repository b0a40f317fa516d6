package wire

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

// The reference below says of a frame what Parse must make of it, in terms of
// jsontext and with no regard to speed.

var errReference = errors.New("breaks a rule of the protocol")

type member struct {
	name  string
	value jsontext.Value
}

// readObject reads an object's members, names unquoted, with nothing behind it.
func readObject(text []byte) (members []member, err error) {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	if tok.Kind() != '{' {
		return nil, errReference
	}
	for dec.PeekKind() == '"' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		name, err := jsontext.AppendUnquote(nil, quoted) // refuses bad UTF-8 and lone surrogates
		if err != nil {
			return nil, err
		}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		members = append(members, member{string(name), value.Clone()})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("trailing bytes")
	}
	return members, nil
}

// onlyOnce checks names: no duplicates, no known one in other capitals.
func onlyOnce(members []member, known ...string) error {
	for i, m := range members {
		for _, other := range members[:i] {
			if m.name == other.name {
				return errReference
			}
		}
		for _, name := range known {
			if m.name != name && strings.EqualFold(m.name, name) {
				return errReference
			}
		}
	}
	if len(members) > MaxMembers {
		return errReference
	}
	return nil
}

// deep reports whether a value nests more than n levels.
func deep(text []byte, n int) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		if _, err := dec.ReadToken(); err != nil {
			return false
		}
		if dec.StackDepth() > n {
			return true
		}
	}
}

// reference parses frame. An error that is not errReference says that the frame
// is not JSON as jsontext knows it.
func reference(frame []byte) (env Envelope, err error) {
	if !utf8.Valid(frame) {
		return env, errors.New("not UTF-8")
	}
	members, err := readObject(frame)
	if err != nil {
		return env, err
	}
	for _, m := range members {
		if m.name != "data" && !m.value.IsValid(jsontext.AllowDuplicateNames(true)) {
			return env, errors.New("lone surrogate")
		}
	}
	if deep(frame, MaxDepth) {
		return env, errReference
	}
	if err := onlyOnce(members, "type", "id", "topic", "token", "data", "msg_id", "ttl", "since"); err != nil {
		return env, err
	}
	for _, m := range members {
		if err := env.reference(m); err != nil {
			return env, err
		}
	}
	switch {
	case env.Kind == 0,
		env.Kind == Publish && (env.Topic == nil || env.Data == nil),
		(env.Kind == Subscribe || env.Kind == Unsubscribe) && env.Topic == nil:
		return env, errReference
	}
	return env, nil
}

func (env *Envelope) reference(m member) error {
	text, bad := []byte(nil), m.value.Kind() != '"'
	if !bad {
		text, _ = jsontext.AppendUnquote([]byte{}, m.value)
	}
	switch m.name {
	case "type":
		i := slices.Index([]string{"publish", "subscribe", "unsubscribe", "auth", "ping"}, string(text))
		env.Kind = Kind(i + 1)
		bad = bad || i < 0
	case "id":
		env.ID = text
		bad = bad || len(text) == 0 || len(text) > 64
	case "topic":
		env.Topic = text
	case "token":
		env.Token = text
	case "data":
		env.Data = m.value
		bad = false
	case "msg_id":
		env.MsgID = text
		bad = bad || len(text) == 0 || len(text) > 64
	case "ttl":
		n, err := strconv.ParseUint(string(m.value), 10, 31)
		env.TTL = uint32(n)
		bad = err != nil || n == 0
	case "since":
		return env.Since.reference(m.value)
	default:
		bad = false
	}
	if bad {
		return errReference
	}
	return nil
}

// rfc3339 is what time.Time.UnmarshalText lacks in strictness.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func (s *Since) reference(value jsontext.Value) error {
	if value.Kind() != '{' {
		return errReference
	}
	members, err := readObject(value)
	if err != nil {
		return err
	}
	if err := onlyOnce(members, "seq", "last", "time", "epoch"); err != nil {
		return err
	}
	for _, m := range members {
		var kind SinceKind
		switch m.name {
		case "seq", "last":
			kind = map[string]SinceKind{"seq": SinceSeq, "last": SinceLast}[m.name]
			s.N, err = strconv.ParseUint(string(m.value), 10, 64)
		case "time":
			kind = SinceTime
			var at time.Time
			if m.value.Kind() != '"' {
				return errReference
			}
			text, _ := jsontext.AppendUnquote(nil, m.value)
			if !rfc3339.Match(text) {
				return errReference
			}
			err = at.UnmarshalText(text)
			s.Time = at.UnixNano()
			if y := at.UTC().Year(); y < 1678 || y > 2261 {
				return errReference
			}
		case "epoch":
			if m.value.Kind() != '"' {
				return errReference
			}
			s.Epoch, _ = jsontext.AppendUnquote([]byte{}, m.value)
			if len(s.Epoch) == 0 || len(s.Epoch) > 32 {
				return errReference
			}
			continue
		default:
			continue
		}
		if err != nil || s.Kind != SinceNone {
			return errReference
		}
		s.Kind = kind
	}
	if s.Kind == SinceNone {
		return errReference
	}
	return nil
}

func isSyntax(err *Error) bool {
	switch err {
	case ErrUTF8, errSyntax, errTruncated, errTrailing, errControl, errEscape, errSurrogate:
		return true
	}
	return false
}

// FuzzParse compares Parse with the reference: the same frames are accepted,
// with the same members; what Parse calls malformed, jsontext does not take
// either; ErrUTF8 is for exactly the frames that are not UTF-8.
func FuzzParse(f *testing.F) {
	for _, frame := range envelopes {
		f.Add([]byte(frame))
	}
	for _, frame := range []string{
		`{"type":"ping","type":"ping"}`, `{"Type":"ping"}`, "{\"type\":\"\xff\"}", `{"type":"ping","\ud800":0}`,
		`{"type":"ping"} {}`, `[[[{"a":[`, `{"type":"publish","topic":"a","data":[{"a":{}},[],[[]],"\u0000",-1.5E-7]}`,
		`{"type":"ping","id":"\u00`, "{\"type\":\"ping\",\"\\n\u00e9\":1,\xff", `{"type":"ping","a":"\ud800\u0041"}`,
	} {
		f.Add([]byte(frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) { compare(t, frame) })
}

func compare(t rapid.TB, frame []byte) {
	want, wantErr := reference(frame)
	var env Envelope
	err := Parse(bytes.Clone(frame), &env)
	switch {
	case (err == nil) != (wantErr == nil):
		t.Fatalf("%q: got %v, want %v", frame, err, wantErr)
	case err == nil && !sameEnvelope(env, want):
		t.Fatalf("%q: got %+v, want %+v", frame, env, want)
	case isSyntax(err) && errors.Is(wantErr, errReference):
		t.Fatalf("%q: %v, but jsontext reads it", frame, err)
	case (err == ErrUTF8) == utf8.Valid(frame):
		t.Fatalf("%q: %v of a frame that is UTF-8: %v", frame, err, utf8.Valid(frame))
	}
}

// TestParseIsTheReference reaches deeper than byte mutations do: it puts
// envelopes together from pieces that are each nearly right.
func TestParseIsTheReference(t *testing.T) {
	names := rapid.SampledFrom([]string{
		"type", "id", "topic", "token", "data", "msg_id", "ttl", "since", "seq", "last", "time", "epoch", "x", "",
		"Topic", `to\u0070ic`, "to\u212Aen", `\u017fince`, `\ud800`, "\xff",
	})
	leaves := rapid.SampledFrom([]string{
		`"publish"`, `"subscribe"`, `"ping"`, `"p\u0069ng"`, `"a"`, `""`, `"\ud83d\ude00"`, `"\ud800"`, "\"\xff\"",
		`"2026-02-01T10:00:00.25+01:00"`, `"2026-02-30T10:00:00Z"`, "0", "7", "-1", "1.0", "18446744073709551616",
		"null", "true", "01", "", "[]", "{}", "{\"a\":[1,{}],\"a\":\"\u00e9\"}", strings.Repeat("[", 63) + strings.Repeat("]", 63),
	})
	space := rapid.SampledFrom([]string{"", "", "", "", " ", "\n\t", "\f"})
	object := func(t *rapid.T, value *rapid.Generator[string], start ...string) string {
		members := start
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			name := names.Draw(t, "name")
			members = append(members, space.Draw(t, "space")+`"`+name+`":`+space.Draw(t, "space")+value.Draw(t, "value"))
		}
		return "{" + strings.Join(rapid.Permutation(members).Draw(t, "order"), ",") + "}"
	}
	value := rapid.OneOf(leaves, leaves, rapid.Custom(func(t *rapid.T) string { return object(t, leaves) }))
	starts := rapid.SampledFrom([][]string{
		nil, {`"type":"ping"`}, {`"type":"publish"`, `"topic":"a"`, `"data":1`}, {`"type":"subscribe"`, `"topic":"a"`},
	})
	rapid.Check(t, func(t *rapid.T) {
		compare(t, []byte(object(t, value, slices.Clone(starts.Draw(t, "start"))...)+space.Draw(t, "end")))
	})
}

// FuzzValidJSON compares ValidJSON with jsontext, and with what Parse takes as
// data.
func FuzzValidJSON(f *testing.F) {
	for _, text := range []string{`{"a":[1,2.5e-3,"\ud800",null]}`, ` 0 `, `"\u00e9"`, `{"a":1,"a":2}`, `1},"x":{`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := ValidJSON(text)
		want := utf8.Valid(text) && !deep(text, MaxDepth-1) &&
			jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		if got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
		frame := AppendPublish(nil, "", "a", "", text, "")
		var env Envelope
		if got && (Parse(frame, &env) != nil || !bytes.Equal(env.Data, bytes.Trim(text, " \t\r\n"))) {
			t.Fatal("not data")
		}
	})
}

// FuzzParseMessage checks that nothing a server sends upsets a client, and that
// a slice of a message never leaves its frame.
func FuzzParseMessage(f *testing.F) {
	for _, g := range goldens() {
		f.Add(g.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var m Message
		err := ParseMessage(bytes.Clone(frame), &m)
		if err == nil && !jsontext.Value(frame).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
			t.Fatal("accepted what is not JSON")
		}
		if total := len(m.ID) + len(m.Topic) + len(m.Pattern) + len(m.Data) + len(m.Detail) + len(m.Conn) + len(m.Node) + len(m.Time) + len(m.From) + len(m.Stream) + len(m.Epoch); total > len(frame) {
			t.Fatalf("%d bytes from %d", total, len(frame))
		}
	})
}
