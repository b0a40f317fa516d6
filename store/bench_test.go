//go:build unix

package store_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
)

// cpu is what this process has used, in nanoseconds.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkBuckets is one call after the other, and sixteen at a time. A take is a put and a take.
func BenchmarkBuckets(b *testing.B) {
	child := testkit.StartJetStream(b)
	for _, kind := range []string{"embedded", "external"} {
		o := bus.Options{DataDir: b.TempDir()}
		if kind == "external" {
			o = bus.Options{URL: child.URL()}
		}
		bb := connected(b, o)
		until := time.Now().Add(time.Hour)
		var n atomic.Int64
		key := func() string { return fmt.Sprintf("%s/%d", kind, n.Add(1)) }
		for name, op := range map[string]func() error{
			"once": func() error {
				_, err := bb.UseOnce(b.Context(), key(), until)
				return err
			},
			"once-again": func() error {
				_, err := bb.UseOnce(b.Context(), kind+"/again", until)
				return err
			},
			"put": func() error { return bb.PutTicket(b.Context(), key(), make([]byte, 200), time.Minute) },
			"put+take": func() error {
				k := key()
				if err := bb.PutTicket(b.Context(), k, make([]byte, 200), time.Minute); err != nil {
					return err
				}
				_, _, err := bb.TakeTicket(b.Context(), k)
				return err
			},
		} {
			for _, callers := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/%s/callers=%d", kind, name, callers), func(b *testing.B) {
					b.ReportAllocs()
					start := cpu(b)
					var wg sync.WaitGroup
					var left atomic.Int64
					left.Store(int64(b.N))
					for range callers {
						wg.Go(func() {
							for left.Add(-1) >= 0 {
								if err := op(); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}
