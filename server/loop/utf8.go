package loop

import "unicode/utf8"

// textCheck tells as early as can be that text which comes in pieces is not
// UTF-8 (RFC 6455 §8.1): at the first byte behind which nothing could make it so.
// The zero textCheck is at the beginning of a text.
type textCheck struct {
	cut [utf8.UTFMax]byte // the beginning of a rune whose rest is to come
	n   uint8             // its bytes
}

// next takes the next piece and returns false when the text is not UTF-8,
// whatever follows.
func (x *textCheck) next(p []byte) bool {
	for x.n > 0 && len(p) > 0 {
		x.cut[x.n] = p[0]
		x.n++
		p = p[1:]
		if c := x.cut[:x.n]; utf8.FullRune(c) {
			if !utf8.Valid(c) {
				return false
			}
			x.n = 0
		}
	}
	for i := len(p) - 1; i >= max(0, len(p)-utf8.UTFMax+1); i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				x.n = uint8(copy(x.cut[:], p[i:]))
				p = p[:i]
			}
			break
		}
	}
	return utf8.Valid(p)
}

// whole reports whether the text may end here.
func (x *textCheck) whole() bool { return x.n == 0 }
