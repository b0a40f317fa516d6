package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/wire"
)

func TestSince(t *testing.T) {
	for text, want := range map[string]client.Since{
		"0":                      client.Everything(),
		"1042":                   client.After(client.Position{Seq: 1042}),
		"k3x9.1042":              client.After(client.Position{Seq: 1042, Epoch: "k3x9"}),
		"2026-01-31T12:00:00Z":   client.SinceTime(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)),
		"2026-01-31T12:00:00.5Z": client.SinceTime(time.Date(2026, 1, 31, 12, 0, 0, 5e8, time.UTC)),
	} {
		var got since
		if err := got.UnmarshalText([]byte(text)); err != nil || !reflect.DeepEqual(got.Since, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "-5m", "yesterday", "k3x9", "2026-01-31"} {
		var got since
		if err := got.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "no place in a stream") {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// What sub prints is what the server sent: events of streams with their place in it, and gaps.
func TestPrinter(t *testing.T) {
	var out strings.Builder
	var told strings.Builder
	p := &printer{p: &process{stdout: &out, stderr: &told}, left: 3, done: make(chan error, 1)}
	at := time.Date(2026, 2, 1, 10, 0, 0, 7e6, time.UTC)
	p.event(client.Event{Topic: "a.1", Pattern: "a.*", Data: []byte("[1,\n2]")})
	p.event(client.Event{Topic: "a.1", Pattern: "a.*", Data: []byte("2"), Seq: 1042, Prev: 1038, Time: at, From: "ann"})
	p.gap(client.Gap{Pattern: "a.*", After: 1042, First: 2000})
	p.event(client.Event{Topic: "a.1", Pattern: "a.*", Data: []byte("3"), Seq: 2000, Prev: wire.PrevUnknown, Time: at})
	p.event(client.Event{Topic: "a.1", Data: []byte("4")}) // beyond --count
	p.gap(client.Gap{Pattern: "a.*", After: 2000})
	if err := <-p.done; err != nil {
		t.Error(err)
	}
	want := `{"type":"event","topic":"a.1","pattern":"a.*","data":[1,2]}
{"type":"event","topic":"a.1","pattern":"a.*","data":2,"seq":1042,"prev":1038,"time":"2026-02-01T10:00:00.007Z","from":"ann"}
{"type":"gap","topic":"a.*","after":1042,"first":2000}
{"type":"event","topic":"a.1","pattern":"a.*","data":3,"seq":2000,"time":"2026-02-01T10:00:00.007Z"}
`
	if out.String() != want {
		t.Errorf("%s\nwant:\n%s", out.String(), want)
	}
	if told.String() != "notifyd: a.*: the events after 1042 and before 2000 are gone\n" {
		t.Errorf("standard error has %q", told.String())
	}
}
