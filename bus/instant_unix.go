//go:build unix

package bus

import (
	"errors"
	"net"
	"syscall"
)

// An instantWriter writes to a connection without waiting. One goroutine at a time may use it.
type instantWriter struct {
	conn syscall.RawConn
	call func(fd uintptr) bool // made once

	p   []byte
	n   int
	err error
}

func (w *instantWriter) open(c net.Conn) (err error) {
	if s, ok := c.(syscall.Conn); ok {
		w.call = w.try
		w.conn, err = s.SyscallConn()
	}
	return err
}

// write writes what the socket takes at once, which may be nothing.
func (w *instantWriter) write(p []byte) (int, error) {
	if w.conn == nil {
		return 0, nil
	}
	w.p, w.n, w.err = p, 0, nil
	err := w.conn.Write(w.call)
	w.p = nil
	return w.n, errors.Join(err, w.err)
}

func (w *instantWriter) try(fd uintptr) bool {
	n, err := syscall.Write(int(fd), w.p) // Go's sockets do not block
	switch {
	case err == nil:
		w.n = n
	case !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR):
		w.err = err
	}
	return true
}
