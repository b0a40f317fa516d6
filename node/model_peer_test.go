package node_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// modelPeer is one connection.
type modelPeer struct {
	w      *world
	number int
	ws     *websocket.Conn
	token  *modelToken // permits everything, and is never revoked
	closed chan struct{}

	// Guarded by world.mu.
	lastID      int
	asking      map[string]*question // by id
	subs        map[string]*modelSub
	heard       moment        // when the latest of the requests that are answered was sent
	credentials []*modelToken // the last one counts
	bad         map[int]bool  // by request: its token was bad, or was not
	asked       *modelToken   // what auth has asked for
	leaving     bool
}

// request is one envelope of a client.
type request struct {
	kind        byte // p, s, u, a, or g for a ping; its id begins with it
	token       *modelToken
	topic       string
	data, msgID string
	since       wire.Since
	hold        chan struct{} // unless nil, nothing is read behind the answer until it is closed
}

// question is a request that is not answered.
type question struct {
	request
	number int
	sent   moment
	answer chan wire.Message
	sub    *modelSub // of a subscribe
	tenure *tenure
	oldest map[string]uint64 // see reading
}

// What a connection does.

// connect opens a connection, with a credential unless that is nil. A narrow one soon holds up what it is sent while it
// does not read.
func (w *world) connect(slot int, credential *modelToken, narrow bool) {
	w.mu.Lock()
	w.numbers++
	p := &modelPeer{w: w, number: w.numbers, closed: make(chan struct{}), asking: map[string]*question{}, bad: map[int]bool{}, subs: map[string]*modelSub{}}
	p.token = &modelToken{subject: fmt.Sprint("p", slot), id: fmt.Sprint("p", p.number), issued: time.Now(), publish: []string{">"}, subscribe: []string{">"}}
	w.sign(p.token, time.Now().Add(time.Hour), false)
	w.mu.Unlock()

	var o websocket.DialOptions
	if narrow {
		o.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Control: testkit.NarrowSocket}).DialContext}}
	}
	if credential != nil {
		o.HTTPHeader = http.Header{"Authorization": {"Bearer " + credential.raw}}
		p.credentials = []*modelToken{credential}
	}
	m := w.now()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, "ws://"+w.node.Addr().String()+wire.Path, &o)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked("slot %d: connection %d, credential %s: %v", slot, p.number, credential, err)
	may := []wire.Code{wire.OK}
	if credential != nil {
		may = credential.verdict(m, time.Now(), true)
	}
	switch {
	case err == nil && slices.Contains(may, wire.OK):
		p.ws = ws
		w.left[slot], w.peers[slot] = w.peers[slot], p
		go p.read()
		return
	case err == nil:
		w.wrong("connection %d was opened with a token that is %v", p.number, may)
		_ = ws.CloseNow()
	case resp == nil || resp.StatusCode != http.StatusUnauthorized || !slices.ContainsFunc(may, func(c wire.Code) bool { return c != wire.OK }):
		w.wrong("connection %d was refused with %v, and its token is %v", p.number, err, may)
	}
	if w.peers[slot] == nil {
		close(p.closed)
		w.peers[slot] = p
	}
}

func (p *modelPeer) ended() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// drop closes the connection without a word, or with a close handshake.
func (p *modelPeer) drop() {
	p.w.mu.Lock()
	p.leaving = true
	p.w.noteLocked("%d is dropped", p.number)
	p.w.mu.Unlock()
	if p.number%2 == 0 {
		_ = p.ws.CloseNow()
	} else {
		_ = p.ws.Close(websocket.StatusNormalClosure, "")
	}
	<-p.closed
}

// ask sends a request and waits for its answer; answered is false when the connection was closed instead.
func (p *modelPeer) ask(r request) (answer wire.Message, answered bool) {
	return p.answer(p.send(&question{request: r}))
}

