package bus

import (
	"errors"
	"unsafe"

	"github.com/nats-io/nats.go"

	"github.com/notifyd/notifyd/wire"
)

// Publish hands an event to NATS: wire.OK, wire.Unavailable at once while NATS is unreachable, or
// wire.TooLarge when data exceeds Options.MaxPayload or what NATS takes. OK means that it is on its way, not that anybody
// received it. Neither slice is kept.
//
// The caller has validated topic. Publish refuses with wire.BadTopic only what would harm the connection
// that the whole node shares: an empty or over-long topic, and bytes that NATS's text protocol would take
// for the end of the subject. (A control line over 4,096 bytes makes the server hang up.)
func (b *Bus) Publish(topic, data []byte) wire.Code {
	// Also spares the caller waiting for the connection's lock, which nats.go holds while it dials.
	if !b.connected.Load() {
		return wire.Unavailable
	}
	if len(topic) == 0 || len(topic) > wire.MaxTopicBytes {
		return wire.BadTopic
	}
	if len(data) > b.maxPayload {
		return wire.TooLarge
	}
	for _, c := range topic {
		if c <= ' ' || c == 0x7f {
			return wire.BadTopic
		}
	}
	var buf [MaxPrefixBytes + len(".ev.") + wire.MaxTopicBytes]byte
	subject := append(append(buf[:0], b.subject...), topic...)
	// nats.go copies subject and data into its write buffer. The compiler has proved that for us: were
	// either kept, escape analysis would move buf to the heap, where the string stays valid for ever.
	err := b.conn.Publish(unsafe.String(unsafe.SliceData(subject), len(subject)), data)
	switch {
	case err == nil:
		return wire.OK
	case errors.Is(err, nats.ErrMaxPayload):
		return wire.TooLarge
	default:
		return wire.Unavailable
	}
}
