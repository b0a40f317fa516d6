package node_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// What docs/protocol.md promises of a node, for TestModel. Requests run side by side, so nothing has one instant: an
// event was sent at some time and answered at a later one, and what happened in between may count for it or not. The
// loops of a node read the clock once a turn; a moment therefore holds the time that every loop had seen by then.

// moment is when a client began to send something.
type moment struct{ sent, clock time.Time }

// cause is why a node refuses a token: perhaps from some time on, and surely from a later one.
type cause struct {
	code          wire.Code
	maybe, surely time.Time
}

// holds reports whether the cause counts for all that is sent at m or later.
func (c *cause) holds(m moment) bool {
	if c.code == wire.TokenExpired {
		return !m.clock.Before(c.surely)
	}
	return !m.sent.Before(c.surely)
}

type modelToken struct {
	raw, subject, id   string
	issued, starts     time.Time
	key                int // which of the keys signed it
	publish, subscribe []string
	causes             []*cause
}

func (k *modelToken) refuse(code wire.Code, maybe, surely time.Time) {
	k.causes = append(k.causes, &cause{code, maybe, surely})
}

// alive reports whether nothing can be wrong with the token at that time.
func (k *modelToken) alive(at time.Time) bool {
	return !slices.ContainsFunc(k.causes, func(c *cause) bool { return !at.Before(c.maybe) })
}

// notice is when the node begins to say that the token expires soon.
func (k *modelToken) notice() time.Time {
	begins, expires := k.issued, k.causes[0].maybe
	if k.starts.After(begins) {
		begins = k.starts
	}
	return expires.Add(-min(30*time.Second, expires.Sub(begins)/3))
}

// String is for the history of a run.
func (k *modelToken) String() string {
	if k == nil {
		return "no token"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "token %s of %s by key %d for %v and %v", k.id, k.subject, k.key, k.publish, k.subscribe)
	for _, c := range k.causes {
		fmt.Fprintf(&text, ", %v at %s", c.code, c.maybe.Format("05.000000"))
	}
	return text.String()
}

// verdict is what a request with the token may be answered, wire.OK if it may be accepted. granted says whether the
// token permits it; what is wrong with the token itself comes first.
func (k *modelToken) verdict(m moment, answered time.Time, granted bool) (codes []wire.Code) {
	surely := false
	for _, c := range k.causes {
		if !answered.Before(c.maybe) {
			codes = append(codes, c.code)
			surely = surely || c.holds(m)
		}
	}
	if m.clock.Before(k.starts) {
		codes = append(codes, wire.TokenNotYetValid)
		surely = surely || answered.Before(k.starts)
	}
	switch {
	case surely:
	case granted:
		codes = append(codes, wire.OK)
	default:
		codes = append(codes, wire.Forbidden)
	}
	return codes
}

// modelEvent is one event; from and number tell it from all others.
type modelEvent struct {
	moment
	topic        string
	from, number int
	msgID        string
	seq          uint64 // in its stream; 0: none, or not known yet
	again        bool   // sent once more after nobody knew
	acked        bool
	refused      bool // with a code that says that it was not published
	lossy        bool // NATS was away, or may have been
	down         bool // it certainly was when the event was sent
}

// tenure is the time for which a subscription relies on one token.
type tenure struct {
	token   *modelToken
	asked   moment
	outages int       // how often NATS had been away by then
	acked   bool      // its answer has come
	ended   time.Time // zero: goes on
}

// covers reports whether an event that was sent at m may be delivered during the tenure.
func (n *tenure) covers(m moment) bool {
	if !n.ended.IsZero() && !m.sent.Before(n.ended) {
		return false
	}
	return !slices.ContainsFunc(n.token.causes, func(c *cause) bool {
		return c.code != wire.TokenInvalid && c.holds(m) // the end for a withdrawn key comes with an error
	})
}

// modelSub is one subscription of one connection, through all its tenures.
type modelSub struct {
	pattern      string
	onCredential bool
	tenures      []*tenure
	since        time.Time            // acked, and without a gap since then; zero: is none
	got          map[int]map[int]bool // by publisher and number
	last         map[string]int       // the number that came last, by publisher and topic
	reading      *reading             // of durable topics alone
}

// may reports whether the event may reach the subscription. It was sent to it after both moments.
func (s *modelSub) may(e *modelEvent, heard moment) bool {
	return !e.refused && wire.Covers(s.pattern, e.topic) &&
		slices.ContainsFunc(s.tenures, func(n *tenure) bool { return n.covers(e.moment) && n.covers(heard) })
}

// must reports whether the event has to reach the subscription, as seen at that time. What is due of durable topics is
// the reading's to say.
func (s *modelSub) must(e *modelEvent, at time.Time) bool {
	return s.reading == nil && e.acked && !e.lossy && wire.Covers(s.pattern, e.topic) && s.live(at) && s.since.Before(e.sent)
}

// expires is when the token that it relies on expires.
func (s *modelSub) expires() time.Time { return s.tenures[len(s.tenures)-1].token.causes[0].maybe }

// live reports whether the subscription certainly goes on.
func (s *modelSub) live(at time.Time) bool {
	return !s.since.IsZero() && !slices.ContainsFunc(s.tenures, func(n *tenure) bool { return n.ended.IsZero() && !n.token.alive(at) })
}

// end ends those tenures for which that is true.
func (s *modelSub) end(at time.Time, which func(*tenure) bool) (ended int) {
	goesOn := false
	for _, n := range s.tenures {
		switch {
		case !n.ended.IsZero():
		case which(n):
			n.ended = at
			ended++
		default:
			goesOn = true
		}
	}
	if !goesOn {
		s.since = time.Time{}
	}
	return ended
}
