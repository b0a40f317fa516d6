package bus

import (
	"strings"
	"sync"
)

// patterns finds the patterns that match a topic. NATS sends a node each event once for all of its patterns,
// however many match (see [Bus.Subscribe]); which they are is looked up here.
//
// It is a tree with a level for each token, as NATS's own. A look-up visits at most two branches a token, so
// its cost depends on the topic and on the number of matches, not on the number of patterns.
type patterns struct {
	mu   sync.RWMutex
	root level
}

// A level is what may follow the same first tokens.
type level struct {
	next map[string]*level // by literal token
	any  *level            // behind *
	sub  *subscription     // the pattern that ends here
	rest *subscription     // the pattern that ends here with >
}

func (p *patterns) add(sub *subscription) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, rest := &p.root, sub.pattern
	for {
		var token string
		var more bool
		token, rest, more = strings.Cut(rest, ".")
		if token == ">" {
			l.rest = sub
			return
		}
		l = l.step(token)
		if !more {
			l.sub = sub
			return
		}
	}
}

// step gives the level behind token, and makes it when there is none.
func (l *level) step(token string) *level {
	if token == "*" {
		if l.any == nil {
			l.any = new(level)
		}
		return l.any
	}
	x := l.next[token]
	if x == nil {
		if l.next == nil {
			l.next = make(map[string]*level)
		}
		x = new(level)
		l.next[token] = x
	}
	return x
}

func (p *patterns) remove(sub *subscription) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.root.remove(sub, sub.pattern)
}

// remove takes sub away, whose tokens from this level on are rest, and reports whether the level is empty now.
func (l *level) remove(sub *subscription, rest string) (empty bool) {
	token, rest, more := strings.Cut(rest, ".")
	switch token {
	case ">":
		if l.rest == sub {
			l.rest = nil
		}
	case "*":
		if l.any != nil && l.any.end(sub, rest, more) {
			l.any = nil
		}
	default:
		if x := l.next[token]; x != nil && x.end(sub, rest, more) {
			delete(l.next, token)
		}
	}
	return len(l.next) == 0 && l.any == nil && l.sub == nil && l.rest == nil
}

func (l *level) end(sub *subscription, rest string, more bool) (empty bool) {
	if more {
		return l.remove(sub, rest)
	}
	if l.sub == sub {
		l.sub = nil
	}
	return len(l.next) == 0 && l.any == nil && l.sub == nil && l.rest == nil
}

// match appends the handles of the patterns that match topic and do not linger.
func (p *patterns) match(handles []uint32, topic string) []uint32 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.root.match(handles, topic)
}

func (l *level) match(handles []uint32, topic string) []uint32 {
	handles = l.rest.append(handles)
	token, topic, more := strings.Cut(topic, ".")
	for _, x := range [...]*level{l.next[token], l.any} {
		switch {
		case x == nil:
		case more:
			handles = x.match(handles, topic)
		default:
			handles = x.sub.append(handles)
		}
	}
	return handles
}

// all appends the handles of all patterns that do not linger.
func (p *patterns) all(handles []uint32) []uint32 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.root.all(handles)
}

func (l *level) all(handles []uint32) []uint32 {
	if l == nil {
		return handles
	}
	handles = l.any.all(l.rest.append(l.sub.append(handles)))
	for _, x := range l.next {
		handles = x.all(handles)
	}
	return handles
}

// append appends the handle of sub, which may be nil, unless it lingers.
func (sub *subscription) append(handles []uint32) []uint32 {
	if sub == nil {
		return handles
	}
	if h := sub.handle.Load(); h != 0 {
		handles = append(handles, uint32(h))
	}
	return handles
}
