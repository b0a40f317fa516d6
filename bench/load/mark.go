//go:build linux

package load

import "bytes"

// A mark begins the data of every event: a word to find it by, the nanosecond
// at which the event was sent or, at a fixed rate, was due, and the number of
// its topic. Numbers are spelt in the letters a to p, four bits each, so that
// they have one length and survive any encoding.
const (
	markWord   = "@bench"
	timeDigits = 16
	topicDigit = 6
	markBytes  = len(markWord) + timeDigits + topicDigit

	// MinSize is the smallest data there can be: the mark as a JSON string.
	MinSize = markBytes + 2
	// maxTopics is what topicDigit letters can number.
	maxTopics = 1 << (4 * topicDigit)
)

// newData makes data of size bytes for a topic, with a mark whose time is zero.
func newData(size, topic int) []byte {
	data := append(make([]byte, 0, size), '"')
	data = append(data, markWord...)
	data = appendDigits(data, 0, timeDigits)
	data = appendDigits(data, uint64(topic), topicDigit)
	data = append(data, bytes.Repeat([]byte{'x'}, size-MinSize)...)
	return append(data, '"')
}

func appendDigits(dst []byte, v uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		dst = append(dst, 'a'+byte(v>>(4*i))&15)
	}
	return dst
}

func readDigits(p []byte) (v uint64) {
	for _, c := range p {
		v = v<<4 | uint64(c-'a')&15
	}
	return v
}

// markAt says whether a mark begins at p[at].
func markAt(p []byte, at int) bool {
	return at+markBytes <= len(p) && string(p[at:at+len(markWord)]) == markWord
}

func findMark(p []byte) int { return bytes.Index(p, []byte(markWord)) }
