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
	for host, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.9.9.9": true, "[::1]:8080": true, "[::1]": true, "localhost:80": true, "LOCALHOST": true,
		"[::ffff:127.0.0.1]:80": true, "10.0.0.1:80": true, "[2001:db8::1]:80": true, "0.0.0.0:80": true,
		"evil.example:80": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false, "": false, ":80": false,
		"evil.example:127.0.0.1": false, "127.1": false,
	} {
		if got := isAddress(host); got != want {
			t.Errorf("%q is an address: %v", host, got)
		}
	}
}
