package node

import (
	"net"
	"testing"
)

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{"[::]:80": "127.0.0.1:80", "0.0.0.0:80": "127.0.0.1:80", "10.0.0.1:80": "10.0.0.1:80"} {
		addr, err := net.ResolveTCPAddr("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(addr); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}

func TestAddressesOfTheConsole(t *testing.T) {
	for host, want := range map[string]struct{ address, loopback bool }{
		"127.0.0.1:8080": {true, true}, "127.9.9.9": {true, true}, "[::1]:8080": {true, true}, "[::1]": {true, true}, "localhost:80": {true, true}, "LOCALHOST": {true, true},
		"[::ffff:127.0.0.1]:80": {true, true}, "10.0.0.1:80": {true, false}, "[2001:db8::1]:80": {true, false}, "0.0.0.0:80": {true, false},
		"evil.example:80": {}, "127.0.0.1.evil.example": {}, "localhost.evil.example": {}, "": {}, ":80": {}, "evil.example:127.0.0.1": {}, "127.1": {},
	} {
		if got := isAddress(host); got != want.address {
			t.Errorf("%q is an address: %v", host, got)
		}
		if got := isLoopback(host); got != want.loopback {
			t.Errorf("%q is this machine: %v", host, got)
		}
	}
}
