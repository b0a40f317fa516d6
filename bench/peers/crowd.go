//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// crowd is connections to a server, as bare descriptors in blocking mode.
type crowd struct {
	fds []int
}

// atOnce is how many handshakes are under way at the same time.
const atOnce = 32

// patience bounds each wait for a server, in seconds.
const patience = 10

// open adds n connections; the i-th is subscribed to topic i modulo topics, or
// none is when topics is 0.
func (c *crowd) open(addr string, d *dialect, n, topics int) error {
	for first := 0; first < n; first += atOnce {
		fds, err := c.connect(addr, min(atOnce, n-first))
		if err != nil {
			return err
		}
		head := "GET " + d.path + " HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
		if err = ask(fds, func(int) ([]byte, string) { return []byte(head), "\r\n\r\n" }); err != nil {
			return err
		}
		if d.hello != "" {
			if err = ask(fds, func(int) ([]byte, string) { return frame(d.hello), d.ok }); err != nil {
				return err
			}
		}
		if topics == 0 {
			continue
		}
		err = ask(fds, func(i int) ([]byte, string) {
			message, answer := d.subscribe(topicName((first + i) % topics))
			return frame(message), answer
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func topicName(i int) string { return "bench." + strconv.Itoa(i) }

// frame is a client's text frame, masked as RFC 6455 §5.3 wants it.
func frame(message string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameInPlaceWith(ws.NewTextFrame([]byte(message)), [4]byte{0x5a, 0xc3, 0x17, 0x99}))
}

// connect opens n TCP connections.
func (c *crowd) connect(addr string, n int) ([]int, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	to := &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		c.fds = append(c.fds, fd)
		wait := unix.Timeval{Sec: patience}
		err = errors.Join(
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), // end with an RST: the port is free at once
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.Connect(fd, to), // before there is a timeout: with one, a signal would interrupt it for good
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait),
		)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", len(c.fds), err)
		}
	}
	return c.fds[len(c.fds)-n:], nil
}

// ask sends each connection a message, and then reads each one's answer.
func ask(fds []int, of func(i int) (message []byte, answer string)) error {
	for i, fd := range fds {
		message, _ := of(i)
		if err := send(fd, message); err != nil {
			return err
		}
	}
	for i, fd := range fds {
		_, answer := of(i)
		if err := await(fd, answer); err != nil {
			return err
		}
	}
	return nil
}

// send writes all of b.
func send(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("the server does not read: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// await reads until answer has come.
func await(fd int, answer string) error {
	var got []byte
	var buf [4096]byte
	for !bytes.Contains(got, []byte(answer)) {
		n, err := unix.Read(fd, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("no %q from the server but %q: %w", answer, got, errors.Join(err, errEnded))
		}
		got = append(got, buf[:n]...)
	}
	return nil
}

var errEnded = errors.New("the connection has ended or is silent")

func (c *crowd) close() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
}
