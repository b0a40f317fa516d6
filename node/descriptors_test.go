package node

import (
	"math"
	"testing"
)

// Some descriptors are always left, and one connection is always possible.
func TestConnectionsForDescriptors(t *testing.T) {
	for descriptors, want := range map[uint64]int{
		0: 1, 3: 1, 50: 1, 51: 1, 64: 14, 1024: 964, 20_000: 19_750, 1 << 20: 1<<20 - 500, math.MaxUint64: math.MaxInt32 - 500,
	} {
		if got := connectionsFor(descriptors); got != want {
			t.Errorf("%d descriptors: %d connections, want %d", descriptors, got, want)
		}
	}
	n, known := descriptors()
	if !known {
		t.Skip("this system does not tell how many there are")
	}
	most := connectionsFor(n)
	for _, row := range []struct {
		want, connections int
		lowered           bool
	}{{0, most, false}, {1, 1, false}, {most, most, false}, {most + 1, most, true}} {
		if got, lowered := boundConnections(row.want); got != row.connections || lowered != row.lowered {
			t.Errorf("%d: %d, lowered %v", row.want, got, lowered)
		}
	}
}
