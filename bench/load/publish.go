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
}

// message is a finished frame but for the time in it.
type message struct {
	frame []byte
	time  stamp
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
	at := findMark(payload)
	if at < 0 {
		return nil, fmt.Errorf("the target's publish does not hold the data: %.100q", payload)
	}
	at += len(markWord)
	msg.frame = appendFrame(msg.frame[:0], m.op, payload)
	msg.time = stamp{len(msg.frame) - len(payload) + at, at}
	return msg, nil
}

// stamp is a place for the time in a batch of frames.
type stamp struct{ at, phase int }

// write puts the time there.
func (s stamp) write(batch []byte, now int64) {
	letters := batch[s.at : s.at+timeDigits]
	appendDigits(letters[:0], uint64(now), timeDigits)
	ws.Cipher(letters, rig.Mask, s.phase)
}
