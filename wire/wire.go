// Package wire is the notifyd protocol, version 1: envelopes in and out, topics
// and patterns, error and close codes. It does no I/O, starts no goroutine, and
// on the path of a message allocates nothing. docs/protocol.md is its contract
// in prose.
//
// What a client sends is read by [Parse] and written by AppendPublish,
// AppendSubscribe, AppendUnsubscribe and AppendPing. What a server sends is
// written by AppendWelcome, AppendAck, AppendSubscribeAck, AppendEvent,
// AppendExpiring, AppendExpired, AppendError, AppendPong and AppendRestart, and for
// durable topics by AppendStoredEvent, AppendStoredAck, AppendResumeAck and AppendGap; it
// is read by [ParseMessage]. Everything else serves these.
package wire

const (
	// Subprotocol is what both sides name in Sec-WebSocket-Protocol.
	Subprotocol = "notifyd.v1"
	// Path is where the WebSocket endpoint is mounted.
	Path = "/v1/ws"
)

// Bounds of the protocol. A peer that exceeds one is answered with an error.
const (
	// MaxTopicBytes bounds a topic or pattern: it becomes part of a NATS
	// subject, and nats-server cuts the link of a client whose protocol line is
	// longer than 4 KiB, which here would be the link of a whole node.
	MaxTopicBytes = 255
	// MaxTopicTokens bounds the depth of the subject tree a client can build.
	MaxTopicTokens = 16
	// MaxIDBytes bounds what the server must echo, counted after unescaping.
	MaxIDBytes = 64
	// MaxMsgIDBytes bounds the key of a stream's duplicate window, counted after
	// unescaping.
	MaxMsgIDBytes = 64
	// MaxEpochBytes bounds the name of a stream's life that a client may send back,
	// counted after unescaping.
	MaxEpochBytes = 32
	// MaxTTL is the longest life of an event that a publish may ask for, in seconds.
	MaxTTL = 1<<31 - 1
	// MaxDepth bounds nesting; the envelope itself is level 1.
	MaxDepth = 64
	// MaxMembers bounds the members of an envelope, so that the search for
	// duplicate names stays linear in the size of the frame.
	MaxMembers = 32
)
