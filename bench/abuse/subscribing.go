//go:build linux

package abuse

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// overlapping are n patterns that all match topic. It has to have enough parts: one more than 2 takes to be n.
func overlapping(topic string, n int) (patterns []string) {
	parts := strings.Split(topic, ".")
	for bits := range n {
		p := slices.Clone(parts) // the first part is the grant's
		for i := range parts[1:] {
			if bits>>i&1 == 1 {
				p[1+i] = "*"
			}
		}
		patterns = append(patterns, strings.Join(p, "."))
	}
	return patterns
}

// subscribe asks for all topics and waits for the answers.
func (c *conn) subscribe(token string, topics []string) error {
	for some := range slices.Chunk(topics, 100) {
		var frames []byte
		for _, topic := range some {
			frames = rig.AppendFrame(frames, text, wire.AppendSubscribe(nil, "s", topic, token))
		}
		if _, err := c.Write(frames); err != nil {
			return err
		}
		if err := c.hear(len(some)); err != nil {
			return err
		}
	}
	return nil
}

// overlap is 8 clients, and 8 that publish; see overlappingPatterns. None publishes where every is 0.
func (a *attacker) overlap(topic string, bytesEach int, every time.Duration) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	patterns := overlapping(topic, a.size(1000, 200))
	if every > 0 {
		go a.publishEvery(every, topic, token, bytesEach)
	}
	var ready atomic.Int32
	a.clients(8, a.connected(func(c *conn) error {
		if err := c.subscribe(token, patterns); err != nil {
			return err
		}
		if ready.Add(1) == 8 {
			a.begin()
		}
		return c.hear(0)
	}))
	return nil
}

// publishEvery publishes to a topic at a fixed rate.
func (a *attacker) publishEvery(every time.Duration, topic, token string, size int) {
	envelope := rig.AppendFrame(nil, text, wire.AppendPublish(nil, "p", topic, token, []byte(`"`+strings.Repeat("x", size)+`"`), ""))
	a.clients(1, a.connected(func(c *conn) error {
		for {
			if _, err := c.Write(envelope); err != nil {
				return err
			}
			if err := c.hear(1); err != nil {
				return err
			}
			a.sleep(every)
		}
	}))
}

const deepTopic = "abuse.own.a.b.c.d.e.f.g.h.i.j"

func overlappingPatterns(a *attacker) error {
	return a.overlap(deepTopic, 60_000, 500*time.Millisecond)
}

func overlappingSmall(a *attacker) error { return a.overlap(deepTopic, 100, 50*time.Millisecond) }

func overlappingOthers(a *attacker) error { return a.overlap(honestTopic, 0, 0) }

// churn is 4 clients that subscribe to 50 ever new names, which name makes, and leave them.
func (a *attacker) churn(name func(n uint64) string) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	const together = 50
	var last atomic.Uint64
	return a.crowd(4, a.connected(func(c *conn) error {
		for {
			var frames []byte
			var names []string
			for range together {
				names = append(names, name(last.Add(1)))
				frames = rig.AppendFrame(frames, text, wire.AppendSubscribe(nil, "s", names[len(names)-1], token))
			}
			for _, n := range names {
				frames = rig.AppendFrame(frames, text, wire.AppendUnsubscribe(nil, "u", n))
			}
			if _, err := c.Write(frames); err != nil {
				return err
			}
			if err := c.hear(2 * together); err != nil {
				return err
			}
		}
	}))
}

func topicChurn(a *attacker) error {
	return a.churn(func(n uint64) string { return fmt.Sprintf("abuse.churn.%d", n) })
}

func patternChurn(a *attacker) error {
	return a.churn(func(n uint64) string { return fmt.Sprintf("abuse.*.%d.>", n) })
}

func massLeave(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	perConn := a.size(1000, 100)
	for round := 0; a.ctx.Err() == nil; round++ {
		var held []*conn
		for i := range 100 {
			c, err := a.connect()
			if err != nil {
				return err
			}
			held = append(held, c)
			var topics []string
			for j := range perConn {
				topics = append(topics, fmt.Sprintf("abuse.leave.%d.%d.%d", round%2, i, j))
			}
			if err := c.subscribe(token, topics); err != nil {
				return err
			}
		}
		a.begin()
		for _, c := range held {
			c.reset()
		}
	}
	return nil
}

// floodTopic publishes to abuse.flood from 4 connections, as fast as the server answers.
func (a *attacker) floodTopic(token string, size int) error {
	return a.publishers(4, []byte(`"`+strings.Repeat("x", size)+`"`), always("abuse.flood"), same(token))
}

func neverRead(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	go a.clients(a.size(100, 20), a.connected(func(c *conn) error {
		if err := c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			return err
		}
		if err := c.subscribe(token, []string{"rooms.>", "abuse.flood"}); err != nil {
			return err
		}
		a.sleep(2 * time.Second)
		return c.hear(0) // what the kernel kept, and why the server has closed the connection
	}))
	return a.floodTopic(token, 10_000)
}

func trickleReaders(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	go a.clients(a.size(100, 20), a.connected(func(c *conn) error {
		if err := c.subscribe(token, []string{"abuse.flood"}); err != nil {
			return err
		}
		few := make([]byte, 100)
		for {
			if _, err := c.Read(few); err != nil {
				return err
			}
			a.sleep(20 * time.Millisecond)
		}
	}))
	return a.floodTopic(token, 1000)
}
