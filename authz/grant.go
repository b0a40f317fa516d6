package authz

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

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
func (g *grants) addNotify(value jsontext.Value) bool {
	ok := value.Kind() == '{'
	err := eachMember(value, func(name string, v jsontext.Value) {
		switch name {
		case "publish":
			ok = ok && addPatterns(&g.publish, v)
		case "subscribe":
			ok = ok && addPatterns(&g.subscribe, v)
		case "admin":
			ok = asBool(&g.admin, v) && ok
		case "once":
			ok = asBool(&g.bound.once, v) && ok
		case "digest":
			text, isString := asString(v)
			g.bound.digest, g.bound.hasDigest = parseDigest(text)
			ok = isString && g.bound.hasDigest && ok
		default:
			ok = false
		}
	})
	return ok && err == nil
}

// addDetails adds authorization_details (RFC 9396 §2): an array of objects of
// which those with the type "notifyd" are for us, and the others are not
// looked into.
func (g *grants) addDetails(value jsontext.Value) bool {
	return eachElement(value, g.addDetail)
}

// addDetail adds {"type":"notifyd","actions":["publish"],"topics":[…]}. Common
// fields such as locations narrow a grant (RFC 9396 §2.2), and are refused, as
// is all else that is not understood (§5).
func (g *grants) addDetail(value jsontext.Value) bool {
	var kind string
	var actions, topics []string
	var typed, acts, on bool
	known := true
	err := eachMember(value, func(name string, v jsontext.Value) {
		switch name {
		case "type":
			kind, typed = asString(v)
		case "actions":
			actions, acts = asStrings(v)
		case "topics":
			on = addPatterns(&topics, v)
		default:
			known = false
		}
	})
	if err != nil || !typed {
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
func addPatterns(to *[]string, value jsontext.Value) bool {
	patterns, ok := asStrings(value)
	if !ok {
		return false
	}
	for _, p := range patterns {
		if !wire.ValidPattern(p) {
			return false
		}
	}
	*to = append(*to, patterns...)
	return true
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
