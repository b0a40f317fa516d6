package server

import (
	"time"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Figures are what a page shows of a running server. Counters count since its start.
type Figures struct {
	Connections   int64 `json:"connections"`
	Subscriptions int64 `json:"subscriptions"`
	Topics        int   `json:"topics"`
	PendingBytes  int64 `json:"pending_bytes"`
	Verifying     int   `json:"verifying"` // envelopes that wait for a signature to be verified

	Accepted   uint64 `json:"accepted"`
	Published  uint64 `json:"published"`
	Refused    uint64 `json:"refused"` // publishes
	Errors     uint64 `json:"errors"`  // error envelopes
	Deliveries uint64 `json:"deliveries"`
	MemoHits   uint64 `json:"memo_hits"`
	BytesIn    uint64 `json:"bytes_in"`
	BytesOut   uint64 `json:"bytes_out"`
	Slow       uint64 `json:"slow"` // connections closed because they did not read
	Turns      uint64 `json:"turns"`

	TurnSeconds float64 `json:"turn_seconds"` // of all turns
	TurnMax     float64 `json:"turn_max"`     // the longest since the last call, in seconds

	// Delays counts events by the time from their arrival on the node until a loop has written them, and DelayBounds are the
	// bounds of the counts in seconds; the last one has none.
	Delays      [18]uint64 `json:"delays"`
	DelayBounds []float64  `json:"delay_bounds"`
}

// Figures reads the loops' counters.
func (s *Server) Figures() Figures {
	st, sum := s.engine.ConsoleStats(), s.sum()
	f := Figures{
		Connections: st.Open, Subscriptions: sum.subs, Topics: s.topics.count(), PendingBytes: st.Pending, Verifying: s.verify.waiting(),
		Accepted: st.Accepted, Published: sum.published[wire.OK], Deliveries: st.Deliveries, MemoHits: sum.memoHits,
		BytesIn: st.BytesIn, BytesOut: st.BytesOut, Slow: st.Slow, Turns: st.Turns,
		TurnSeconds: time.Duration(st.TurnNanos).Seconds(), TurnMax: time.Duration(st.TurnMax).Seconds(),
		Delays: st.Delays, DelayBounds: loop.DelayBounds(),
	}
	for _, code := range wire.Codes() {
		f.Refused += sum.published[code]
		f.Errors += sum.refused[code]
	}
	return f
}
