package wire

// The encoders below write what a client sends. They append one envelope to dst
// and allocate only if dst has no room. An empty id, token or msgID is left out.
// Any goroutine may call them; none keeps what it was given.

// AppendPublish appends a publish. data must be one JSON value (see ValidJSON)
// and is sent byte for byte.
func AppendPublish(dst []byte, id, topic, token string, data []byte, msgID string) []byte {
	dst = appendRequest(dst, "publish", id, topic, token)
	dst = appendMember(dst, "msg_id", msgID)
	dst = append(dst, `,"data":`...)
	dst = append(dst, data...)
	return append(dst, '}')
}

// AppendSubscribe appends a subscribe; topic may be a pattern.
func AppendSubscribe(dst []byte, id, topic, token string) []byte {
	return append(appendRequest(dst, "subscribe", id, topic, token), '}')
}

// AppendUnsubscribe appends an unsubscribe; topic is spelt as it was subscribed.
func AppendUnsubscribe(dst []byte, id, topic string) []byte {
	return append(appendRequest(dst, "unsubscribe", id, topic, ""), '}')
}

// AppendPing appends a ping.
func AppendPing(dst []byte, id string) []byte {
	return append(appendRequest(dst, "ping", id, "", ""), '}')
}

func appendRequest(dst []byte, kind, id, topic, token string) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, kind...)
	dst = append(dst, '"')
	dst = appendMember(dst, "id", id)
	dst = appendMember(dst, "topic", topic)
	return appendMember(dst, "token", token)
}
