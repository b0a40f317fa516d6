package server_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/notifyd/notifyd/internal/testkit"
)

// TestMain holds the whole set of tests, hostile clients and all, to what it
// found: when every server has stopped, no goroutine, descriptor or memory of
// theirs is left.
func TestMain(m *testing.M) {
	testkit.Child()
	if runtime.GOOS != "linux" {
		os.Exit(m.Run()) // no server runs
	}
	descriptors, heap := openDescriptors(), heapInUse()
	code := m.Run()
	if code == 0 {
		if err := baseline(descriptors, heap); err != nil {
			fmt.Fprintln(os.Stderr, "after all tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func baseline(descriptors int, heap uint64) error {
	if err := goleak.Find(); err != nil { // tries again for a while
		return err
	}
	// Descriptors are closed by finishers that goleak has just waited for.
	for deadline := time.Now().Add(patience); openDescriptors() > descriptors; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d descriptors, %d at the start", openDescriptors(), descriptors)
		}
	}
	// Pools, tables of types and the test framework's own output are in it too.
	const slack = 16 << 20
	// Timers that were stopped late, and finalizers, hold memory for a moment.
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		now := heapInUse()
		if now <= heap+slack {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d bytes of heap, %d at the start", now, heap)
		}
	}
}

func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // the second one empties the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
