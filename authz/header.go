package authz

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/notifyd/notifyd/wire"
)

// header is what a JOSE header may say about the choice of the key.
type header struct {
	alg, kid string
	hasKid   bool
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
			var typ string
			typ, ok = asString(value)
			ok = ok && isJWT(typ)
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

// isJWT knows the media types of tokens that are for us. Other kinds of JWT
// (logout tokens, DPoP proofs) have a typ of their own, so that they cannot
// pass for one of these (RFC 8725 §3.11). Case and the prefix do not count
// (RFC 7515 §4.1.9).
func isJWT(typ string) bool {
	typ = strings.ToLower(typ)
	typ = strings.TrimPrefix(typ, "application/")
	return typ == "jwt" || typ == "at+jwt" // RFC 7519 §5.1, RFC 9068 §2.1
}
