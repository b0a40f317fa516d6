//go:build linux

package load

import (
	"fmt"
	"io"
	"strings"
)

const barWidth = 24

// Bar gives a function for Options.Progress that keeps one line of a terminal up
// to date, and one that takes the line away.
func Bar(w io.Writer) (progress func(Progress), done func()) {
	progress = func(p Progress) {
		full := int(p.Done * barWidth)
		bar := strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
		_, _ = fmt.Fprintf(w, "\r\x1b[K%s [%s] %3.0f%%", p.Doing, bar, p.Done*100)
		if p.Connected > 0 {
			_, _ = fmt.Fprintf(w, "  %d connections", p.Connected)
		}
		if p.Deliveries > 0 {
			_, _ = fmt.Fprintf(w, "  %.0f deliveries/s", p.Deliveries)
		}
	}
	return progress, func() { _, _ = fmt.Fprint(w, "\r\x1b[K") }
}
