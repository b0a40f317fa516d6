package wire

// space returns the index of the first byte at or behind b[i] that is not JSON
// white space (RFC 8259 §2).
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// scanValue checks the JSON value that begins at b[i] and returns the index
// behind it, or that of the fault. room is how many levels it may nest, at most
// 64; lone is as in scanString. Duplicate names are not looked for.
//
// It does not recurse: the open containers are a stack of bits, of which 1 is an
// object, so that depth costs no memory.
func scanValue(b []byte, i, room int, lone bool) (int, *Error) {
	var objects uint64
	depth := 0
	for {
		if i == len(b) {
			return i, errTruncated
		}
		var err *Error
		opened := false
		switch b[i] {
		case '"':
			if i, _, err = scanString(b, i+1, lone); err == nil {
				i++
			}
		case '{', '[':
			if depth == room {
				return i, errDepth
			}
			object := b[i] == '{'
			depth++
			objects <<= 1
			if object {
				objects |= 1
			}
			i = space(b, i+1)
			opened = i == len(b) || b[i] != closer(object)
			if opened && object {
				i, err = scanName(b, i, lone)
			}
		case 't':
			i, err = scanLiteral(b, i, "true")
		case 'f':
			i, err = scanLiteral(b, i, "false")
		case 'n':
			i, err = scanLiteral(b, i, "null")
		default:
			i, err = scanNumber(b, i)
		}
		if err != nil {
			return i, err
		}
		if opened {
			continue
		}
		// A value is complete: close what closes with it, up to the next value.
		for {
			if depth == 0 {
				return i, nil
			}
			i = space(b, i)
			if i == len(b) {
				return i, errTruncated
			}
			object := objects&1 != 0
			if b[i] == ',' {
				i = space(b, i+1)
				if object {
					if i, err = scanName(b, i, lone); err != nil {
						return i, err
					}
				}
				break
			}
			if b[i] != closer(object) {
				return i, errSyntax
			}
			i++
			depth--
			objects >>= 1
		}
	}
}

func closer(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

// scanName checks a member name that begins at b[i], its colon and the white
// space around that, and returns the index of the value.
func scanName(b []byte, i int, lone bool) (int, *Error) {
	if i == len(b) {
		return i, errTruncated
	}
	if b[i] != '"' {
		return i, errSyntax
	}
	end, _, err := scanString(b, i+1, lone)
	if err != nil {
		return end, err
	}
	return scanColon(b, end+1)
}

func scanColon(b []byte, i int) (int, *Error) {
	i = space(b, i)
	if i == len(b) {
		return i, errTruncated
	}
	if b[i] != ':' {
		return i, errSyntax
	}
	return space(b, i+1), nil
}

func scanLiteral(b []byte, i int, word string) (int, *Error) {
	for k := range len(word) {
		if i+k == len(b) {
			return i, errTruncated
		}
		if b[i+k] != word[k] {
			return i, errSyntax
		}
	}
	return i + len(word), nil
}

// scanNumber checks a number (RFC 8259 §6). Its size is not bounded: nobody here
// interprets one but parseUint, which is.
func scanNumber(b []byte, i int) (int, *Error) {
	if b[i] == '-' {
		i++
	}
	var err *Error
	if i < len(b) && b[i] == '0' {
		i++
	} else if i, err = scanDigits(b, i); err != nil {
		return i, err
	}
	if i < len(b) && b[i] == '.' {
		if i, err = scanDigits(b, i+1); err != nil {
			return i, err
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return scanDigits(b, i)
	}
	return i, nil
}

func scanDigits(b []byte, i int) (int, *Error) {
	start := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	switch {
	case i > start:
		return i, nil
	case i == len(b):
		return i, errTruncated
	default:
		return i, errSyntax
	}
}

// parseUint reads a number that scanNumber has accepted; false if it is not
// written as a plain integer from 0 to limit.
func parseUint(b []byte, limit uint64) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(b) > 0
}

// ValidJSON reports whether b is one JSON value, white space around it allowed,
// that can stand as data in an envelope: valid UTF-8, nested at most MaxDepth-1.
func ValidJSON(b []byte) bool {
	i, err := scanValue(b, space(b, 0), MaxDepth-1, true)
	return err == nil && space(b, i) == len(b)
}
