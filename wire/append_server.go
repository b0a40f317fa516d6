package wire

import (
	"strconv"
	"time"
)

// The encoders below write what a server sends. They append one envelope to dst
// and allocate only if dst has no room. Any goroutine may call them; none keeps
// what it was given.

// AppendWelcome appends the first envelope of a connection. pingInterval is sent
// in whole seconds, rounded up; 0 says that the server sends no pings.
func AppendWelcome(dst []byte, conn, node string, now time.Time, pingInterval time.Duration, maxMessageBytes int) []byte {
	dst = append(dst, `{"type":"welcome","conn":`...)
	dst = appendString(dst, conn)
	dst = append(dst, `,"node":`...)
	dst = appendString(dst, node)
	dst = append(dst, `,"time":"`...)
	dst = now.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","ping_interval":`...)
	dst = strconv.AppendInt(dst, int64((pingInterval+time.Second-1)/time.Second), 10)
	dst = append(dst, `,"max_message_bytes":`...)
	dst = strconv.AppendInt(dst, int64(maxMessageBytes), 10)
	return append(dst, '}')
}

// AppendAck appends the answer to a publish or unsubscribe that had an id.
func AppendAck(dst, id []byte) []byte {
	dst = append(dst, `{"type":"ack"`...)
	dst = appendMember(dst, "id", id)
	return append(dst, '}')
}

// AppendSubscribeAck appends the answer to a subscribe that had an id. exp is
// when its token expires, in Unix seconds.
func AppendSubscribeAck(dst, id []byte, exp int64) []byte {
	dst = append(dst, `{"type":"ack"`...)
	dst = appendMember(dst, "id", id)
	return appendExp(dst, exp)
}

// AppendEvent appends an event: data is one JSON value and is sent byte for
// byte. pattern is the subscription's, and empty for a plain topic.
func AppendEvent(dst []byte, topic, pattern string, data []byte) []byte {
	dst = append(dst, `{"type":"event"`...)
	dst = appendMember(dst, "topic", topic)
	dst = appendMember(dst, "pattern", pattern)
	dst = append(dst, `,"data":`...)
	dst = append(dst, data...)
	return append(dst, '}')
}

// AppendExpiring appends the notice that the token of the subscription to topic
// (a pattern, it may be) expires soon: at exp, in Unix seconds.
func AppendExpiring(dst []byte, topic string, exp int64) []byte {
	dst = append(dst, `{"type":"expiring"`...)
	dst = appendMember(dst, "topic", topic)
	return appendExp(dst, exp)
}

// AppendExpired appends the notice that the subscription to topic has ended with
// its token.
func AppendExpired(dst []byte, topic string) []byte {
	dst = append(dst, `{"type":"expired"`...)
	dst = appendMember(dst, "topic", topic)
	return append(dst, '}')
}

// AppendError appends a refusal. detail is for a developer; empty, it is
// code.Text(). An empty id or topic is left out, and so is a topic longer than
// MaxTopicBytes, so that a refusal is never larger than what it refuses.
func AppendError(dst, id, topic []byte, code Code, detail string) []byte {
	if detail == "" {
		detail = code.Text()
	}
	dst = append(dst, `{"type":"error"`...)
	dst = appendMember(dst, "id", id)
	if len(topic) <= MaxTopicBytes {
		dst = appendMember(dst, "topic", topic)
	}
	dst = appendMember(dst, "code", code.String())
	dst = appendMember(dst, "message", detail)
	return append(dst, '}')
}

// AppendResult appends what became of one publish of many that came by HTTP: a
// line of its own, with code OK or a refusal. detail is as in [AppendError].
func AppendResult(dst, id []byte, code Code, detail string) []byte {
	if code == OK {
		dst = append(dst, `{"ok":true`...)
		dst = appendMember(dst, "id", id)
		return append(dst, "}\n"...)
	}
	if detail == "" {
		detail = code.Text()
	}
	dst = append(dst, `{"ok":false`...)
	dst = appendMember(dst, "id", id)
	dst = appendMember(dst, "code", code.String())
	dst = appendMember(dst, "message", detail)
	return append(dst, "}\n"...)
}

// AppendPong appends the answer to a ping envelope.
func AppendPong(dst, id []byte) []byte {
	dst = append(dst, `{"type":"pong"`...)
	dst = appendMember(dst, "id", id)
	return append(dst, '}')
}

// AppendRestart appends the notice that the node restarts: that it closes the
// connection soon. within is how long it serves all connections until then, and
// is sent in whole seconds, rounded down.
func AppendRestart(dst []byte, within time.Duration) []byte {
	dst = append(dst, `{"type":"restart","within":`...)
	dst = strconv.AppendInt(dst, int64(within/time.Second), 10)
	return append(dst, '}')
}

func appendExp(dst []byte, exp int64) []byte {
	dst = append(dst, `,"exp":`...)
	dst = strconv.AppendInt(dst, exp, 10)
	return append(dst, '}')
}
