package wire

import (
	"strings"
	"testing"
)

// Every byte, at every distance from the start of a word and with every
// neighbour that could borrow from it.
func TestPlain(t *testing.T) {
	special := func(c byte) bool { return c < ' ' || c == '"' || c == '\\' || c >= 0x80 }
	for n := range 40 {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("!", n))
				b[at] = byte(c)
				if at+1 < n {
					b[at+1] = '#' // one above the quote: a borrow would mark it
				}
				want := n
				if special(byte(c)) {
					want = at
				}
				if got := plain(b, 0); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
			}
		}
	}
}

func TestValidJSON(t *testing.T) {
	for text, want := range map[string]bool{
		`1`: true, ` {"a":[]} `: true, `"\ud800"`: true, `-0`: true, "\n\tnull\r": true,
		strings.Repeat("[", 63) + strings.Repeat("]", 63): true,
		strings.Repeat("[", 64) + strings.Repeat("]", 64): false,
		``: false, ` `: false, `1 2`: false, `{} }`: false, "\"\xff\"": false, "\ufeff1": false, `{"a":1`: false, `1},"x":{`: false,
	} {
		if ValidJSON([]byte(text)) != want {
			t.Errorf("%q: not %v", text, want)
		}
	}
}
