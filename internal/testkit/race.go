package testkit

import (
	"os"
	"strings"
)

// EndAtOnce lets programs with the race detector that this process starts end as soon as they are done. By themselves
// they sleep for a second first, in which another goroutine may still run into a race.
func EndAtOnce() error {
	return os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
}
