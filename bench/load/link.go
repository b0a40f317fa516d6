//go:build linux

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// note is what the process that publishes and one that receives send each
// other: a line of JSON in which one member is set.
type note struct {
	// To one that receives.
	Share *share `json:"share,omitempty"` // comes first, and has no answer
	Open  bool   `json:"open,omitempty"`  // open the connections; answered by Opened
	Drop  bool   `json:"drop,omitempty"`  // drop them; answered by Dropped
	Begin *span  `json:"begin,omitempty"` // receive; answered by Begun, then Done and Count, after End by Result
	End   []int  `json:"end,omitempty"`   // nothing more is published; so much was, by topic

	// From one that receives.
	Opened  string   `json:"opened,omitempty"` // a histogram of how long each connection took
	Dropped bool     `json:"dropped,omitempty"`
	Begun   bool     `json:"begun,omitempty"`
	Done    []int    `json:"done,omitempty"`  // topics whose window has arrived at all readers here
	Count   uint64   `json:"count,omitempty"` // deliveries so far
	Result  *partial `json:"result,omitempty"`
	Error   string   `json:"error,omitempty"` // the last note
}

// share is the subscribing connections of one process.
type share struct {
	Plan    Plan         `json:"plan"`
	First   int          `json:"first"`
	End     int          `json:"end"`     // the first that is not in it
	Stalled int          `json:"stalled"` // of all, so many at the start
	Run     string       `json:"run"`
	URL     string       `json:"url"`
	Sources []netip.Addr `json:"sources"`
}

// span says what is published and when that is measured, by CLOCK_MONOTONIC.
type span struct {
	Load  Load  `json:"load"`
	From  int64 `json:"from"`
	Until int64 `json:"until"`
}

// partial is what one process received.
type partial struct {
	Total     uint64         `json:"total"`     // deliveries
	Delivered uint64         `json:"delivered"` // of these, in the measured time
	Own       time.Duration  `json:"own"`       // processor time it took for them
	Dropped   map[string]int `json:"dropped"`   // stalled connections that the server closed, by close code
	Latency   string         `json:"latency"`   // a histogram
}

func packHistogram(h *hdrhistogram.Histogram) (string, error) {
	b, err := h.EncodeV2()
	return string(b), err
}

// unpackHistogram adds what was packed to h.
func unpackHistogram(h *hdrhistogram.Histogram, packed string) error {
	part, err := hdrhistogram.Decode([]byte(packed))
	if err == nil {
		h.Merge(part)
	}
	return err
}

// link is two pipes to another process. Writing may block, but not for long:
// each side reads whenever it waits.
type link struct {
	in, out int // descriptors; in does not block
	tail    []byte
}

func (l *link) send(m note) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	for line = append(line, '\n'); len(line) > 0; {
		n, err := unix.Write(l.out, line)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("to another process of this run: %w", err)
		}
		line = line[max(n, 0):]
	}
	return nil
}

// receive gives the notes that are there. At the end it gives io.EOF, and
// where the other process failed, why.
func (l *link) receive() (notes []note, err error) {
	for buf := make([]byte, 64<<10); err == nil; {
		n, readErr := unix.Read(l.in, buf)
		switch {
		case errors.Is(readErr, unix.EINTR):
			continue
		case errors.Is(readErr, unix.EAGAIN):
			return notes, nil
		case readErr != nil:
			return notes, readErr
		case n == 0:
			return notes, io.EOF
		}
		l.tail = append(l.tail, buf[:n]...)
		for {
			line, rest, whole := bytes.Cut(l.tail, []byte("\n"))
			if !whole {
				break
			}
			var m note
			if err := json.Unmarshal(line, &m); err != nil {
				return notes, fmt.Errorf("%w: %.100q", err, line)
			}
			if m.Error != "" {
				return notes, errors.New(m.Error)
			}
			notes = append(notes, m)
			l.tail = append(l.tail[:0], rest...)
		}
	}
	return notes, err
}

// wait gives the notes that come next, when they have come.
func (l *link) wait(ctx context.Context) ([]note, error) {
	for ctx.Err() == nil {
		notes, err := l.receive()
		if err != nil || len(notes) > 0 {
			return notes, err
		}
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(l.in), Events: unix.POLLIN}}, int(progressEvery.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	return nil, ctx.Err()
}
