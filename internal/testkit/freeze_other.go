//go:build !linux

package testkit

import (
	"os/exec"
	"testing"
)

func ownGroup(*exec.Cmd) {}

// Freeze leaves the test out: it looks at /proc to see that the process stands still.
func (s *NATS) Freeze(t testing.TB) {
	t.Helper()
	t.Skip("needs Linux")
}

// Thaw follows Freeze.
func (s *NATS) Thaw(testing.TB) {}
