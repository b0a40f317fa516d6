package wire

import (
	"strconv"
	"time"
)

// The encoders below write what a client sends. They append one envelope to dst
// and allocate only if dst has no room. An empty id, token or msgID is left out.
// Any goroutine may call them; none keeps what it was given.

// AppendPublish appends a publish. data must be one JSON value (see ValidJSON)
// and is sent byte for byte.
func AppendPublish(dst []byte, id, topic, token string, data []byte, msgID string) []byte {
	return AppendPublishTTL(dst, id, topic, token, data, msgID, 0)
}

// AppendPublishTTL is [AppendPublish] of an event that lives for ttl seconds in its
// stream; 0: as long as the stream keeps it.
func AppendPublishTTL(dst []byte, id, topic, token string, data []byte, msgID string, ttl uint32) []byte {
	dst = appendRequest(dst, "publish", id, topic, token)
	dst = appendMember(dst, "msg_id", msgID)
	if ttl > 0 {
		dst = appendNumber(dst, "ttl", uint64(ttl))
	}
	dst = append(dst, `,"data":`...)
	dst = append(dst, data...)
	return append(dst, '}')
}

// AppendSubscribe appends a subscribe; topic may be a pattern.
func AppendSubscribe(dst []byte, id, topic, token string) []byte {
	return append(appendRequest(dst, "subscribe", id, topic, token), '}')
}

// AppendSubscribeSince is [AppendSubscribe] that says from where on a durable topic
// is read. The zero value of since means from now on.
func AppendSubscribeSince(dst []byte, id, topic, token string, since Since) []byte {
	dst = appendRequest(dst, "subscribe", id, topic, token)
	switch since.Kind {
	case SinceNone:
		return append(dst, '}')
	case SinceSeq:
		dst = append(dst, `,"since":{"seq":`...)
		dst = strconv.AppendUint(dst, since.N, 10)
	case SinceLast:
		dst = append(dst, `,"since":{"last":`...)
		dst = strconv.AppendUint(dst, since.N, 10)
	case SinceTime:
		dst = append(dst, `,"since":{"time":"`...)
		dst = time.Unix(0, since.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	dst = appendMember(dst, "epoch", since.Epoch)
	return append(dst, "}}"...)
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
