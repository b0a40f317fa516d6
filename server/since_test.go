package server

import (
	"testing"

	"github.com/notifyd/notifyd/wire"
)

func TestParseSince(t *testing.T) {
	const half = 1770000000_500000000
	for text, want := range map[string]wire.Since{
		"0":                             {Kind: wire.SinceSeq},
		"1042":                          {Kind: wire.SinceSeq, N: 1042},
		"18446744073709551615":          {Kind: wire.SinceSeq, N: 1<<64 - 1},
		"k3x9.1042":                     {Kind: wire.SinceSeq, N: 1042, Epoch: []byte("k3x9")},
		"last:1":                        {Kind: wire.SinceLast, N: 1},
		"last:100":                      {Kind: wire.SinceLast, N: 100},
		"2026-02-02T02:40:00.5Z":        {Kind: wire.SinceTime, Time: half},
		"2026-02-02T03:40:00.500+01:00": {Kind: wire.SinceTime, Time: half},
	} {
		got, ok := parseSince(text)
		if !ok || got.Kind != want.Kind || got.N != want.N || got.Time != want.Time || string(got.Epoch) != string(want.Epoch) {
			t.Errorf("%s: %+v %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"", ".", ".1", "a.", "a.b", "a.1.2", "-1", "+1", " 1", "1 ", "0x1", "1e3", "18446744073709551616", "last:", "last:-1", "last:x", "Last:1",
		"now", "2026-02-02", "2026-02-30T00:00:00Z", "2026-02-02t02:40:00z", "1h", "\"", "\\", "2026-02-02T02:40:00Z\"", "é", "a\x00.1\x00",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.1", "1\n",
	} {
		if got, ok := parseSince(text); ok {
			t.Errorf("accepted %q as %+v", text, got)
		}
	}
}
