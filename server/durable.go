package server

import (
	"sync"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Publishing to a durable topic. The stream is handed the event and answers later; the
// connection goes on meanwhile. What it is owed stands in a receipt:
//
//	store           the event goes to its stream, and a receipt with it
//	receipt.Stored  on a goroutine of the bus: the receipt joins those that its loop
//	                has to act on, and the first one wakes the loop
//	takeReceipts    on the loop: acks and refusals

// noTTL refuses a publish that says how long its event lives.
const noTTL = "ttl is for durable topics whose stream has ttl: true"

// allowsTTL says whether an event of a topic may say how long it lives.
func (s *Server) allowsTTL(topic []byte) bool {
	to := s.streamOf(topic)
	return to != nil && to.AllowsTTL()
}

// store hands an event to its stream. The ack waits for the stream's answer.
func (r *request) store(to Stream) {
	if !to.HasRoom() || !r.engine.HasRoom() {
		r.awaitRoom()
		return
	}
	x := newReceipt(r.conn, &r.loop.receipts, r.env.ID, r.env.Topic)
	x.soon = to.AnswersSoon()
	r.loop.toStore = wire.ToStore{
		Topic: r.env.Topic, Data: r.env.Data, MsgID: r.env.MsgID, TTL: r.env.TTL, From: r.token.Subject(), JTI: r.token.ID(),
	}
	if code := to.Store(&r.loop.toStore, x); code != wire.OK {
		x.release()
		r.refuse(code, "")
		return
	}
	if x.soon {
		r.loop.soon++
	}
	r.accepted()
	if r.ses.post != nil {
		r.awaitReceipt()
	}
}

// receipt is what a connection is owed for an event that it published to a stream. It
// implements [wire.Receipt].
type receipt struct {
	conn *loop.Conn
	to   *receipts
	text []byte // id and topic
	id   int    // bytes of text
	soon bool   // counted in loopState.soon

	seq       uint64
	duplicate bool
	code      wire.Code
}

var receiptPool = sync.Pool{New: func() any { return new(receipt) }}

func newReceipt(c *loop.Conn, to *receipts, id, topic []byte) *receipt {
	x := receiptPool.Get().(*receipt)
	x.conn, x.to, x.id = c, to, len(id)
	x.text = append(append(x.text[:0], id...), topic...)
	return x
}

func (x *receipt) release() {
	x.conn, x.to, x.soon = nil, nil, false
	receiptPool.Put(x)
}

// Stored implements [wire.Receipt].
func (x *receipt) Stored(seq uint64, duplicate bool, code wire.Code) {
	x.seq, x.duplicate, x.code = seq, duplicate, code
	if x.to.add(x) {
		x.conn.Loop().Post(x.to.take)
	}
}

// receipts are those that a loop has to act on. Any goroutine may add one.
type receipts struct {
	take func() // acts on them; the loop's

	mu    sync.Mutex
	come  []*receipt // guarded by mu
	spare []*receipt // guarded by mu
}

// add returns true for the first one since they were taken.
func (x *receipts) add(r *receipt) (first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.come = append(x.come, r)
	return len(x.come) == 1
}

// all takes those that have come.
func (x *receipts) all() []*receipt {
	x.mu.Lock()
	defer x.mu.Unlock()
	come := x.come
	x.come, x.spare = x.spare[:0], nil
	return come
}

// takeReceipts answers the publishes of l's connections that streams have answered.
func (s *Server) takeReceipts(l *loop.Loop) {
	st := stateOf(l)
	come := st.receipts.all()
	l.Answered()
	for i, x := range come {
		if x.soon {
			st.soon--
		}
		s.answerReceipt(st, x)
		x.release()
		come[i] = nil
	}
	if cap(come) <= 1<<14 {
		st.receipts.giveBack(come[:0])
	}
}

// giveBack lets the slice of receipts that were acted on be used again.
func (x *receipts) giveBack(done []*receipt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.spare = done
}

func (s *Server) answerReceipt(st *loopState, x *receipt) {
	if sessionOf(x.conn).post != nil {
		s.answerStoredPost(st, x)
		return
	}
	if x.code == wire.OK {
		st.counts.published[wire.OK]++
		if x.id > 0 {
			st.send(x.conn, wire.AppendStoredAck(st.reply[:0], x.text[:x.id], x.seq, x.duplicate))
		}
		return
	}
	if !x.conn.Open() {
		st.counts.published[x.code]++
		return
	}
	r := s.request(x.conn)
	r.env.Kind, r.env.Topic = wire.Publish, x.text[x.id:]
	if x.id > 0 {
		r.env.ID = x.text[:x.id]
	}
	r.refuse(x.code, "")
}
