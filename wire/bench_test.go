package wire

import (
	"strings"
	"testing"
)

// token300 has the length of a usual EdDSA token with one grant.
var token300 = strings.Repeat("eyJhbGciOi", 30)

func benchParse(b *testing.B, frame []byte) {
	var env Envelope
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Parse(frame, &env); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePublish(b *testing.B) {
	data := []byte(`{"text":"` + strings.Repeat("x", 117) + `"}`)
	benchParse(b, AppendPublish(nil, "7", "rooms.42", token300, data, ""))
}

func BenchmarkParseSubscribe(b *testing.B) {
	benchParse(b, AppendSubscribe(nil, "8", "rooms.*", token300))
}

func BenchmarkParseHostile(b *testing.B) {
	for name, frame := range map[string]string{
		"nested":  strings.Repeat(`{"a":`, 13_000),
		"members": `{` + strings.Repeat(`"`+strings.Repeat("a", 2000)+`":0,`, MaxMembers),
		"escapes": `{"type":"` + strings.Repeat(`\u00e9`, 10_000) + `"}`,
	} {
		b.Run(name, func(b *testing.B) {
			var env Envelope
			buf := make([]byte, len(frame))
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				copy(buf, frame)
				if Parse(buf, &env) == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkParseEvent(b *testing.B) {
	frame := AppendEvent(nil, "rooms.42", "rooms.*", []byte(strings.Repeat("1", 128)))
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		if err := ParseMessage(frame, &m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	data := []byte(strings.Repeat("1", 128))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], "rooms.42", "rooms.*", data)
	}
}

func BenchmarkValidTopic(b *testing.B) {
	topic := []byte("tenants.acme.rooms.42")
	for b.Loop() {
		if !ValidTopic(topic) {
			b.Fatal("invalid")
		}
	}
}

func BenchmarkCovers(b *testing.B) {
	topic := []byte("tenants.acme.rooms.42")
	for b.Loop() {
		if !Covers("tenants.*.rooms.>", topic) {
			b.Fatal("not covered")
		}
	}
}
