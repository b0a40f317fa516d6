package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Position is a place in a stream of durable topics: an application that keeps that of a subscription can go on from
// there later, see [After].
type Position struct {
	Seq   uint64 `json:"seq"`
	Epoch string `json:"epoch"` // names the life of the stream: one that was removed and made again has another
}

// String is EPOCH.SEQ, as Server-Sent Events have it for an id.
func (p Position) String() string { return p.Epoch + "." + strconv.FormatUint(p.Seq, 10) }

// ParsePosition reads what String gave.
func ParsePosition(text string) (Position, error) {
	dot := strings.LastIndexByte(text, '.')
	seq, err := strconv.ParseUint(text[dot+1:], 10, 64)
	if dot < 1 || dot > wire.MaxEpochBytes || err != nil {
		return Position{}, errors.New("a position has the form EPOCH.SEQ, such as k3x9.1042")
	}
	return Position{Seq: seq, Epoch: text[:dot]}, nil
}

// Since says from where on a subscription gets what a stream has kept. The zero value is: from now on.
type Since struct{ wire wire.Since }

// After is everything after a position.
func After(p Position) Since {
	s := wire.Since{Kind: wire.SinceSeq, N: p.Seq}
	if p.Epoch != "" {
		s.Epoch = []byte(p.Epoch)
	}
	return Since{s}
}

// Last is the last n events of a topic; a pattern can have only the last one of each topic.
func Last(n uint64) Since { return Since{wire.Since{Kind: wire.SinceLast, N: n}} }

// SinceTime is what was stored at t or later.
func SinceTime(t time.Time) Since {
	return Since{wire.Since{Kind: wire.SinceTime, Time: t.UnixNano()}}
}

// Everything is all that the stream has.
func Everything() Since { return After(Position{}) }

// Gap says that events of a subscription are gone: the stream had to discard them before they could be sent.
type Gap struct {
	Pattern string // of the subscription
	After   uint64 // the last position before
	First   uint64 // the first one behind; 0: not known
	// Epoch is set when the stream was removed and made again: all positions of before mean nothing. First is of the
	// new one.
	Epoch string
}

// Error is what OnError gets where there is no OnGap.
func (g *Gap) Error() string {
	if g.Epoch != "" {
		return g.Pattern + ": the stream was made anew, what came after " + strconv.FormatUint(g.After, 10) + " is gone"
	}
	return fmt.Sprintf("%s: the events after %d and before %d are gone", g.Pattern, g.After, g.First)
}

// OrderError says that the server has broken a promise about a durable topic: an event is missing before the one that
// came, or it came again or too late. Options.OnError gets it.
type OrderError struct {
	Topic string
	Seq   uint64 // of the event that came
	Prev  uint64 // which event was before it on its topic, as the server says; wire.PrevUnknown: it did not say
	Last  uint64 // the last event of the topic that came before, or the position from which the topic was read
	// Dropped says that the handler does not get the event, since it is not behind Last.
	Dropped bool
}

func (e *OrderError) Error() string {
	switch {
	case e.Dropped:
		return fmt.Sprintf("%s: the server sent event %d after %d", e.Topic, e.Seq, e.Last)
	case e.Prev == wire.PrevUnknown:
		return fmt.Sprintf("%s: the server did not say what was before event %d; the last that came is %d", e.Topic, e.Seq, e.Last)
	}
	return fmt.Sprintf("%s: event %d follows %d, but the last that came is %d", e.Topic, e.Seq, e.Prev, e.Last)
}
