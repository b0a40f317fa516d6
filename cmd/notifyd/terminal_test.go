package main

import (
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/client"
)

// Lines for people stand in columns, and nothing that a publisher wrote commands the terminal.
func TestSheet(t *testing.T) {
	now := time.Date(2026, 2, 1, 10, 0, 0, 7e6, time.Local)
	s := sheet{palette: palette{"<", "[", ">"}}
	var got []byte
	for _, e := range []client.Event{
		{Topic: "a", Data: []byte("1")},
		{Topic: "rooms.42", Data: []byte(`{"text":"hello"}`)},
		{Topic: "é", Data: []byte("2")},
		{Topic: "a", Data: []byte("3"), Seq: 9, Time: now.AddDate(0, 0, -1), From: "ann"},
		{Topic: "a", Data: []byte("4"), Seq: 1042, Time: now, From: "eve\u009b2J"},
		{Topic: "a", Data: []byte("5"), Seq: 7, Time: now},
		{Topic: strings.Repeat("x", 50), Data: []byte("6")},
		{Topic: "a", Data: []byte("\"\u009b31m\x7f\u202e\u2067é\"")},
	} {
		got = s.append(got, e, e.Data, now)
	}
	want := `<10:00:00.007>  [a>  1
<10:00:00.007>  [rooms.42>  {"text":"hello"}
<10:00:00.007>  [é>         2
<2026-01-31 10:00:00.007>  [a>         <#9>  ann: 3
<10:00:00.007>             [a>         <#1042>  eve\u009b2J: 4
<10:00:00.007>             [a>         <#7>     5
<10:00:00.007>             [` + strings.Repeat("x", 50) + `>  6
<10:00:00.007>             [a>                                         "\u009b31m\u007f\u202e\u2067é"
`
	if string(got) != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
}
