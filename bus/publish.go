package bus

import "github.com/notifyd/notifyd/wire"

// Publish hands an event to NATS, at the latest with the next Flush: wire.OK, wire.Unavailable at once while NATS is unreachable, or
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
	if !publishable(topic) {
		return wire.BadTopic
	}
	if len(data) > b.maxPayload {
		return wire.TooLarge
	}
	return b.events.publish(topic, data)
}

// publishable says whether topic can be a part of a subject without harm to the connection.
func publishable(topic []byte) bool {
	if len(topic) == 0 || len(topic) > wire.MaxTopicBytes {
		return false
	}
	for _, c := range topic {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// Flush has what was published leave. Whoever has published calls it when nothing more is to be published
// at once: a loop at the end of its turn.
func (b *Bus) Flush() { b.events.flush() }

// Busy says whether something that was flushed is on its way to the embedded server or back, for as long as
// the sink's Answered is to follow. With an external NATS, whose answers take a network's time, it is false.
func (b *Bus) Busy() bool { return b.events.busy() }

// HasRoom says whether NATS keeps up with what is published. When it does not, a publisher should wait
// for the sink's Room before the next Publish: what waits to be written takes memory.
func (b *Bus) HasRoom() bool { return b.events.hasRoom() }
