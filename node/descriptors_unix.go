//go:build unix

package node

import "syscall"

// descriptors is how many the process may have; Go has raised the soft limit to the hard one.
func descriptors() (uint64, bool) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), err == nil //nolint:unconvert // signed on FreeBSD
}
