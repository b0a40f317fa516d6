//go:build linux

package abuse

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// keeps has the server keep what is published to abuse.kept.>, up to 64 MiB.
var keeps = []string{`--streams=[{name: abuse, topics: ["abuse.kept.>"], max_bytes: 64MiB, storage: memory}]`}

// fill stores events on a topic and waits for their acks.
func (a *attacker) fill(token, topic string, events, bytesEach int) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.reset()
	const together = 100
	var frames []byte
	envelope := wire.AppendPublish(nil, "p", topic, token, []byte(`"`+strings.Repeat("x", bytesEach)+`"`), "")
	for range together {
		frames = rig.AppendFrame(frames, text, envelope)
	}
	for range events / together {
		if _, err := c.Write(frames); err != nil {
			return err
		}
		if err := c.hear(together); err != nil {
			return err
		}
	}
	return nil
}

// hearEvents counts what comes until n events have.
func (c *conn) hearEvents(n int) error {
	for events := 0; events < n; {
		m, err := c.next()
		if err != nil {
			return err
		}
		if m != "other" {
			c.a.note(m)
		}
		if m == "event" {
			events++
		}
	}
	return nil
}

// everything asks for all of a topic.
func everything(topic, token string) []byte {
	return rig.AppendFrame(nil, text, wire.AppendSubscribeSince(nil, "s", topic, token, wire.Since{Kind: wire.SinceSeq}))
}

// replayed is clients that ask for all of a large history, each with use.
func (a *attacker) replayed(clients int, use func(c *conn, token string) error) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	if err := a.fill(token, "abuse.kept.much", a.size(20_000, 1000), 1000); err != nil {
		return err
	}
	return a.crowd(clients, a.connected(func(c *conn) error {
		return use(c, token)
	}))
}

// replayReaders read 20 MB of history each, and begin again.
func replayReaders(a *attacker) error {
	events := a.size(20_000, 1000)
	return a.replayed(a.size(20, 4), func(c *conn, token string) error {
		if _, err := c.Write(everything("abuse.kept.much", token)); err != nil {
			return err
		}
		return c.hearEvents(events)
	})
}

// replayUnread ask for 20 MB of history and never read.
func replayUnread(a *attacker) error {
	return a.replayed(a.size(500, 20), func(c *conn, token string) error {
		if _, err := c.Write(everything("abuse.kept.much", token)); err != nil {
			return err
		}
		a.note("unread")
		a.sleep(time.Hour) // the attack ends first
		return nil
	})
}

// replayChurn ask for everything, and leave before it comes, as fast as it goes.
func replayChurn(a *attacker) error {
	return a.replayed(8, func(c *conn, token string) error {
		frames := everything("abuse.kept.>", token)
		frames = append(frames, rig.AppendFrame(nil, text, wire.AppendUnsubscribe(nil, "u", "abuse.kept.>"))...)
		for {
			if _, err := c.Write(frames); err != nil {
				return err
			}
			for acks := 0; acks < 2; {
				m, err := c.next()
				if err != nil {
					return err
				}
				if m != "event" && m != "other" {
					a.note(m)
					acks++
				}
			}
		}
	})
}

// resumeStorm is a thousand clients that are cut off at once, come back, and are each 100 events behind.
func resumeStorm(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	const behind = 100
	if err := a.fill(token, "abuse.kept.little", behind, 100); err != nil {
		return err
	}
	return a.crowd(a.size(900, 50), a.connected(func(c *conn) error {
		if _, err := c.Write(everything("abuse.kept.little", token)); err != nil {
			return err
		}
		return c.hearEvents(behind)
	}))
}

// storedFlood publishes to a stream without end, and to ever new topics of it.
func storedFlood(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	var last atomic.Uint64
	topic := func() string { return fmt.Sprintf("abuse.kept.%d", last.Add(1)%100_000) }
	return a.publishers(4, []byte(`"`+strings.Repeat("x", 200)+`"`), topic, same(token))
}
