package client

import (
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Publication is an event that is to be published. Topic and Data are required.
type Publication struct {
	Topic string
	Data  []byte // one JSON value; for PublishBatch without line breaks
	Token string // that grants it; "": the client's token source gives one, or that of the batch is used

	// MsgID names the event, in at most 64 bytes: within its duplicate window a stream stores an event of that name once.
	// So a publish that had no answer can be sent again.
	MsgID string
	// TTL is how long a stream keeps the event, where it allows that; 0: as all others. Parts of a second count as a second.
	TTL time.Duration
}

const errTTL = "the TTL is below 0 or above 2147483647 s"

// check finds what the server would refuse.
func (p *Publication) check() error {
	switch {
	case !wire.ValidTopic(p.Topic):
		return &wire.Error{Code: wire.BadTopic}
	case !wire.ValidJSON(p.Data):
		return &wire.Error{Code: wire.BadEnvelope, Detail: "data must be one JSON value"}
	case len(p.MsgID) > wire.MaxMsgIDBytes:
		return &wire.Error{Code: wire.BadEnvelope, Detail: "the MsgID has more than 64 bytes"}
	case p.TTL < 0 || p.TTL > wire.MaxTTL*time.Second:
		return &wire.Error{Code: wire.BadEnvelope, Detail: errTTL}
	}
	return nil
}

// ttl is in seconds.
func (p *Publication) ttl() uint32 { return uint32((p.TTL + time.Second - 1) / time.Second) }
