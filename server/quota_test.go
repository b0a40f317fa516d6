package server

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestQuota(t *testing.T) {
	q := newQuota(10, 10*time.Second)
	now := time.Now().UnixNano()
	for i := range 10 {
		if wait := q.take(now, "iss", "ann"); wait != 0 {
			t.Fatalf("the %dth has to wait for %v", i+1, wait)
		}
	}
	for range 3 { // asking costs nothing
		if wait := q.take(now, "iss", "ann"); wait != time.Second {
			t.Errorf("the 11th has to wait for %v, want 1 s", wait)
		}
	}
	if wait := q.take(now+1e9-1, "iss", "ann"); wait != 1 {
		t.Errorf("a nanosecond before: %v", wait)
	}
	if wait := q.take(now+1e9, "iss", "ann"); wait != 0 {
		t.Errorf("a second later: %v", wait)
	}
	for i := range 10 {
		if wait := q.take(now+100e9, "iss", "ann"); wait != 0 {
			t.Errorf("after a long time the %dth has to wait for %v", i+1, wait)
		}
	}
	if wait := q.take(now+100e9, "iss", "ann"); wait == 0 {
		t.Error("a long silence gives more than 10")
	}
}

// Others are not counted, however the parts of their keys lie, and a clock that was set back refuses nobody for long.
func TestQuotaOfOthers(t *testing.T) {
	q := newQuota(1, time.Second)
	for _, key := range [][]string{{"a", "b"}, {"ab"}, {"a"}, {"", "ab"}, {"ab", ""}, {"b", "a"}} {
		if q.take(1, key...) != 0 {
			t.Errorf("%q is taken for another", key)
		}
	}
	if newQuota(0, time.Second).take(1, "x") != 0 {
		t.Error("0 is no bound")
	}
	for i := range 100_000 { // places are taken over, memory does not grow
		q.take(2, fmt.Sprint(i))
	}
	if len(q.places) != quotaPlaces {
		t.Error("more places")
	}
}

func TestAddressKey(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":               "192.0.2.1",
		"::ffff:192.0.2.1":        "192.0.2.1",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::",
		"2001:db8:1:2::%eth0":     "2001:db8:1:2::",
		"2001:db8:1:3:3:4:5:6%en": "2001:db8:1:3::",
	} {
		if got := addressKey(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
