package node

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/notifyd/notifyd/server"
)

// figures are what the console draws. Counters count since the start of the node.
type figures struct {
	At     float64        `json:"at"` // Unix seconds, by the node's clock
	Node   string         `json:"node"`
	NotYet string         `json:"not_ready,omitempty"` // what /readyz says, unless it is ok
	Server server.Figures `json:"server"`
	Tokens tokenFigures   `json:"tokens"`
	NATS   natsFigures    `json:"nats"`

	Revocations        int     `json:"revocations"`
	RevocationsAge     float64 `json:"revocations_age"` // seconds; -1: they are not loaded
	RevocationsUnsaved int     `json:"revocations_unsaved"`

	Streams []StreamStatus `json:"streams"`

	Goroutines int    `json:"goroutines"`
	Memory     uint64 `json:"memory"` // bytes that the Go runtime has from the system
}

type tokenFigures struct {
	Hits     uint64 `json:"hits"`
	Misses   uint64 `json:"misses"`
	Verified uint64 `json:"verified"`
	Refused  uint64 `json:"refused"`
	Entries  int64  `json:"entries"`
}

type natsFigures struct {
	Connected     bool   `json:"connected"`
	In            uint64 `json:"in"`
	Out           uint64 `json:"out"`
	Dropped       uint64 `json:"dropped"`
	Reconnects    uint64 `json:"reconnects"`
	Subscriptions int    `json:"subscriptions"`
	Pending       int    `json:"pending"`
}

const (
	// figuresAge is for how long figures are good: many pages cost the node as much as one.
	figuresAge = 900 * time.Millisecond
	// leadersTimeout bounds the questions to the leaders of streams, without which the figures are those of before.
	leadersTimeout = 700 * time.Millisecond
)

// figuresCache holds the figures that were made last.
type figuresCache struct {
	mu   sync.Mutex
	made time.Time
	text []byte
}

func (c *consolePage) figuresHandler(w http.ResponseWriter, r *http.Request) {
	text := c.figures.get(func() any { return c.node.figures(r.Context()) })
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(text)
}

func (c *figuresCache) get(read func() any) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.made) > figuresAge {
		c.text, _ = json.Marshal(read()) // plain numbers and text
		c.made = time.Now()
	}
	return c.text
}

func (n *Node) figures(ctx context.Context) figures {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leadersTimeout) // they are for others too
	defer cancel()
	tokens, nats := n.Verifier.Stats(), n.Bus.Stats()
	memory := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(memory)
	f := figures{
		At: float64(time.Now().UnixMilli()) / 1000, Node: n.id, Server: n.Server.Figures(),
		Tokens: tokenFigures{tokens.Hits, tokens.Misses, tokens.Verified, tokens.Refused.Sum(), tokens.Entries},
		NATS:   natsFigures{nats.Connected, nats.Received, nats.Published, nats.Dropped, nats.Reconnects, nats.Subscriptions, nats.Pending},

		Revocations: tokens.Revocations, RevocationsAge: -1, RevocationsUnsaved: n.revocations.countUnsaved(),
		Streams: streamStatus(ctx, n.Bus), Goroutines: runtime.NumGoroutine(), Memory: memory[0].Value.Uint64(),
	}
	if at := n.store.LastFresh(); !at.IsZero() {
		f.RevocationsAge = math.Max(0, time.Since(at).Seconds())
	}
	if state := n.ready(); state.not != nil {
		f.NotYet = state.not.Error()
	} else if state.degraded != nil {
		f.NotYet = "ok, but " + state.degraded.Error()
	}
	if n.admin.draining.Load() {
		f.NotYet = "draining"
	}
	return f
}
