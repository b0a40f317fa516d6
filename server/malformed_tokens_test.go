package server_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// What package authz refuses stays refused on its way through the server, on
// the loop and in a worker, for publish and for subscribe.
func TestTokenAbuse(t *testing.T) {
	s := newScene(t, server.Options{})
	claims := authz.Claims{Expires: time.Now().Add(hour), Publish: []string{">"}, Subscribe: []string{">"}}
	with := func(change func(*authz.Claims)) string {
		c := claims
		change(&c)
		return sign(t, s.key, c)
	}
	segment := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	payload := segment(fmt.Sprintf(`{"exp":%d,"notify":{"publish":[">"],"subscribe":[">"]}}`, claims.Expires.Unix()))
	good := strings.Split(s.token, ".")
	stranger := newKey(t, s.key.Algorithm())
	strangers := strings.Split(sign(t, stranger, claims), ".")
	for _, x := range []struct {
		name, token string
		code        wire.Code
	}{
		{"alg none", segment(`{"alg":"none"}`) + "." + payload + ".", wire.TokenInvalid},
		{"alg NoNe with a signature", segment(`{"alg":"NoNe"}`) + "." + payload + "." + good[2], wire.TokenInvalid},
		{"alg HS256 with the kid of another kind", segment(`{"alg":"HS256","kid":"`+s.key.ID()+`"}`) + "." + payload + "." + segment(strings.Repeat("x", 32)), wire.TokenInvalid},
		{"alg missing", segment(`{"kid":"`+s.key.ID()+`"}`) + "." + payload + "." + good[2], wire.TokenInvalid},
		{"kid is a path", segment(`{"alg":"EdDSA","kid":"/dev/null"}`) + "." + payload + "." + good[2], wire.TokenInvalid},
		{"another key", strings.Join(strangers, "."), wire.TokenInvalid},
		{"another key under our kid", good[0] + "." + strangers[1] + "." + strangers[2], wire.TokenInvalid},
		{"other claims under a good signature", good[0] + "." + payload + "." + good[2], wire.TokenInvalid},
		{"spare bits of the signature", s.token[:len(s.token)-1] + string(spare(s.token[len(s.token)-1])), wire.TokenMalformed},
		{"expired", with(func(c *authz.Claims) { c.Expires = time.Now().Add(-time.Second) }), wire.TokenExpired},
		{"nbf in the future", with(func(c *authz.Claims) { c.NotBefore = time.Now().Add(time.Minute) }), wire.TokenNotYetValid},
		{"iat in the future", with(func(c *authz.Claims) { c.IssuedAt = time.Now().Add(time.Minute) }), wire.TokenNotYetValid},
		{"Bearer", "Bearer " + s.token, wire.TokenMalformed},
		{"a space behind", s.token + " ", wire.TokenMalformed},
		{"padding", s.token + "=", wire.TokenMalformed},
		{"one segment", good[0], wire.TokenMalformed},
		{"two segments", good[0] + "." + good[1], wire.TokenMalformed},
		{"four segments", s.token + "." + good[2], wire.TokenMalformed},
		{"dots", strings.Repeat(".", 60_000), wire.TokenMalformed},
		{"long", strings.Repeat("A", 50_000) + "." + good[1] + "." + good[2], wire.TokenMalformed},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, kind := range []string{"publish", "subscribe"} {
				s.suffers(t, attack{"", `{"type":"` + kind + `","id":"1","topic":"a","token":"` + x.token + `","data":1}`, "1", x.code, 0}, ws.OpText)
			}
		})
	}
}

// spare returns a base64url character that differs from c in its lowest bit, of
// which the last character of a 64-byte signature has four to spare.
func spare(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1]
}
