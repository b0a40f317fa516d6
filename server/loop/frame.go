package loop

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

const (
	errLengthSign  = ws.ProtocolError("length with its highest bit set")
	errLengthShort = ws.ProtocolError("length not in its shortest form")
)

// parseHeader reads the frame header at the front of b. It returns n == 0 when
// b ends before the header does. It never looks past the header and checks
// what RFC 6455 §5.2 says of the length; the rest is [ws.CheckHeader]'s.
func parseHeader(b []byte) (h ws.Header, n int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.Fin = b[0]&0x80 != 0
	h.Rsv = b[0] >> 4 & 0x7
	h.OpCode = ws.OpCode(b[0] & 0xf)
	h.Masked = b[1]&0x80 != 0
	n = 2
	switch l := b[1] & 0x7f; l {
	case 126:
		if len(b) < 4 {
			return h, 0, nil
		}
		h.Length = int64(binary.BigEndian.Uint16(b[2:]))
		n = 4
		if h.Length < 126 {
			return h, n, errLengthShort
		}
	case 127:
		if len(b) < 10 {
			return h, 0, nil
		}
		u := binary.BigEndian.Uint64(b[2:])
		n = 10
		if u>>63 != 0 {
			return h, n, errLengthSign
		}
		if u < 1<<16 {
			return h, n, errLengthShort
		}
		h.Length = int64(u)
	default:
		h.Length = int64(l)
	}
	if h.Masked {
		if len(b) < n+4 {
			return h, 0, nil
		}
		copy(h.Mask[:], b[n:])
		n += 4
	}
	return h, n, nil
}

// appendHeader appends the header of an unmasked, unfragmented frame with a
// payload of n bytes, as servers send it (RFC 6455 §5.1).
func appendHeader(dst []byte, op ws.OpCode, n int) []byte {
	dst = append(dst, 0x80|byte(op))
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
}

// frameEnd returns the end of the frame in b that byte off lies in; b is whole
// frames as appendHeader makes them. When off is the start of a frame it is
// returned as it is. The answer to the handshake, which may stand before the
// frames, counts as one: it begins with a letter, and no frame of ours does.
func frameEnd(b []byte, off int) int {
	at := 0
	if off > 0 && b[0] < 0x80 {
		at = headEnd(b)
	}
	for at < off {
		h, n, _ := parseHeader(b[at:])
		at += n + int(h.Length)
	}
	return at
}

// appendClose appends a close frame. Without a status there is no body
// (RFC 6455 §7.1.5).
func appendClose(dst []byte, code ws.StatusCode, reason string) []byte {
	if code == ws.StatusNoStatusRcvd {
		return appendHeader(dst, ws.OpClose, 0)
	}
	dst = appendHeader(dst, ws.OpClose, 2+len(reason))
	return append(append(dst, byte(code>>8), byte(code)), reason...)
}
