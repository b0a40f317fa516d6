package wire

import (
	"context"
	"math"
	"strconv"
	"time"
)

// A StoredEvent is an event of a durable topic, as its stream keeps it.
type StoredEvent struct {
	Topic string
	Data  []byte // one JSON value
	Seq   uint64 // its position in the stream, from 1
	Prev  uint64 // seq of the topic's event before; 0: it is the first; PrevUnknown
	Time  int64  // when it was stored, in Unix nanoseconds
	From  string // the verified sub of its publisher; "": not told
	Until int64  // when its own time to live ends, in Unix nanoseconds; 0: never. It is not told to clients
}

// PrevUnknown is the Prev of an event of which it is not known what came before it.
const PrevUnknown = math.MaxUint64

// A Resumption is where a subscription to durable topics begins.
type Resumption struct {
	Stream    string
	Epoch     string // names this life of the stream
	Seq       uint64 // everything stored later is delivered
	Recovered uint64 // events up to Seq that follow the ack
	Complete  bool   // nothing of what since asked for is gone
	First     uint64 // the oldest that is there; told if it is not Complete
}

// AppendStoredEvent appends an event of a durable topic. pattern is as in
// [AppendEvent]; an unknown Prev is left out.
func AppendStoredEvent(dst []byte, pattern string, e *StoredEvent) []byte {
	dst = append(dst, `{"type":"event"`...)
	dst = appendMember(dst, "topic", e.Topic)
	dst = appendMember(dst, "pattern", pattern)
	dst = append(dst, `,"data":`...)
	dst = append(dst, e.Data...)
	dst = appendNumber(dst, "seq", e.Seq)
	if e.Prev != PrevUnknown {
		dst = appendNumber(dst, "prev", e.Prev)
	}
	dst = append(dst, `,"time":"`...)
	dst = append(appendTime(dst, e.Time), '"')
	dst = appendMember(dst, "from", e.From)
	return append(dst, '}')
}

// appendTime appends a time, in Unix nanoseconds, with milliseconds, as the time in a
// welcome. Only time.RFC3339 is fast.
func appendTime(dst []byte, t int64) []byte {
	u := time.Unix(0, t).UTC()
	dst = u.AppendFormat(dst, time.RFC3339)
	ms := u.Nanosecond() / 1e6
	dst[len(dst)-1] = '.'
	return append(dst, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

// AppendStoredAck appends the answer to a publish that had an id and was stored.
// duplicate says that its msg_id was there before: seq is that of the first.
func AppendStoredAck(dst, id []byte, seq uint64, duplicate bool) []byte {
	dst = append(dst, `{"type":"ack"`...)
	dst = appendMember(dst, "id", id)
	dst = appendStored(dst, seq, duplicate)
	return append(dst, '}')
}

// AppendStoredResult is [AppendResult] for a publish that was stored.
func AppendStoredResult(dst, id []byte, seq uint64, duplicate bool) []byte {
	dst = append(dst, `{"ok":true`...)
	dst = appendMember(dst, "id", id)
	dst = appendStored(dst, seq, duplicate)
	return append(dst, "}\n"...)
}

func appendStored(dst []byte, seq uint64, duplicate bool) []byte {
	dst = appendNumber(dst, "seq", seq)
	if duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return dst
}

// AppendResumeAck appends the answer to a subscribe to durable topics that had an
// id. exp is as in [AppendSubscribeAck].
func AppendResumeAck(dst, id []byte, exp int64, r *Resumption) []byte {
	dst = append(dst, `{"type":"ack"`...)
	dst = appendMember(dst, "id", id)
	dst = append(dst, `,"exp":`...)
	dst = strconv.AppendInt(dst, exp, 10)
	dst = appendMember(dst, "stream", r.Stream)
	dst = appendMember(dst, "epoch", r.Epoch)
	dst = appendNumber(dst, "seq", r.Seq)
	dst = appendNumber(dst, "recovered", r.Recovered)
	dst = append(dst, `,"complete":`...)
	dst = strconv.AppendBool(dst, r.Complete)
	if !r.Complete {
		dst = appendNumber(dst, "first", r.First)
	}
	return append(dst, '}')
}

// AppendGap appends the notice that events of the subscription to topic (a
// pattern, it may be) are gone: those after after and before first. epoch is
// that of the stream if it is another than before; after is 0 then.
func AppendGap(dst []byte, topic, epoch string, after, first uint64) []byte {
	dst = append(dst, `{"type":"gap"`...)
	dst = appendMember(dst, "topic", topic)
	dst = appendMember(dst, "epoch", epoch)
	dst = appendNumber(dst, "after", after)
	dst = appendNumber(dst, "first", first)
	return append(dst, '}')
}

func appendNumber(dst []byte, name string, n uint64) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendUint(dst, n, 10)
}

// ToStore is an event on its way into a stream.
type ToStore struct {
	Topic, Data []byte
	MsgID       []byte // nil: none
	TTL         uint32 // seconds; 0: as long as the stream keeps it
	From, JTI   string // of the publisher's token; "": not stored
}

// A Receipt hears what became of an event that was handed to a stream. It may be used
// again afterwards.
type Receipt interface {
	// Stored is called once, from a goroutine of the bus, and must not block. With OK the
	// event is in the stream at seq, or was there before (duplicate).
	Stored(seq uint64, duplicate bool, code Code)
}

// A StreamHead is how far a stream has come, as its leader says.
type StreamHead struct {
	Epoch       string
	First, Last uint64 // seq; First is Last+1 while it is empty
}

// A StreamPage is a part of a stream that was read.
type StreamPage struct {
	Events  []StoredEvent
	End     bool   // nothing follows, up to the stream's last event, as its leader says
	Pending uint64 // how many follow, as far as the server that answered knows
	First   uint64 // the oldest seq of the stream

	Next ReadOn // nil: nothing follows, or another read is as cheap
}

// ReadOn reads the page behind another, of at most so many events and about so many bytes.
// It may be called once, or not at all.
type ReadOn func(ctx context.Context, most, mostBytes int) (StreamPage, error)
