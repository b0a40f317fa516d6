//go:build linux

package abuse

import (
	"fmt"
	"strings"
	"sync/atomic"
)

func aboveRate(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	return a.publishers(8, []byte("1"), always("abuse.x"), same(token))
}

func largeEvents(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	go a.clients(4, a.connected(func(c *conn) error {
		if err := c.subscribe(token, []string{"abuse.flood"}); err != nil {
			return err
		}
		return c.hear(0)
	}))
	return a.floodTopic(token, 64_000)
}

func nobodyReads(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	var last atomic.Uint64
	return a.publishers(4, []byte("1"), func() string { return fmt.Sprintf("abuse.nobody.%d", last.Add(1)) }, same(token))
}

func forbiddenTopics(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	topics := []string{"rooms.other", "secret", "abuse.*", "abuse.>", ">", "$SYS.x", "_INBOX.x", "abuse..x", "abuse.x y", "abuse." + strings.Repeat("x", 300)}
	var last atomic.Uint64
	return a.publishers(4, []byte("1"), func() string { return topics[last.Add(1)%uint64(len(topics))] }, same(token))
}
