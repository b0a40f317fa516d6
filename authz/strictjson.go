package authz

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// errNotObject says what a header or payload must be. It quotes nothing.
var errNotObject = errors.New("not one JSON object with unique names in valid UTF-8")

// eachMember hands over the members of the one JSON object in b. Names are
// unescaped, so that \u0065xp is exp. Duplicate names at any depth, invalid
// UTF-8 and anything around the object but white space are errors (RFC 7515
// §10.12, RFC 8725 §2.6). value is valid during the call.
func eachMember(b []byte, member func(name string, value jsontext.Value)) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(b))
	if dec.PeekKind() != '{' {
		return errNotObject
	}
	if _, err := dec.ReadToken(); err != nil {
		return errNotObject
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return errNotObject
		}
		text := name.String() // the token is void after the next read
		value, err := dec.ReadValue()
		if err != nil {
			return errNotObject
		}
		member(text, value)
	}
	if _, err := dec.ReadToken(); err != nil {
		return errNotObject
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errNotObject
	}
	return nil
}

// eachElement hands over the elements of an array that was checked as part of
// its document, and reports whether value is an array and all were accepted.
func eachElement(value jsontext.Value, element func(jsontext.Value) bool) bool {
	if value.Kind() != '[' {
		return false
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(value))
	if _, err := dec.ReadToken(); err != nil {
		return false
	}
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil || !element(v) {
			return false
		}
	}
	return true
}

func asString(value jsontext.Value) (string, bool) {
	if value.Kind() != '"' {
		return "", false
	}
	text, err := jsontext.AppendUnquote(nil, value)
	return string(text), err == nil
}

// asBool stores a boolean, and reports whether value is one.
func asBool(to *bool, value jsontext.Value) bool {
	*to = value.Kind() == 't'
	return *to || value.Kind() == 'f'
}

func asStrings(value jsontext.Value) (all []string, ok bool) {
	ok = eachElement(value, func(v jsontext.Value) bool {
		text, isString := asString(v)
		all = append(all, text)
		return isString
	})
	return all, ok
}

// maxNumericDate is the last second of the year 9999, the last that RFC 3339
// can write. It keeps exp = 1e300 from meaning "never" on one platform and
// "long ago" on another.
const maxNumericDate = 253402300799

// asNumericDate reads a NumericDate (RFC 7519 §2): seconds since 1970 in UTC,
// perhaps with a fraction.
func asNumericDate(value jsontext.Value) (seconds float64, ok bool) {
	if value.Kind() != '0' {
		return 0, false
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	return seconds, err == nil && !math.Signbit(seconds) && seconds <= maxNumericDate
}

// misspelt reports whether name differs from one of names only in case. JSON
// readers that ignore case would take it for that member, so that two readers
// of one token would disagree.
func misspelt(name string, names []string) bool {
	for _, known := range names {
		if strings.EqualFold(name, known) {
			return true
		}
	}
	return false
}
