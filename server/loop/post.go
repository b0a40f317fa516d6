package loop

import (
	"bytes"

	"github.com/gobwas/ws"
)

// A client that publishes by HTTP sends one request after the other on a connection that
// it keeps. net/http costs several times as much as the rest of a publish: goroutines
// that wake each other, a map of headers for each request. So a connection stays with
// its loop for as long as its requests are plain, and [Handler.Post] answers them, in
// the order in which they came.
//
// Plain is narrow. A request that two parsers may read in two ways (CWE-444), or that
// wants more than an answer, goes to net/http as it came, and its connection with it;
// what net/http says of it is the answer. A plain request has
//
//   - the method POST, a target that [Options.Posts] takes, and HTTP/1.1
//   - lines that end with CR LF, each a name, a colon right behind it (RFC 9112 §5.1),
//     and a value without control characters; none is folded (§5.2)
//   - one Host, of the characters that names, addresses and ports have
//   - one Content-Length, of digits without a zero in front (§6.3), and no
//     Transfer-Encoding
//   - one of close and keep-alive in Connection, if anything: it names no header that
//     is for this connection alone
//   - no two lines of Content-Type, Authorization or Idempotency-Key
//   - nothing that is net/http's to answer: Expect, Upgrade, Trailer, Content-Encoding,
//     and Origin, which a page sends
//
// and fits Options.HeadBytes and Options.MessageBytes.

// Post is a plain request. Its slices are valid while [Options.Posts] or [Handler.Post]
// is called; a header that was absent is nil.
type Post struct {
	Target         []byte
	ContentType    []byte
	Authorization  []byte
	IdempotencyKey []byte
	// Forwarded and ForwardedFor (X-Forwarded-For) may have had several lines, which
	// are joined by commas.
	Forwarded, ForwardedFor []byte
	// Close says that the client wants the connection closed behind the answer.
	Close bool
	// Body is what the handler may change. Options.Posts is asked before it has come.
	Body []byte
	// Cut says that the body has not come whole: it took longer than
	// Options.MessageTimeout, or the client has ended its side. Body is nil then.
	Cut bool

	length int // of the body
}

// parse reads the head of a request, up to its blank line, and reports whether it is
// plain. It does not change head.
func (p *Post) parse(head []byte) bool {
	*p = Post{}
	line, rest, ok := cutLine(head)
	if !ok || !bytes.HasPrefix(line, []byte("POST ")) || !bytes.HasSuffix(line, []byte(" HTTP/1.1")) || len(line) < len("POST / HTTP/1.1") {
		return false
	}
	p.Target = line[len("POST ") : len(line)-len(" HTTP/1.1")]
	var seen seenHeaders
	for {
		if line, rest, ok = cutLine(rest); !ok {
			return false
		}
		if len(line) == 0 {
			return len(rest) == 0 && seen&(seenHost|seenLength) == seenHost|seenLength
		}
		colon := 0
		for colon < len(line) && tokenBytes[line[colon]] {
			colon++
		}
		if colon == 0 || colon == len(line) || line[colon] != ':' {
			return false
		}
		value := trimBlanks(line[colon+1:])
		for _, b := range value {
			if b < ' ' && b != '\t' || b == 0x7f {
				return false
			}
		}
		if !p.header(&seen, line[:colon], value) {
			return false
		}
	}
}

// trimBlanks is bytes.Trim of what may stand round a value, and not nil.
func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// cutLine cuts the first line off, which must end with CR LF.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

// seenHeaders are those of which a second line makes a request doubtful.
type seenHeaders uint8

const (
	seenHost seenHeaders = 1 << iota
	seenLength
	seenType
	seenAuthorization
	seenKey
	seenConnection
)

// once notes that a header has come, and reports whether it is the first of its name.
func (s *seenHeaders) once(x seenHeaders) bool {
	first := *s&x == 0
	*s |= x
	return first
}

// header takes a header in, and reports whether the request may be plain with it.
func (p *Post) header(seen *seenHeaders, name, value []byte) bool {
	switch len(name) { // most headers are none of these
	case len("Host"):
		if is(name, "host") {
			return seen.once(seenHost) && isPlainHost(value)
		}
	case len("Expect"), len("Upgrade"): // Origin and Trailer are as long
		return !is(name, "expect") && !is(name, "origin") && !is(name, "upgrade") && !is(name, "trailer")
	case len("Forwarded"):
		if is(name, "forwarded") {
			join(&p.Forwarded, value)
		}
	case len("Connection"):
		if is(name, "connection") {
			p.Close = is(value, "close")
			return seen.once(seenConnection) && (p.Close || is(value, "keep-alive"))
		}
	case len("Content-Type"):
		if is(name, "content-type") {
			p.ContentType = value
			return seen.once(seenType)
		}
	case len("Authorization"):
		if is(name, "authorization") {
			p.Authorization = value
			return seen.once(seenAuthorization)
		}
	case len("Content-Length"):
		if is(name, "content-length") {
			var ok bool
			p.length, ok = plainLength(value)
			return ok && seen.once(seenLength)
		}
	case len("X-Forwarded-For"): // Idempotency-Key is as long
		switch {
		case is(name, "x-forwarded-for"):
			join(&p.ForwardedFor, value)
		case is(name, "idempotency-key"):
			p.IdempotencyKey = value
			return seen.once(seenKey)
		}
	case len("Content-Encoding"):
		return !is(name, "content-encoding")
	case len("Transfer-Encoding"):
		return !is(name, "transfer-encoding")
	}
	return true
}

