package main

import (
	"strings"
	"testing"
	"time"
)

// What an issuer's tokens may read of streams is what the server holds them to.
func TestIssuerHistory(t *testing.T) {
	for text, want := range map[string]time.Duration{"24h": 24 * time.Hour, "90s": 90 * time.Second, "none": -1, "": 0} {
		member := ""
		if text != "" {
			member = ", history: " + text
		}
		var list issuerList
		if err := list.UnmarshalText([]byte(`[{name: a, keys: [k.json]` + member + `}]`)); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := list[0].policy().History; got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"0s", "-1h", "None", "1", "1d", "[1h]"} {
		var list issuerList
		if err := list.UnmarshalText([]byte(`[{name: a, keys: [k.json], history: ` + text + `}]`)); err == nil || !strings.Contains(err.Error(), "history") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
