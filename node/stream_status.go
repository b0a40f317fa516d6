package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/notifyd/notifyd/bus"
)

// A StreamStatus is what GET /streams of the admin listener says of a stream.
type StreamStatus struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"` // why it is not ready, or why its leader does not answer

	// As the leader says. First is Last + 1 while the stream is empty.
	Epoch  string `json:"epoch"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Events uint64 `json:"events"`
	Bytes  uint64 `json:"bytes"`

	// Of this node: whether it has subscribers for the stream, what they have been handed, and counters since its start.
	Following  bool   `json:"following"`
	Position   uint64 `json:"position"`
	Lag        uint64 `json:"lag"`
	Healed     uint64 `json:"healed"`
	Gaps       uint64 `json:"gaps"`
	Stored     uint64 `json:"stored"`
	Duplicates uint64 `json:"duplicates"`
	Refused    uint64 `json:"refused"`
	Timeouts   uint64 `json:"timeouts"`
}

// streamsTimeout bounds the questions to the leaders for one GET /streams.
const streamsTimeout = 3 * time.Second

// streamStatus asks the leaders of all streams.
func streamStatus(ctx context.Context, b *bus.Bus) []StreamStatus {
	ctx, cancel := context.WithTimeout(ctx, streamsTimeout)
	defer cancel()
	all := make([]StreamStatus, len(b.Streams()))
	var asking sync.WaitGroup
	for i, s := range b.Streams() {
		asking.Go(func() {
			_, err := s.Head(ctx)
			st := s.Stats()
			if st.Problem != nil {
				err = st.Problem
			}
			all[i] = StreamStatus{
				Name: s.Name(), Ready: st.Ready,
				Epoch: st.Epoch, First: st.First, Last: st.Last, Events: st.Events, Bytes: st.Bytes,
				Following: st.Following, Position: st.Position, Lag: st.Lag, Healed: st.Healed, Gaps: st.Gaps,
				Stored: st.Stored, Duplicates: st.Duplicates, Refused: st.Refused, Timeouts: st.Timeouts,
			}
			if err != nil {
				all[i].Problem = err.Error()
			}
		})
	}
	asking.Wait()
	return all
}

func serveStreams(b *bus.Bus) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(streamStatus(r.Context(), b)) // the client is gone
	}
}

// streamsMissing says which stream is not there, nil: none. Publishes to its topics would be unavailable.
func streamsMissing(b *bus.Bus) error {
	for _, s := range b.Streams() {
		ready, err := s.Ready()
		switch {
		case ready:
			continue
		case err == nil:
			err = errors.New("NATS has not answered yet")
		}
		return fmt.Errorf("the stream %s is not there yet: %w", s.Name(), err)
	}
	return nil
}