func (p *modelPeer) send(q *question) *question {
	q.answer = make(chan wire.Message, 1)
	p.w.mu.Lock()
	p.lastID++
	id, raw := fmt.Sprintf("%c%d", q.kind, p.lastID), ""
	if q.token != nil {
		raw = q.token.raw
	}
	q.number, q.sent = p.lastID, p.w.now()
	p.asking[id] = q
	p.w.mu.Unlock()
	var frame []byte
	switch q.kind {
	case 'p':
		frame = wire.AppendPublish(nil, id, q.topic, raw, []byte(q.data), q.msgID)
	case 's':
		frame = wire.AppendSubscribeSince(nil, id, q.topic, raw, q.since)
	case 'u':
		frame = wire.AppendUnsubscribe(nil, id, q.topic)
	case 'a':
		frame = fmt.Appendf(nil, `{"type":"auth","id":%q,"token":%q}`, id, raw)
	case 'g':
		frame = wire.AppendPing(nil, id)
	}
	_ = p.ws.Write(context.Background(), websocket.MessageText, frame) // when it is closed no answer comes
	return q
}

func (p *modelPeer) answer(q *question) (m wire.Message, answered bool) {
	select {
	case m = <-q.answer:
		return m, true
	case <-p.closed:
	case <-time.After(time.Minute):
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		p.w.wrong("%d got no answer", p.number)
		return m, false
	}
	select {
	case m = <-q.answer: // it came before the end
		return m, true
	default:
		return m, false
	}
}

// judge compares an answer with what it may be. mu is held.
func (p *modelPeer) judge(what string, k *modelToken, m moment, answer wire.Message, granted bool) {
	may := k.verdict(m, time.Now(), granted)
	p.compare(what, m, answer, may)
}

func (p *modelPeer) compare(what string, m moment, answer wire.Message, may []wire.Code) {
	if p.w.awaySince(m) && slices.Contains(may, wire.OK) {
		may = append(may, wire.Unavailable)
	}
	if !slices.Contains(may, answer.Code) {
		p.w.wrong("%d: %s was answered with %v, and may be %v", p.number, what, answer.Code, may)
	}
}

func permits(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return wire.Covers(pattern, topic) })
}

// publish sends n events without waiting for answers in between, each with some bytes more. With repeats, those that
// have been stored, or may have been, are sent a second time.
func (p *modelPeer) publish(topics []string, token *modelToken, n, more int, repeats bool) {
	w := p.w
	w.note("%d publishes %d to %v, repeats %v, %s", p.number, n, topics, repeats, token)
	events, answers := make([]*modelEvent, n), make([]*question, n)
	for i := range events {
		w.mu.Lock()
		e := &modelEvent{moment: w.now(), topic: topics[i%len(topics)], from: p.number, number: len(w.events[p.number]), lossy: w.away, down: w.down}
		if repeats {
			e.msgID = fmt.Sprintf("%d.%d", e.from, e.number)
		}
		w.events[p.number] = append(w.events[p.number], e)
		w.recent = append(w.recent, e)
		w.mu.Unlock()
		events[i], answers[i] = e, p.send(&question{request: e.request(token, more)})
	}
	for i, e := range events {
		answer, answered := p.answer(answers[i])
		w.mu.Lock()
		if answered {
			e.acked = answer.Code == wire.OK
			e.refused = !e.acked && answer.Code != wire.Unavailable
			e.lossy = e.lossy || w.away
			if e.acked && durable(e.topic) {
				w.stored(e, answer.Seq)
			}
			if answer.Duplicate || !e.acked && answer.Seq > 0 || !durable(e.topic) && answer.Seq > 0 {
				w.wrong("%d: the publish of [%d,%d] was answered with %d, duplicate %v", p.number, e.from, e.number, answer.Seq, answer.Duplicate)
			}
			p.judge("publish", token, e.moment, answer, permits(token.publish, e.topic))
			if e.acked && e.down && w.down {
				w.wrong("%d: a publish was acked while NATS was down", p.number)
			}
		}
		w.mu.Unlock()
	}
	if repeats {
		p.repeat(events, token, more)
	}
}

