package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// A revocation that comes again is put in force again and not measured again, and what cannot be read is told.
func TestRevocationsApply(t *testing.T) {
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	v, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	core, log := observer.New(zap.ErrorLevel)
	recheck := newRechecker()
	recheck.ask() // which nobody does here
	r := newRevocations(v, nil, recheck, zap.New(core))
	value := func(called time.Time) []byte {
		return fmt.Appendf(nil, `{"called":%d,"revocation":{"jti":"j","expires":%d}}`, called.UnixNano(), time.Now().Add(time.Hour).Unix())
	}
	called := time.Now()
	r.apply("k", value(called))
	r.apply("k", value(called))
	r.apply("before the start", value(called.Add(-time.Hour)))
	if len(recheck.waiting) != 1 || v.Stats().Revocations != 1 {
		t.Errorf("%d measured, %d in force", len(recheck.waiting), v.Stats().Revocations)
	}
	r.apply("k", value(called.Add(1)))
	if len(recheck.waiting) != 2 {
		t.Errorf("another call under the same key: %d measured", len(recheck.waiting))
	}
	if log.Len() != 0 {
		t.Errorf("%v", log.All())
	}
	for _, bad := range []string{"", "{}", `{"called":1,"revocation":{"jti":"a","sub":"b"}}`, `{"called":1,"revocation":{"all":true}}`} {
		if r.apply("k", []byte(bad)); log.TakeAll() == nil {
			t.Errorf("%q was passed over in silence", bad)
		}
	}

	// What cannot be read fails closed: it may be about any token that was issued before.
	verify := func(issued time.Time) wire.Code {
		token, err := authz.Sign(key, authz.Claims{ID: authz.NewTicket(), IssuedAt: issued, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		_, code := v.Verify([]byte(token))
		return code
	}
	missed := r.missed["k"]
	if code := verify(missed.Add(-time.Second)); code != wire.Unavailable {
		t.Errorf("a token from before: %v", code)
	}
	testkit.Eventually(t, "later tokens count", func() bool { return verify(time.Now()) == wire.OK })
	r.apply("k", []byte("{}")) // loaded anew
	if code := verify(time.Now()); code != wire.OK {
		t.Errorf("a later token, once it is loaded anew: %v", code)
	}
	for name, row := range map[string]struct {
		called int64
		want   time.Time
	}{
		"says when": {called.UnixNano(), called}, "says nothing": {0, time.Now()}, "is ahead": {time.Now().Add(time.Hour).UnixNano(), time.Now()},
	} {
		if at := r.firstMissed(name, row.called); at.Sub(row.want).Abs() > time.Minute {
			t.Errorf("one that %s: %v", name, at)
		}
	}

	for _, bad := range []server.Revocation{{}, {ID: "a", Subject: "b"}, {ID: "a", Before: called}, {Subject: "b", Before: time.Unix(-9, 0)}} {
		if err := r.revoke(t.Context(), bad); !errors.Is(err, server.ErrBadRevocation) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for at, want := range map[time.Time]int64{{}: 0, time.Unix(7, 0): 7, time.Unix(7, 1): 8} {
		if got := ceilSeconds(at); got != want {
			t.Errorf("%v: %d", at, got)
		}
	}
}
