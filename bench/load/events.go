//go:build linux

package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// Streamer is a Target that also sends events to clients without WebSocket, as
// Server-Sent Events (HTML Living Standard §9.2), one connection a request.
type Streamer interface {
	// StreamPath gives the path and query of the request for the events of topics,
	// and what stands in its Authorization header. socket is the path of the WebSocket.
	StreamPath(socket string, topics []string) (path, authorization string)
	// Streaming looks at the head of the answer, and then at each event, and says how many of so many topics the stream
	// brings from then on, that it did not bring before. An error ends the run.
	Streaming(said []byte, topics int) (int, error)
}

// openStream opens the nth connection as a stream of events.
func (d *dialer) openStream(n int, topics []string) (*conn, error) {
	streamer, ok := d.target.(Streamer)
	if !ok {
		return nil, errors.New("this target sends no Server-Sent Events")
	}
	plain := d.plain(n)
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	nc, err := plain.DialContext(ctx, "tcp", d.url.Host)
	if err != nil {
		return nil, fmt.Errorf("connection %d: %w", n, err)
	}
	c := &conn{topics: topics, in: splitter{next: nextEvent}}
	if err := c.startStream(nc, d.url, streamer); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connection %d: %w", n, err)
	}
	return c, c.take(nc)
}

// startStream asks, and reads until all topics are live. What came along behind that
// is kept.
func (c *conn) startStream(nc net.Conn, to *url.URL, streamer Streamer) error {
	if err := nc.SetDeadline(time.Now().Add(openTimeout)); err != nil {
		return err
	}
	path, authorization := streamer.StreamPath(to.Path, c.topics)
	if _, err := fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nAuthorization: %s\r\n\r\n", path, to.Host, authorization); err != nil {
		return err
	}
	var head bool
	live := 0
	buf := make([]byte, 0, 4096)
	for live < len(c.topics) {
		if len(buf) == cap(buf) {
			return errors.New("the answer is too long")
		}
		n, err := nc.Read(buf[len(buf):cap(buf)])
		if buf = buf[:len(buf)+n]; err != nil {
			return err
		}
		if !head {
			end := bytes.Index(buf, []byte("\r\n\r\n"))
			if end < 0 {
				continue
			}
			line, _, _ := strings.Cut(string(buf), "\r\n")
			if !strings.Contains(line, fmt.Sprintf(" %d ", http.StatusOK)) {
				return fmt.Errorf("refused: %q", buf)
			}
			var err error
			if live, err = streamer.Streaming(buf[:end], len(c.topics)); err != nil {
				return err
			}
			head, buf = true, buf[:copy(buf, buf[end+4:])]
		}
		for live < len(c.topics) {
			f, size, _ := nextEvent(buf)
			if size == 0 || size > len(buf) {
				break
			}
			if findMark(f.payload) < 0 {
				started, err := streamer.Streaming(f.payload, len(c.topics)-live)
				if err != nil {
					return err
				}
				live += started
			}
			buf = buf[:copy(buf, buf[size:])]
		}
	}
	c.in.tail = buf
	return nil
}

// nextEvent reads an event, or a comment, at the start of b, as nextFrame does a frame.
func nextEvent(b []byte) (f frame, size int, err error) {
	end := bytes.Index(b, []byte("\n\n"))
	switch {
	case end >= 0:
		f = frame{ws.OpText, b[:end]}
		if b[0] == ':' && bytes.IndexByte(b[:end], '\n') < 0 {
			f.op = opNothing // a comment
		}
		return f, end + 2, nil
	case len(b) > maxFrame:
		return f, 0, fmt.Errorf("an event of more than %d bytes", maxFrame)
	}
	return f, 2 * len(b), nil
}
