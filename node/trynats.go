package node

import (
	"context"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/store"
)

// NATS is what an external NATS server says of itself.
type NATS struct {
	Name, Version string
	MaxPayload    int64
	Changes       []string // of streams that are there, which a start would make
}

// TryNATS logs in to the external NATS that o names, once, and looks whether it has what a node needs, and
// whether the declared streams can be made there: what keeps one from that is an [*OptionError], or several that are joined. It changes nothing
// there.
func TryNATS(ctx context.Context, o Options) (NATS, error) {
	conn, err := bus.Dial(ctx, o.Bus)
	if err != nil {
		return NATS{}, err
	}
	defer conn.Close()
	if err := store.Try(ctx, conn); err != nil {
		return NATS{}, err
	}
	changes, err := bus.CheckStreams(ctx, conn, o.Bus)
	if err != nil {
		return NATS{}, err
	}
	return NATS{conn.ConnectedServerName(), conn.ConnectedServerVersion(), conn.MaxPayload(), changes}, nil
}
