package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/notifyd/notifyd/wire"
)

// Reading a stream. Any server that has a replica answers a direct get, and may be behind the leader; what it gives is
// everything up to some position, and nothing of what comes after. So the end of what was read is never taken from it:
// the leader says whether something follows.

const (
	// maxPage and maxPageBytes bound what one request reads.
	maxPage      = 4096
	maxPageBytes = 4 << 20
	// readTimeout is how long nothing may come of an answer; then the request is made again, readAttempts in all.
	readTimeout  = 2 * time.Second
	readAttempts = 3
	// topicsAtOnce bounds the topics too. For each that has events behind the position JetStream looks through a block of
	// the stream, and stores nothing meanwhile.
	topicsAtOnce = 64
	// maxTopicsBytes bounds the topics of one request for their last events. NATS takes a payload of 64 KiB at least.
	maxTopicsBytes = 32 << 10
)

// A getRequest is JetStream's request for stored messages (JSApiMsgGetRequest).
type getRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	MultiLast []string   `json:"multi_last,omitempty"`
	UpToSeq   uint64     `json:"up_to_seq,omitempty"`
}

// A part is a server's answer to a getRequest with Batch.
type part struct {
	events  []wire.StoredEvent // ascending, with PrevUnknown
	pending uint64             // how many follow at this server
	tooMany bool               // topics, for MultiLast
}

// readings are the answers under way, by the number that is the end of their subject, or of their consumer's name.
type readings struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*answer
}

// An answer is many messages.
type answer struct {
	full  int           // how many they are, unless one without an event ends them before
	msgs  []*nats.Msg   // guarded by readings.mu until done
	ended chan struct{} // closed behind the last message, or when the connection is lost
	lost  bool
}

func (r *readings) number() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	return r.last
}

func (r *readings) begin(number uint64, full int) *answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = make(map[uint64]*answer)
	}
	a := &answer{full: full, ended: make(chan struct{})}
	r.open[number] = a
	return a
}

// came is how many messages an answer has so far.
func (r *readings) came(a *answer) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(a.msgs)
}

func (r *readings) end(number uint64) {
	r.mu.Lock()
	delete(r.open, number)
	r.mu.Unlock()
}

// add adds a message to an answer.
func (r *readings) add(number uint64, m *nats.Msg, last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.open[number]
	if a == nil {
		return
	}
	if a.msgs = append(a.msgs, m); last || len(a.msgs) == a.full {
		close(a.ended)
		delete(r.open, number)
	}
}

// lost ends all answers: the connection is gone.
func (r *readings) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for number, a := range r.open {
		a.lost = true
		close(a.ended)
		delete(r.open, number)
	}
}

// read is called by nats.go for each message of an answer. What a consumer gives has the subject of the event.
func (sc *streamConn) read(m *nats.Msg) {
	digits, direct := strings.CutPrefix(m.Subject, sc.inbox+"r.")
	last := direct && len(m.Header["Nats-Sequence"]) == 0
	if !direct {
		_, name, _ := strings.Cut(m.Reply, sc.consumers)
		digits, _, _ = strings.Cut(name, ".")
	}
	if number, err := strconv.ParseUint(digits, 36, 64); err == nil {
		sc.readings.add(number, m, last)
	}
}

var (
	errAnswer = errors.New("NATS ended or garbled an answer")
	errSilent = errors.New("NATS does not answer")

	errNoWitness = errors.New("the event at that position is gone")
	errBehind    = errors.New("the replica that answered is behind")
)

