package node_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"

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
	answers     map[string]chan wire.Message
	subs        map[string]*modelSub
	credentials []*modelToken // the last one counts
	failures    int           // bad tokens in a row
	asked       *modelToken   // what auth has asked for
	leaving     bool
}

// What a connection does.

// connect opens a connection, with a credential unless that is nil.
func (w *world) connect(slot int, credential *modelToken) {
	w.mu.Lock()
	w.numbers++
	p := &modelPeer{w: w, number: w.numbers, closed: make(chan struct{}), answers: map[string]chan wire.Message{}, subs: map[string]*modelSub{}}
	p.token = &modelToken{subject: fmt.Sprint("p", slot), id: fmt.Sprint("p", p.number), issued: time.Now(), publish: []string{">"}, subscribe: []string{">"}}
	w.sign(p.token, time.Now().Add(time.Hour), false)
	w.mu.Unlock()

	var o websocket.DialOptions
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
		w.peers[slot] = p
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

// ask sends a request and waits for its answer; answered is false when the connection was closed instead. A request
// of kind 'g' is a ping.
func (p *modelPeer) ask(kind byte, token *modelToken, topic string) (answer wire.Message, answered bool) {
	return p.answer(p.send(kind, token, topic, ""))
}

func (p *modelPeer) send(kind byte, token *modelToken, topic, data string) chan wire.Message {
	c := make(chan wire.Message, 1)
	p.w.mu.Lock()
	p.lastID++
	id, raw := fmt.Sprintf("%c%d", kind, p.lastID), ""
	if token != nil {
		raw = token.raw
	}
	p.answers[id] = c
	p.w.mu.Unlock()
	var frame []byte
	switch kind {
	case 'p':
		frame = wire.AppendPublish(nil, id, topic, raw, []byte(data), "")
	case 's':
		frame = wire.AppendSubscribe(nil, id, topic, raw)
	case 'u':
		frame = wire.AppendUnsubscribe(nil, id, topic)
	case 'a':
		frame = fmt.Appendf(nil, `{"type":"auth","id":%q,"token":%q}`, id, raw)
	case 'g':
		frame = wire.AppendPing(nil, id)
	}
	_ = p.ws.Write(context.Background(), websocket.MessageText, frame) // when it is closed no answer comes
	return c
}

func (p *modelPeer) answer(c chan wire.Message) (m wire.Message, answered bool) {
	select {
	case m = <-c:
		return m, true
	case <-p.closed:
	case <-time.After(time.Minute):
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		p.w.wrong("%d got no answer", p.number)
		return m, false
	}
	select {
	case m = <-c: // it came before the end
		return m, true
	default:
		return m, false
	}
}

// judge compares an answer with what it may be. mu is held.
func (p *modelPeer) judge(what string, k *modelToken, m moment, answer wire.Message, granted bool) {
	may := k.verdict(m, time.Now(), granted)
	p.compare(what, answer, may)
}

func (p *modelPeer) compare(what string, answer wire.Message, may []wire.Code) {
	if p.w.away && slices.Contains(may, wire.OK) {
		may = append(may, wire.Unavailable)
	}
	if !slices.Contains(may, answer.Code) {
		p.w.wrong("%d: %s was answered with %v, and may be %v", p.number, what, answer.Code, may)
	}
}

func permits(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return wire.Covers(pattern, topic) })
}

// publish sends n events without waiting for answers in between.
func (p *modelPeer) publish(topics []string, token *modelToken, n int) {
	w := p.w
	w.note("%d publishes %d to %v, %s", p.number, n, topics, token)
	events, answers := make([]*modelEvent, n), make([]chan wire.Message, n)
	for i := range events {
		w.mu.Lock()
		e := &modelEvent{moment: w.now(), topic: topics[i%len(topics)], from: p.number, number: len(w.events[p.number]), lossy: w.away, down: w.down}
		w.events[p.number] = append(w.events[p.number], e)
		w.recent = append(w.recent, e)
		w.mu.Unlock()
		events[i], answers[i] = e, p.send('p', token, e.topic, fmt.Sprintf("[%d,%d]", e.from, e.number))
	}
	for i, e := range events {
		answer, answered := p.answer(answers[i])
		w.mu.Lock()
		if answered {
			e.acked = answer.Code == wire.OK
			e.refused = !e.acked && answer.Code != wire.Unavailable
			e.lossy = e.lossy || w.away
			p.judge("publish", token, e.moment, answer, permits(token.publish, e.topic))
			if e.acked && e.down && w.down {
				w.wrong("%d: a publish was acked while NATS was down", p.number)
			}
		}
		w.mu.Unlock()
	}
}

