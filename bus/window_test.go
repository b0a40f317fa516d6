package bus

import (
	"fmt"
	"testing"

	"github.com/notifyd/notifyd/wire"
)

// What came before is known from memory as far as that has all: not before it begins, nor behind where it ends.
func TestLastFromMemory(t *testing.T) {
	var w window
	w.reset(10)
	for seq := uint64(11); seq <= 16; seq++ {
		w.add(&wire.StoredEvent{Topic: fmt.Sprint("t.", seq%3), Seq: seq})
	}
	for _, row := range []struct {
		upTo          uint64
		seqs, unknown string
	}{
		{9, "map[]", "[t.0 t.1 t.2 t.3]"},
		{10, "map[]", "[t.0 t.1 t.2 t.3]"},
		{12, "map[t.0:12 t.2:11]", "[t.1 t.3]"},
		{13, "map[t.0:12 t.1:13 t.2:11]", "[t.3]"},
		{16, "map[t.0:15 t.1:16 t.2:14]", "[t.3]"},
		{17, "map[]", "[t.0 t.1 t.2 t.3]"}, // the feed has not come so far
	} {
		seqs := map[string]uint64{}
		unknown := w.lastOf([]string{"t.0", "t.1", "t.2", "t.3"}, row.upTo, seqs)
		if fmt.Sprint(seqs) != row.seqs || fmt.Sprint(unknown) != row.unknown {
			t.Errorf("up to %d: %v, and not %v", row.upTo, seqs, unknown)
		}
	}
}
