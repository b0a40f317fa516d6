package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/notifyd/notifyd/client"
)

// outputFlags are shared by the commands that print for people in a terminal, and for programs elsewhere.
type outputFlags struct {
	JSON  bool   `help:"Print JSON in a terminal too." name:"json"`
	Color string `help:"Colours for people: auto (in a terminal, unless NO_COLOR is set), always or never. JSON has none." enum:"auto,always,never" default:"auto"`
}

// forPeople reports whether the command prints for people: in a terminal, or where colours are asked for.
func (f *outputFlags) forPeople(p *process) bool {
	return !f.JSON && (isTerminal(p.stdout) || f.Color == "always")
}

// colors are those for what is printed for people.
func (f *outputFlags) colors(p *process) palette {
	switch f.Color {
	case "always":
		return inColor
	case "auto":
		if isTerminal(p.stdout) && p.env["NO_COLOR"] == "" && p.env["TERM"] != "dumb" {
			return inColor
		}
	}
	return palette{}
}

// palette are escape sequences (ECMA-48 §8.3.117) that begin the parts of a line, and end them. A zero one has none.
type palette struct{ dim, topic, end string }

var inColor = palette{dim: "\x1b[2m", topic: "\x1b[36m", end: "\x1b[0m"}

// isTerminal reports whether what is written to w is shown to somebody.
func isTerminal(w io.Writer) bool {
	if shared, ok := w.(*sharedWriter); ok {
		w = shared.to
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// sheet formats events for people, in columns as wide as what came so far needs.
type sheet struct {
	palette
	time, topic, seq int // widths
}

// maxColumn bounds the width of a column, in characters: one long topic must not push all others aside.
const maxColumn = 40

// append appends a line for an event: when it was stored or came, topic, seq where it has one, publisher, data.
func (s *sheet) append(dst []byte, e client.Event, data []byte, now time.Time) []byte {
	at, layout := e.Time, "15:04:05.000"
	if at.IsZero() {
		at = now
	}
	if at = at.Local(); at.Format(time.DateOnly) != now.Local().Format(time.DateOnly) {
		layout = "2006-01-02 15:04:05.000"
	}
	dst = s.column(dst, &s.time, s.dim, at.Format(layout))
	dst = s.column(dst, &s.topic, s.palette.topic, e.Topic)
	if e.Seq != 0 {
		dst = s.column(dst, &s.seq, s.dim, fmt.Sprintf("#%d", e.Seq))
	}
	if e.From != "" {
		dst = append(appendVisible(dst, []byte(e.From)), ": "...)
	}
	return append(appendVisible(dst, data), '\n')
}

// column appends a text in a colour, and as many spaces as make it as wide as those above it.
func (s *sheet) column(dst []byte, width *int, color, text string) []byte {
	n := utf8.RuneCountInString(text)
	*width = max(*width, min(n, maxColumn))
	dst = append(append(append(dst, color...), text...), s.end...)
	return append(dst, strings.Repeat(" ", max(*width-n, 0)+2)...)
}

// appendVisible appends text in which nothing commands the terminal: JSON escapes most control characters, but not DEL,
// the C1 set, of which U+009B begins a sequence like ESC [ does, and the characters that turn the direction of writing
// (CWE-150).
func appendVisible(dst, text []byte) []byte {
	for _, r := range string(text) {
		switch {
		case r < ' ' || r >= 0x7f && r <= 0x9f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}
