package wire

import (
	"math"
	"time"
)

// SinceKind is the form that since has.
type SinceKind uint8

// The forms; SinceNone is an envelope without since.
const (
	SinceNone SinceKind = iota
	SinceSeq
	SinceLast
	SinceTime
)

// Since says from where on a subscriber wants a topic's history.
type Since struct {
	Kind SinceKind
	N    uint64 // SinceSeq: everything after N; SinceLast: the last N
	Time int64  // SinceTime: Unix time in nanoseconds
}

var sinceNames = [][]byte{[]byte("seq"), []byte("last"), []byte("time")}

// parse reads the value of since. Faults are noted in o.
func (s *Since) parse(o *object) *Error {
	var in object
	if !in.open(o.b, o.i, o.room-1) {
		o.note(errSince)
		_, err := o.raw(false)
		return err
	}
	forms := 0
	for {
		name, err := in.next()
		if err == nil && name == nil {
			break
		}
		if err == nil {
			forms++
			switch string(name) {
			case "seq":
				s.Kind = SinceSeq
				s.N, err = in.uint(math.MaxUint64, errSinceSeq)
			case "last":
				s.Kind = SinceLast
				s.N, err = in.uint(math.MaxUint64, errSinceLast)
			case "time":
				s.Kind = SinceTime
				err = s.time(&in)
			default:
				forms--
				err = in.unknown(name, sinceNames)
			}
		}
		if err != nil {
			o.i = in.i
			return err
		}
	}
	o.i = in.i
	if in.fault != nil {
		o.note(in.fault)
	}
	if forms != 1 {
		o.note(errSince)
	}
	return nil
}

// Times outside these do not fit int64 nanoseconds (time.Time.UnixNano).
var (
	firstTime = time.Date(1678, 1, 1, 0, 0, 0, 0, time.UTC)
	pastTime  = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// maxTimeBytes holds a time with nanoseconds and offset, and more; without it, a
// time.ParseError would copy as much as a peer cares to send.
const maxTimeBytes = 64

func (s *Since) time(in *object) *Error {
	text, err := in.text(errSinceTime)
	if err != nil {
		return err
	}
	var t time.Time
	if len(text) > maxTimeBytes || t.UnmarshalText(text) != nil || t.Before(firstTime) || !t.Before(pastTime) {
		in.note(errSinceTime)
		return nil
	}
	s.Time = t.UnixNano()
	return nil
}
