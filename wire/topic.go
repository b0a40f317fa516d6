package wire

import (
	"unicode"
	"unicode/utf8"
)

// ValidTopic reports whether s is a topic: 1 to MaxTopicBytes bytes of UTF-8, 1
// to MaxTopicTokens tokens between dots, no token empty, no character that
// Unicode calls white space or control, no '*' or '>', and not '$' or '_' first,
// which would reach NATS's own subjects ($JS.API, $SYS, _INBOX).
func ValidTopic[S ~string | ~[]byte](s S) bool { return valid(s, false) }

// ValidPattern reports whether s is a pattern: a topic in which a token may be
// '*' and the last may be '>'.
func ValidPattern[S ~string | ~[]byte](s S) bool { return valid(s, true) }

func valid[S ~string | ~[]byte](s S, wildcards bool) bool {
	if len(s) == 0 || len(s) > MaxTopicBytes || s[0] == '$' || s[0] == '_' {
		return false
	}
	tokens, start := 1, 0
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '.':
			if i == start {
				return false
			}
			tokens++
			i++
			start = i
		case c == '*' || c == '>':
			if !wildcards || i != start {
				return false
			}
			i++
			if i < len(s) && (c == '>' || s[i] != '.') {
				return false
			}
		case c <= ' ' || c == 0x7f:
			return false
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := decodeRune(s, i)
			if size == 1 || unicode.IsSpace(r) || unicode.IsControl(r) {
				return false
			}
			i += size
		}
	}
	return start < len(s) && tokens <= MaxTopicTokens
}

// decodeRune decodes the character at s[i]; its size is 1 when s[i] is not ASCII
// and begins no valid UTF-8.
func decodeRune[S ~string | ~[]byte](s S, i int) (rune, int) {
	var buf [utf8.UTFMax]byte
	n := copy(buf[:], s[i:])
	return utf8.DecodeRune(buf[:n])
}

// HasWildcard reports whether the valid pattern s stands for more than one
// topic.
func HasWildcard[S ~string | ~[]byte](s S) bool {
	for i := range len(s) {
		if s[i] == '*' || s[i] == '>' {
			return true
		}
	}
	return false
}

// Covers reports whether every topic that sub matches is matched by pattern too.
// Both must be valid; sub may be a plain topic. It allocates nothing.
func Covers[P, S ~string | ~[]byte](pattern P, sub S) bool {
	i, j := 0, 0
	for i < len(pattern) && j < len(sub) {
		switch {
		case pattern[i] == '>':
			return true
		case sub[j] == '>':
			return false
		case pattern[i] == '*':
			i++
			for j < len(sub) && sub[j] != '.' {
				j++
			}
		default:
			for i < len(pattern) && pattern[i] != '.' {
				if j == len(sub) || sub[j] != pattern[i] {
					return false
				}
				i++
				j++
			}
		}
		if i == len(pattern) || j == len(sub) {
			return i == len(pattern) && j == len(sub)
		}
		if pattern[i] != '.' || sub[j] != '.' {
			return false
		}
		i++
		j++
	}
	return false
}

// Overlap reports whether some topic is matched by both patterns. Both must be
// valid. It allocates nothing.
func Overlap[A, B ~string | ~[]byte](a A, b B) bool {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		if a[i] == '>' || b[j] == '>' {
			return true
		}
		endA, endB := i, j
		for endA < len(a) && a[endA] != '.' {
			endA++
		}
		for endB < len(b) && b[endB] != '.' {
			endB++
		}
		if a[i] != '*' && b[j] != '*' && string(a[i:endA]) != string(b[j:endB]) {
			return false
		}
		i, j = endA+1, endB+1
	}
	return i >= len(a) && j >= len(b)
}
