package rig

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// Mask is the masking key of everything that is sent. It may be known: nothing but the server reads it.
var Mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// AppendFrame appends a masked frame (RFC 6455 §5.3), whose first byte has FIN, the reserved bits and the opcode. It
// need not be a frame that is allowed.
func AppendFrame(dst []byte, first byte, payload []byte) []byte {
	dst = append(dst, first)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, Mask[:]...)
	at := len(dst)
	dst = append(dst, payload...)
	ws.Cipher(dst[at:], Mask, 0)
	return dst
}
