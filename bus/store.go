package bus

import (
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

const (
	// What NATS has not answered yet is bounded in number and in bytes. Beyond the bounds HasRoom is false; beyond twice
	// of them Store refuses, for callers that do not ask.
	maxInFlight      = 16 << 10
	maxInFlightBytes = 16 << 20
	// storeTimeout is how long an answer may take.
	storeTimeout = 5 * time.Second
	storeSweep   = 250 * time.Millisecond
)

// Headers of the messages of a stream. Those with Nats are NATS's own.
const (
	headerMsgID = "Nats-Msg-Id"
	headerTTL   = "Nats-TTL"
	headerFrom  = "Notifyd-From"
	headerJTI   = "Notifyd-Jti"
)

// inFlight are the events on their way into streams. An answer of NATS finds its event by the number that is the end
// of its subject: the slot, and how often the slot has been used, so that a late answer is not taken for another's.
type inFlight struct {
	room func() // called when full is no more
	full atomic.Bool

	mu    sync.Mutex
	slots []flight
	free  []uint32
	count int
	bytes int
}

type flight struct {
	stream  *Stream
	receipt wire.Receipt // nil: the slot is free
	until   time.Time
	size    int
	use     uint32
}

// add takes an event of size bytes in. ok is false when there is no room whatever.
func (f *inFlight) add(s *Stream, r wire.Receipt, size int) (number uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count >= 2*maxInFlight || f.bytes >= 2*maxInFlightBytes {
		return 0, false
	}
	var i uint32
	if n := len(f.free); n > 0 {
		i, f.free = f.free[n-1], f.free[:n-1]
	} else {
		i = uint32(len(f.slots))
		f.slots = append(f.slots, flight{})
	}
	x := &f.slots[i]
	x.stream, x.receipt, x.size, x.until = s, r, size, time.Now().Add(storeTimeout)
	x.use++
	f.count++
	f.bytes += size
	if f.count >= maxInFlight || f.bytes >= maxInFlightBytes {
		f.full.Store(true)
	}
	return uint64(x.use)<<32 | uint64(i), true
}

// take takes an event out, whose receipt is nil if it is not there any more.
func (f *inFlight) take(number uint64) (s *Stream, r wire.Receipt) {
	i, use := uint32(number), uint32(number>>32)
	f.mu.Lock()
	if int(i) < len(f.slots) && f.slots[i].use == use {
		s, r = f.remove(i)
	}
	room := f.hasRoomAgain()
	f.mu.Unlock()
	if room {
		f.room()
	}
	return s, r
}

// remove frees a slot. mu is held.
func (f *inFlight) remove(i uint32) (*Stream, wire.Receipt) {
	x := &f.slots[i]
	s, r := x.stream, x.receipt
	if r != nil {
		f.count--
		f.bytes -= x.size
		x.stream, x.receipt = nil, nil
		f.free = append(f.free, i)
	}
	return s, r
}

// hasRoomAgain says whether publishers that wait are to be told. mu is held.
func (f *inFlight) hasRoomAgain() bool {
	return f.full.Load() && f.count <= maxInFlight/2 && f.bytes <= maxInFlightBytes/2 && f.full.Swap(false)
}

// fail answers all that were to be answered before now, or all of them if that is zero.
func (f *inFlight) fail(now time.Time) {
	var failed []flight
	f.mu.Lock()
	for i := range f.slots {
		if x := &f.slots[i]; x.receipt != nil && (now.IsZero() || now.After(x.until)) {
			failed = append(failed, *x)
			f.remove(uint32(i))
		}
	}
	room := f.hasRoomAgain()
	f.mu.Unlock()
	for _, x := range failed {
		x.stream.counters.timeouts.Add(1)
		x.receipt.Stored(0, false, wire.Unavailable)
	}
	if room {
		f.room()
	}
}

// HasRoom says whether NATS keeps up with what is stored. When it does not, a publisher should wait for the sink's Room
// before the next Store. It is apart from [Bus.HasRoom], so that a stream in trouble does not hold up other events.
func (s *Stream) HasRoom() bool { return s.bus.sc.hasRoom() }

// Store hands an event to JetStream and does not wait; it keeps neither slice of m. The caller has validated the
// topic, which is one of the stream's. When it returned wire.OK, r is called once, at the latest after about five
// seconds. wire.Unavailable there says that the event was not stored, or may have been: NATS did not answer.
func (s *Stream) Store(m *wire.ToStore, r wire.Receipt) wire.Code {
	sc := s.bus.sc
	if !sc.up.Load() || !s.made.Load() {
		return wire.Unavailable
	}
	if !publishable(m.Topic) {
		return wire.BadTopic
	}
	if len(m.Data) > s.bus.maxPayload {
		return wire.TooLarge
	}
	number, ok := sc.flights.add(s, r, len(m.Data)+len(m.Topic))
	if !ok {
		return wire.Unavailable
	}
	err := sc.send(m, number)
	if err == nil {
		return wire.OK
	}
	if _, r = sc.flights.take(number); r == nil {
		return wire.OK // its connection was lost meanwhile, and r has been told
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return wire.TooLarge
	}
	return wire.Unavailable
}

func (sc *streamConn) send(m *wire.ToStore, number uint64) error {
	if sc.store != nil {
		return sc.store.send(m, number)
	}
	var buf [MaxPrefixBytes + len(".ev.") + wire.MaxTopicBytes]byte
	subject := append(append(buf[:0], sc.b.subject...), m.Topic...)
	var replyBuf [64]byte
	reply := strconv.AppendUint(append(append(replyBuf[:0], sc.inbox...), "a."...), number, 36)
	// nats.go copies both into its write buffer; see remote.publish.
	to := unsafe.String(unsafe.SliceData(subject), len(subject))
	answer := unsafe.String(unsafe.SliceData(reply), len(reply))
	header := headerOf(m)
	if header == nil {
		return sc.conn.PublishRequest(to, answer, m.Data)
	}
	return sc.conn.PublishMsg(&nats.Msg{Subject: to, Reply: answer, Header: header, Data: m.Data})
}

// headerOf gives the headers that an event is stored with, nil: none.
func headerOf(m *wire.ToStore) nats.Header {
	if len(m.MsgID) == 0 && m.TTL == 0 && m.From == "" && m.JTI == "" {
		return nil
	}
	var values [4]string
	n := 0
	h := make(nats.Header, len(values))
	for key, v := range headersOf(m) {
		values[n] = v
		h[key] = values[n : n+1 : n+1]
		n++
	}
	return h
}

// headersOf are the headers that an event is stored with, names and values, escaped.
//
// JetStream looks for a message id in all of a stream. The topic in it keeps a publisher of one topic from using up an
// id that another topic's publisher is about to use.
func headersOf(m *wire.ToStore) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		_ = (len(m.MsgID) == 0 || yield(headerMsgID, escape(string(m.Topic)+" "+string(m.MsgID)))) &&
			(m.TTL == 0 || yield(headerTTL, strconv.FormatUint(uint64(m.TTL), 10))) &&
			(m.From == "" || yield(headerFrom, escape(m.From))) &&
			(m.JTI == "" || yield(headerJTI, escape(m.JTI)))
	}
}

