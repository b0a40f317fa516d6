//go:build linux

package abuse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// visits is a crowd of clients that connect, do something, read until the server ends the connection, and come back.
func (a *attacker) visits(n int, do func(c *conn, i int) error) error {
	return a.crowd(n, func(i int) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		defer c.reset()
		// What the server says before it ends the connection may be in the way of what is written, and tells why.
		writeErr := do(c, i)
		if err := c.hear(0); !errors.Is(err, errAnswered) {
			return errors.Join(err, writeErr)
		}
		return nil
	})
}

func halfFrames(a *attacker) error {
	frame := rig.AppendFrame(nil, text, bytes.Repeat([]byte(" "), 60_000))
	return a.visits(a.size(1000, 100), func(c *conn, _ int) error {
		_, err := c.Write(frame[:len(frame)/2])
		return err
	})
}

func slowFrames(a *attacker) error {
	frame := rig.AppendFrame(nil, text, []byte(`{"type":"ping","id":"1"}`))
	return a.visits(a.size(500, 50), func(c *conn, _ int) error {
		for a.ctx.Err() == nil {
			for i := range frame {
				if _, err := c.Write(frame[i : i+1]); err != nil {
					return err
				}
				a.sleep(50 * time.Millisecond)
			}
		}
		return nil
	})
}

func fragments(a *attacker) error {
	// The first fragment, and then ever more of it.
	first := rig.AppendFrame(nil, byte(ws.OpText), []byte(`{`))
	var more []byte
	for i := range 1100 { // one message may have 1,024
		more = rig.AppendFrame(more, byte(ws.OpContinuation), []byte("  ")[:i%2])
	}
	return a.visits(32, func(c *conn, _ int) error {
		_, err := c.Write(slices.Concat(first, more))
		return err
	})
}

func reservedBits(a *attacker) error {
	endless := binary.BigEndian.AppendUint64([]byte{text, 0xff}, 1<<63)
	kinds := [][]byte{
		rig.AppendFrame(nil, 0x40|text, []byte{0xaa, 0x56, 0x4a, 0x04, 0}), // compressed
		rig.AppendFrame(nil, 0x10|text, nil),
		rig.AppendFrame(nil, fin|0x3, nil), // reserved opcodes
		rig.AppendFrame(nil, fin|0xb, nil),
		{text, 2, 'h', 'i'}, // no mask
		append(endless, 1, 2, 3, 4),
		rig.AppendFrame(nil, byte(ws.OpPing), nil),                              // a ping in fragments
		rig.AppendFrame(nil, fin|byte(ws.OpPing), bytes.Repeat([]byte{1}, 126)), // too long for a ping
		rig.AppendFrame(nil, fin|byte(ws.OpContinuation), []byte("of nothing")),
		rig.AppendFrame(nil, fin|byte(ws.OpClose), []byte{3}), // half a code
	}
	return a.visits(len(kinds)*4, func(c *conn, i int) error {
		_, err := c.Write(kinds[i%len(kinds)])
		return err
	})
}

func pingFlood(a *attacker) error {
	var frames []byte
	ping := rig.AppendFrame(nil, fin|byte(ws.OpPing), bytes.Repeat([]byte("p"), 100))
	envelope := rig.AppendFrame(nil, text, []byte(`{"type":"ping","id":"1"}`))
	for range 100 {
		frames = append(append(frames, ping...), envelope...)
	}
	return a.crowd(8, a.connected(func(c *conn) error {
		for {
			if _, err := c.Write(frames); err != nil {
				return err
			}
		}
	}))
}

func badUTF8(a *attacker) error {
	kinds := [][]byte{
		[]byte("{\"type\":\"ping\",\"id\":\"\xff\"}"),
		[]byte("{\"type\":\"ping\",\"id\":\"\xed\xa0\x80\"}"), // half a surrogate pair
		append(bytes.Repeat([]byte("ä"), 30_000), 0xc3),       // cut off at the end
	}
	return a.visits(32, func(c *conn, i int) error { return c.send(kinds[i%len(kinds)]) })
}

func deepJSON(a *attacker) error {
	kinds := []string{
		strings.Repeat("[", 60_000),
		`{"type":"publish","topic":"abuse.x","data":` + strings.Repeat("[", 60_000) + `}`,
		`{"type":"publish","topic":"abuse.x","data":` + strings.Repeat(`{"a":`, 12_000) + `}`,
		`{"type":"ping",` + strings.Repeat(`"a":1,`, 10_000) + `"id":"1"}`,
	}
	return a.visits(32, func(c *conn, i int) (err error) {
		envelope := rig.AppendFrame(nil, text, []byte(kinds[i%len(kinds)]))
		for range 10 { // limits.bad_envelopes
			if _, err = c.Write(envelope); err != nil {
				break
			}
		}
		return err
	})
}

func oversize(a *attacker) error {
	frame := rig.AppendFrame(nil, text, bytes.Repeat([]byte(" "), 1<<20))
	return a.visits(32, func(c *conn, _ int) error {
		_, err := c.Write(frame)
		return err
	})
}
