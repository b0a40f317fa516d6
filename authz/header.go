package authz

// header is what a JOSE header may say about the choice of the key.
type header struct {
	alg, kid, typ  string
	hasKid, hasTyp bool
}

var headerNames = []string{"alg", "kid", "typ", "cty", "zip", "crit", "b64"}

// parseHeader reads the segment of a JOSE header. Keys and places of keys in it
// (jwk, jku, x5c, x5u) are ignored as unknown names are: the signer doesn't also
// say with what to check. Names that change the meaning of the token are refused: crit
// names extensions, of which none is understood (RFC 7515 §4.1.11); b64
// changes what is signed (RFC 7797); zip and cty announce a payload that is
// not the claims.
func parseHeader(segment []byte) (h header, reason Reason, fault string) {
	err := readSegment(segment, func(d *document, name []byte) {
		var ok bool
		switch string(name) {
		case "alg":
			h.alg, ok = d.string()
		case "kid":
			h.kid, ok = d.string()
			h.hasKid = true
		case "typ":
			h.typ, ok = d.string()
			h.hasTyp = true
		case "crit", "b64", "zip", "cty": // not ok
		default:
			ok = !misspelt(name, headerNames)
		}
		if !ok && reason == reasonNone {
			reason, fault = ReasonHeader, headerFault(string(name))
		}
	})
	if err != nil {
		return header{}, ReasonMalformed, "the header is " + err.Error()
	}
	h.alg = algorithmName(h.alg)
	return h, reason, fault
}

// headerFault says what is wrong with a member that is refused.
func headerFault(name string) string {
	switch name {
	case "alg", "kid", "typ":
		return "the header's " + name + " is not a string"
	case "crit", "b64", "zip", "cty":
		return "the header has " + name + ", which changes what a token means and is not supported"
	}
	return "the header has " + brief(name) + ", which differs from a registered name only in case"
}
