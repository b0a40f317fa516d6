//go:build linux

package abuse

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// stay opens a connection, lets first say something, and reads until the server ends it.
func (a *attacker) stay(first func(c *conn) error) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.reset()
	if err := first(c); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c.from)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return err
}

func silentStrangers(a *attacker) error {
	return a.crowd(a.size(4000, 300), func(int) error {
		return a.stay(func(*conn) error { return nil })
	})
}

func halfRequests(a *attacker) error {
	head := shake("")
	return a.crowd(a.size(2000, 200), func(int) error {
		return a.stay(func(c *conn) error {
			for i := range len(head) - 1 {
				if _, err := io.WriteString(c, head[i:i+1]); err != nil {
					return err
				}
				a.sleep(100 * time.Millisecond)
			}
			return nil
		})
	})
}

func halfBodies(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	return a.crowd(a.size(1000, 100), func(i int) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.reset()
		// Every other one has a token that permits no revocation.
		authorization := ""
		if i%2 == 0 {
			authorization = "Authorization: Bearer " + token + "\r\n"
		}
		if err := c.ask("POST /v1/revocations HTTP/1.1\r\nHost: notifyd\r\n" + authorization + "Content-Length: 1000\r\n\r\n{"); err != nil {
			return err
		}
		return c.answer() // none, or the end
	})
}

func unreadAnswers(a *attacker) error {
	requests := strings.Repeat("GET /v1/nothing HTTP/1.1\r\nHost: notifyd\r\n\r\n", 100)
	return a.crowd(a.size(200, 20), a.dialed(func(c *conn) error {
		for {
			if _, err := io.WriteString(c, requests); err != nil {
				return err
			}
		}
	}))
}

func largeHeads(a *attacker) error {
	return a.crowd(16, func(i int) error {
		n := 30 << 10
		if i%2 == 0 {
			n = 33 << 10
		}
		c, err := a.connect("Cookie: a=" + strings.Repeat("x", n))
		if err != nil {
			return err
		}
		a.note("upgraded")
		c.reset()
		return nil
	})
}

// refused is a crowd whose handshakes are refused: as fast as the server answers.
func (a *attacker) refused(n int, query func() string, lines ...string) error {
	return a.crowd(n, a.dialed(func(c *conn) error {
		if err := c.ask(shake(query(), lines...)); !errors.Is(err, errAnswered) {
			return err
		}
		return nil
	}))
}

func noQuery() string { return "" }

func foreignOrigins(a *attacker) error {
	return a.refused(32, noQuery, "Origin: https://evil.example.com")
}

func garbageTokens(a *attacker) error {
	return a.refused(32, noQuery, "Authorization: Bearer x.y.z")
}

func inventedTickets(a *attacker) error {
	n := a.size(500, 64)
	return a.refused(n, func() string { return fmt.Sprintf("?ticket=%032d", time.Now().UnixNano()) })
}

// proxyHeader is what a proxy writes ahead of what it relays for a client (PROXY protocol, version 2).
func proxyHeader(client interface{ As4() [4]byte }) []byte {
	ip := client.As4()
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), ip[:]...)
	return append(header, 127, 0, 0, 1, 0x30, 0x39, 0, 80)
}

func proxyGarbage(a *attacker) error {
	good := proxyHeader(attackerAddr)
	kinds := [][]byte{
		[]byte(shake("")), // no header at all
		[]byte("PROXY TCP4 1.1.1.1\r\n" + shake("")), // half of version 1
		append(good[:13:13], 0x11, 0xff, 0xff),       // endless
		append(good[:12:12], 0x31, 0x11, 0, 12),      // another version
		append(good[:13:13], 0x11, 0, 0),             // an address too short
		good[:15],                                    // not complete
	}
	return a.crowd(64, func(i int) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.reset()
		kind := kinds[i%len(kinds)]
		if i%len(kinds) == len(kinds)-1 {
			_, err := c.Write(kind)
			a.sleep(100 * time.Millisecond)
			return err
		}
		if err := c.ask(string(kind)); !errors.Is(err, errAnswered) {
			return err
		}
		return nil
	})
}

func closeStorm(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	subscribe := wire.AppendSubscribe(nil, "s", "rooms.>", token)
	farewell := rig.AppendFrame(nil, fin|byte(ws.OpClose), ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
	return a.crowd(32, func(i int) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		defer c.reset()
		if err := c.send(subscribe); err != nil {
			return err
		}
		if err := c.hear(1); err != nil {
			return err
		}
		switch i % 3 {
		case 0: // RST
		case 1:
			c.end()
		case 2:
			if _, err := c.Write(farewell); err != nil {
				return err
			}
			if err := c.hear(0); !errors.Is(err, errAnswered) {
				return err
			}
		}
		return nil
	})
}

// post is a request to the server's HTTP side.
func post(path, token, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: notifyd\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", path, token, len(body), body)
}

// posts is a crowd of clients that post on connections that stay, one request after the answer to the last.
func (a *attacker) posts(n int, request func() (string, error)) error {
	return a.crowd(n, a.dialed(func(c *conn) error {
		for {
			r, err := request()
			if err != nil {
				return err
			}
			if err := c.ask(r); err != nil {
				return err
			}
		}
	}))
}
