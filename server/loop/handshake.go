package loop

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"iter"
	"regexp"
	"strings"

	"github.com/gobwas/ws"
)

// head looks for the end of the request's head in b. It returns 0 and leaves
// the state alone while the head is incomplete; otherwise it answers the
// request, or gives the connection to net/http, and returns the head's length. Of a
// plain HTTP request it returns 0, and the state is open.
// What stands behind the head is frames (RFC 6455 §4.1 lets a client send none
// before the 101, yet some do, and a proxy may join segments).
func (l *Loop) head(c *Conn, b []byte) int {
	if isTLS(b) {
		l.refuse(c, tlsAlert, RefusedTLS)
		return len(b)
	}
	if bytes.HasPrefix(b, []byte(proxySignature)) || bytes.HasPrefix(b, []byte(proxyPrefix1)) {
		l.refuse(c, responseBadRequest, RefusedStrayProxy)
		return len(b)
	}
	end := headEnd(b)
	if end > l.eng.opts.HeadBytes || end == 0 && len(b) > l.eng.opts.HeadBytes {
		l.refuse(c, responseHeadTooLarge, RefusedHead)
		return len(b)
	}
	if end == 0 {
		return 0
	}
	if response := turnedAway(c.addr); response != "" {
		l.answer(c, response)
		return len(b)
	}
	kind := inspectHead(b[:end])
	switch {
	case kind == headHTTP && l.isPost(b[:end]):
		c.posts = true
		l.stat.http++
		l.opened(c)
		return 0 // it is among the requests that come
	case kind == headHTTP:
		l.handOff(c, b)
		return len(b)
	case kind == headBad:
		l.refuse(c, responseBadRequest, RefusedMalformed)
		return len(b)
	}
	normalizeUpgrade(b[:end])
	if !l.upgrade(c, b[:end]) {
		return 0
	}
	return end
}

// tlsAlert is the record of a fatal handshake_failure (RFC 8446 §6.2): a client that
// begins TLS with a server that speaks none learns so at once, instead of waiting for
// its own patience to end.
const tlsAlert = "\x15\x03\x01\x00\x02\x02\x28"

// isTLS says whether b begins like a TLS handshake (RFC 8446 §5.1). No request line does.
func isTLS(b []byte) bool { return len(b) >= 3 && b[0] == 0x16 && b[1] == 0x03 && b[2] <= 0x04 }

// upgrade answers a WebSocket handshake that lies complete in memory. It returns
// false when the handler wants to be asked again.
func (l *Loop) upgrade(c *Conn, head []byte) bool {
	u := &l.up
	u.conn, u.req, u.in, u.refused = c, Request{}, head, false
	u.answer.Reset()
	_, err := u.upgrader.Upgrade(u)
	u.conn = nil
	if errors.Is(err, ErrPending) {
		c.paused = true
		return false
	}
	if err != nil {
		reason := RefusedMalformed
		if u.refused {
			reason = byHandler
		}
		l.refuse(c, u.response(), reason)
		return true
	}
	l.cork.hold(c)
	l.cork.frames = append(l.cork.frames, u.answer.Bytes()...)
	l.opened(c)
	l.stat.upgraded++
	l.eng.handler.Open(c)
	return true
}

// upgradeIO is one handshake: the head that [ws.Upgrader] reads and the answer
// that it writes. A loop has one, and one handshake at a time.
type upgradeIO struct {
	upgrader ws.Upgrader
	conn     *Conn
	req      Request
	in       []byte
	answer   bytes.Buffer
	refused  bool // by the handler
}

func (u *upgradeIO) Read(p []byte) (int, error) {
	if len(u.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, u.in)
	u.in = u.in[n:]
	return n, nil
}

func (u *upgradeIO) Write(p []byte) (int, error) { return u.answer.Write(p) }

// response is the answer to a request that is refused. The upgrader writes its own of
// what it cannot make sense of; pages may read those too.
func (u *upgradeIO) response() string {
	line, rest, found := strings.Cut(u.answer.String(), "\r\n")
	switch {
	case !found: // the request line means nothing
		return responseBadRequest
	case u.refused:
		return u.answer.String()
	}
	return line + "\r\n" + ReadableByAll + "\r\nConnection: close\r\n" + rest
}

// prepare sets the callbacks once, so that a handshake makes no closures. The
// read buffer holds a whole head, so slices of it stay valid until the end.
func (u *upgradeIO) prepare(h Handler, headBytes int) {
	u.upgrader = ws.Upgrader{
		ReadBufferSize: headBytes,
		OnRequest: func(uri []byte) error {
			u.req.URI = uri
			return nil
		},
		OnHost: func(host []byte) error {
			u.req.Host = host
			return nil
		},
		ProtocolCustom: func(v []byte) (string, bool) {
			join(&u.req.Protocols, v)
			return "", true
		},
		OnHeader: func(name, v []byte) error {
			switch string(name) {
			case "Authorization":
				join(&u.req.Authorization, v)
			case "Origin":
				join(&u.req.Origin, v)
			case "X-Forwarded-For":
				join(&u.req.ForwardedFor, v)
			case "Forwarded":
				join(&u.req.Forwarded, v)
			}
			return nil
		},
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) {
			if err := h.Request(u.conn, &u.req); err != nil {
				u.refused = true
				return nil, err
			}
			if u.req.Protocol == "" {
				return nil, nil
			}
			return ws.HandshakeHeaderString("Sec-WebSocket-Protocol: " + u.req.Protocol + "\r\n"), nil
		},
	}
}

