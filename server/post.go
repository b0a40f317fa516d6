package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// The way of a message that comes by HTTP in a plain request ([loop.Post]), which its
// loop answers itself. It is that of a frame (path.go) from the envelope on, and waits
// where a frame would; its connection is not read meanwhile, so that answers keep the
// order of the requests. Here is what differs: where the token may be, whose the rate is,
// and the answer, which is in the words of publishHandler, that has all other requests.

// posting is what a session has whose connection carries HTTP requests. It is about the
// request in hand.
type posting struct {
	addr       netip.Addr    // of the client, whose proxy may send for others as well
	twoKeys    bool          // there is a msg_id beside Idempotency-Key
	last       bool          // the connection is closed behind the answer
	retryAfter time.Duration // of a refusal that knows
	held       []byte        // the answer, while it is held back
	receipt    waiting       // for what a stream says
}

// isPublish is [loop.Options.Posts].
func (s *Server) isPublish(p *loop.Post) bool {
	return string(p.Target) == s.publishPath && isPlainJSON(p.ContentType)
}

// isPlainJSON says whether a Content-Type is JSON in one of the ways in which most write
// it; mediaType knows the others.
func isPlainJSON(media []byte) bool {
	media, parameter, found := bytes.Cut(media, []byte(";"))
	return is(media, mediaJSON) && (!found || is(bytes.TrimLeft(parameter, " "), "charset=utf-8"))
}

// is compares without regard to case, of ASCII alone: to EqualFold a long s is an s.
func is(what []byte, lower string) bool {
	return len(what) == len(lower) && bytes.EqualFold(what, []byte(lower))
}

// Post implements [loop.Handler].
func (s *Server) Post(c *loop.Conn, p *loop.Post) {
	ses, _ := c.Data.(*session)
	if ses == nil {
		ses = &session{due: never, post: &posting{}}
		c.Data = ses
	}
	x := ses.post
	x.addr, x.twoKeys, x.last, x.retryAfter = c.Addr(), false, p.Close, 0
	if s.isTrusted(x.addr) {
		x.addr = s.behindProxies(x.addr, string(p.Forwarded), string(p.ForwardedFor))
	}
	r := s.request(c)
	if p.Cut {
		x.last = true
		r.refuse(wire.BadEnvelope, s.notWhole())
		return
	}
	var key []byte
	if p.IdempotencyKey != nil {
		var err error
		if key, err = unquotedKey(p.IdempotencyKey); err != nil {
			r.answerProblem(http.StatusBadRequest, wire.BadEnvelope, err.Error())
			return
		}
	}
	if err := wire.ParsePublish(p.Body, &r.env); err != nil {
		r.refuse(err.Code, err.Detail)
		return
	}
	if r.env.Token == nil {
		r.env.Token, _ = bearerOf(p.Authorization)
	}
	if x.twoKeys = key != nil && r.env.MsgID != nil; key != nil {
		r.env.MsgID = key
	}
	if r.authorize() {
		r.perform()
	}
}

// addr is the address of the client that the request came from.
func (r *request) addr() netip.Addr {
	if x := r.ses.post; x != nil {
		return x.addr
	}
	return r.conn.Addr()
}

// takeHTTPRate takes an event from the rate of its token's owner, or refuses it.
func (r *request) takeHTTPRate() bool {
	if r.opts.Rate == 0 {
		return true
	}
	x := r.ses.post
	if x.retryAfter = r.takeRateOf(r.now(), r.token, x.addr); x.retryAfter > 0 {
		r.refuse(wire.RateLimited, "")
		return false
	}
	return true
}

// awaitReceipt waits until a stream has answered.
func (r *request) awaitReceipt() {
	w := &r.ses.post.receipt
	w.conn, w.stage = r.conn, forReceipt
	r.park(w)
}

// answerStoredPost answers a request whose event a stream has answered.
func (s *Server) answerStoredPost(st *loopState, x *receipt) {
	if !x.conn.Open() {
		st.counts.published[x.code]++
		return
	}
	r := s.request(x.conn)
	r.ses.waiting = nil
	if x.code == wire.OK {
		st.counts.published[wire.OK]++
		st.result = wire.AppendStoredResult(st.result[:0], x.text[:x.id], x.seq, x.duplicate)
		r.answerJSON(st.result)
	} else {
		r.env.Kind = wire.Publish
		r.refuse(x.code, "")
	}
	if r.ses.waiting == nil {
		x.conn.Resume()
	}
}

