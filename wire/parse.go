package wire

import "unicode/utf8"

// Kind is the type of an envelope from a client.
type Kind uint8

// The kinds; 0 is none of them.
const (
	Publish Kind = iota + 1
	Subscribe
	Unsubscribe
	Auth
	Ping
)

// String is the envelope's "type", or "" for none of the kinds.
func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		return ""
	}
	return kindNames[k]
}

var kindNames = [...]string{Publish: "publish", Subscribe: "subscribe", Unsubscribe: "unsubscribe", Auth: "auth", Ping: "ping"}

// Envelope is what a client sent. Its slices are parts of the frame that was
// parsed and live as long as that. A member that was absent is nil; one that was
// an empty string is empty and not nil. A member that the Kind has no use for
// has been checked and filled in all the same.
type Envelope struct {
	Kind  Kind
	ID    []byte // 1 to MaxIDBytes bytes, or nil
	Topic []byte // not yet checked against the grammar
	Token []byte // not yet checked at all; nil: answer TokenMissing
	Data  []byte // one JSON value, byte for byte as it came
	MsgID []byte // 1 to MaxMsgIDBytes bytes, or nil
	TTL   uint32 // of a publish: seconds; 0: not given
	Since Since
}

var envelopeNames = [][]byte{
	[]byte("type"), []byte("id"), []byte("topic"), []byte("token"),
	[]byte("data"), []byte("msg_id"), []byte("ttl"), []byte("since"),
}

// Parse reads one envelope from a client, strictly (docs/protocol.md, section
// 3). It is one pass and allocates nothing. String members that hold escapes are
// unescaped in place: frame, shorter than 4 GiB, belongs to the caller and is
// overwritten there, data excepted.
//
// On error it returns a shared *Error with code BadEnvelope, and env.ID is set
// if an id could be read, so that the error can be answered. nil is success.
//
// Whether the topic is one, and whether there is a token and what it is worth,
// is for the caller to check.
func Parse(frame []byte, env *Envelope) *Error { return parse(frame, env, 0) }

// ParsePublish is [Parse] where nothing but a publish is expected: its type may be left out.
func ParsePublish(text []byte, env *Envelope) *Error {
	err := parse(text, env, Publish)
	if err == errType || err == nil && env.Kind != Publish {
		return errNotPublish
	}
	return err
}

// parse reads an envelope; one without a type is of the kind usual.
func parse(frame []byte, env *Envelope, usual Kind) *Error {
	*env = Envelope{}
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
			err = env.member(&o, name)
		}
		if err != nil {
			return stop(frame, o.i, err)
		}
	}
	if end := space(frame, o.i); end != len(frame) {
		return stop(frame, end, errTrailing)
	}
	if o.fault != nil {
		return o.fault
	}
	if env.Kind == 0 {
		env.Kind = usual
	}
	return env.complete()
}

// stop is the error of a frame whose reading ended at frame[i]. What stands
// before is known to be UTF-8; if what follows is not, that is the error.
func stop(frame []byte, i int, err *Error) *Error {
	if !utf8.Valid(frame[i:]) {
		return ErrUTF8
	}
	return err
}

func (env *Envelope) member(o *object, name []byte) (err *Error) {
	switch string(name) {
	case "type":
		var kind []byte
		kind, err = o.text(errType)
		if env.Kind = kindOf(kind); env.Kind == 0 {
			o.note(errType)
		}
	case "id":
		env.ID, err = o.short(MaxIDBytes, errID)
	case "topic":
		env.Topic, err = o.text(errTopic)
	case "token":
		env.Token, err = o.text(errToken)
	case "data":
		env.Data, err = o.raw(true)
	case "msg_id":
		env.MsgID, err = o.short(MaxMsgIDBytes, errMsgID)
	case "ttl":
		env.TTL, err = o.ttl()
	case "since":
		err = env.Since.parse(o)
	default:
		err = o.unknown(name, envelopeNames)
	}
	return err
}

// short reads a string of 1 to limit bytes. Empty is refused, since to be echoed
// empty would look like absent.
func (o *object) short(limit int, wrong *Error) ([]byte, *Error) {
	s, err := o.text(wrong)
	if err == nil && (len(s) == 0 || len(s) > limit) {
		o.note(wrong)
		return nil, nil
	}
	return s, err
}

// ttl reads a number of seconds.
func (o *object) ttl() (uint32, *Error) {
	n, err := o.uint(MaxTTL, errTTL)
	if err == nil && n == 0 {
		o.note(errTTL)
	}
	return uint32(n), err
}

// complete checks that what the Kind needs is there. The token is left to the
// caller, which has a code of its own for that.
func (env *Envelope) complete() *Error {
	switch env.Kind {
	case 0:
		return errNoType
	case Publish:
		if env.Topic == nil {
			return errNoTopic
		}
		if env.Data == nil {
			return errNoData
		}
	case Subscribe, Unsubscribe:
		if env.Topic == nil {
			return errNoTopic
		}
	case Auth, Ping:
	}
	return nil
}

func kindOf(name []byte) Kind {
	switch string(name) {
	case "publish":
		return Publish
	case "subscribe":
		return Subscribe
	case "unsubscribe":
		return Unsubscribe
	case "auth":
		return Auth
	case "ping":
		return Ping
	default:
		return 0
	}
}