// subscribe subscribes, or gives the subscription another token; with nil it relies on the connection's credential.
func (p *modelPeer) subscribe(pattern string, token *modelToken, since wire.Since) {
	p.subscribed(p.sendSubscribe(request{kind: 's', topic: pattern, token: token, since: since}))
}

func (p *modelPeer) sendSubscribe(r request) *question {
	w, pattern, token := p.w, r.topic, r.token
	w.mu.Lock()
	w.noteLocked("%d subscribes to %s since %d %d %s, %s", p.number, pattern, r.since.Kind, r.since.N, r.since.Epoch, token)
	used := token
	if n := len(p.credentials); token == nil && n > 0 {
		used = p.credentials[n-1]
	}
	s := p.subs[pattern]
	if s == nil {
		s = &modelSub{pattern: pattern, got: map[int]map[int]bool{}, last: map[string]int{}}
		p.subs[pattern] = s
	}
	n := &tenure{token: used, asked: w.now(), outages: w.outages}
	if used != nil {
		s.tenures = append(s.tenures, n)
	}
	q := &question{request: r, sub: s, tenure: n, oldest: w.oldest(r.since)}
	w.mu.Unlock()
	return p.send(q)
}

// subscribed waits for the answer to a subscribe.
func (p *modelPeer) subscribed(q *question) {
	answer, answered := p.answer(q)
	w, s, n := p.w, q.sub, q.tenure
	w.mu.Lock()
	defer w.mu.Unlock()
	switch used := n.token; {
	case !answered:
	case used == nil:
		p.compare("subscribe", n.asked, answer, []wire.Code{wire.TokenMissing})
	default:
		may := used.verdict(n.asked, time.Now(), permits(used.subscribe, s.pattern))
		if !used.alive(time.Now()) {
			may = append(may, wire.Unavailable) // it ended before NATS had answered
		}
		p.compare("subscribe", n.asked, answer, may)
		p.settle(s, n, answer.Code == wire.OK)
		switch {
		case answer.Code == wire.OK:
			s.onCredential = q.token == nil
		case q.since.Kind != wire.SinceNone:
			s.since = time.Time{} // what there was before has ended, or not
		}
	}
}

// settle makes a new tenure the one that counts, or takes it away. mu is held.
func (p *modelPeer) settle(s *modelSub, n *tenure, ok bool) {
	at := time.Now()
	if !ok {
		s.tenures = slices.DeleteFunc(s.tenures, func(x *tenure) bool { return x == n })
		return
	}
	n.acked = true
	if !n.ended.IsZero() {
		return // its end came just behind the answer
	}
	gap := s.since.IsZero()
	for _, old := range s.tenures {
		if old != n && old.ended.IsZero() {
			gap = gap || !old.token.alive(at)
			old.ended = at
		}
	}
	if gap {
		s.since = at
	}
}

func (p *modelPeer) unsubscribe(pattern string) {
	w := p.w
	w.mu.Lock()
	w.noteLocked("%d unsubscribes from %s", p.number, pattern)
	m := w.now()
	s := p.subs[pattern]
	if s != nil {
		s.since = time.Time{}
	}
	w.mu.Unlock()
	answer, answered := p.ask(request{kind: 'u', topic: pattern})
	w.mu.Lock()
	defer w.mu.Unlock()
	if answered {
		p.compare("unsubscribe", m, answer, []wire.Code{wire.OK})
		if s != nil {
			s.end(time.Now(), func(*tenure) bool { return true })
		}
	}
}

