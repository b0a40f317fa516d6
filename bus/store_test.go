package bus

import (
	"reflect"
	"testing"
	"time"

	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/wire"
)

func TestParsePubAck(t *testing.T) {
	for _, c := range []struct {
		answer        string
		seq           uint64
		duplicate, ok bool
	}{
		{`{"stream":"notify-orders","seq":7}`, 7, false, true},
		{`{"stream":"notify-orders","domain":"hub","seq":18446744073,"duplicate":true}`, 18446744073, true, true},
		{`{"stream": "o", "seq": 7, "duplicate": false}`, 7, false, true},
		{`{"type":"x","stream":"o","seq":7,"duplicate":true,"batch":"b","count":1}`, 7, true, true},
		{`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"o","seq":0}`, 0, false, false},
		{`{"stream":"o","seq":0}`, 0, false, false},
		{`{"stream":"o","seq":}`, 0, false, false},
		{`{"stream":"o","seq":99999999999999999999}`, 0, false, false},
		{`{"stream":"o"}`, 0, false, false},
		{`{"stream":"o","seq":`, 0, false, false},
		{``, 0, false, false},
	} {
		if seq, duplicate, ok := parsePubAck([]byte(c.answer)); seq != c.seq || duplicate != c.duplicate || ok != c.ok {
			t.Errorf("%s: %d %v %v", c.answer, seq, duplicate, ok)
		}
	}
	if n := testing.AllocsPerRun(100, func() { parsePubAck([]byte(`{"stream":"notify-orders","seq":7,"duplicate":true}`)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRefusals(t *testing.T) {
	s := &Stream{bus: &Bus{log: zap.NewNop()}}
	for answer, want := range map[string]wire.Code{
		`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}`: wire.TooLarge,
		`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}`:            wire.Unavailable,
		`not JSON`: wire.Unavailable,
	} {
		if got := s.refusal([]byte(answer)); got != want {
			t.Errorf("%s: %v", answer, got)
		}
	}
}

func TestEscape(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "plain text": "plain text", " x ": "%20x%20", "a\r\nb": "a%0D%0Ab", "50%": "50%25", "ü": "ü", "\x7f": "%7F",
	} {
		if got := escape(s); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
	for _, s := range []string{"%", "%4", "%zz", "100%"} {
		if got := unescape(s); got != s {
			t.Errorf("%q: %q", s, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		if got := unescape(escape(s)); got != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}

type receipts []wire.Code

func (r *receipts) Stored(_ uint64, _ bool, code wire.Code) { *r = append(*r, code) }

// Each event that is in flight is answered once, by what comes first; a slot that is used again is not answered
// by what was meant for the event before.
func TestInFlight(t *testing.T) {
	rooms := 0
	f := inFlight{room: func() { rooms++ }}
	s := &Stream{}
	var r receipts
	first, ok := f.add(s, &r, 10)
	if !ok {
		t.Fatal("no room")
	}
	if _, got := f.take(first + 1<<32); got != nil {
		t.Error("a number of another use was taken")
	}
	if _, got := f.take(12345); got != nil {
		t.Error("a number of no slot was taken")
	}
	if _, got := f.take(first); got == nil {
		t.Error("it is gone")
	}
	second, _ := f.add(s, &r, 10)
	if uint32(second) != uint32(first) {
		t.Fatal("the slot was not used again")
	}
	if _, got := f.take(first); got != nil {
		t.Error("a late answer was taken for another's")
	}
	f.fail(time.Now())
	if len(r) != 0 {
		t.Error("it failed before its time")
	}
	f.fail(time.Now().Add(storeTimeout + time.Second))
	if len(r) != 1 || r[0] != wire.Unavailable || s.counters.timeouts.Load() != 1 {
		t.Errorf("%v", r)
	}
	var numbers []uint64
	for f.count < 2*maxInFlight {
		if was := f.full.Load(); was != (f.count >= maxInFlight) {
			t.Fatalf("full is %v at %d", was, f.count)
		}
		n, ok := f.add(s, &r, 10)
		if !ok {
			t.Fatal("no room")
		}
		numbers = append(numbers, n)
	}
	if _, ok := f.add(s, &r, 10); ok {
		t.Error("no end of room")
	}
	for _, n := range numbers {
		f.take(n)
	}
	if f.full.Load() || rooms != 1 || f.count != 0 || f.bytes != 0 {
		t.Errorf("full %v, rooms %d, count %d, bytes %d", f.full.Load(), rooms, f.count, f.bytes)
	}
	f.add(s, &r, 2*maxInFlightBytes)
	if _, ok := f.add(s, &r, 1); ok || !f.full.Load() {
		t.Error("bytes have no bound")
	}
	r = nil
	f.fail(time.Time{})
	if len(r) != 1 || f.full.Load() || rooms != 2 {
		t.Errorf("%v, rooms %d", r, rooms)
	}
}

// The leader gives an event as every other server does.
func TestLeaderGet(t *testing.T) {
	s, _ := openKept(t, func(*StreamOptions) {})
	for i, m := range []wire.ToStore{
		{Topic: []byte("kept.a"), Data: []byte("1")},
		{Topic: []byte("kept.ü"), Data: []byte("\x00\r\n"), From: " ä\n", JTI: "7"},
	} {
		bustest.Store(t, s, &m)
		page, err := s.Read(t.Context(), ">", uint64(i), 1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.leaderGet(t.Context(), getRequest{Seq: uint64(i + 1), NextFor: "notify.ev.>"})
		if err != nil {
			t.Fatal(err)
		}
		e.Prev = page.Events[0].Prev
		if !reflect.DeepEqual(*e, page.Events[0]) {
			t.Errorf("the leader gives %+v, a page %+v", *e, page.Events[0])
		}
	}
	if e, err := s.leaderGet(t.Context(), getRequest{Seq: 3, NextFor: "notify.ev.>"}); e != nil || err != nil {
		t.Errorf("behind the end: %v %v", e, err)
	}
}
