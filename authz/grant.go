package authz

import (
	"strings"

	"github.com/notifyd/notifyd/wire"
)

// grants are the patterns that a token permits, all valid, whether it is an
// administrator's, and whether it is for one message alone.
type grants struct {
	publish, subscribe []string
	admin              bool
	bound              bound
}

// subjectMark in a pattern stands for the token's subject.
const subjectMark = "{sub}"

// settle puts the subject in place of its mark. It reports false for a token
// that is good once and has no jti by which to know it again, where a pattern
// becomes none by that, or where the subject is more than a part of a
// topic: one with a dot or a wildcard would reach other subjects' topics. The
// patterns may have limit bytes together afterwards, so that a short token
// cannot take much memory (CWE-409).
func (g *grants) settle(subject, jti string, limit int) bool {
	if g.bound.once && jti == "" {
		return false
	}
	part := subject != "" && !strings.ContainsRune(subject, '.') && wire.ValidTopic("x"+subject)
	for _, patterns := range [][]string{g.publish, g.subscribe} {
		for i, p := range patterns {
			if !strings.Contains(p, subjectMark) {
				continue
			}
			p = strings.ReplaceAll(p, subjectMark, subject)
			if limit -= len(p); limit < 0 || !part || !wire.ValidPattern(p) {
				return false
			}
			patterns[i] = p
		}
	}
	return true
}

// addNotify adds the notify claim: {"publish":[…],"subscribe":[…],"admin":true,
// "digest":"sha-256=…","once":true}. It reports false for anything malformed,
// and for every member that it does not know: one that restricts the token must
// not be ignored, as that would widen it.
func (g *grants) addNotify(d *document) bool {
	ok := true
	isObject := d.object(func(name []byte) {
		switch string(name) {
		case "publish":
			ok = addPatterns(&g.publish, d) && ok
		case "subscribe":
			ok = addPatterns(&g.subscribe, d) && ok
		case "admin":
			ok = d.bool(&g.admin) && ok
		case "once":
			ok = d.bool(&g.bound.once) && ok
		case "digest":
			text, isString := d.string()
			g.bound.digest, g.bound.hasDigest = parseDigest(text)
			ok = isString && g.bound.hasDigest && ok
		default:
			ok = false
		}
	})
	return isObject && ok
}

// addDetails adds authorization_details (RFC 9396 §2): an array of objects of
// which those with the type "notifyd" are for us, and the others are not
// looked into.
func (g *grants) addDetails(d *document) bool {
	return d.array(func() bool { return g.addDetail(d) })
}

// addDetail adds {"type":"notifyd","actions":["publish"],"topics":[…]}. Common
// fields such as locations narrow a grant (RFC 9396 §2.2), and are refused, as
// is all else that is not understood (§5).
func (g *grants) addDetail(d *document) bool {
	var kind string
	var actions, topics []string
	var typed, acts, on bool
	known := true
	isObject := d.object(func(name []byte) {
		switch string(name) {
		case "type":
			kind, typed = d.string()
		case "actions":
			actions, acts = d.strings()
		case "topics":
			on = addPatterns(&topics, d)
		default:
			known = false
		}
	})
	if !isObject || !typed {
		return false
	}
	if kind != "notifyd" {
		return true
	}
	if !acts || !on || !known {
		return false
	}
	// An action that is named twice counts once, so that a token cannot
	// multiply its topics by its actions.
	var publish, subscribe bool
	for _, action := range actions {
		switch action {
		case "publish":
			publish = true
		case "subscribe":
			subscribe = true
		default:
			return false
		}
	}
	if publish {
		g.publish = append(g.publish, topics...)
	}
	if subscribe {
		g.subscribe = append(g.subscribe, topics...)
	}
	return true
}

// addPatterns appends an array of patterns, and reports whether it is one.
func addPatterns(to *[]string, d *document) bool {
	patterns := *to
	ok := d.array(func() bool {
		p, isString := d.string()
		patterns = append(patterns, p)
		return isString && wire.ValidPattern(p)
	})
	if ok {
		*to = patterns
	}
	return ok
}

// covered reports whether one of the patterns covers the topic or pattern.
func covered[S ~string | ~[]byte](patterns []string, topic S) bool {
	for _, p := range patterns {
		if wire.Covers(p, topic) {
			return true
		}
	}
	return false
}
