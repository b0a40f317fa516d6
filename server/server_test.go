package server_test

import (
	"fmt"
	"testing"
	"time"
)

func TestPublishReachesSubscribers(t *testing.T) {
	for _, alg := range []string{"EdDSA", "ES256", "RS256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			n := start(t, setup{alg: alg})
			sub, wild, pub := n.dial(t), n.dial(t), n.dial(t)
			st := n.token(t, time.Minute, nil, []string{"rooms.*"})
			sub.subscribe("rooms.42", st)
			wild.subscribe("rooms.*", st)
			pt := n.token(t, time.Minute, []string{"rooms.42"}, nil)
			const events = 100
			for i := range events {
				pub.send(`{"type":"publish","id":"%d","topic":"rooms.42","token":%q,"data":{"n": %d}}`, i, pt, i)
			}
			for i := range events {
				pub.want(fmt.Sprintf(`{"type":"ack","id":"%d"}`, i))
				sub.want(fmt.Sprintf(`{"type":"event","topic":"rooms.42","data":{"n": %d}}`, i))
				wild.want(fmt.Sprintf(`"data":{"n": %d}`, i), `"pattern":"rooms.*"`)
			}
		})
	}
}
