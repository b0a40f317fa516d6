//go:build linux

package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// maxFrame bounds what is kept of one connection, whatever the server declares.
const maxFrame = 16 << 20

var (
	errMasked   = errors.New("a masked frame from the server (RFC 6455 §5.1)")
	errReserved = errors.New("a frame with reserved bits, compressed perhaps, which was not asked for (RFC 6455 §5.2)")
)

// frame is one frame from the server. The payload belongs to the read buffer.
type frame struct {
	op      ws.OpCode
	payload []byte
}

// nextFrame reads the header at the start of b. If size is at most len(b), f is
// the frame and takes up so many bytes; otherwise that many are needed, and 0
// means that not even the header is whole.
func nextFrame(b []byte) (f frame, size int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	if b[0]&0x70 != 0 {
		return f, 0, errReserved
	}
	if b[1]&0x80 != 0 {
		return f, 0, errMasked
	}
	head, length := 2, uint64(b[1])
	switch length {
	case 126:
		if head = 4; len(b) < head {
			return f, 0, nil
		}
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if head = 10; len(b) < head {
			return f, 0, nil
		}
		length = binary.BigEndian.Uint64(b[2:])
	}
	if length > maxFrame {
		return f, 0, fmt.Errorf("a frame of %d bytes", length)
	}
	if size = head + int(length); size <= len(b) {
		f = frame{ws.OpCode(b[0] & 0xf), b[head:size]}
	}
	return f, size, nil
}

// readFrame reads one frame, and not a byte more.
func readFrame(from io.Reader) (frame, error) {
	h, err := ws.ReadHeader(from)
	if err != nil {
		return frame{}, err
	}
	if h.Length > maxFrame {
		return frame{}, fmt.Errorf("a frame of %d bytes", h.Length)
	}
	f := frame{h.OpCode, make([]byte, h.Length)}
	_, err = io.ReadFull(from, f.payload)
	return f, err
}

// splitter finds the frames of one connection's bytes, however they are cut.
type splitter struct {
	next func([]byte) (frame, int, error) // nil: nextFrame
	tail []byte                           // the beginning of a frame
}

// split hands each whole frame of b to visit and keeps the rest. b begins with
// the tail of last time. need is how many bytes b must have room for next time.
func (s *splitter) split(b []byte, visit func(frame) error) (need int, err error) {
	next := s.next
	if next == nil {
		next = nextFrame
	}
	for {
		f, size, err := next(b)
		if err != nil {
			return 0, err
		}
		if size == 0 || size > len(b) {
			s.tail = append(s.tail[:0], b...)
			return size, nil
		}
		b = b[size:]
		if err := visit(f); err != nil {
			return 0, err
		}
	}
}

// appendFrame appends a masked frame that is a whole message (RFC 6455 §5.3).
func appendFrame(dst []byte, op ws.OpCode, payload []byte) []byte {
	return rig.AppendFrame(dst, 0x80|byte(op), payload)
}
