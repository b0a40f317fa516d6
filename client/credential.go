package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// offer is what a handshake says besides the URL.
type offer struct {
	header       http.Header
	subprotocols []string
	token        string // that it presents; "": none
}

// offer gets the credential of a new connection, as far as it belongs into the handshake.
func (c *Client) offer(ctx context.Context) (offer, error) {
	o := offer{header: c.opts.Header.Clone(), subprotocols: []string{wire.Subprotocol}}
	if c.opts.Strategy == StrategyMessage || c.opts.Strategy == StrategyFirstMessage {
		return o, nil
	}
	token, err := c.early.use(ctx, c, Request{Action: ActionConnect})
	if err != nil {
		return o, err
	}
	o.token = token
	switch c.opts.Strategy {
	case StrategyHeader:
		if o.header == nil {
			o.header = http.Header{}
		}
		o.header.Set("Authorization", "Bearer "+token)
	case StrategySubprotocol:
		o.subprotocols = append(o.subprotocols, "bearer."+token)
	case StrategyTicket:
		ticket, err := c.ticket(ctx, token)
		if err != nil {
			c.early.note(token, err)
			return o, fmt.Errorf("ticket: %w", err)
		}
		o.subprotocols = append(o.subprotocols, "ticket."+ticket)
	}
	return o, nil
}

func (c *Client) ticket(ctx context.Context, token string) (string, error) {
	var answer struct {
		Ticket string `json:"ticket"`
	}
	err := post(ctx, c.opts.HTTPClient, c.opts.Header, c.url, "/v1/tickets", token, nil, &answer)
	return answer.Ticket, err
}

// authenticate gives the connection its credential, where the handshake did not, and has it replaced before it expires.
// read and write already run.
func (s *session) authenticate(ctx context.Context) error {
	if s.c.opts.Strategy == StrategyMessage {
		return nil
	}
	if s.c.opts.Strategy == StrategyFirstMessage {
		if err := s.auth(ctx, &s.c.early); err != nil {
			return err
		}
	}
	go s.refresh()
	return nil
}

// auth sends an auth envelope with a token of now, and waits for the answer.
func (s *session) auth(ctx context.Context, early *earlyToken) error {
	token, err := early.use(ctx, s.c, Request{Action: ActionConnect})
	if err != nil {
		return err
	}
	err = s.authWith(ctx, token)
	early.note(token, err)
	return err
}

func (s *session) authWith(ctx context.Context, token string) error {
	call, err := s.send(ctx, wire.Auth, nil, func(id string) []byte {
		frame, err := json.Marshal(struct {
			Type  string `json:"type"`
			ID    string `json:"id"`
			Token string `json:"token"`
		}{"auth", id, token})
		if err != nil {
			panic(err) // three strings
		}
		return frame
	})
	if err != nil {
		return err
	}
	return call.wait(ctx)
}

// refresh replaces the credential when the server says that it expires soon, until the connection is over. When the
// server says so of a token that was asked for already, the source has given the same again, and is left alone: at the
// end of that token the server closes the connection.
func (s *session) refresh() {
	ctx, cancel := context.WithCancel(s.c.ctx)
	defer cancel()
	var due <-chan time.Time
	var exp, refreshed int64
	var early earlyToken
	for attempt := 0; ; {
		select {
		case exp = <-s.expiring:
			if exp > refreshed {
				due = time.After(refreshDelay(time.Until(time.Unix(exp, 0))))
			}
		case <-due:
			due = nil
			err := s.auth(ctx, &early)
			if err == nil {
				attempt, refreshed = 0, exp
				continue
			}
			s.c.report(fmt.Errorf("credential of the connection: %w", err))
			due = time.After(backoff(attempt, s.c.opts.MinBackoff, s.c.opts.MaxBackoff))
			attempt++
		case <-s.down:
			return
		}
	}
}
