package authz_test

import (
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// How far back a token reads is the narrower of what it says and what its issuer's policy
// says. A ticket made with it reads no further.
func TestHistory(t *testing.T) {
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	const none = -1
	for _, x := range []struct {
		claim  string
		policy time.Duration
		want   time.Duration
	}{
		{"", 0, 0},
		{"", time.Hour, time.Hour},
		{"", none, none},
		{"1h", 0, time.Hour},
		{"90s", time.Hour, 90 * time.Second},
		{"2h", time.Hour, time.Hour},
		{"none", 0, none},
		{"none", time.Hour, none},
		{"1h", -time.Hour, none},
	} {
		v, err := authz.New(authz.Options{Issuers: []authz.Issuer{{Name: "i", Trusted: []authz.Key{key}, Subscribe: []string{">"}, History: x.policy}}})
		if err != nil {
			t.Fatal(err)
		}
		token, err := authz.Sign(key, authz.Claims{Issuer: "i", Expires: time.Now().Add(time.Hour), Subscribe: []string{"a"}, History: x.claim})
		if err != nil {
			t.Fatal(err)
		}
		verified, code := v.Verify([]byte(token))
		if code != wire.OK || verified.History() != x.want {
			t.Errorf("%+v: %v, history %v", x, code, verified.History())
			continue
		}
		restored, code := v.Restore(verified.Record())
		if code != wire.OK || restored.History() != x.want {
			t.Errorf("%+v: restored %v, history %v", x, code, restored.History())
		}
	}
	for _, wrong := range []string{"0s", "-1h", "1", "1 h", "NONE", "h", "1h "} {
		if _, err := authz.Sign(key, authz.Claims{Expires: time.Now().Add(time.Hour), History: wrong}); err == nil {
			t.Errorf("a token with history %q was signed", wrong)
		}
	}
}
