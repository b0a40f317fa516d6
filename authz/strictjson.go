package authz

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// errNotObject says what a header or payload must be. It quotes nothing.
var errNotObject = errors.New("not one JSON object with unique names in valid UTF-8")

// document reads the one JSON object of a text in one pass. Duplicate names at
// any depth, invalid UTF-8 and anything around the object but white space are
// errors (RFC 7515 §10.12, RFC 8725 §2.6). The first error ends the reading:
// what is read after it is nothing, and not ok.
//
// Each method reads one value, also when that is not what was asked for.
type document struct {
	dec    jsontext.Decoder
	source bytes.Buffer
	text   string // all of it, of which strings without escapes are parts
	failed bool
	raw    []byte // a decoded segment
	name   []byte // an unescaped name
}

var documents = sync.Pool{New: func() any {
	d := &document{}
	d.dec.Reset(&d.source, lenient)
	return d
}}

// lenient lets lone surrogates pass (\ud83d without its partner), which stand in
// claims that nobody here reads, such as a name that was cut off. Where a string
// is read, they are refused ([document.string]); bytes that are not UTF-8 are
// refused everywhere ([document.read]).
var lenient = jsontext.AllowInvalidUTF8(true)

// readObject hands over the names of the one JSON object in b, unescaped, so
// that \u0065xp is exp. member may read the value; name is valid until it does.
func readObject(b []byte, member func(d *document, name []byte)) error {
	d := documents.Get().(*document)
	defer d.free()
	return d.read(b, member)
}

// readSegment is readObject for a segment of a token (RFC 7515 §2).
func readSegment(segment []byte, member func(d *document, name []byte)) error {
	d := documents.Get().(*document)
	defer d.free()
	var err error
	if d.raw, err = base64.RawURLEncoding.Strict().AppendDecode(d.raw[:0], segment); err != nil {
		return errNotObject
	}
	return d.read(d.raw, member)
}

func (d *document) free() {
	d.source, d.text, d.failed = bytes.Buffer{}, "", false
	d.dec.Reset(&d.source, lenient)
	documents.Put(d)
}

func (d *document) read(b []byte, member func(d *document, name []byte)) error {
	if !utf8.Valid(b) {
		return errNotObject
	}
	d.text = string(b)
	d.source = *bytes.NewBuffer(b)
	isObject := d.object(func(name []byte) { member(d, name) })
	if _, err := d.dec.ReadToken(); !isObject || d.failed || !errors.Is(err, io.EOF) {
		return errNotObject
	}
	return nil
}

// value reads any value. What it returns is valid until the next read.
func (d *document) value() jsontext.Value {
	if d.failed {
		return nil
	}
	v, err := d.dec.ReadValue()
	d.failed = err != nil
	return v
}

// brace reads the beginning or the end of an object or array.
func (d *document) brace() {
	if !d.failed {
		_, err := d.dec.ReadToken()
		d.failed = err != nil
	}
}

// at reports whether the next thing to read is of a kind.
func (d *document) at(kind jsontext.Kind) bool { return !d.failed && d.dec.PeekKind() == kind }

// object hands over the names of an object, and reports whether it is one. member
// may read the value.
func (d *document) object(member func(name []byte)) bool {
	if !d.at('{') {
		d.value()
		return false
	}
	d.brace()
	for !d.failed && !d.at('}') {
		name := d.value()
		if d.failed {
			break
		}
		at := d.dec.InputOffset()
		if member(d.unquote(name)); d.dec.InputOffset() == at {
			d.value()
		}
	}
	d.brace()
	return !d.failed
}

// unquote is the text of a name.
func (d *document) unquote(quoted jsontext.Value) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	d.name, _ = jsontext.AppendUnquote(d.name[:0], quoted) // was checked when it was read
	return d.name
}

// array has element read each element, until one is not ok, and reports whether
// it is an array and all were. element has to read it.
func (d *document) array(element func() bool) (ok bool) {
	if !d.at('[') {
		d.value()
		return false
	}
	d.brace()
	for ok = true; !d.failed && !d.at(']'); {
		if !ok {
			d.value()
		} else {
			ok = element()
		}
	}
	d.brace()
	return ok && !d.failed
}

func (d *document) string() (string, bool) {
	v := d.value()
	if v.Kind() != '"' {
		return "", false
	}
	if bytes.IndexByte(v, '\\') < 0 {
		end := int(d.dec.InputOffset()) - 1
		return d.text[end-(len(v)-2) : end], true
	}
	text, err := jsontext.AppendUnquote(nil, v)
	return string(text), err == nil
}

// bool stores a boolean, and reports whether it is one.
func (d *document) bool(to *bool) bool {
	kind := d.value().Kind()
	*to = kind == 't'
	return *to || kind == 'f'
}

func (d *document) strings() (all []string, ok bool) {
	ok = d.array(func() bool {
		text, isString := d.string()
		all = append(all, text)
		return isString
	})
	return all, ok
}

func (d *document) stringOrStrings() ([]string, bool) {
	if d.at('[') {
		return d.strings()
	}
	one, ok := d.string()
	return []string{one}, ok
}

// maxNumericDate is the last second of the year 9999, the last that RFC 3339
// can write. It keeps exp = 1e300 from meaning "never" on one platform and
// "long ago" on another.
const maxNumericDate = 253402300799

// date reads a NumericDate (RFC 7519 §2): seconds since 1970 in UTC, perhaps
// with a fraction.
func (d *document) date() (seconds float64, ok bool) {
	v := d.value()
	if v.Kind() != '0' {
		return 0, false
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	return seconds, err == nil && !math.Signbit(seconds) && seconds <= maxNumericDate
}

// misspelt reports whether name differs from one of names only in case. JSON
// readers that ignore case would take it for that member, so that two readers
// of one token would disagree.
func misspelt(name []byte, names []string) bool {
	for _, known := range names {
		if strings.EqualFold(string(name), known) {
			return true
		}
	}
	return false
}