// plainLength reads a Content-Length that every parser takes for the same number.
func plainLength(value []byte) (n int, ok bool) {
	if len(value) == 0 || len(value) > 9 || value[0] == '0' {
		return 0, false
	}
	for _, b := range value {
		if b < '0' || b > '9' {
			return 0, false
		}
		n = 10*n + int(b-'0')
	}
	return n, true
}

// isPlainHost reports whether a Host has only the bytes of names, addresses and ports.
func isPlainHost(host []byte) bool {
	for _, b := range host {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '-', b == '_', b == ':', b == '[', b == ']':
		default:
			return false
		}
	}
	return len(host) > 0
}

// tokenBytes are those that a header's name may have (RFC 9110 §5.6.2).
var tokenBytes = func() (t [256]bool) {
	for b := range t {
		t[b] = isToken([]byte{byte(b)})
	}
	return t
}()

// isPost reports whether the request that begins with this head stays with the loop. It
// leaves what the head says in l.post.
func (l *Loop) isPost(head []byte) bool {
	takes := l.eng.opts.Posts
	return takes != nil && l.post.parse(head) && l.post.length <= l.eng.opts.MessageBytes && takes(&l.post)
}

// posts answers the complete requests in b and returns how many bytes they took. It
// stops behind one whose answer has to wait, and while a client does not read its
// answers. The first request that is not plain goes to net/http, with all behind it.
func (l *Loop) posts(c *Conn, b []byte) int {
	at := 0
	for c.state == stateOpen && !c.paused && c.out == nil && at < len(b) {
		rest := b[at:]
		if c.in != nil && len(rest) < c.in.need {
			break
		}
		if rest[0] == '\r' || rest[0] == '\n' { // RFC 9112 §2.2: some send a line end behind a body
			at++
			continue
		}
		end := headEnd(rest)
		if end == 0 && len(rest) <= l.eng.opts.HeadBytes {
			break
		}
		if end == 0 || end > l.eng.opts.HeadBytes || !l.isPost(rest[:end]) {
			if l.cork.conn == c {
				l.cork.release() // answers come in order
			}
			if c.out == nil && c.state == stateOpen {
				c.end(stateLinger, ws.StatusNormalClosure)
				l.handOff(c, rest)
			}
			break
		}
		whole := end + l.post.length
		if len(rest) < whole {
			if c.in == nil {
				c.in = new(inbound)
			}
			c.in.need = whole
			break
		}
		at += whole
		c.since = 0
		if c.in != nil {
			c.in.need = 0
		}
		l.post.Body = rest[end:whole]
		l.eng.handler.Post(c, &l.post)
	}
	if c.state >= stateLinger {
		return len(b)
	}
	return at
}

// cutPost ends the connection of a client that has ended its side, or is late, and
// answers the request that has begun. If its head has come, that is the handler's to do.
func (l *Loop) cutPost(c *Conn) {
	switch {
	case c.in == nil:
		c.abort()
		return
	case c.in.need == 0:
		c.end(stateLinger, ws.StatusNormalClosure)
		l.refuse(c, responseBadRequest, RefusedMalformed)
		return
	}
	head := c.in.tail[c.in.off:]
	l.post.parse(head[:headEnd(head)]) // as it was when the body was begun
	l.post.Cut = true
	c.in = nil
	l.eng.handler.Post(c, &l.post)
}

// Respond sends the HTTP response to the request that [Handler.Post] was last called
// with for c. Responses to requests that came together leave in one write(2). last
// closes the connection behind it. Respond copies response. After c has begun to close
// it does nothing.
func (c *Conn) Respond(response []byte, last bool) {
	if c.state != stateOpen {
		return
	}
	k := &c.loop.cork
	k.hold(c)
	k.frames = append(k.frames, response...)
	switch {
	case last || c.last:
		c.endPosts()
	case len(k.frames) > c.loop.eng.mergeBytes:
		k.release()
	}
}

// IsLast reports whether c is closed behind the next response.
func (c *Conn) IsLast() bool { return c.last }

// endPosts sends what is left, then FIN.
func (c *Conn) endPosts() {
	c.end(stateLinger, ws.StatusNormalClosure)
	c.linger()
}

// closePosts is Close for a connection that carries requests: behind the answer to the
// one in hand, for which there is Options.CloseTimeout, and at once when there is none.
func (c *Conn) closePosts() {
	switch {
	case c.paused || c.out != nil:
		c.last = true
		c.since = c.loop.sec
	case c.in != nil:
		c.end(stateLinger, ws.StatusNormalClosure)
		c.loop.refuse(c, responseUnavailable, RefusedDraining)
	default:
		c.endPosts()
	}
}

// answersRead goes on with the requests of a client that has read its answers.
func (c *Conn) answersRead() {
	switch {
	case c.out != nil || c.state != stateOpen || c.paused:
	case c.last:
		c.endPosts()
	default:
		c.loop.parseTail(c)
	}
}

// sweepPosts is sweepOne for a connection that carries requests.
func (l *Loop) sweepPosts(c *Conn) (acted bool) {
	o := &l.eng.opts
	quiet, age := l.sec-c.heard, l.sec-c.since
	switch {
	case c.last:
		if age > seconds(o.CloseTimeout) {
			c.abort()
			return true
		}
	case c.paused: // it waits for us
	case c.out != nil: // it does not read its answers
		if quiet > seconds(o.MessageTimeout) {
			l.stat.timeouts++
			c.abort()
			return true
		}
	case c.in != nil:
		longest := o.MessageTimeout
		if c.in.need == 0 {
			longest = o.HandshakeTimeout
		}
		if age > seconds(longest) {
			l.stat.timeouts++
			l.cutPost(c)
			return true
		}
	case quiet > seconds(KeepAlive):
		c.endPosts()
		return true
	}
	return false
}
