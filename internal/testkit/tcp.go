package testkit

import (
	"net"
	"testing"
)

// ServeTCP takes connections on a port of 127.0.0.1 until the test ends, each in a goroutine of its own, which closes it.
func ServeTCP(t testing.TB, handle func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return l.Addr().String()
}
