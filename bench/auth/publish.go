//go:build linux

package auth

import (
	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// kinds are the tokens of a publish.
var kinds = []struct {
	name  string
	token string
	bind  func(*authz.Claims)
}{
	{"plain", Remembered, nil},
	{"plain", Fresh, nil},
	{"digest", Fresh, bindDigest},
	{"once", Fresh, bindOnce},
	{"digest and once", Fresh, func(c *authz.Claims) { bindDigest(c); bindOnce(c) }},
}

func bindDigest(c *authz.Claims) { c.Digest = authz.DigestOf(silent, message) }
func bindOnce(c *authz.Claims)   { c.Once = true }

// publication is the envelope that is measured.
func publication(token string) []byte {
	return wire.AppendPublish(nil, "1", silent, token, message, "")
}

func (b *bench) publishCases() (cases []*Cost) {
	for _, alg := range Algorithms {
		for _, k := range kinds {
			n := b.messages
			if k.token == Remembered {
				n *= 10 // one is cheap
			}
			prepare := func(n int) (func(int) error, func(), error) {
				envelopes := make([][]byte, n)
				different := n
				if k.token == Remembered {
					different = 1
				}
				tokens, err := b.mint(alg, different, k.bind)
				if err != nil {
					return nil, nil, err
				}
				for i := range envelopes {
					envelopes[i] = publication(tokens[i%different])
				}
				return b.publishers(envelopes, k.token == Remembered)
			}
			cases = append(cases, &Cost{Name: k.name, Token: k.token, Alg: alg, n: n, prepare: prepare})
		}
	}
	return cases
}

// publishers opens connections that each send an envelope and wait for its ack.
// With warm, each has sent one before.
func (b *bench) publishers(envelopes [][]byte, warm bool) (op func(i int) error, end func(), err error) {
	var conns openConns
	idle := make(chan *rig.Conn, concurrency)
	for range concurrency {
		c, err := rig.Dial(b.server.Addr, "", ws.Dialer{})
		if err != nil {
			conns.drop()
			return nil, nil, err
		}
		conns.add(c)
		idle <- c
		if warm {
			if err := c.Ask(envelopes[0]); err != nil {
				conns.drop()
				return nil, nil, err
			}
		}
	}
	op = func(i int) error {
		c := <-idle
		defer func() { idle <- c }()
		return c.Ask(envelopes[i])
	}
	return op, conns.drop, nil
}

// size is the bytes of a publish on its way to the server: one masked frame.
func size(envelope []byte) int {
	return ws.HeaderSize(ws.Header{Masked: true, Length: int64(len(envelope))}) + len(envelope)
}

func (b *bench) sizes() (sizes []Bytes, err error) {
	for _, alg := range Algorithms {
		for _, k := range kinds[1:] { // a remembered token is as long as a fresh one
			tokens, err := b.mint(alg, 1, k.bind)
			if err != nil {
				return nil, err
			}
			sizes = append(sizes, Bytes{k.name, alg, len(tokens[0]), size(publication(tokens[0]))})
		}
	}
	return sizes, nil
}
