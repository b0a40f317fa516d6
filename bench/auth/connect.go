//go:build linux

package auth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

// strategies are the ways to authenticate a connection, and how a client goes
// each. A connect ends with the ack of the first subscribe.
var strategies = []struct {
	name    string
	connect func(b *bench, token string) (*rig.Conn, error)
}{
	{"message", func(b *bench, token string) (*rig.Conn, error) {
		return b.connect("", ws.Dialer{}, wire.AppendSubscribe(nil, "1", topic, token))
	}},
	{"first-message", func(b *bench, token string) (*rig.Conn, error) {
		auth := []byte(`{"type":"auth","id":"0","token":"` + token + `"}`)
		return b.connect("", ws.Dialer{}, auth, subscribe)
	}},
	{"header", func(b *bench, token string) (*rig.Conn, error) {
		return b.connect("", ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + token}}}, subscribe)
	}},
	{"subprotocol", func(b *bench, token string) (*rig.Conn, error) {
		return b.connect("", ws.Dialer{Protocols: []string{wire.Subprotocol, "bearer." + token}}, subscribe)
	}},
	{"ticket", func(b *bench, token string) (*rig.Conn, error) {
		ticket, err := b.ticket(token)
		if err != nil {
			return nil, err
		}
		return b.connect("?ticket="+ticket, ws.Dialer{}, subscribe)
	}},
	{"query", func(b *bench, token string) (*rig.Conn, error) {
		return b.connect("?access_token="+token, ws.Dialer{}, subscribe)
	}},
}

// subscribe relies on the connection's credential.
var subscribe = wire.AppendSubscribe(nil, "1", topic, "")

// connect opens a connection and waits for the ack of each envelope.
func (b *bench) connect(query string, d ws.Dialer, envelopes ...[]byte) (*rig.Conn, error) {
	c, err := rig.Dial(b.server.Addr, query, d)
	if err != nil {
		return nil, err
	}
	for _, e := range envelopes {
		if err := c.Ask(e); err != nil {
			c.Drop()
			return nil, err
		}
	}
	return c, nil
}

// post calls the HTTP side, over a connection of its own unless client keeps
// some. The caller closes the answer's body.
func (b *bench) post(client *http.Client, path, token, body string) (*http.Response, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+b.server.Addr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return client.Do(r)
}

// once is a client that opens a connection for each request, as whoever asks for
// a ticket has none yet.
var once = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (b *bench) ticket(token string) (string, error) {
	answer, err := b.post(once, "/v1/tickets", token, "")
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	var body struct{ Ticket string }
	if answer.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the request for a ticket was answered with %s", answer.Status)
	}
	return body.Ticket, json.NewDecoder(answer.Body).Decode(&body)
}

func (b *bench) connectCases() (cases []*Cost) {
	for _, token := range []string{Fresh, Remembered} {
		for _, alg := range Algorithms {
			for _, s := range strategies {
				prepare := func(n int) (func(int) error, func(), error) {
					tokens, err := b.mint(alg, n, nil)
					if err != nil {
						return nil, nil, err
					}
					if token == Remembered {
						for i := range tokens {
							tokens[i] = tokens[0]
						}
					}
					var conns openConns
					op := func(i int) error {
						c, err := s.connect(b, tokens[i])
						if err == nil {
							conns.add(c)
						}
						return err
					}
					if token == Remembered {
						err = op(0)
					}
					return op, conns.drop, err
				}
				cases = append(cases, &Cost{Name: s.name, Token: token, Alg: alg, n: b.connects, prepare: prepare})
			}
		}
	}
	return cases
}

// openConns is connections that stay open until all of a case are measured.
type openConns struct {
	mu    sync.Mutex
	conns []*rig.Conn // guarded by mu
}

func (w *openConns) add(c *rig.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
}

func (w *openConns) drop() {
	for _, c := range w.conns {
		c.Drop()
	}
}
