package wire

import "math"

// MessageKind is the type of an envelope from a server.
type MessageKind uint8

// The kinds. MessageUnknown is a type that a newer server sent; a client passes
// over it.
const (
	MessageUnknown MessageKind = iota
	MessageWelcome
	MessageAck
	MessageEvent
	MessageExpiring
	MessageExpired
	MessageError
	MessagePong
	MessageRestart
	MessageGap
)

// Message is what a server sent. Its slices are parts of the frame that was
// parsed and live as long as that; a member that was absent is nil or 0.
type Message struct {
	Kind            MessageKind
	ID              []byte
	Topic           []byte
	Pattern         []byte // the subscription that brought an event, if it was a pattern
	Data            []byte // one JSON value, byte for byte as it was published
	Code            Code   // of an error; UnknownCode if this version does not know it
	Detail          []byte // of an error: the text for a developer
	Exp             int64  // Unix seconds
	Conn            []byte
	Node            []byte
	PingInterval    int // seconds
	MaxMessageBytes int
	Within          int // seconds

	// Of durable topics. Seq is that of an event, of an ack of a publish, or where a
	// subscription begins.
	Seq       uint64
	Prev      uint64 // of an event; PrevUnknown if Prev was absent and Seq was not
	Time      []byte // of an event: when it was stored, RFC 3339; of a welcome, too
	From      []byte
	Duplicate bool
	Stream    []byte // of an ack: the subscription is to durable topics
	Epoch     []byte
	Recovered uint64
	Complete  bool
	First     uint64 // of an ack that is not complete, or of a gap
	After     uint64 // of a gap
}

var messageNames = [][]byte{
	[]byte("type"), []byte("id"), []byte("topic"), []byte("pattern"), []byte("data"),
	[]byte("code"), []byte("message"), []byte("exp"), []byte("conn"), []byte("node"),
	[]byte("ping_interval"), []byte("max_message_bytes"), []byte("within"),
	[]byte("seq"), []byte("prev"), []byte("time"), []byte("from"), []byte("duplicate"), []byte("stream"),
	[]byte("epoch"), []byte("recovered"), []byte("complete"), []byte("first"), []byte("after"),
}

// ParseMessage reads one envelope from a server. Unknown members and types are
// fine, so that a server may be newer than its clients; otherwise it is as
// strict as Parse, and like Parse overwrites frame where a string it interprets
// holds escapes. It allocates nothing for what a server of this version sends.
// On error m is of no use.
func ParseMessage(frame []byte, m *Message) *Error {
	*m = Message{Prev: PrevUnknown}
	var o object
	i := space(frame, 0)
	if !o.open(frame, i, MaxDepth-1) {
		return stop(frame, i, errNotObject)
	}
	for {
		name, err := o.next()
		if err == nil && name == nil {
			break
		}
		if err == nil {
			err = m.member(&o, name)
		}
		if err != nil {
			return stop(frame, o.i, err)
		}
	}
	if end := space(frame, o.i); end != len(frame) {
		return stop(frame, end, errTrailing)
	}
	if m.Kind != MessageEvent || m.Seq == 0 {
		m.Prev = 0
	}
	if m.Kind == MessageError && m.Code == OK {
		m.Code = UnknownCode
	}
	return o.fault
}

func (m *Message) member(o *object, name []byte) (err *Error) {
	var text []byte
	var n uint64
	switch string(name) {
	case "type":
		text, err = o.text(errMessage)
		m.Kind = messageKindOf(text)
	case "id":
		m.ID, err = o.text(errMessage)
	case "topic":
		m.Topic, err = o.text(errMessage)
	case "pattern":
		m.Pattern, err = o.text(errMessage)
	case "data":
		m.Data, err = o.raw(true)
	case "code":
		text, err = o.text(errMessage)
		m.Code, _ = ParseCode(string(text))
	case "message":
		m.Detail, err = o.text(errMessage)
	case "exp":
		n, err = o.uint(math.MaxInt64, errMessage)
		m.Exp = int64(n)
	case "conn":
		m.Conn, err = o.text(errMessage)
	case "node":
		m.Node, err = o.text(errMessage)
	case "ping_interval":
		n, err = o.uint(math.MaxInt32, errMessage)
		m.PingInterval = int(n)
	case "max_message_bytes":
		n, err = o.uint(math.MaxInt32, errMessage)
		m.MaxMessageBytes = int(n)
	case "within":
		n, err = o.uint(math.MaxInt32, errMessage)
		m.Within = int(n)
	default:
		err = m.stored(o, name)
	}
	return err
}

// stored reads a member that only messages of durable topics have.
func (m *Message) stored(o *object, name []byte) (err *Error) {
	switch string(name) {
	case "seq":
		m.Seq, err = o.uint(math.MaxUint64, errMessage)
	case "prev":
		m.Prev, err = o.uint(math.MaxUint64-1, errMessage)
	case "time":
		m.Time, err = o.text(errMessage)
	case "from":
		m.From, err = o.text(errMessage)
	case "duplicate":
		m.Duplicate, err = o.bool(errMessage)
	case "stream":
		m.Stream, err = o.text(errMessage)
	case "epoch":
		m.Epoch, err = o.text(errMessage)
	case "recovered":
		m.Recovered, err = o.uint(math.MaxUint64, errMessage)
	case "complete":
		m.Complete, err = o.bool(errMessage)
	case "first":
		m.First, err = o.uint(math.MaxUint64, errMessage)
	case "after":
		m.After, err = o.uint(math.MaxUint64, errMessage)
	default:
		err = o.unknown(name, messageNames)
	}
	return err
}

func messageKindOf(name []byte) MessageKind {
	switch string(name) {
	case "welcome":
		return MessageWelcome
	case "ack":
		return MessageAck
	case "event":
		return MessageEvent
	case "expiring":
		return MessageExpiring
	case "expired":
		return MessageExpired
	case "error":
		return MessageError
	case "pong":
		return MessagePong
	case "restart":
		return MessageRestart
	case "gap":
		return MessageGap
	default:
		return MessageUnknown
	}
}
