package server

import (
	"context"

	"github.com/notifyd/notifyd/wire"
)

// Streams keep the events of durable topics. Their methods may be called from any
// goroutine. They call the server's Stored, Gap and Flush.
type Streams interface {
	// StreamOf gives the stream that keeps a topic, or nil. It allocates nothing.
	StreamOf(topic []byte) Stream
	// StreamAround gives the stream that keeps all that a pattern matches. Where none
	// does, reason says for the client which part it does not keep.
	StreamAround(pattern []byte) (x Stream, reason string)
}

// A Stream keeps the events of some topics, in one order.
type Stream interface {
	Name() string
	// AllowsTTL says whether a publish may say how long its event lives.
	AllowsTTL() bool
	// AnswersSoon says whether receipts come in microseconds as a rule: see [loop.Handler].
	AnswersSoon() bool
	// HasRoom says whether the stream keeps up. After a no the bus calls the server's Room
	// when it does again.
	HasRoom() bool
	// Store hands an event to the stream and does not wait; it keeps neither the event
	// nor its slices. After OK, receipt hears what became of it, within seconds.
	Store(event *wire.ToStore, receipt wire.Receipt) wire.Code

	// Head asks the stream's leader how far it is.
	Head(ctx context.Context) (wire.StreamHead, error)
	// Seek gives the position behind which is what since asks for: the last n events of a
	// topic, or those from a time on. It is the last one where nothing is.
	Seek(ctx context.Context, pattern string, since wire.Since) (after uint64, err error)
	// Read reads events that match, behind a position, in order: at most limit, of about
	// so many bytes.
	Read(ctx context.Context, pattern string, after uint64, limit, bytes int) (wire.StreamPage, error)
	// LastOfEach is Read of the last event of each topic, up to a position.
	LastOfEach(ctx context.Context, pattern string, after, upTo uint64, limit int) (wire.StreamPage, error)

	// At calls f once this node has been handed the events up to after: between two of
	// them, on their goroutine, after a Flush. position is then what has been handed
	// over, and epoch whose position it is. Where that does not happen within seconds, f
	// is called with ok false.
	At(after uint64, f func(position uint64, epoch string, ok bool))
	// Recent calls f with the events that match, behind after and up to upTo, as far as
	// this node has been handed them, until f returns false; f must not keep them. It
	// returns false, and may have called f, where the node does not remember so far back.
	Recent(after, upTo uint64, pattern string, f func(*wire.StoredEvent) (more bool)) bool
	// RecentFrom is the position behind which Recent has everything.
	RecentFrom() uint64
}

// streamOf gives the stream that keeps a topic, or nil.
func (s *Server) streamOf(topic []byte) Stream {
	if s.streams == nil {
		return nil
	}
	return s.streams.StreamOf(topic)
}
