package authz

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/notifyd/notifyd/wire"
)

// header is what a JOSE header may say about the choice of the key.
type header struct {
	alg, kid, typ  string
	hasKid, hasTyp bool
}

var headerNames = []string{"alg", "kid", "typ", "cty", "zip", "crit", "b64"}

// parseHeader reads a JOSE header. Keys and places of keys in it (jwk, jku,
// x5c, x5u) are ignored as unknown names are: who signs doesn't also say with
// what to check. Names that change the meaning of the token are refused: crit
// names extensions, of which none is understood (RFC 7515 §4.1.11); b64
// changes what is signed (RFC 7797); zip and cty announce a payload that is
// not the claims.
func parseHeader(b []byte) (header, wire.Code) {
	var h header
	code := wire.OK
	err := eachMember(b, func(name string, value jsontext.Value) {
		var ok bool
		switch name {
		case "alg":
			h.alg, ok = asString(value)
		case "kid":
			h.kid, ok = asString(value)
			h.hasKid = true
		case "typ":
			h.typ, ok = asString(value)
			h.hasTyp = true
		case "crit", "b64", "zip", "cty": // not ok
		default:
			ok = !misspelt(name, headerNames)
		}
		if !ok {
			code = wire.TokenInvalid
		}
	})
	if err != nil {
		return header{}, wire.TokenMalformed
	}
	return h, code
}
