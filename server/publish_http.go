package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// The way of a message that comes by HTTP, by net/http: lines of messages, and one in a
// request that is not plain (post.go has those that are). Each has a token of its own as ever, or uses that of the request,
// and is judged as on a WebSocket (path.go); what waits there without a goroutine
// waits here in that of its request.

const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	// mediaProblem is that of a refusal (RFC 9457).
	mediaProblem = "application/problem+json"

	// httpRoomWait is how long a publish waits for the bus to keep up.
	httpRoomWait = 5 * time.Second
	// lineBuffer is how much of a body is read at once, and about how many bytes of
	// results are kept until they are sent.
	lineBuffer = 16 << 10
)

// publishHandler answers POST /v1/publish.
func (s *Server) publishHandler(w http.ResponseWriter, r *http.Request) {
	p := &publisher{Server: s, ctx: r.Context(), addr: s.httpClientAddr(r)}
	if raw, ok := bearerToken(r); ok {
		p.bearer = raw
	}
	media := mediaType(r.Header)
	switch {
	case encoded(r.Header):
		w.Header().Set("Accept-Encoding", "identity")
		problem(w, http.StatusUnsupportedMediaType, wire.BadEnvelope, "send the body as it is, without Content-Encoding")
	case media == mediaJSON:
		p.publishOne(w, r)
	case media == mediaNDJSON:
		p.many(w, r)
	default:
		w.Header().Set("Accept", mediaJSON+", "+mediaNDJSON)
		problem(w, http.StatusUnsupportedMediaType, wire.BadEnvelope, "Content-Type must be "+mediaJSON+", or "+mediaNDJSON+" for one event a line")
	}
}

// mediaType is what Content-Type says, without parameters; "" where it says nothing, or
// two things.
func mediaType(h http.Header) string {
	lines := h.Values("Content-Type")
	if len(lines) != 1 {
		return ""
	}
	media, _, err := mime.ParseMediaType(lines[0])
	if err != nil {
		return ""
	}
	return media
}

// encoded says whether a body has to be decoded before it can be read (RFC 9110 §8.4).
func encoded(h http.Header) bool {
	for _, line := range h.Values("Content-Encoding") {
		if line != "" && !strings.EqualFold(line, "identity") {
			return true
		}
	}
	return false
}

// publisher is what publishes by one HTTP request.
type publisher struct {
	*Server
	ctx    context.Context // of the request
	addr   netip.Addr
	bearer []byte       // the request's token, for events without one; nil: it has none
	memo   *authz.Token // the last that an event used
	token  *authz.Token // of the event in hand
	env    wire.Envelope
	// idempotent stands for the event's msg_id; nil: it does not.
	idempotent []byte
	// patient: what is over the rate waits. It is refused otherwise, with the time
	// that is left to wait in retryAfter.
	patient    bool
	retryAfter time.Duration
}

// publishOne answers a request with one event.
func (p *publisher) publishOne(w http.ResponseWriter, r *http.Request) {
	body := http.MaxBytesReader(w, r.Body, int64(p.opts.Loop.MessageBytes))
	text, err := io.ReadAll(body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		p.refused(wire.TooLarge)
		refuse(w, wire.TooLarge, "")
		return
	case err != nil:
		p.refused(wire.BadEnvelope)
		p.bodyProblem(w)
		return
	}
	if p.idempotent, err = idempotencyKey(r.Header); err != nil {
		problem(w, http.StatusBadRequest, wire.BadEnvelope, err.Error())
		return
	}
	x := p.publish(text)
	if p.finish(&x); x.code != wire.OK {
		if p.retryAfter > 0 {
			setRetryAfter(w, p.retryAfter)
		}
		refuse(w, x.code, x.detail)
		return
	}
	p.bus.Flush()
	answer := []byte(published)
	if len(x.id) > 0 || x.kept != nil {
		answer = x.append(nil)
	}
	w.Header().Set("Content-Type", mediaJSON)
	_, _ = w.Write(answer)
}