// escape writes bytes that a header cannot hold, or would lose, as %XX.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b []byte
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c != '%' && c != 0x7f || c == ' ' && 0 < i && i < len(s)-1 {
			if b != nil {
				b = append(b, c)
			}
			continue
		}
		if b == nil {
			b = append(make([]byte, 0, len(s)+8), s[:i]...)
		}
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	if b == nil {
		return s
	}
	return string(b)
}

// unescape undoes escape. What others have written stays as it is where it makes no sense.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(c))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// answered is called by nats.go for each answer of JetStream.
func (sc *streamConn) answered(m *nats.Msg) {
	sc.answeredBy(m.Subject, m.Data)
}

// answeredBy takes an answer of JetStream, and keeps nothing of it.
func (sc *streamConn) answeredBy(subject string, data []byte) {
	number, err := strconv.ParseUint(subject[min(len(sc.inbox)+len("a."), len(subject)):], 36, 64)
	if err != nil {
		return
	}
	s, r := sc.flights.take(number)
	if r == nil {
		return // it came too late
	}
	if len(data) == 0 { // NATS says that nobody listens: JetStream is away, or the stream
		s.unheard.Store(true)
		s.counters.refused.Add(1)
		r.Stored(0, false, wire.Unavailable)
		return
	}
	if seq, duplicate, ok := parsePubAck(data); ok {
		if duplicate {
			s.counters.duplicates.Add(1)
		} else {
			s.counters.stored.Add(1)
		}
		r.Stored(seq, duplicate, wire.OK)
		return
	}
	s.counters.refused.Add(1)
	r.Stored(0, false, s.refusal(data))
}

// parsePubAck reads {"stream":"orders","seq":7,"duplicate":true}, as JetStream writes it. ok is false for an error.
func parsePubAck(p []byte) (seq uint64, duplicate, ok bool) {
	s := unsafe.String(unsafe.SliceData(p), len(p))
	if strings.Contains(s, `"error":`) {
		return 0, false, false
	}
	_, rest, ok := strings.Cut(s, `"seq":`)
	if !ok {
		return 0, false, false
	}
	rest = strings.TrimLeft(rest, " ")
	end := 0
	for end < len(rest) && rest[end]-'0' <= 9 {
		end++
	}
	seq, ok = decimal([]byte(rest[:end]))
	if !ok || seq == 0 {
		return 0, false, false
	}
	_, rest, duplicate = strings.Cut(rest[end:], `"duplicate":`)
	return seq, duplicate && strings.HasPrefix(strings.TrimLeft(rest, " "), "true"), true
}

// errTooLarge is JetStream's for a message beyond the bounds of the stream or the server.
const errTooLarge = 10054

// refusal says in our words why JetStream did not store an event.
func (s *Stream) refusal(answer []byte) wire.Code {
	var a struct {
		Error apiError `json:"error"`
	}
	if err := json.Unmarshal(answer, &a); err == nil && a.Error.ErrCode == errTooLarge {
		return wire.TooLarge
	}
	if s.bus.errors.allow() {
		s.bus.log.Warn("JetStream did not store an event", zap.String("stream", s.Name()),
			zap.Int("code", a.Error.ErrCode), zap.String("reason", a.Error.Description))
	}
	return wire.Unavailable
}

// An apiError is an error as JetStream's API writes it.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// sweep runs for the life of the bus and fails what NATS does not answer.
func (sc *streamConn) sweep() {
	tick := time.NewTicker(storeSweep)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			sc.flights.fail(now)
		case <-sc.b.quit:
			return
		}
	}
}
