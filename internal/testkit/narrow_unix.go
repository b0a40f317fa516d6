//go:build unix

package testkit

import (
	"errors"
	"syscall"
)

// NarrowSocket is a Control of [net.Dialer]: the connection takes little of what it is sent while nobody reads, at both
// of its ends.
func NarrowSocket(_, _ string, c syscall.RawConn) (err error) {
	failed := c.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536), // the sender's buffer follows it
		)
	})
	return errors.Join(failed, err)
}
