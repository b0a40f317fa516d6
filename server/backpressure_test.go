package server_test

import (
	"fmt"
	"testing"
)

// A bus that does not keep up holds publishers back, in their order, and nobody else; nothing that
// they sent is lost.
func TestPublishersWaitForRoom(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		b := new(memBus)
		with.fake = b
		n := start(t, with)
		token := n.all(t)
		s := n.dial(t)
		s.subscribe("a", token)
		p := n.dial(t)
		b.fill(true)
		const events = 20
		for i := range events {
			p.send(`{"type":"publish","topic":"a","token":%q,"data":%d}`, token, i)
		}
		s.fence() // others go on, and have got nothing
		s.subscribe("b", token)
		b.fill(false)
		for i := range events {
			s.want(`"data":` + fmt.Sprint(i))
		}
	})
}