// subscribe subscribes, or gives the subscription another token; with nil it relies on the connection's credential.
func (p *modelPeer) subscribe(pattern string, token *modelToken) {
	w := p.w
	w.mu.Lock()
	w.noteLocked("%d subscribes to %s, %s", p.number, pattern, token)
	used := token
	if n := len(p.credentials); token == nil && n > 0 {
		used = p.credentials[n-1]
	}
	s := p.subs[pattern]
	if s == nil {
		s = &modelSub{pattern: pattern, got: map[int]map[int]bool{}, last: map[string]int{}}
		p.subs[pattern] = s
	}
	n := &tenure{token: used, asked: w.now()}
	if used != nil {
		s.tenures = append(s.tenures, n)
	}
	w.mu.Unlock()
	answer, answered := p.ask('s', token, pattern)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !answered:
	case used == nil:
		p.compare("subscribe", answer, []wire.Code{wire.TokenMissing})
	default:
		may := used.verdict(n.asked, time.Now(), permits(used.subscribe, pattern))
		if !used.alive(time.Now()) {
			may = append(may, wire.Unavailable) // it ended before NATS had answered
		}
		p.compare("subscribe", answer, may)
		p.settle(s, n, answer.Code == wire.OK)
		if answer.Code == wire.OK {
			s.onCredential = token == nil
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
	s := p.subs[pattern]
	if s != nil {
		s.since = time.Time{}
	}
	w.mu.Unlock()
	answer, answered := p.ask('u', nil, pattern)
	w.mu.Lock()
	defer w.mu.Unlock()
	if answered {
		p.compare("unsubscribe", answer, []wire.Code{wire.OK})
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
			pending[s] = &tenure{token: token, asked: m}
			s.tenures = append(s.tenures, pending[s])
		}
	}
	p.asked = token
	w.mu.Unlock()
	answer, answered := p.ask('a', token, "")
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
			p.receive(m)
		}
		w.mu.Unlock()
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
	case status == websocket.StatusCode(wire.CloseUnauthenticated) && (dead || p.failures >= modelFailures):
	default:
		w.wrong("the server ended connection %d: %v", p.number, err)
	}
	for _, s := range p.subs {
		s.end(time.Now(), func(*tenure) bool { return true })
	}
}

// receive compares an envelope with the model. mu is held.
func (p *modelPeer) receive(m wire.Message) {
	w, at := p.w, time.Now()
	topic := string(m.Topic)
	switch {
	case m.Kind == wire.MessageWelcome:
	case m.Kind == wire.MessageEvent:
		p.event(topic, string(m.Pattern), string(m.Data))
	case m.ID != nil:
		c := p.answers[string(m.ID)]
		if c == nil {
			w.wrong("%d received a second answer to %s, or one to nothing", p.number, m.ID)
			return
		}
		delete(p.answers, string(m.ID))
		p.count(m)
		w.seen[fmt.Sprintf("%c %v", m.ID[0], m.Code)]++
		m.Topic, m.Data = nil, nil
		c <- m
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
}

// count keeps the number of bad tokens in a row.
func (p *modelPeer) count(m wire.Message) {
	switch kind := m.ID[0]; {
	case m.Kind == wire.MessageAck && kind != 'u':
		p.failures = 0
	case m.Kind == wire.MessageError && m.Code != wire.Forbidden && m.Code != wire.Unavailable:
		p.failures++
	}
}

func (p *modelPeer) event(topic, pattern, data string) {
	w := p.w
	var from, number int
	if _, err := fmt.Sscanf(data, "[%d,%d]", &from, &number); err != nil || number >= len(w.events[from]) {
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
	case !s.may(e):
		w.wrong("%d: %s received event %s, which was sent at %s, and must not", p.number, name, data, e.sent.Format("05.000000"))
	case s.got[from][number]:
		w.wrong("%d: %s received event %s twice", p.number, name, data)
	}
	if s.got[from] == nil {
		s.got[from] = map[int]bool{}
	}
	s.got[from][number] = true
	flow := fmt.Sprint(from, topic)
	if last, ok := s.last[flow]; ok && number < last {
		w.wrong("%d: %s received event %s after [%d,%d]", p.number, name, data, from, last)
	}
	s.last[flow] = number
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
			if code == wire.Forbidden {
				return s.onCredential && p.asked != nil && !permits(p.asked.subscribe, pattern)
			}
			return slices.ContainsFunc(n.token.causes, func(c *cause) bool { return c.code == code && !at.Before(c.maybe) })
		})
	}
	if ended == 0 {
		p.w.wrong("%d: the subscription to %s ended with %v", p.number, pattern, code)
	}
}
