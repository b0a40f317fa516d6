package authz

import (
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// grants are the patterns that a token permits, all valid, whether it is an
// administrator's, and whether it is for one message alone.
type grants struct {
	publish, subscribe []string
	admin              bool
	bound              bound
	history            time.Duration // 0: no bound; below 0: none
	fault              string        // the first thing that is wrong with a grant, or empty
}

// blame notes the first fault.
func (g *grants) blame(fault string) {
	if g.fault == "" {
		g.fault = fault
	}
}

// subjectMark in a pattern stands for the token's subject.
const subjectMark = "{sub}"

// settle puts the subject in place of its mark, and says what is wrong, or "". That is
// a token that is good once and has no jti by which to know it again, a pattern that
// becomes none by that, and a subject that is more than a part of a
// topic: one with a dot or a wildcard would reach other subjects' topics. The
// patterns may have limit bytes together afterwards, so that a short token
// cannot take much memory (CWE-409).
func (g *grants) settle(subject, jti string, limit int) (fault string) {
	if g.bound.once && jti == "" {
		return "notify.once needs a jti, by which the token is known again"
	}
	part := subject != "" && !strings.ContainsRune(subject, '.') && wire.ValidTopic("x"+subject)
	for _, patterns := range [][]string{g.publish, g.subscribe} {
		for i, p := range patterns {
			if !strings.Contains(p, subjectMark) {
				continue
			}
			p = strings.ReplaceAll(p, subjectMark, subject)
			switch limit -= len(p); {
			case !part:
				return subjectMark + " in a pattern stands for sub, which must be one part of a topic, without dots, wildcards and white space; sub is " + brief(subject)
			case limit < 0 || !wire.ValidPattern(p):
				return "with sub in place of " + subjectMark + ", the patterns are too long"
			}
			patterns[i] = p
		}
	}
	return ""
}

// addNotify adds the notify claim: {"publish":[…],"subscribe":[…],"admin":true,
// "digest":"sha-256=…","once":true,"history":"1h"}. It reports false for anything malformed,
// and for every member that it does not know: one that restricts the token must
// not be ignored, as that would widen it.
func (g *grants) addNotify(d *document) bool {
	ok := true
	check := func(good bool, fault string) {
		if ok = good && ok; !good {
			g.blame(fault)
		}
	}
	isObject := d.object(func(name []byte) {
		switch string(name) {
		case "publish":
			check(g.addPatterns(&g.publish, d), "notify.publish is not an array of patterns")
		case "subscribe":
			check(g.addPatterns(&g.subscribe, d), "notify.subscribe is not an array of patterns")
		case "admin":
			check(d.bool(&g.admin), "notify.admin is neither true nor false")
		case "once":
			check(d.bool(&g.bound.once), "notify.once is neither true nor false")
		case "digest":
			text, isString := d.string()
			g.bound.digest, g.bound.hasDigest = parseDigest(text)
			check(isString && g.bound.hasDigest, "notify.digest is not sha-256=:BASE64:")
		case "history":
			text, isString := d.string()
			bound, isBound := parseHistory(text)
			g.history = bound
			check(isString && isBound, `notify.history is neither "none" nor a time such as "1h"`)
		default:
			check(false, "notify has a member "+brief(string(name))+", which is not understood")
		}
	})
	check(isObject, "notify is not an object")
	return ok
}

// noHistory is the notify.history of a token that reads none.
const noHistory = "none"

// parseHistory reads a notify.history: how far back, or none.
func parseHistory(text string) (bound time.Duration, ok bool) {
	if text == noHistory {
		return -1, true
	}
	bound, err := time.ParseDuration(text)
	return bound, err == nil && bound > 0
}

// historyText is the notify.history of a bound, "" where there is none.
func historyText(bound time.Duration) string {
	switch {
	case bound == 0:
		return ""
	case bound < 0:
		return noHistory
	default:
		return bound.String()
	}
}

// narrower is the one of two bounds of history that permits less.
func narrower(a, b time.Duration) time.Duration {
	switch {
	case a < 0 || b < 0:
		return -1
	case a == 0 || b == 0:
		return max(a, b)
	default:
		return min(a, b)
	}
}

// addDetails adds authorization_details (RFC 9396 §2): an array of objects of
// which those with the type "notifyd" are for us, and the others are not
// looked into.
func (g *grants) addDetails(d *document) bool {
	if d.array(func() bool { return g.addDetail(d) }) {
		return true
	}
	g.blame(`authorization_details is not an array of objects, of which those of type notifyd have actions (publish, subscribe) and topics, and nothing else`)
	return false
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
			on = g.addPatterns(&topics, d)
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
func (g *grants) addPatterns(to *[]string, d *document) bool {
	patterns := *to
	ok := d.array(func() bool {
		p, isString := d.string()
		patterns = append(patterns, p)
		valid := wire.ValidPattern(p)
		if isString && !valid {
			g.blame(brief(p) + " is not a pattern")
		}
		return isString && valid
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