// direct asks whatever server has a replica, and again when the answer does not come whole.
func (s *Stream) direct(ctx context.Context, q getRequest) (p part, err error) {
	question, err := json.Marshal(q)
	if err != nil {
		return p, err
	}
	for range readAttempts {
		if p, err = s.directOnce(ctx, question, q.Batch); err == nil || ctx.Err() != nil || !s.bus.sc.up.Load() {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("read stream %s: %w", s.Name(), err)
	}
	return p, err
}

func (s *Stream) directOnce(ctx context.Context, question []byte, batch int) (p part, err error) {
	sc := s.bus.sc
	msgs, err := sc.askMany(ctx, "$JS.API.DIRECT.GET."+s.want.Name, question, sc.readings.number(), max(batch, maxMultiLast)+1)
	if err != nil {
		return p, err
	}
	before := uint64(0)
	for _, m := range msgs {
		if done, err := s.addTo(&p, m, &before); done || err != nil {
			return p, err
		}
	}
	return p, errAnswer // no end
}

// askMany asks a question whose answer ends with a message without an event, or when it has full messages.
func (sc *streamConn) askMany(ctx context.Context, subject string, question []byte, number uint64, full int) ([]*nats.Msg, error) {
	a, err := sc.begin(subject, question, number, full)
	if err != nil {
		return nil, err
	}
	defer sc.readings.end(number)
	return sc.await(ctx, a)
}

// begin asks such a question, and await waits for the answer; readings.end must be called in the end.
func (sc *streamConn) begin(subject string, question []byte, number uint64, full int) (*answer, error) {
	a := sc.readings.begin(number, full)
	err := sc.conn.PublishRequest(subject, sc.inbox+"r."+strconv.FormatUint(number, 36), question)
	if err != nil {
		sc.readings.end(number)
	}
	return a, err
}

func (sc *streamConn) await(ctx context.Context, a *answer) ([]*nats.Msg, error) {
	silence := time.NewTicker(readTimeout)
	defer silence.Stop()
	for came := -1; ; {
		select {
		case <-a.ended:
			if a.lost {
				return nil, nats.ErrDisconnected
			}
			return a.msgs, nil
		case <-silence.C:
			before := came
			if came = sc.readings.came(a); came == before {
				return nil, errSilent
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// maxMultiLast is how many topics JetStream gives the last events of.
const maxMultiLast = 1024

// addTo adds a message of an answer to p, and says whether it was the last one. before is the message before it, which
// the server names: so none is missing.
func (s *Stream) addTo(p *part, m *nats.Msg, before *uint64) (done bool, err error) {
	if len(m.Header["Nats-Sequence"]) == 0 {
		return true, p.end(m.Header, *before)
	}
	e, ok := s.eventOf(m.Header, m.Data)
	if !ok || e.Prev != *before {
		return true, errAnswer
	}
	e.Prev = wire.PrevUnknown
	p.events = append(p.events, e)
	*before = e.Seq
	return false, nil
}

// end notes what the end of an answer says.
func (p *part) end(h nats.Header, before uint64) error {
	switch status := h.Get("Status"); status {
	case "204":
		p.pending = headerNumber(h, "Nats-Num-Pending")
		if headerNumber(h, "Nats-Last-Sequence") != before {
			return errAnswer
		}
	case "404": // nothing
	case "413":
		p.tooMany = true
	default:
		return fmt.Errorf("%w: %s %s", errAnswer, status, h.Get("Description"))
	}
	return nil
}

// eventOf reads an event that JetStream has passed on, or given as the answer to a direct get. Of a header that is
// there twice the last is JetStream's: a publisher may have set the first.
func (s *Stream) eventOf(h nats.Header, data []byte) (e wire.StoredEvent, ok bool) {
	topic, ok := strings.CutPrefix(lastHeader(h, "Nats-Subject"), s.bus.subject)
	if !ok {
		return e, false
	}
	t, err := time.Parse(time.RFC3339Nano, lastHeader(h, "Nats-Time-Stamp"))
	if err != nil {
		return e, false
	}
	e = wire.StoredEvent{
		Topic: topic, Data: data, Seq: headerNumber(h, "Nats-Sequence"), Prev: headerNumber(h, "Nats-Last-Sequence"),
		Time: t.UnixNano(), From: unescape(h.Get(headerFrom)),
	}
	e.Until = untilOf(h, t)
	return e, e.Seq > 0
}

// untilOf is when an event that was stored at t ends by its own header; 0: not by that.
func untilOf(h nats.Header, t time.Time) int64 {
	if life := ttlOf(h); life > 0 {
		return t.Add(life).UnixNano()
	}
	return 0
}

// ttlOf is how long an event lives by its own header: seconds, or a duration as Go writes it (ADR-43); 0: not by that.
func ttlOf(h nats.Header) time.Duration {
	text := lastHeader(h, headerTTL)
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	life, _ := time.ParseDuration(text) // none, "never", or what NATS would have refused
	return life
}

func lastHeader(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// headerNumber is 0 where there is none.
func headerNumber(h nats.Header, name string) uint64 {
	n, _ := strconv.ParseUint(lastHeader(h, name), 10, 64)
	return n
}

// codeNoMessage is JetStream's for a message that is not there.
const codeNoMessage = 10037

// leaderGet asks the stream's leader for one message; nil: there is none.
func (s *Stream) leaderGet(ctx context.Context, q getRequest) (*wire.StoredEvent, error) {
	question, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	var a struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := s.ask(ctx, "STREAM.MSG.GET", question, &a); err != nil {
		return nil, err
	}
	switch m := a.Message; {
	case a.Error != nil && a.Error.ErrCode == codeNoMessage:
		return nil, nil
	case a.Error != nil:
		return nil, s.apiError(a.Error)
	case m == nil || m.Seq == 0 || !strings.HasPrefix(m.Subject, s.bus.subject):
		return nil, fmt.Errorf("read stream %s: %w", s.Name(), errAnswer)
	default:
		e := &wire.StoredEvent{Topic: m.Subject[len(s.bus.subject):], Data: m.Data, Seq: m.Seq, Prev: wire.PrevUnknown, Time: m.Time.UnixNano()}
		if len(m.Header) > 0 {
			if h, err := nats.DecodeHeadersMsg(m.Header); err == nil {
				e.From, e.Until = unescape(h.Get(headerFrom)), untilOf(h, m.Time)
			}
		}
		return e, nil
	}
}

// witness is the topic of the event at a position, by which an answer of lastOf can be known to be of a replica that has
// come so far. It is empty where the stream has one replica, and errNoWitness where the event is no longer there.
func (s *Stream) witness(ctx context.Context, at uint64) (string, error) {
	if s.want.Replicas <= 1 {
		return "", nil
	}
	e, err := s.leaderGet(ctx, getRequest{Seq: at})
	switch {
	case err != nil:
		return "", err
	case e == nil || e.Seq != at:
		return "", errNoWitness
	}
	return e.Topic, nil
}

// lastOf calls f for the last event of each of topics up to the position upTo, more than once for some, the last one
// last. A replica that is behind gives earlier ones, or none: where that matters, witness is the topic of the event at
// upTo, which has to be among what a server gives, or the error is errBehind. f may be called for it, and before an error.
func (s *Stream) lastOf(ctx context.Context, topics []string, witness string, upTo uint64, f func(*wire.StoredEvent)) error {
	for len(topics) > 0 {
		q := getRequest{UpToSeq: upTo, MaxBytes: maxPageBytes}
		most := topicsAtOnce
		if witness != "" {
			q.MultiLast, most = append(q.MultiLast, s.bus.subject+witness), topicsAtOnce-1
		}
		size := 0
		for n := 0; len(topics) > 0 && n < most && size < maxTopicsBytes; n++ {
			if subject := s.bus.subject + topics[0]; topics[0] != witness {
				q.MultiLast = append(q.MultiLast, subject)
				size += len(subject)
			}
			topics = topics[1:]
		}
		last := uint64(0)
		for {
			p, err := s.direct(ctx, q)
			if err != nil {
				return err
			}
			for i := range p.events {
				f(&p.events[i])
				last = p.events[i].Seq
			}
			q.Seq = last + 1
			if len(p.events) == 0 || p.pending == 0 {
				break
			}
		}
		if witness != "" && last != upTo {
			return errBehind
		}
	}
	return nil
}
