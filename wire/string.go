package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// stops marks, by the high bit of a byte, the bytes of x that a string scan must
// look at: a quote, a backslash, a control character or a byte outside ASCII.
// Flipping bit 1 moves the quote, 0x22, next to the controls, so that one
// subtraction finds both. Outside ASCII the second term marks every byte but
// 0xdc, and that the first does. A borrow can only spoil bytes above the first
// that is marked rightly, so the lowest mark is exact.
func stops(x uint64) uint64 {
	controlOrQuote := (x ^ ones*0x02) - ones*0x21
	backslash := (x ^ ones*'\\') - ones
	return (controlOrQuote | backslash) & highs
}

// plain returns the index of the first byte at or behind b[i] that stops marks;
// len(b) when there is none. Member names end within the first eight bytes; most
// of a frame is the token, hundreds of plain bytes, so from there on sixteen are
// tested at a time.
func plain(b []byte, i int) int {
	if i+8 <= len(b) {
		if stop := stops(binary.LittleEndian.Uint64(b[i:])); stop != 0 {
			return i + bits.TrailingZeros64(stop)/8
		}
		i += 8
	}
	for i+16 <= len(b) {
		lo := stops(binary.LittleEndian.Uint64(b[i:]))
		hi := stops(binary.LittleEndian.Uint64(b[i+8:]))
		if lo|hi != 0 {
			if lo != 0 {
				return i + bits.TrailingZeros64(lo)/8
			}
			return i + 8 + bits.TrailingZeros64(hi)/8
		}
		i += 16
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// scanString checks a string whose opening quote is before b[i] and returns the
// index of its closing quote, and whether there are escapes in it. On error the
// index is that of the fault. lone permits escapes of surrogates without a
// partner, which RFC 8259 §8.2 lets pass in text that nobody here interprets.
func scanString(b []byte, i int, lone bool) (end int, escaped bool, err *Error) {
	for {
		i = plain(b, i)
		if i == len(b) {
			return i, escaped, errTruncated
		}
		switch c := b[i]; {
		case c == '"':
			return i, escaped, nil
		case c == '\\':
			n, err := scanEscape(b[i:], lone)
			if err != nil {
				return i, true, err
			}
			i += n
			escaped = true
		case c < ' ':
			return i, escaped, errControl
		default:
			_, n := utf8.DecodeRune(b[i:])
			if n == 1 {
				return i, escaped, ErrUTF8
			}
			i += n
		}
	}
}

// scanEscape checks the escape that b begins with and returns its length; both
// halves of a surrogate pair count as one.
func scanEscape(b []byte, lone bool) (int, *Error) {
	if len(b) < 2 {
		return 0, errTruncated
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
	default:
		return 0, errEscape
	}
	r, ok := hex4(b)
	switch {
	case !ok:
		return 0, errEscape
	case !utf16.IsSurrogate(r):
		return 6, nil
	}
	if low, ok := hex4(b[6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
		return 12, nil
	}
	if lone {
		return 6, nil
	}
	return 0, errSurrogate
}

// hex4 decodes the \uXXXX that b begins with.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape undoes the escapes of s, which scanString has accepted without lone,
// in place, and returns the shorter text. No escape is shorter than what it
// stands for.
func unescape(s []byte) []byte {
	w := 0
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			s[w] = s[i]
			w++
			i++
			continue
		}
		switch c := s[i+1]; c {
		case 'u':
			r, _ := hex4(s[i:])
			i += 6
			if utf16.IsSurrogate(r) {
				low, _ := hex4(s[i:])
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			w += utf8.EncodeRune(s[w:], r)
			continue
		case 'b':
			s[w] = '\b'
		case 'f':
			s[w] = '\f'
		case 'n':
			s[w] = '\n'
		case 'r':
			s[w] = '\r'
		case 't':
			s[w] = '\t'
		default:
			s[w] = c
		}
		w++
		i += 2
	}
	return s[:w]
}