// idempotencyKey is the header that stands for msg_id, nil where there is none. A draft
// of the IETF puts quotes round it, and many clients do not.
func idempotencyKey(h http.Header) ([]byte, error) {
	switch lines := h.Values("Idempotency-Key"); len(lines) {
	case 0:
		return nil, nil
	case 1:
		return unquotedKey([]byte(lines[0]))
	}
	return nil, errKey
}

// unquotedKey is the key that a line of the header holds.
func unquotedKey(line []byte) (key []byte, err error) {
	key = bytes.TrimSpace(line)
	if len(key) > 1 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if len(key) == 0 || len(key) > wire.MaxMsgIDBytes || !utf8.Valid(key) {
		return nil, errKey
	}
	return key, nil
}

var errKey = fmt.Errorf("Idempotency-Key must be one text of 1 to %d bytes", wire.MaxMsgIDBytes)

const (
	twoKeys      = "Idempotency-Key stands for msg_id: send one of them"
	notKeepingUp = "the server does not keep up: try again"
	// published is the answer to a request with one event that has no id.
	published = "{}\n"
)

// many answers a request with an event a line: a result a line, in order. A line
// that is refused does not stop the others. Memory is bounded by the longest
// message; each line has [loop.Options.MessageTimeout] to arrive.
func (p *publisher) many(w http.ResponseWriter, r *http.Request) {
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		problem(w, http.StatusBadRequest, wire.BadEnvelope, "Idempotency-Key is for one event: give each line its own msg_id")
		return
	}
	p.patient = true
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 is so by nature
	w.Header().Set("Content-Type", mediaNDJSON)
	w.Header().Set("X-Accel-Buffering", "no") // results come while lines do, through nginx too
	lines := lineReader{from: bufio.NewReaderSize(r.Body, lineBuffer), limit: p.opts.Loop.MessageBytes}
	var results []byte
	var waiting []result // for their streams, and those behind them: results keep the order of the lines
	collect := func(leave int) {
		for ; len(waiting) > leave; waiting = waiting[1:] {
			p.finish(&waiting[0])
			results = waiting[0].append(results)
		}
	}
	send := func() bool {
		collect(0)
		if len(results) == 0 {
			return true
		}
		p.bus.Flush()
		_ = control.SetWriteDeadline(time.Now().Add(p.opts.Loop.MessageTimeout))
		_, err := w.Write(results)
		results = results[:0]
		return err == nil && control.Flush() == nil
	}
	var extended time.Time
	for {
		if now := time.Now(); now.Sub(extended) > time.Second {
			extended = now
			_ = control.SetReadDeadline(now.Add(p.opts.Loop.MessageTimeout))
		}
		if (!lines.ready() || len(results) > lineBuffer) && !send() {
			return
		}
		line, err := lines.next()
		switch {
		case errors.Is(err, errLongLine):
			p.refused(wire.TooLarge)
			waiting = append(waiting, result{code: wire.TooLarge})
			collect(maxUnanswered)
			continue
		case err != nil:
			// What stands behind the last line end of a body that was cut may be half
			// a message. The response has an end also when the line came too late.
			send()
			_ = control.SetWriteDeadline(time.Now().Add(p.opts.Loop.MessageTimeout))
			return
		case len(line) == 0:
			continue
		}
		x := p.publish(line)
		if len(waiting) == 0 && x.kept == nil {
			results = x.append(results)
			continue
		}
		x.id = bytes.Clone(x.id) // a part of the line
		waiting = append(waiting, x)
		collect(maxUnanswered)
	}
}

// maxUnanswered is how many lines of a request may wait for their streams.
const maxUnanswered = 1024

// result is what became of an event.
type result struct {
	id     []byte
	code   wire.Code
	detail string
	kept   *keptReceipt // nil: no stream was asked to keep it
}

