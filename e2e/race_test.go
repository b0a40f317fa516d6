//go:build linux && race

package e2e

// With the race detector on, the servers under test have it too.
func init() { buildFlags = append(buildFlags, "-race") }
