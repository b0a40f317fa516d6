//go:build linux

package abuse

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// window is how many publishes an attacker has under way on one connection.
const window = 16

// publishers is a crowd of clients that publish a window at a time. token makes the token of each message.
func (a *attacker) publishers(n int, data []byte, topic func() string, token func() (string, error)) error {
	return a.crowd(n, a.connected(func(c *conn) error {
		for {
			var frames []byte
			for range window {
				t, err := token()
				if err != nil {
					return err
				}
				frames = rig.AppendFrame(frames, text, wire.AppendPublish(nil, "p", topic(), t, data, ""))
			}
			if _, err := c.Write(frames); err != nil {
				return err
			}
			if err := c.hear(window); err != nil {
				return err
			}
		}
	}))
}

func always(s string) func() string { return func() string { return s } }

func same(token string) func() (string, error) { return func() (string, error) { return token, nil } }

func badSignatures(a *attacker) error {
	good, err := a.token(nil)
	if err != nil {
		return err
	}
	return a.publishers(8, []byte("1"), always("abuse.x"), func() (string, error) { return forge(good), nil })
}

func badSignaturesHTTP(a *attacker) error {
	good, err := a.token(nil)
	if err != nil {
		return err
	}
	return a.posts(32, func() (string, error) { return post("/v1/tickets", forge(good), ""), nil })
}

func badSignaturesHandshake(a *attacker) error {
	good, err := a.token(nil)
	if err != nil {
		return err
	}
	return a.crowd(32, func(int) error {
		c, err := a.connect("Authorization: Bearer " + forge(good))
		if err == nil {
			c.reset()
		}
		return err
	})
}

func newTokens(a *attacker) error {
	// Made before, since to make one costs as much as to verify it. A second round would find them remembered.
	tokens := make(chan string, a.size(4000, 300))
	var makers sync.WaitGroup
	for range 2 {
		makers.Go(func() {
			for range cap(tokens) / 2 {
				token, err := a.token(nil)
				if err != nil || a.ctx.Err() != nil {
					return
				}
				tokens <- token
			}
		})
	}
	makers.Wait()
	return a.publishers(8, []byte("1"), always("abuse.x"), func() (string, error) {
		select {
		case token := <-tokens:
			return token, nil
		default:
			return a.token(nil)
		}
	})
}

func unknownKeys(a *attacker) error {
	good, err := a.token(nil)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(good, ".")
	return a.publishers(8, []byte("1"), always("abuse.x"), func() (string, error) {
		header := fmt.Sprintf(`{"alg":"EdDSA","typ":"JWT","kid":"invented-%d"}`, time.Now().UnixNano())
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest, nil
	})
}

func ticketFlood(a *attacker) error {
	token, err := a.token(nil)
	if err != nil {
		return err
	}
	return a.posts(4, func() (string, error) { return post("/v1/tickets", token, ""), nil })
}

func refreshes(a *attacker) error {
	return a.crowd(a.size(500, 50), a.connected(func(c *conn) error {
		for i := 0; ; i++ {
			token, err := a.token(nil)
			if err != nil {
				return err
			}
			if err := c.send(fmt.Appendf(nil, `{"type":"auth","id":"%d","token":%q}`, i, token)); err != nil {
				return err
			}
			if err := c.hear(1); err != nil {
				return err
			}
			if i > 0 {
				continue
			}
			// Subscriptions that rely on it have to be moved each time.
			for j := range 20 {
				if err := c.send(fmt.Appendf(nil, `{"type":"subscribe","id":"s","topic":"abuse.%d"}`, j)); err != nil {
					return err
				}
			}
			if err := c.hear(20); err != nil {
				return err
			}
		}
	}))
}

func replays(a *attacker) error {
	token, err := a.token(func(c *authz.Claims) { c.Once, c.Subscribe = true, nil })
	if err != nil {
		return err
	}
	return a.publishers(4, []byte("1"), always("abuse.x"), same(token))
}

// holders opens n connections that have subscribed and read what comes.
func (a *attacker) holders(n int, token func() (string, error)) error {
	var opened sync.WaitGroup
	turns := make(chan int)
	for range 32 {
		opened.Go(func() {
			for range turns {
				if err := a.holder(token); err != nil {
					a.fail(err)
				}
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	opened.Wait()
	return a.ctx.Err()
}

func (a *attacker) holder(token func() (string, error)) error {
	t, err := token()
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	err = c.send(wire.AppendSubscribe(nil, "s", "abuse.held", t))
	if err == nil {
		err = c.hear(1)
	}
	if err != nil {
		c.reset()
		return err
	}
	go func() {
		defer c.reset()
		a.fail(c.hear(0))
	}()
	return nil
}

func revocations(a *attacker) error {
	admin, err := a.token(func(c *authz.Claims) { c.Subject, c.Admin = "operator", true })
	if err != nil {
		return err
	}
	held, err := a.token(func(c *authz.Claims) { c.Subject = "held" })
	if err != nil {
		return err
	}
	if err := a.holders(a.size(15_000, 500), same(held)); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	return a.posts(4, func() (string, error) {
		select {
		case <-a.ctx.Done():
		case <-tick.C:
		}
		return post("/v1/revocations", admin, fmt.Sprintf(`{"jti":"nobody-%d"}`, time.Now().UnixNano())), nil
	})
}

func expiries(a *attacker) error {
	for a.ctx.Err() == nil {
		// All of them at the same moment, which leaves the time to subscribe.
		end := time.Now().Add(time.Duration(a.size(5, 2)) * time.Second)
		short, err := a.token(func(c *authz.Claims) { c.Expires = end })
		if err != nil {
			return err
		}
		if err := a.holders(a.size(3000, 300), same(short)); err != nil {
			return err
		}
		a.begin()
		a.sleep(time.Until(end.Add(2 * time.Second)))
	}
	return nil
}