// append appends the result as a line. It is no longer waited for.
func (x *result) append(dst []byte) []byte {
	if x.code == wire.OK && x.kept != nil {
		return wire.AppendStoredResult(dst, x.id, x.kept.seq, x.kept.duplicate)
	}
	return wire.AppendResult(dst, x.id, x.code, x.detail)
}

// finish waits until the event's stream has answered.
func (p *publisher) finish(x *result) {
	if x.kept == nil {
		return
	}
	select {
	case <-x.kept.done:
		x.code = x.kept.code
	case <-p.ctx.Done(): // nobody reads the result
		x.code = wire.Unavailable
	}
	if x.code != wire.OK {
		p.refused(x.code)
	} else {
		p.publishedByHTTP[wire.OK].Add(1)
	}
}

// keptReceipt hears what became of one event. It implements [wire.Receipt].
type keptReceipt struct {
	done      chan struct{} // closed when the others are set
	seq       uint64
	duplicate bool
	code      wire.Code
}

// Stored implements [wire.Receipt].
func (x *keptReceipt) Stored(seq uint64, duplicate bool, code wire.Code) {
	x.seq, x.duplicate, x.code = seq, duplicate, code
	close(x.done)
}

// publish does for one event what [Server.Message] and what follows it do for a
// frame. text is overwritten, and the result's id a part of it.
func (p *publisher) publish(text []byte) result {
	code, detail := p.judge(text)
	x := result{id: p.env.ID, code: code, detail: detail}
	if code == wire.OK {
		if to := p.streamOf(p.env.Topic); to != nil {
			x.kept = &keptReceipt{done: make(chan struct{})}
			x.code = to.Store(&wire.ToStore{
				Topic: p.env.Topic, Data: p.env.Data, MsgID: p.env.MsgID, TTL: p.env.TTL, From: p.token.Subject(), JTI: p.token.ID(),
			}, x.kept)
		} else {
			x.code = p.bus.Publish(p.env.Topic, p.env.Data)
		}
	}
	switch {
	case x.code != wire.OK:
		x.kept = nil
		p.refused(x.code)
	case x.kept == nil:
		p.publishedByHTTP[wire.OK].Add(1)
	}
	return x
}

func (p *publisher) judge(text []byte) (code wire.Code, detail string) {
	if err := wire.ParsePublish(text, &p.env); err != nil {
		return err.Code, err.Detail
	}
	raw := p.env.Token
	if raw == nil {
		raw = p.bearer
	}
	if p.memo != nil && p.memo.Same(raw) {
		p.token = p.memo
	} else if p.token, code = p.verifyHTTP(p.ctx, p.addr, raw); code != wire.OK {
		return code, ""
	}
	p.memo = p.token
	if code = p.token.Check(httpNow()); code != wire.OK {
		return code, ""
	}
	switch {
	case !wire.ValidTopic(p.env.Topic):
		return wire.BadTopic, ""
	case !p.token.MayPublish(p.env.Topic):
		return wire.Forbidden, ""
	case p.env.TTL > 0 && !p.allowsTTL(p.env.Topic):
		return wire.BadEnvelope, noTTL
	case p.idempotent != nil && p.env.MsgID != nil:
		return wire.BadEnvelope, twoKeys
	case p.idempotent != nil:
		p.env.MsgID = p.idempotent
	}
	if p.token.Bound() {
		if code = p.token.Digest(p.env.Topic, p.env.Data); code != wire.OK {
			return code, ""
		}
	}
	if !p.takeRate() {
		return wire.RateLimited, ""
	}
	if _, _, once := p.token.Once(); once {
		if code = p.useOnceHTTP(); code != wire.OK {
			return code, ""
		}
	}
	if !p.waitForRoom(p.ctx, p.streamOf(p.env.Topic)) {
		return wire.Unavailable, notKeepingUp
	}
	return p.token.Check(httpNow()), "" // it may have ended while it waited
}

