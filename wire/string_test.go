package wire

import (
	"strconv"
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

// Every byte in every place of an escape with four hexadecimal digits, and every prefix.
func TestHex4(t *testing.T) {
	for _, text := range []string{`\u09aF`, `\uAf90`} {
		for n := range len(text) {
			if r, ok := hex4([]byte(text[:n])); ok {
				t.Errorf("%s is read as %#x", text[:n], r)
			}
		}
		for at := range text {
			for c := range 256 {
				b := []byte(text)
				b[at] = byte(c)
				want, err := strconv.ParseUint(string(b[2:]), 16, 16)
				valid := err == nil && b[0] == '\\' && b[1] == 'u'
				if r, ok := hex4(b); ok != valid || ok && r != rune(want) {
					t.Errorf("%q: %#x, %v, want %#x, %v", b, r, ok, want, valid)
				}
			}
		}
	}
}
