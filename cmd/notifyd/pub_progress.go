package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	progressWidth = 24
	// progressPause is the least time between two drawings, so that a terminal far away costs no time.
	progressPause = 100 * time.Millisecond
)

// fileProgress is a line of a terminal that says how much of a file is published. A nil one draws nothing.
type fileProgress struct {
	to    io.Writer
	from  io.Reader
	size  int64
	read  atomic.Int64
	drawn time.Time
	shown bool
}

// progressOfInput is for standard input that is a file, where somebody looks at standard error. It is nil elsewhere.
func progressOfInput(p *process) *fileProgress {
	f, ok := p.stdin.(*os.File)
	if !ok || !isTerminal(p.stderr) || p.env["TERM"] == "dumb" {
		return nil
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil || at >= info.Size() {
		return nil
	}
	return &fileProgress{to: p.stderr, from: f, size: info.Size() - at}
}

// Read reads the file.
func (x *fileProgress) Read(b []byte) (int, error) {
	n, err := x.from.Read(b)
	x.read.Add(int64(n))
	return n, err
}

// draw says how far it is, unless that was said just now.
func (x *fileProgress) draw(published int) {
	if x == nil || time.Since(x.drawn) < progressPause {
		return
	}
	x.drawn, x.shown = time.Now(), true
	done := min(1, float64(x.read.Load())/float64(x.size)) // the file may grow
	full := int(done * progressWidth)
	_, _ = fmt.Fprintf(x.to, "\r\x1b[K[%s%s] %3.0f%%  %d events", strings.Repeat("#", full), strings.Repeat(".", progressWidth-full), done*100, published)
}

// clear takes the line away, before something else is printed.
func (x *fileProgress) clear() {
	if x == nil || !x.shown {
		return
	}
	x.shown = false
	_, _ = fmt.Fprint(x.to, "\r\x1b[K")
}
