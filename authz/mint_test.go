package authz

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestSign(t *testing.T) {
	c := newClock()
	v := newTestVerifier(t, c, Options{Issuer: "me", Audience: []string{"notifyd"}})
	raw, err := Sign(testKeys()["ES256"], Claims{
		Issuer: "me", Subject: "svc", Audience: []string{"notifyd"}, ID: "j1",
		IssuedAt: c.now(), NotBefore: c.now(), Expires: c.now().Add(time.Minute),
		Publish: []string{"rooms.42"}, Subscribe: []string{"rooms.>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	token, code := v.Verify([]byte(raw))
	if code != wire.OK {
		t.Fatal(code)
	}
	if token.Subject() != "svc" || token.ExpSeconds() != start+60 || !token.MayPublish([]byte("rooms.42")) ||
		token.MayPublish([]byte("rooms.43")) || !token.MaySubscribe([]byte("rooms.*")) {
		t.Error("the token says something else")
	}
	in, err := Inspect(raw)
	if err != nil {
		t.Fatal(err)
	}
	var header map[string]string
	if err := json.Unmarshal(in.Header, &header); err != nil {
		t.Fatal(err)
	}
	if header["alg"] != "ES256" || header["kid"] != "es256" || header["typ"] != "JWT" || len(header) != 3 {
		t.Error(header)
	}
	if !in.IssuedAt.Equal(c.now()) || !in.NotBefore.Equal(c.now()) || !in.Expires.Equal(c.now().Add(time.Minute)) {
		t.Error(in.IssuedAt, in.NotBefore, in.Expires)
	}
	if !in.GrantsValid || strings.Join(in.Publish, " ") != "rooms.42" || strings.Join(in.Subscribe, " ") != "rooms.>" {
		t.Error(in.Publish, in.Subscribe)
	}
	if !strings.Contains(string(in.Claims), "\n  \"jti\": \"j1\"") {
		t.Errorf("%s", in.Claims)
	}
}

func TestSignRefuses(t *testing.T) {
	soon := time.Unix(start+60, 0)
	for name, claims := range map[string]Claims{
		"no expiry":             {},
		"expiry before 1970":    {Expires: time.Unix(-1, 0)},
		"expiry after 9999":     {Expires: time.Unix(maxNumericDate+1, 0)},
		"bad publish pattern":   {Expires: soon, Publish: []string{"a..b"}},
		"bad subscribe pattern": {Expires: soon, Subscribe: []string{"$SYS.>"}},
	} {
		if token, err := Sign(testKeys()["HS256"], claims); err == nil || token != "" {
			t.Error(name, "was signed")
		}
	}
	if _, err := Sign(Key{}, Claims{Expires: soon}); err == nil {
		t.Error("no key at all signed")
	}
}

func TestInspect(t *testing.T) {
	in, err := Inspect(signed(t, "HS256", `{"exp":1800000060.5,"nbf":"x","notify":{"publish":["a"],"once":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	if in.GrantsValid || !in.NotBefore.IsZero() || !in.Expires.Equal(time.Unix(start+60, 0)) {
		t.Errorf("%+v", in)
	}
	in, err = Inspect(signed(t, "HS256", `{"exp":1800000060,"notify":{"publish":["in.{sub}"]},"sub":"ann"}`))
	if err != nil || !in.GrantsValid || strings.Join(in.Publish, " ") != "in.ann" {
		t.Errorf("%+v %v", in, err)
	}
	in, err = Inspect(signed(t, "HS256", `{"exp":1800000060,"notify":{"publish":["in.{sub}"]},"sub":"*"}`))
	if err != nil || in.GrantsValid {
		t.Errorf("%+v %v", in, err)
	}
	for name, token := range map[string]string{
		"empty":            "",
		"two segments":     "e30.e30",
		"four segments":    "e30.e30.x.y",
		"header no base64": "!.e30.x",
		"header no JSON":   encode([]byte("x")) + ".e30.x",
		"payload no JSON":  "e30." + encode([]byte("secret-payload")) + ".x",
		"payload array":    "e30." + encode([]byte("[]")) + ".x",
		"duplicate member": "e30." + encode([]byte(`{"secret-payload":1,"secret-payload":2}`)) + ".x",
	} {
		_, err := Inspect(token)
		if err == nil {
			t.Error(name, "was inspected")
			continue
		}
		if strings.Contains(err.Error(), "secret") || len(token) > 3 && strings.Contains(err.Error(), token) {
			t.Error(name, "quotes the token:", err)
		}
	}
}
