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
	// Epoch is the life of the stream that N is a position of: 1 to MaxEpochBytes
	// bytes, a part of the frame, or nil.
	Epoch []byte
	// OrNow: begin now where a position is of no use, and say that what came before may be
	// lost. Envelopes do not have it.
	OrNow bool
}

var sinceNames = [][]byte{[]byte("seq"), []byte("last"), []byte("time"), []byte("epoch")}

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
			case "epoch":
				forms--
				s.Epoch, err = in.short(MaxEpochBytes, errSinceEpoch)
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

func (s *Since) time(in *object) *Error {
	text, err := in.text(errSinceTime)
	if err != nil {
		return err
	}
	var ok bool
	if s.Time, ok = parseTime(text); !ok {
		in.note(errSinceTime)
	}
	return nil
}

// parseTime reads an RFC 3339 time, T and Z in capitals, as Unix nanoseconds;
// digits beyond the ninth of a fraction are dropped. Leap seconds and what does
// not fit (time.Time.UnixNano) are refused. The time package would do, but takes
// more than RFC 3339 and allocates for an offset or an error.
func parseTime(b []byte) (int64, bool) {
	const form = "0000-00-00T00:00:00"
	if !hasForm(b, form) {
		return 0, false
	}
	year, month, day := digits(b[:4]), digits(b[5:7]), digits(b[8:10])
	hour, minute, second := digits(b[11:13]), digits(b[14:16]), digits(b[17:19])
	rest := b[len(form):]
	ns := 0
	if len(rest) > 0 && rest[0] == '.' {
		end, err := scanDigits(rest, 1)
		if err != nil {
			return 0, false
		}
		for i, unit := 1, 100_000_000; i < end && unit > 0; i, unit = i+1, unit/10 {
			ns += int(rest[i]-'0') * unit
		}
		rest = rest[end:]
	}
	offset, ok := parseOffset(rest)
	if !ok || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, ns, time.UTC)
	if t.Day() != day {
		return 0, false // the month has no such day
	}
	t = t.Add(-offset)
	return t.UnixNano(), t.Year() >= 1678 && t.Year() <= 2261
}

func parseOffset(b []byte) (time.Duration, bool) {
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) != len("+00:00") || b[0] != '+' && b[0] != '-' || !hasForm(b[1:], "00:00") {
		return 0, false
	}
	hours, minutes := digits(b[1:3]), digits(b[4:6])
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if b[0] == '-' {
		offset = -offset
	}
	return offset, hours <= 23 && minutes <= 59
}

// hasForm reports whether b begins like form, in which 0 is any digit.
func hasForm(b []byte, form string) bool {
	if len(b) < len(form) {
		return false
	}
	for i := range len(form) {
		digit := b[i] >= '0' && b[i] <= '9'
		if form[i] == '0' && !digit || form[i] != '0' && b[i] != form[i] {
			return false
		}
	}
	return true
}

func digits(b []byte) (n int) {
	for _, c := range b {
		n = n*10 + int(c-'0')
	}
	return n
}
