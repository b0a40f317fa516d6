package bus

import "time"

// StreamStats are the state of a stream and counters since Open.
type StreamStats struct {
	// Ready and Problem are as [Stream.Ready] gives them.
	Ready   bool
	Problem error
	// What the leader said when it was asked last: while the node follows the stream, a second ago or so.
	Epoch                      string
	Created                    time.Time // zero until it has answered
	First, Last, Bytes, Events uint64
	// Following says whether this node follows the stream, because it has subscribers for it. Position is then how far
	// they have been handed its events, and Lag how many events the leader was ahead.
	Following     bool
	Position, Lag uint64
	// Healed events had not been passed on, and were read from the stream; Gaps are how often events were gone before
	// they could be read; Renewals are how often the stream that it follows was made anew,
	// or had lost what it had stored.
	Healed, Gaps, Renewals uint64
	// Stored, Duplicates, Refused and Timeouts are what became of events that this node wanted stored.
	Stored, Duplicates, Refused, Timeouts uint64
}

// Stats asks nobody: it is for a metrics page.
func (s *Stream) Stats() StreamStats {
	f, c := s.follower, &s.counters
	st := StreamStats{
		Following: f.following.Load(), Healed: f.healed.Load(), Gaps: f.gaps.Load(), Renewals: f.renewals.Load(),
		Stored: c.stored.Load(), Duplicates: c.duplicates.Load(), Refused: c.refused.Load(), Timeouts: c.timeouts.Load(),
	}
	st.Ready, st.Problem = s.Ready()
	if info := s.heads.latest.Load(); info != nil {
		st.Epoch, st.Created = info.Epoch, info.Created
		st.First, st.Last, st.Bytes, st.Events = info.First, info.Last, info.Bytes, info.Events
	}
	if st.Following {
		st.Position = f.position.Load()
		st.Lag = max(st.Last, st.Position) - st.Position
	}
	return st
}
