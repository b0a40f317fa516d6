//go:build linux

package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"
)

// Poster is a Target whose server also takes events as HTTP requests.
type Poster interface {
	// Post makes a request that publishes events of a topic, whose data stands in the body as it is. socket is the path
	// of the WebSocket.
	Post(socket, topic string, events [][]byte) (Request, error)
	// Posted looks at a body, or at a line of one that is NDJSON, of an answer with status 2xx, and counts the events that
	// were published. One that was not is an error.
	Posted(answer []byte) (int, error)
}

// Request is an HTTP request that publishes.
type Request struct {
	Path        string
	ContentType string
	Header      string // one more line of the head, such as "Authorization: Bearer …"
	Body        []byte
}

// http measures each number of connections with requests of one event and of many, and beside them the same with
// frames.
func (r *run) http(ctx context.Context) (results []Result, err error) {
	for _, l := range r.Loads {
		if l.Window < 1 {
			return nil, fmt.Errorf("%s: has no rates, but numbers of connections", r.Plan.Name)
		}
		n, many := l.Window, r.Plan.Batch
		ways := []struct {
			label          string
			post, together int
		}{
			{fmt.Sprintf("POST, %d connections", n), 1, 1},
			{fmt.Sprintf("WebSocket, %d connections, 1 in flight", n), 0, 1},
			{fmt.Sprintf("NDJSON, %d connections, %d lines each", n, many), many, many},
			{fmt.Sprintf("WebSocket, %d connections, %d in flight", n, many), 0, many},
		}
		found := make([]Result, len(ways))
		for i, way := range ways {
			o := r.Options
			o.Plan = Post(n, way.post, r.Plan.Connections)
			o.Plan.Name, o.Plan.Events = r.Plan.Name, r.Plan.Events
			o.Loads = []Load{{Window: way.together}}
			one, err := Run(ctx, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.label, err)
			}
			found[i] = one[0]
			found[i].Load = way.label
		}
		for i := 0; i < len(found); i += 2 {
			found[i].compare("CPU", "WebSocket", found[i].CPUPerPublish, found[i+1].CPUPerPublish)
		}
		results = append(results, found...)
	}
	return results, nil
}

// openRequests opens the nth connection for HTTP requests.
func (d *dialer) openRequests(n int) (*conn, error) {
	plain := d.plain(n)
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	nc, err := plain.DialContext(ctx, "tcp", d.url.Host)
	if err != nil {
		return nil, fmt.Errorf("connection %d: %w", n, err)
	}
	answers := &responses{}
	c := &conn{requests: true, in: splitter{next: answers.next}}
	return c, c.take(nc)
}

// requests makes the requests that publish so many events each.
type requests struct {
	target Poster
	host   string
	socket string // path
	events int
}

// request gives a request for events of a topic, with the places of the times in it.
func (q *requests) request(topic string, event []byte) ([]byte, []stamp, error) {
	events := make([][]byte, q.events)
	for i := range events {
		events[i] = event
	}
	made, err := q.target.Post(q.socket, topic, events)
	if err != nil {
		return nil, nil, err
	}
	all := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
		made.Path, q.host, made.Header, made.ContentType, len(made.Body))
	at := len(all)
	all = append(all, made.Body...)
	stamps := make([]stamp, 0, q.events)
	for {
		next := findMark(all[at:])
		if next < 0 {
			break
		}
		at += next + len(markWord)
		stamps = append(stamps, stamp{at, plainPhase})
	}
	if len(stamps) != q.events {
		return nil, nil, fmt.Errorf("the target's request has the data of %d events, not %d: %.200q", len(stamps), q.events, all)
	}
	return all, stamps, nil
}

// answering is a load in which those that publish await answers. Latencies are of these.
type answering struct {
	poster   Poster                  // nil: they are frames
	received *hdrhistogram.Histogram // how late events came to subscribers
}

// awaits is called when a connection has written so many events.
func (e *engine) awaits(c *conn, n int) {
	if e.answering != nil {
		c.asked, c.unanswered = e.now, n
	}
}

// answered counts answers to events that were sent at that time, and lets the connection publish again when it has all.
func (e *engine) answered(c *conn, n int, sent int64) {
	e.count.answered += uint64(n)
	if sent >= e.from && sent < e.until {
		_ = e.latency.RecordValues(min(max(e.now-sent, 0), maxLatency), int64(n)) // in range, so no error
	}
	if c.unanswered -= n; c.unanswered == 0 && !c.requests {
		e.queue = append(e.queue, turn{0, c})
	}
}

// receivedBy counts an event that a subscriber has.
func (e *engine) receivedBy(sent int64) {
	e.count.delivered++
	if sent >= e.from && sent < e.until {
		_ = e.answering.received.RecordValue(min(max(e.now-sent, 0), maxLatency)) // in range, so no error
	}
}