// auth sets the connection's credential, or refreshes it.
func (p *modelPeer) auth(token *modelToken) {
	w := p.w
	w.mu.Lock()
	w.noteLocked("%d authenticates with %s", p.number, token)
	m := w.now()
	ours := len(p.credentials) == 0 || p.credentials[len(p.credentials)-1].subject == token.subject
	pending := map[*modelSub]*tenure{}
	for _, s := range p.subs {
		if s.onCredential && !s.since.IsZero() && ours && permits(token.subscribe, s.pattern) {
			pending[s] = &tenure{token: token, asked: m, outages: w.outages}
			s.tenures = append(s.tenures, pending[s])
		}
	}
	p.asked = token
	w.mu.Unlock()
	answer, answered := p.ask(request{kind: 'a', token: token})
	w.mu.Lock()
	defer w.mu.Unlock()
	if !answered {
		return
	}
	p.asked = nil
	p.judge("auth", token, m, answer, ours)
	for s, n := range pending {
		p.settle(s, n, answer.Code == wire.OK)
	}
	if answer.Code != wire.OK {
		return
	}
	p.credentials = append(p.credentials, token)
	for _, s := range p.subs {
		if s.onCredential && !s.since.IsZero() && !permits(token.subscribe, s.pattern) {
			w.wrong("%d: the subscription to %s goes on under a credential that does not permit it", p.number, s.pattern)
		}
	}
}

// What a connection receives.

func (p *modelPeer) read() {
	w := p.w
	defer close(p.closed)
	for {
		_, frame, err := p.ws.Read(context.Background())
		var hold chan struct{}
		w.mu.Lock()
		if err != nil {
			p.judgeEnd(websocket.CloseStatus(err), err)
			w.mu.Unlock()
			return
		}
		var m wire.Message
		if err := wire.ParseMessage(frame, &m); err != nil {
			w.wrong("%d received %q: %v", p.number, frame, err)
		} else {
			hold = p.receive(m)
		}
		w.mu.Unlock()
		if hold != nil {
			<-hold
		}
	}
}

// judgeEnd says whether the server may have ended the connection. mu is held.
func (p *modelPeer) judgeEnd(status websocket.StatusCode, err error) {
	w := p.w
	w.seen[fmt.Sprint("close ", status)]++
	w.noteLocked("%d ends: %v", p.number, err)
	dead := slices.ContainsFunc(p.credentials, func(k *modelToken) bool { return !k.alive(time.Now()) })
	if p.asked != nil {
		dead = dead || !p.asked.alive(time.Now())
	}
	switch {
	case p.leaving:
	case status == websocket.StatusCode(wire.CloseUnauthenticated) && (dead || p.failures() >= modelFailures):
	default:
		w.wrong("the server ended connection %d: %v", p.number, err)
	}
	for _, s := range p.subs {
		s.end(time.Now(), func(*tenure) bool { return true })
	}
}

// receive compares an envelope with the model. The next one is to be read when hold is closed. mu is held.
func (p *modelPeer) receive(m wire.Message) (hold chan struct{}) {
	w, at := p.w, time.Now()
	topic := string(m.Topic)
	switch {
	case m.Kind == wire.MessageWelcome:
	case m.Kind == wire.MessageEvent:
		p.event(topic, &m)
	case m.ID != nil:
		q := p.asking[string(m.ID)]
		if q == nil {
			w.wrong("%d received a second answer to %s, or one to nothing", p.number, m.ID)
			return nil
		}
		delete(p.asking, string(m.ID))
		if p.heard.sent.Before(q.sent.sent) {
			p.heard = q.sent
		}
		hold = q.hold
		p.count(q, m)
		if q.sub != nil && m.Code == wire.OK {
			p.begins(q, &m)
		}
		w.seen[fmt.Sprintf("%c %v", m.ID[0], m.Code)]++
		m.Topic, m.Data = nil, nil
		q.answer <- m
	case m.Kind == wire.MessageExpiring && topic == "":
		p.warned(m.Exp, slices.Clone(p.credentials), at)
	case m.Kind == wire.MessageExpiring:
		p.warned(m.Exp, p.tokensOf(topic), at)
	case m.Kind == wire.MessageExpired:
		p.subEnds(topic, wire.TokenExpired)
	case m.Kind == wire.MessageError:
		p.subEnds(topic, m.Code)
	default:
		w.wrong("%d received %v", p.number, m.Kind)
	}
	return hold
}