// join adds a header's value to those of the same name (RFC 9110 §5.3).
func join(to *[]byte, v []byte) {
	if *to != nil {
		v = bytes.Join([][]byte{*to, v}, []byte(","))
	}
	*to = v
}

// ReadableByAll are the header lines with which a page of whatever origin may read a
// refusal: one that says nothing about anybody, and would be an error without a name.
const ReadableByAll = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After"

const (
	responseClose           = ReadableByAll + "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	responseBadRequest      = "HTTP/1.1 400 Bad Request\r\n" + responseClose
	responseUpgradeRequired = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n" + responseClose
	responseTooManyRequests = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 10\r\n" + responseClose
	responseHeadTooLarge    = "HTTP/1.1 431 Request Header Fields Too Large\r\n" + responseClose
	responseUnavailable     = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\n" + responseClose
)

// headEnd returns the length of the head that b begins with, its blank line
// included, or 0 when b holds no blank line.
func headEnd(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		switch {
		case at < len(b) && b[at] == '\n':
			return at + 1
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at + 2
		}
	}
}

type headKind uint8

const (
	headHTTP headKind = iota // no WebSocket upgrade: net/http's
	headUpgrade
	headBad
)

// inspectHead tells a WebSocket upgrade from other requests and refuses what
// [ws.Upgrader] would let pass: a repeated Host or key, a key that is not 16
// bytes of base64 (RFC 6455 §4.1), a body, which would be taken for frames
// (CWE-444), and lines that two parsers may read in two ways: folded, without a
// colon, with space in the name, with a bare CR (RFC 9112 §2.2, §5).
func inspectHead(head []byte) headKind {
	if !bytes.HasPrefix(head, []byte("GET ")) {
		return headHTTP
	}
	var hosts, keys int
	var upgrade bool
	bad := !soundLines(head)
	for name, value := range headerLines(head) {
		switch {
		case !isToken(name), bytes.ContainsFunc(value, isControl):
			bad = true
		case is(name, "host"):
			hosts++
		case is(name, "sec-websocket-key"):
			keys++
			bad = bad || !goodKey(value)
		case is(name, "transfer-encoding"), is(name, "content-length") && string(value) != "0":
			bad = true
		case is(name, "upgrade"):
			upgrade = upgrade || listHas(value, "websocket")
		}
	}
	switch {
	case !upgrade:
		return headHTTP
	case bad || hosts > 1 || keys > 1:
		return headBad
	}
	return headUpgrade
}

// soundLines reports whether each line ends with CR LF, and the first with a
// version of HTTP as RFC 9112 §2.3 has it. Between two parsers that read a bare LF,
// or HTTP/1.01, in two ways, a second request can be hidden (CWE-444).
func soundLines(head []byte) bool {
	first, _, _ := bytes.Cut(head, []byte("\r\n"))
	version := first[bytes.LastIndexByte(first, ' ')+1:]
	if !httpVersion.Match(version) {
		return false
	}
	return bytes.Count(head, []byte("\n")) == bytes.Count(head, []byte("\r\n"))
}

var httpVersion = regexp.MustCompile(`^HTTP/[0-9]\.[0-9]$`)

// normalizeUpgrade rewrites in place what is legal (RFC 9110 §5.3, §7.8) but not to
// [ws.Upgrader]: other protocols beside "websocket" in Upgrade, and Connection
// options on lines of their own.
func normalizeUpgrade(head []byte) {
	for name, value := range headerLines(head) {
		switch {
		case is(name, "upgrade") && listHas(value, "websocket"):
			for i := copy(value, "websocket"); i < len(value); i++ {
				value[i] = ' '
			}
		case is(name, "upgrade"), is(name, "connection") && !listHas(value, "upgrade"):
			name[0] = 'X'
		}
	}
}

// headerLines yields the names and trimmed values of a head's lines. A line
// without a colon has no name.
func headerLines(head []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		_, rest, _ := bytes.Cut(head, []byte("\n"))
		for len(rest) > 0 {
			var line []byte
			line, rest, _ = bytes.Cut(rest, []byte("\n"))
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(line) == 0 {
				return
			}
			name, value, colon := bytes.Cut(line, []byte(":"))
			if !colon {
				name = nil
			}
			if !yield(name, bytes.Trim(value, " \t")) {
				return
			}
		}
	}
}

// isToken reports whether b may be a header's name (RFC 9110 §5.6.2).
func isToken(b []byte) bool {
	return len(b) > 0 && !bytes.ContainsFunc(b, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// isControl reports whether r may not stand in a header's value (RFC 9110 §5.5).
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func is(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

// listHas reports whether a comma-separated header value has the item.
func listHas(value []byte, item string) bool {
	for v := range bytes.SplitSeq(value, []byte(",")) {
		if is(bytes.TrimSpace(v), item) {
			return true
		}
	}
	return false
}

func goodKey(v []byte) bool {
	var buf [18]byte
	if len(v) != 24 {
		return false
	}
	n, err := base64.StdEncoding.Decode(buf[:], v)
	return err == nil && n == 16
}

// handOff gives the socket to net/http, with what was already read.
func (l *Loop) handOff(c *Conn, received []byte) {
	if l.eng.opts.HTTP == nil {
		l.refuse(c, responseUpgradeRequired, RefusedPlain)
		return
	}
	if !l.eng.opts.HTTP.takePlace() {
		l.refuse(c, responseUnavailable, RefusedHTTP)
		return
	}
	if !c.posts { // else it has been counted
		l.stat.http++
	}
	l.poller.remove(int(c.fd))
	c.state = stateDead
	l.detach(c)
	l.eng.opts.HTTP.handOff(newHTTPConn(c, bytes.Clone(received)))
}
