package wire

import (
	"fmt"
	"testing"
)

// A kind's name is the type that the parser takes for it.
func TestKindNames(t *testing.T) {
	for k := Publish; k <= Ping; k++ {
		var e Envelope
		text := fmt.Sprintf(`{"type":%q,"topic":"a","data":1,"token":"t","id":"1"}`, k)
		if k == Ping || k == Auth {
			text = fmt.Sprintf(`{"type":%q,"token":"t","id":"1"}`, k)
		}
		if _ = Parse([]byte(text), &e); e.Kind != k {
			t.Errorf("%s is parsed as kind %d, want %d", text, e.Kind, k)
		}
	}
	for _, k := range []Kind{0, Ping + 1, 255} {
		if k.String() != "" {
			t.Errorf("kind %d is called %q", k, k)
		}
	}
}