// count keeps what became of a request's token. Acks of durable topics come late.
func (p *modelPeer) count(q *question, m wire.Message) {
	switch {
	case m.Kind == wire.MessageAck && q.kind != 'u':
		p.bad[q.number] = false
	case m.Kind == wire.MessageError && m.Code != wire.Forbidden && m.Code != wire.Unavailable:
		p.bad[q.number] = true
	}
}

// failures is how many of the last requests had bad tokens, in a row.
func (p *modelPeer) failures() (n int) {
	for i := p.lastID; i > 0; i-- {
		switch bad, known := p.bad[i]; {
		case bad:
			n++
		case known:
			return n
		}
	}
	return n
}

func (p *modelPeer) event(topic string, m *wire.Message) {
	w, pattern, data := p.w, string(m.Pattern), string(m.Data[:min(len(m.Data), 20)])
	var from, number int
	if _, err := fmt.Sscanf(data, "[%d,%d", &from, &number); err != nil || number >= len(w.events[from]) {
		w.wrong("%d received an event that was not published: %s", p.number, data)
		return
	}
	e := w.events[from][number]
	name := topic
	if pattern != "" {
		name = pattern
	}
	s := p.subs[name]
	switch {
	case s == nil || topic != e.topic:
		w.wrong("%d received event %s of %s as one of %s by %s", p.number, data, e.topic, topic, name)
		return
	case durable(topic) != (m.Seq > 0):
		w.wrong("%d: %s received event %s of %s with seq %d", p.number, name, data, topic, m.Seq)
	case !s.may(e, p.heard):
		w.wrong("%d: %s received event %s, which was sent at %s, and must not", p.number, name, data, e.sent.Format("05.000000"))
	case s.got[from][number]:
		w.wrong("%d: %s received event %s twice", p.number, name, data)
	}
	if s.got[from] == nil {
		s.got[from] = map[int]bool{}
	}
	s.got[from][number] = true
	if m.Seq > 0 {
		w.stored(e, m.Seq)
		p.storedEvent(s, m)
	}
	flow := fmt.Sprint(from, topic)
	if last, ok := s.last[flow]; ok && number < last && !e.again {
		w.wrong("%d: %s received event %s after [%d,%d]", p.number, name, data, from, last)
	}
	if !e.again {
		s.last[flow] = number
	}
	w.seen["event"]++
}

func (p *modelPeer) tokensOf(pattern string) (tokens []*modelToken) {
	if s := p.subs[pattern]; s != nil {
		for _, n := range s.tenures {
			tokens = append(tokens, n.token)
		}
	}
	return tokens
}

// warned checks that one of the tokens expires soon.
func (p *modelPeer) warned(exp int64, tokens []*modelToken, at time.Time) {
	if p.asked != nil {
		tokens = append(tokens, p.asked)
	}
	if !slices.ContainsFunc(tokens, func(k *modelToken) bool { return k.causes[0].maybe.Unix() == exp && !at.Before(k.notice()) }) {
		p.w.wrong("%d was told of a token that expires at %d, and has none", p.number, exp)
	}
}

// subEnds checks that a subscription may end for that reason, and has it ended.
func (p *modelPeer) subEnds(pattern string, code wire.Code) {
	at := time.Now()
	p.w.seen[fmt.Sprint("end ", code)]++
	p.w.noteLocked("%d: %s ends: %v", p.number, pattern, code)
	s, ended := p.subs[pattern], 0
	if s != nil {
		ended = s.end(at, func(n *tenure) bool {
			switch code {
			case wire.Forbidden:
				return s.onCredential && p.asked != nil && !permits(p.asked.subscribe, pattern)
			case wire.Unavailable: // the stream did not answer
				return s.reading != nil && n.acked && (p.w.away || p.w.outages > n.outages)
			}
			return slices.ContainsFunc(n.token.causes, func(c *cause) bool { return c.code == code && !at.Before(c.maybe) })
		})
	}
	if ended == 0 {
		p.w.wrong("%d: the subscription to %s ended with %v", p.number, pattern, code)
	}
}
