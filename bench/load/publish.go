//go:build linux

package load

import (
	"fmt"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// messages makes the frames that publish.
type messages struct {
	target  Target
	publish func(dst []byte, topic string, data []byte) ([]byte, error)
	op      ws.OpCode
	names   []string // topic names by number
	size    int      // of data, bytes
	made    []message
	payload []byte // scratch

	requests *requests // nil: frames
	request  []byte    // the last one that was made
	stamps   []stamp   // in it
}

// message is a finished frame but for the time in it, which stands there once or, as a request's name, twice.
type message struct {
	frame []byte
	times []stamp
}

func newMessages(target Target, topics []string, size int) *messages {
	return &messages{target: target, publish: target.Publish, op: opcode(target), names: topics, size: size, made: make([]message, len(topics))}
}

func opcode(target Target) ws.OpCode {
	if target.Text() {
		return ws.OpText
	}
	return ws.OpBinary
}

// next gives the message to publish to a topic. It is valid until the topic's
// next, of which it is the same one if the target's messages are alike.
func (m *messages) next(topic int) (*message, error) {
	msg := &m.made[topic]
	if msg.frame != nil && !m.target.Fresh() {
		return msg, nil
	}
	payload, err := m.publish(m.payload[:0], m.names[topic], newData(m.size, topic))
	if err != nil {
		return nil, err
	}
	m.payload = payload
	msg.frame = appendFrame(msg.frame[:0], m.op, payload)
	head := len(msg.frame) - len(payload)
	msg.times = msg.times[:0]
	for at := 0; ; {
		next := findMark(payload[at:])
		if next < 0 {
			break
		}
		at += next + len(markWord)
		msg.times = append(msg.times, stamp{head + at, at})
	}
	if len(msg.times) == 0 {
		return nil, fmt.Errorf("the target's publish does not hold the data: %.100q", payload)
	}
	return msg, nil
}

// batch appends n messages for a topic and the places of the times in them.
func (m *messages) batch(dst []byte, stamps []stamp, topic, n int) ([]byte, []stamp, error) {
	if m.requests != nil {
		if m.request == nil || m.target.Fresh() {
			var err error
			if m.request, m.stamps, err = m.requests.request(m.names[topic], newData(m.size, topic)); err != nil {
				return nil, nil, err
			}
		}
		return append(dst, m.request...), append(stamps, m.stamps...), nil
	}
	for range n {
		msg, err := m.next(topic)
		if err != nil {
			return nil, nil, err
		}
		for _, s := range msg.times {
			stamps = append(stamps, stamp{len(dst) + s.at, s.phase})
		}
		dst = append(dst, msg.frame...)
	}
	return dst, stamps, nil
}

// stamp is a place for the time in a batch of messages. phase is how far into the mask it stands.
type stamp struct{ at, phase int }

// plainPhase is the phase where there is no mask.
const plainPhase = -1

// write puts the time there.
func (s stamp) write(batch []byte, now int64) {
	letters := batch[s.at : s.at+timeDigits]
	appendDigits(letters[:0], uint64(now), timeDigits)
	if s.phase != plainPhase {
		ws.Cipher(letters, rig.Mask, s.phase)
	}
}