// answerPublished answers a request whose event the bus has.
func (r *request) answerPublished() {
	st := r.loop
	st.result = append(st.result[:0], published...)
	if len(r.env.ID) > 0 {
		st.result = wire.AppendResult(st.result[:0], r.env.ID, wire.OK, "")
	}
	r.answerJSON(st.result)
}

// refusePost is refuse for a request.
func (r *request) refusePost(code wire.Code, detail string) {
	r.loop.counts.published[code]++
	if e := r.log.Check(zap.DebugLevel, "publish by HTTP refused"); e != nil {
		e.Write(zap.Stringer("addr", r.ses.post.addr), zap.Stringer("code", code))
	}
	if code.Auth() {
		r.ses.authFailures++
	}
	r.answerProblem(httpStatus(code), code, detail)
}

// answerProblem answers a request as problem does. What did nothing too often, or had a
// bad signature, is answered late.
func (r *request) answerProblem(status int, code wire.Code, message string) {
	x := r.ses.post
	var pause time.Duration
	if status < http.StatusInternalServerError {
		if pause = r.holdBackFruitless(r.now(), x.addr); pause > 0 {
			x.last = true
		}
	}
	if code == wire.TokenInvalid && r.auth.Cost(r.env.Token) != authz.Cheap {
		pause += r.holdBackFor(x.addr, r.now())
	}
	text, _ := json.Marshal(problemOf(status, code, message)) // cannot fail
	b := appendStatus(r.loop.reply[:0], status)
	b = append(b, "Cache-Control: no-store\r\nContent-Type: "+mediaProblem+"\r\n"...)
	if code.Retry() {
		b = append(b, "Retry-After: "...)
		b = strconv.AppendInt(b, int64(wholeSeconds(cmp.Or(x.retryAfter, retryAfter))), 10)
		b = append(b, "\r\n"...)
	}
	if how := challenge(code); how != "" {
		b = append(append(append(b, "Www-Authenticate: "...), how...), "\r\n"...)
	}
	r.loop.reply = r.appendBody(b, append(text, '\n'))
	if pause > 0 {
		x.held = bytes.Clone(r.loop.reply)
		r.awaitPenalty(pause)
		return
	}
	r.conn.Respond(r.loop.reply, x.last)
}

// answerHeld sends the answer that was held back.
func (r *request) answerHeld() {
	x := r.ses.post
	r.conn.Respond(x.held, x.last)
	x.held = nil
}

// answerJSON answers a request that has done what it is for.
func (r *request) answerJSON(body []byte) {
	b := appendStatus(r.loop.reply[:0], http.StatusOK)
	b = append(b, "Content-Type: "+mediaJSON+"\r\n"...)
	r.loop.reply = r.appendBody(b, body)
	r.conn.Respond(r.loop.reply, r.ses.post.last)
}

func appendStatus(dst []byte, status int) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	return append(append(dst, http.StatusText(status)...), "\r\n"...)
}

// appendBody appends what ends each answer.
func (r *request) appendBody(dst, body []byte) []byte {
	dst = append(dst, "Date: "...)
	dst = r.loop.date.append(dst, r.now())
	dst = append(dst, "\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	if r.ses.post.last || r.conn.IsLast() {
		dst = append(dst, "\r\nConnection: close"...)
	}
	return append(append(dst, "\r\n\r\n"...), body...)
}

// httpDate is the Date of answers (RFC 9110 §6.6.1), which changes once a second.
type httpDate struct {
	second int64
	text   [len(http.TimeFormat)]byte
}

func (d *httpDate) append(dst []byte, now int64) []byte {
	if second := now / int64(time.Second); second != d.second {
		d.second = second
		time.Unix(second, 0).UTC().AppendFormat(d.text[:0], http.TimeFormat)
	}
	return append(dst, d.text[:]...)
}
