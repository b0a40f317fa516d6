//go:build linux

package load

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// Serve runs the notifyd at path bin with embedded defaults, a key of its own
// and args, until stop is called.
func Serve(bin, alg string, args []string) (url string, key authz.Key, process Process, stop func(), err error) {
	dir, err := os.MkdirTemp("", "notifyd-bench-")
	if err != nil {
		return "", key, nil, nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	key, file, err := rig.NewKey(dir, alg)
	if err != nil {
		remove()
		return "", key, nil, nil, err
	}
	flags := []string{"--auth.keys", file}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--nats.url") }) {
		flags = append(flags, "--data-dir", filepath.Join(dir, "data")) // it is killed, and could not remove its own
	}
	s, err := rig.Start(bin, append(flags, args...)...)
	if err != nil {
		remove()
		return "", key, nil, nil, err
	}
	stop = func() {
		s.Stop()
		remove()
	}
	return "ws://" + s.Addr + wire.Path, key, s, stop, nil
}

// Together is several processes that do one thing.
type Together []Process

// CPU is the sum.
func (t Together) CPU() (sum time.Duration, err error) {
	for _, p := range t {
		cpu, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// RSS is the sum.
func (t Together) RSS() (sum int64, err error) {
	for _, p := range t {
		rss, err := p.RSS()
		if err != nil {
			return 0, err
		}
		sum += rss
	}
	return sum, nil
}

// RunningProcess is a process on this machine, by its id.
func RunningProcess(pid int) Process { return rig.Process(pid) }
