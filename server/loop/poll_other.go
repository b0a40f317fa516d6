//go:build !linux

package loop

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// Elsewhere than on Linux the package compiles, so that an editor and go vet see it,
// and [Engine.Start] fails before anything of this is used.

var errNotLinux = errors.New("notifyd's server runs on Linux only: its loops use epoll")

type pollEvent struct {
	Events uint32
	Fd     int32
}

const (
	readable = 1
	writable = 4
	failed   = 8 | 16
)

type poller struct{}

func (*poller) open() error                         { return nil }
func (*poller) close()                              {}
func (*poller) add(int, int32) error                { return errNotLinux }
func (*poller) change(int32, int32, uint8) error    { return errNotLinux }
func (*poller) remove(int)                          {}
func (*poller) wake()                               {}
func (*poller) wait([]pollEvent, int) int           { return 0 }
func (*poller) poll([]pollEvent) int                { return 0 }
func (*poller) file() *os.File                      { return nil }
func readSocket(int32, []byte) (int, syscall.Errno) { return 0, syscall.EINVAL }

func writeSocket(int32, []byte) (int, syscall.Errno) { return 0, syscall.EINVAL }
func isTooEarly(syscall.Errno) bool                  { return false }
func shutdownWrite(int32)                            {}
func closeSocket(int32)                              {}
func peerAddress(int32) [16]byte                     { return [16]byte{} }
func duplicate(syscall.Conn) (int, error)            { return -1, errNotLinux }
func listenSocket(net.Listener) (int, error)         { return -1, errNotLinux }

func setInherited(int) {}

func limitUnacknowledged(int, time.Duration) {}

func acceptSocket(int) (fd int32, addr [16]byte, result acceptResult, err error) {
	return -1, addr, acceptFailed, errNotLinux
}