// response takes what responses.next has found.
func (e *engine) response(c *conn, f frame) error {
	if len(f.payload) > 0 {
		n, err := e.answering.poster.Posted(f.payload)
		if err != nil {
			return err
		}
		e.answered(c, n, c.asked)
	}
	if f.op != opEnd {
		return nil
	}
	if c.unanswered != 0 {
		return fmt.Errorf("a request of %d events has %d results", e.Window, e.Window-c.unanswered)
	}
	e.queue = append(e.queue, turn{0, c})
	return nil
}

// What responses.next finds.
const (
	opNothing = ws.OpPong
	opLine    = ws.OpText  // a line of an NDJSON body
	opEnd     = ws.OpClose // of the response: what of the body has not come as lines
)

// Parts of a response.
const (
	inHead = iota
	inBody
	inChunkSize
	inTrailer
)

const maxHead = 64 << 10

var errHead = errors.New("an answer that is no HTTP/1.1 response with a length")

// responses reads the answers to the HTTP requests of a connection (RFC 9112), of which one is under way at a time.
type responses struct {
	part    int
	status  int
	lines   bool
	chunked bool
	left    int    // bytes of the body, or of a chunk, that are to come
	said    []byte // what came of the body, or of a line
	spent   bool   // said was handed out
}

// next reads a part of a response at the start of b, as nextFrame does a frame.
func (a *responses) next(b []byte) (f frame, size int, err error) {
	f.op = opNothing
	if a.spent {
		a.said, a.spent = a.said[:0], false
	}
	switch a.part {
	case inHead:
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			if len(b) > maxHead {
				err = errHead
			}
			return f, 0, err
		}
		if err := a.head(string(b[:end])); err != nil {
			return f, 0, err
		}
		if a.part == inHead { // no body
			f, err = a.end()
		}
		return f, end + 4, err
	case inBody:
		return a.body(b)
	}
	line, _, whole := bytes.Cut(b, []byte("\r\n"))
	if !whole {
		if len(b) > maxHead {
			err = errHead
		}
		return f, 0, err
	}
	size = len(line) + 2
	switch {
	case a.part == inChunkSize && len(line) > 0: // empty behind a chunk
		digits, _, _ := bytes.Cut(line, []byte(";"))
		left, err := strconv.ParseUint(string(digits), 16, 31)
		if err != nil {
			return f, 0, errHead
		}
		if a.left, a.part = int(left), inBody; left == 0 {
			a.part = inTrailer
		}
	case a.part == inTrailer && len(line) == 0:
		f, err = a.end()
	}
	return f, size, err
}

func (a *responses) head(head string) error {
	line, rest, _ := strings.Cut(head, "\r\n")
	status, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok || len(status) < 3 {
		return errHead
	}
	var err error
	if a.status, err = strconv.Atoi(status[:3]); err != nil {
		return errHead
	}
	a.lines, a.chunked, a.left = false, false, 0
	known := a.status == http.StatusNoContent
	for line := range strings.SplitSeq(rest, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return errHead
			}
			a.left, known = int(n), true
		case strings.EqualFold(name, "Transfer-Encoding"):
			a.chunked, known = value == "chunked", true
		case strings.EqualFold(name, "Content-Type"):
			a.lines = strings.HasPrefix(value, ndjson)
		}
	}
	switch {
	case !known:
		return errHead
	case a.chunked:
		a.part = inChunkSize
	case a.left > 0:
		a.part = inBody
	}
	return nil
}

func (a *responses) body(b []byte) (f frame, size int, err error) {
	f.op = opNothing
	piece := b[:min(a.left, len(b))]
	if a.lines {
		if at := bytes.IndexByte(piece, '\n'); at >= 0 {
			piece = piece[:at+1]
		}
	}
	if len(piece) == 0 {
		return f, 0, nil
	}
	a.left -= len(piece)
	if a.said = append(a.said, piece...); len(a.said) > maxFrame {
		return f, 0, errHead
	}
	if a.left == 0 && a.chunked {
		a.part = inChunkSize
	}
	switch {
	case a.left == 0 && !a.chunked:
		f, err = a.end()
	case a.lines && piece[len(piece)-1] == '\n' && a.status == http.StatusOK:
		f, a.spent = frame{opLine, a.said}, true
	}
	return f, len(piece), err
}

// end gives what is left of the body.
func (a *responses) end() (frame, error) {
	a.part, a.spent = inHead, true
	if a.status/100 != 2 {
		return frame{}, fmt.Errorf("the server answers with status %d: %.300q", a.status, a.said)
	}
	return frame{opEnd, a.said}, nil
}

const ndjson = "application/x-ndjson"
