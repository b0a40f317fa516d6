//go:build linux

package load

import "github.com/gobwas/ws"

// Target is how one kind of server is spoken to. A server qualifies if its
// events carry the published data as it was sent (a JSON string of ASCII
// characters), in messages that are neither compressed nor masked.
//
// Connections are opened by several goroutines at once; everything else is
// called by one.
type Target interface {
	// Dialer brings the headers and subprotocols of a handshake. The engine sets
	// NetDial and Timeout.
	Dialer() ws.Dialer
	// Text says whether messages to the server are text or binary.
	Text() bool
	// Packs says whether one message from the server may hold several events, or
	// an event go on in the next message. Looking for that costs the generator
	// some speed.
	Packs() bool
	// Hello appends what a client says first. awaits: Answer will see the Welcome
	// to it. Nothing appended: the client says nothing.
	Hello(dst []byte) (payload []byte, awaits bool)
	// Subscribe appends the request to receive a topic's events. awaits: Answer
	// will see it Subscribed.
	Subscribe(dst []byte, topic string) (payload []byte, awaits bool)
	// Publish appends the request to publish data, without asking for an answer.
	Publish(dst []byte, topic string, data []byte) ([]byte, error)
	// Fresh says whether Publish has to be called for each message, because no two
	// are alike. Otherwise one is made for each topic, and the data in it changes.
	Fresh() bool
	// Answer looks at a message that holds no event. An error ends the run.
	Answer(payload []byte) (Answer, error)
}

// Forger is a Target whose server checks what is published, for [Flood].
type Forger interface {
	// Forge appends a publish that looks right but for its signature, each time
	// another one. A client may begin with it: nobody awaits a Welcome.
	Forge(dst []byte, topic string, data []byte) ([]byte, error)
	// Refused says whether a message is the server's answer to that.
	Refused(payload []byte) bool
}

// Answer is what a message that holds no event means.
type Answer struct {
	Kind  AnswerKind
	Reply []byte // to be sent at once, such as a pong of the application's own
}

// AnswerKind tells the answers apart that the engine waits for.
type AnswerKind uint8

// The kinds of answer.
const (
	Other AnswerKind = iota
	Welcome
	Subscribed
)

// Keeper is a Target whose server keeps events, and hands them to clients that come back.
type Keeper interface {
	// Store appends the request to publish data, which is answered when the event is stored. The mark of data
	// stands in it twice: first where the answer has it too, as the request's name.
	Store(dst []byte, topic string, data []byte) ([]byte, error)
	// Stored looks at a message that may hold answers to that, and counts them. An event that was refused, or is
	// published and not kept, is an error.
	Stored(answer []byte) (int, error)
	// Position reads from the answer to Subscribe where in its topic a subscription begins.
	Position(answer []byte) (Position, error)
	// Resume appends the request for all events of a topic behind a position, and those to come.
	Resume(dst []byte, topic string, from Position) []byte
}

// Position is a place in what a server keeps.
type Position struct {
	Seq   uint64
	Epoch string
}
