package wire

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidTopic(t *testing.T) {
	tokens := func(n int) string { return strings.TrimSuffix(strings.Repeat("a.", n), ".") }
	for s, want := range map[string]bool{
		"a": true, "rooms.42": true, "a/b": true, "Room.1": true, `quo"ted\`: true, "é.日本.😀": true, "a._x.$y": true, "-.:;": true, "!a!": true,
		tokens(16): true, strings.Repeat("a", 255): true, strings.Repeat("é", 127): true,
		"\u200b": true, "\ufffd": true, // neither white space nor control in Unicode

		"": false, ".": false, "..": false, "a..b": false, ".a": false, "a.": false, "a.b.": false,
		"*": false, ">": false, "a.*": false, "a.>": false, "a*": false, "a>b": false, "a.**": false, "a.*b": false,
		"$": false, "$JS.API.STREAM.DELETE.X": false, "$SYS.x": false, "$KV.": false, "$KV.b.k": false, "$O.x": false,
		"_": false, "_INBOX.x": false, "_R_.x": false,
		" ": false, "a b": false, "a. .b": false, "a\t": false, "a\r": false, "a\n": false, "a\r\nPUB x 1\r\n1\r\n": false,
		"\x00": false, "a\x00": false, "a\x01b": false, "a\x1f": false, "a\x7f": false,
		"a\u0080": false, "a\u0085b": false, "a\u009f": false, "a\u00a0": false, "\u1680": false, "\u2003": false,
		"a\u2028": false, "a\u2029": false, "\u202f": false, "\u205f": false, "\u3000": false,
		"\xff": false, "\x80": false, "a\x80b": false, "a\xc3": false, "\xed\xa0\x80": false, "\xc0\xae": false,
		tokens(17): false, strings.Repeat("a", 256): false, strings.Repeat("é", 128): false, strings.Repeat("a", 5000): false,
	} {
		if ValidTopic(s) != want || ValidTopic([]byte(s)) != want {
			t.Errorf("topic %.40q: not %v", s, want)
		}
		if want && (!ValidPattern(s) || HasWildcard(s)) {
			t.Errorf("topic %.40q is not a pattern without wildcards", s)
		}
	}
}

func TestValidPattern(t *testing.T) {
	for s, want := range map[string]bool{
		"*": true, ">": true, "*.*": true, "*.>": true, "a.*": true, "a.>": true, "a.*.b": true, "*.a.>": true,
		"a.**": false, "a.*b": false, "a.b*": false, "**": false, ">>": false, ">.a": false, "a.>.b": false, "a.>b": false, "a>": false,
		"*.": false, ".*": false, ">.": false, "*.$x": true, "$SYS.>": false, "$*": false, "_INBOX.>": false, "*>": false, ">*": false, "* ": false,
		strings.Repeat("*.", 15) + ">": true, strings.Repeat("*.", 16) + ">": false,
	} {
		if ValidPattern(s) != want || ValidPattern([]byte(s)) != want {
			t.Errorf("%q: not %v", s, want)
		}
		if want && !HasWildcard([]byte(s)) {
			t.Errorf("%q: no wildcard found", s)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		pattern, sub string
		want         bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"room.1", "room.10", false},
		{"room.10", "room.1", false},
		{"room.1", "Room.1", false},
		{"a.b", "a/b", false},
		{"*", "a", true},
		{"*", "*", true},
		{"*", ">", false},
		{"*", "a.b", false},
		{">", "a", true},
		{">", "*", true},
		{">", ">", true},
		{">", "a.*.>", true},
		{"a.>", "a.*", true},
		{"a.>", "a.*.>", true},
		{"a.>", "a.>", true},
		{"a.>", "a", false},
		{"a.>", "*.b", false},
		{"*.>", "a", false},
		{"*.>", "a.b", true},
		{"*.>", ">", false},
		{"*.>", "*.*", true},
		{"a.*", "a.>", false},
		{"a.*", "a.b", true},
		{"a.*", "a.*", true},
		{"a.b", "a.*", false},
		{"a.*.c", "a.b.*", false},
		{"rooms.*", "rooms.42", true},
		{"rooms.*", "roomsx.42", false},
	} {
		if Covers(c.pattern, c.sub) != c.want || Covers([]byte(c.pattern), []byte(c.sub)) != c.want {
			t.Errorf("%s covers %s: not %v", c.pattern, c.sub, c.want)
		}
	}
}

// matches is what a pattern means (NATS rules).
func matches(pattern, topic []string) bool {
	switch {
	case len(pattern) == 0 || len(topic) == 0:
		return len(pattern) == len(topic)
	case pattern[0] == ">":
		return true
	default:
		return (pattern[0] == "*" || pattern[0] == topic[0]) && matches(pattern[1:], topic[1:])
	}
}

// topics of up to 5 tokens over 3 letters: one letter and one token more than
// the patterns below have, so that a difference between two patterns shows on
// one of them.
var topics = func() (all [][]string) {
	all = [][]string{nil}
	for i := 0; i < len(all); i++ {
		if len(all[i]) < 5 {
			for _, token := range []string{"a", "b", "c"} {
				all = append(all, append(append([]string{}, all[i]...), token))
			}
		}
	}
	return all[1:]
}()

func TestCoversByDefinition(t *testing.T) {
	pattern := rapid.Custom(func(t *rapid.T) []string {
		p := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 0, 3).Draw(t, "tokens")
		if len(p) == 0 || rapid.Bool().Draw(t, "full") {
			p = append(p, ">")
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		p, s := pattern.Draw(t, "pattern"), pattern.Draw(t, "sub")
		want := true
		for _, topic := range topics {
			if matches(s, topic) && !matches(p, topic) {
				want = false
			}
		}
		if got := Covers(strings.Join(p, "."), []byte(strings.Join(s, "."))); got != want {
			t.Fatalf("%v covers %v: %v", p, s, got)
		}
	})
}

func TestTopicsAllocateNothing(t *testing.T) {
	topic := []byte("rooms.é日本.with-a-long-name-that-fills-more-than-32-bytes")
	if n := testing.AllocsPerRun(100, func() {
		if !ValidTopic(topic) || !ValidPattern(topic) || HasWildcard(topic) || !Covers("rooms.>", topic) {
			t.Error("wrong")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Two patterns overlap exactly if some topic is matched by both: some of all topics of a few
// tokens.
func TestOverlapByDefinition(t *testing.T) {
	var topics []string
	for depth, last := 0, []string{""}; depth < 5; depth++ {
		var next []string
		for _, start := range last {
			for _, token := range []string{"a", "b", "c"} {
				next = append(next, strings.TrimPrefix(start+"."+token, "."))
			}
		}
		topics, last = append(topics, next...), next
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := func(name string) string {
			p := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 0, 4).Draw(t, name)
			if len(p) == 0 || rapid.Bool().Draw(t, "full") {
				p = append(p, ">")
			}
			return strings.Join(p, ".")
		}
		a, b, want := pattern("a"), pattern("b"), false
		for _, topic := range topics {
			want = want || Covers(a, topic) && Covers(b, topic)
		}
		if Overlap(a, b) != want || Overlap([]byte(b), a) != want {
			t.Fatalf("%s and %s: not %v", a, b, want)
		}
	})
}
