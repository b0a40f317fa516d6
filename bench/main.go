//go:build linux

// Bench runs the measurements that compare parts of notifyd with each other:
//
//	go run ./bench auth    the ways to authenticate
//
// Loads on a server are the program's own, notifyd bench; other servers are
// compared by the module in bench/peers.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/notifyd/notifyd/bench/auth"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "auth" {
		fmt.Fprintln(os.Stderr, "usage: go run ./bench auth [flags]")
		os.Exit(2)
	}
	if err := auth.Main(os.Args[2:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "auth:", err)
		os.Exit(1)
	}
}