// takeRateOf counts an event that came from addr by HTTP against limits.rate, and
// returns how long it is until it may come. There is no connection that it
// could be counted for: proxies share theirs, and a new one costs little. So the
// owner of the token is counted, at its address.
func (s *Server) takeRateOf(now int64, token *authz.Token, addr netip.Addr) (wait time.Duration) {
	key := addressKey(addr).As16()
	return s.httpRate.take(now, token.Issuer(), token.Subject(), string(key[:]))
}

// takeRate takes an event from the rate of its token's owner.
func (p *publisher) takeRate() bool {
	if p.opts.Rate == 0 {
		return true
	}
	for {
		wait := p.takeRateOf(httpNow(), p.token, p.addr)
		switch {
		case wait == 0:
			return true
		case !p.patient:
			p.retryAfter = wait
			return false
		}
		select {
		case <-time.After(wait):
		case <-p.ctx.Done():
			return false
		}
	}
}

// useOnceHTTP notes that the token is used, with the workers that do so for the
// connections.
func (p *publisher) useOnceHTTP() wire.Code {
	s, token := p.Server, p.token
	code, ok := await(p.ctx, &s.once, len(p.env.Token), func() wire.Code { return s.useOnce(token) })
	if !ok {
		return wire.Unavailable
	}
	return code
}

// refused counts and logs a refusal.
func (p *publisher) refused(code wire.Code) {
	p.publishedByHTTP[code].Add(1)
	p.log.Debug("publish by HTTP refused", zap.Stringer("addr", p.addr), zap.Stringer("code", code))
}

// waitForRoom waits until the bus, or the stream that an event is for, and the loops keep
// up, for httpRoomWait at most.
func (s *Server) waitForRoom(ctx context.Context, to Stream) bool {
	hasRoom := s.hasRoom
	if to != nil {
		hasRoom = func() bool { return to.HasRoom() && s.engine.HasRoom() }
	}
	if hasRoom() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, httpRoomWait)
	defer cancel()
	for {
		came := s.httpRoom.next() // before it is asked, or an answer could be missed
		if hasRoom() {
			return true
		}
		select {
		case <-came:
		case <-ctx.Done():
			return false
		}
	}
}

// A signal wakes those that wait for something to happen once more. The zero
// value is ready; any goroutine may call it.
type signal struct {
	mu   sync.Mutex
	come chan struct{} // guarded by mu; nil: nobody waits
}

// next returns a channel that the next call of happened closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.come == nil {
		s.come = make(chan struct{})
	}
	return s.come
}

func (s *signal) happened() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.come != nil {
		close(s.come)
		s.come = nil
	}
}

// lineReader reads lines of bounded length.
type lineReader struct {
	from  *bufio.Reader
	limit int
	long  []byte // a line that the reader's buffer does not hold
}

// ready says whether next would find a line without reading from the body.
func (l *lineReader) ready() bool {
	buffered, _ := l.from.Peek(l.from.Buffered())
	return bytes.IndexByte(buffered, '\n') >= 0
}

var errLongLine = errors.New("the line is too long")

// next returns the next line without its end, until the one after it is read, or
// errLongLine for one that is too long. The last line needs no end; what was cut
// off is no line: the error is that of the body.
func (l *lineReader) next() ([]byte, error) {
	l.long = l.long[:0]
	tooLong := false
	for {
		part, err := l.from.ReadSlice('\n')
		switch {
		case err == nil && len(l.long) == 0 && !tooLong && len(part) <= l.limit+1:
			return bytes.Trim(part, lineSpace), nil
		case len(l.long)+len(part) > l.limit+2:
			tooLong = true
			l.long = l.long[:0]
		case !tooLong:
			l.long = append(l.long, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case tooLong:
			return nil, errLongLine
		case errors.Is(err, io.EOF) && len(l.long) == 0:
			return nil, io.EOF
		}
		return bytes.Trim(l.long, lineSpace), nil
	}
}

// lineSpace is what may stand round a line's JSON: its white space, and the line's end.
const lineSpace = " \t\r\n"
