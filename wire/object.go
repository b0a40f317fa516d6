package wire

import "bytes"

// object walks the members of one JSON object in a frame. The first error of
// meaning is noted in fault and the walk goes on, so that a later id is still
// read and the error can be answered; an error of syntax ends it.
type object struct {
	b     []byte
	i     int // the next unread byte
	room  int // levels of nesting left for values
	fault *Error
	n     int // names[:n] are the members so far, as start and end in b
	names [MaxMembers][2]uint32
}

// open begins the walk. It is false if no object begins at b[i].
func (o *object) open(b []byte, i, room int) bool {
	o.b, o.i, o.room = b, i+1, room
	return i < len(b) && b[i] == '{'
}

func (o *object) note(fault *Error) {
	if o.fault == nil {
		o.fault = fault
	}
}

// next goes to the value of the next member and returns its name, unescaped in
// place; nil behind the closing brace. Members whose name was there before are
// noted as a fault and passed over.
func (o *object) next() ([]byte, *Error) {
	for {
		name, err := o.name()
		if name == nil || err != nil {
			return nil, err
		}
		if !o.seen(name) {
			return name, nil
		}
		o.note(errDuplicate)
		if _, err := o.raw(true); err != nil {
			return nil, err
		}
	}
}

func (o *object) name() ([]byte, *Error) {
	o.i = space(o.b, o.i)
	if o.i == len(o.b) {
		return nil, errTruncated
	}
	if o.b[o.i] == '}' {
		o.i++
		return nil, nil
	}
	if o.n > 0 {
		if o.b[o.i] != ',' {
			return nil, errSyntax
		}
		o.i = space(o.b, o.i+1)
	}
	if o.n == MaxMembers {
		return nil, errMembers
	}
	if o.i == len(o.b) {
		return nil, errTruncated
	}
	if o.b[o.i] != '"' {
		return nil, errSyntax
	}
	name, start, err := o.str()
	if err != nil {
		return nil, err
	}
	o.names[o.n] = [2]uint32{uint32(start), uint32(start + len(name))}
	o.n++
	o.i, err = scanColon(o.b, o.i)
	return name, err
}

// seen reports whether the last name was there before.
func (o *object) seen(name []byte) bool {
	for _, at := range o.names[:o.n-1] {
		if bytes.Equal(o.b[at[0]:at[1]], name) {
			return true
		}
	}
	return false
}

// str reads the string that begins at the next byte, unescaped in place, and
// where in b it starts.
func (o *object) str() (s []byte, start int, err *Error) {
	start = o.i + 1
	end, escaped := plain(o.b, start), false
	if end == len(o.b) || o.b[end] != '"' {
		if end, escaped, err = scanString(o.b, end, false); err != nil {
			o.i = end
			return nil, start, err
		}
	}
	o.i = end + 1
	s = o.b[start:end:end]
	if escaped {
		s = unescape(s)
	}
	return s, start, nil
}

// text reads a value that must be a string; of another value it is nil, and
// wrong is noted.
func (o *object) text(wrong *Error) ([]byte, *Error) {
	if o.i < len(o.b) && o.b[o.i] == '"' {
		s, _, err := o.str()
		return s, err
	}
	o.note(wrong)
	_, err := o.raw(false)
	return nil, err
}

// uint reads a value that must be an integer from 0 to limit; of another value
// wrong is noted.
func (o *object) uint(limit uint64, wrong *Error) (uint64, *Error) {
	raw, err := o.raw(false)
	if err != nil {
		return 0, err
	}
	n, ok := parseUint(raw, limit)
	if !ok {
		o.note(wrong)
	}
	return n, nil
}

// bool reads a value that must be true or false; of another value wrong is noted.
func (o *object) bool(wrong *Error) (bool, *Error) {
	raw, err := o.raw(false)
	if err != nil {
		return false, err
	}
	is := string(raw) == "true"
	if !is && string(raw) != "false" {
		o.note(wrong)
	}
	return is, nil
}

// raw reads any value and returns its bytes as they came.
func (o *object) raw(lone bool) ([]byte, *Error) {
	start := o.i
	end, err := scanValue(o.b, start, o.room, lone)
	o.i = end
	if err != nil {
		return nil, err
	}
	return o.b[start:end:end], nil
}

// unknown passes over a member that has no meaning here. A name that is a known
// one in other capitals is a fault: its author believes it was heeded, and
// a laxer parser on the way would agree.
func (o *object) unknown(name []byte, known [][]byte) *Error {
	for _, k := range known {
		if bytes.EqualFold(name, k) {
			o.note(errCase)
		}
	}
	_, err := o.raw(false)
	return err
}
