//go:build linux

package load

import (
	"os"

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
	s, err := rig.Start(bin, append([]string{"--auth.keys", file}, args...)...)
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

// RunningProcess is a process on this machine, by its id.
func RunningProcess(pid int) Process { return rig.Process(pid) }
