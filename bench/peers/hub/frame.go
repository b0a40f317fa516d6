//go:build linux

package hub

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 wants it
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/gobwas/ws"
)

// The floor and gnet have no WebSocket of their own. This is as much of RFC 6455
// as a load driver needs: no fragments.

const (
	opcodeText  = 1
	opcodeClose = 8
	opcodePing  = 9
	opcodePong  = 10
)

// maxFrame bounds what is buffered for one connection.
const maxFrame = 1 << 20

var (
	errFrame = errors.New("not a masked, whole frame of at most 1 MiB")
	errHead  = errors.New("not a WebSocket handshake")
)

// nextFrame takes the first frame off b and unmasks it in place. size is 0 when
// the frame is not complete yet.
func nextFrame(b []byte) (opcode byte, payload []byte, size int, err error) {
	if len(b) < 6 {
		return 0, nil, 0, nil
	}
	if b[0]&0xf0 != 0x80 || b[1]&0x80 == 0 {
		return 0, nil, 0, errFrame
	}
	n, at := uint64(b[1]&0x7f), 2
	switch n {
	case 126:
		n, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 14 {
			return 0, nil, 0, nil
		}
		n, at = binary.BigEndian.Uint64(b[2:]), 10
	}
	if n > maxFrame {
		return 0, nil, 0, errFrame
	}
	if size = at + 4 + int(n); len(b) < size {
		return 0, nil, 0, nil
	}
	payload = b[at+4 : size]
	ws.Cipher(payload, [4]byte(b[at:at+4]), 0)
	return b[0] & 0xf, payload, size, nil
}

// appendFrame appends a server's text frame.
func appendFrame(dst, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|opcodeText, byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|opcodeText, 126, byte(n>>8), byte(n))
	default:
		dst = append(dst, 0x80|opcodeText, 127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	return append(dst, payload...)
}

// appendPong appends a server's answer to a ping, whose payload is at most 125 bytes.
func appendPong(dst, payload []byte) []byte {
	return append(append(dst, 0x80|opcodePong, byte(len(payload))), payload...)
}

// upgrade answers a handshake. size is 0 when the head is not complete yet.
func upgrade(b []byte) (answer []byte, size int, err error) {
	const keyHeader = "\r\nSec-WebSocket-Key: "
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 8<<10 {
			return nil, 0, errHead
		}
		return nil, 0, nil
	}
	_, key, ok := bytes.Cut(b[:end], []byte(keyHeader))
	if !ok {
		return nil, 0, errHead
	}
	key, _, _ = bytes.Cut(key, []byte("\r\n"))
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) //nolint:gosec // as above
	answer = append(answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	answer = base64.StdEncoding.AppendEncode(answer, sum[:])
	return append(answer, "\r\n\r\n"...), end + 4, nil
}
