//go:build !unix

package testkit

import "syscall"

// NarrowSocket changes nothing here.
func NarrowSocket(string, string, syscall.RawConn) error { return nil }
