package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// Store keeps what every node of the cluster must know. Its methods may block
// until ctx ends and may be called from any goroutine.
type Store interface {
	// PutTicket keeps value under key for ttl.
	PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// TakeTicket returns what is kept under key and removes it; of many that ask,
	// on whatever node, one gets it.
	TakeTicket(ctx context.Context, key string) (value []byte, ok bool, err error)
	// UseOnce notes key until then, and says whether it was not noted before.
	UseOnce(ctx context.Context, key string, until time.Time) (first bool, err error)
	// Revoke keeps a revocation for every node and puts it in force on this one. An
	// error that wraps ErrBadRevocation says what is wrong with it.
	Revoke(ctx context.Context, r Revocation) error
}

var errNoStore = errors.New("there is no store")

// noStore is the store of a server that was given none.
type noStore struct{}

func (noStore) PutTicket(context.Context, string, []byte, time.Duration) error { return errNoStore }
func (noStore) TakeTicket(context.Context, string) ([]byte, bool, error) {
	return nil, false, errNoStore
}

func (noStore) Revoke(context.Context, Revocation) error { return errNoStore }

func (noStore) UseOnce(context.Context, string, time.Time) (bool, error) { return false, errNoStore }

const (
	// storeTimeout bounds a question to the store.
	storeTimeout = 2 * time.Second
	// storeWorkers is how many questions about tickets may be open at once, and how
	// many about one-use tokens; they wait for NATS and cost no CPU meanwhile.
	storeWorkers = 16
)

// useOnce notes that a token with notify.once is used.
func (s *Server) useOnce(token *authz.Token) wire.Code {
	_, until, _ := token.Once()
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	first, err := s.store.UseOnce(ctx, token.OnceKey(), time.Unix(until, 0))
	switch {
	case err != nil:
		s.log.Warn("a one-use token cannot be checked", zap.Error(err))
		return wire.Unavailable
	case !first:
		return wire.TokenReplayed
	}
	return wire.OK
}

// ticketRecord is what is kept of a ticket: the address of its owner, and what the
// authorizer needs to make its token again.
type ticketRecord struct {
	Addr  netip.Addr      `json:"addr"`
	Token json.RawMessage `json:"token"`
}

// takeTicket redeems a ticket. why is for the log alone.
func (s *Server) takeTicket(ticket string, addr netip.Addr) (token *authz.Token, code wire.Code, why string) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	value, ok, err := s.store.TakeTicket(ctx, authz.TicketKey(ticket))
	switch {
	case err != nil:
		return nil, wire.Unavailable, err.Error()
	case !ok:
		return nil, wire.TokenReplayed, "the ticket is unknown, used or too old"
	}
	var r ticketRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, wire.TokenInvalid, "the ticket's record is damaged"
	}
	if r.Addr != addr {
		return nil, wire.TokenInvalid, "the ticket was given to another address"
	}
	token, code = s.auth.Restore(r.Token)
	return token, code, "the ticket's token"
}

// ticketsHandler answers POST /v1/tickets: a ticket for a token.
func (s *Server) ticketsHandler(w http.ResponseWriter, r *http.Request) {
	if s.opts.Strategies&StrategyTicket == 0 {
		problem(w, http.StatusNotFound, wire.Forbidden, "the strategy ticket is not enabled here")
		return
	}
	addr := s.httpClientAddr(r)
	refused := func(code wire.Code) {
		s.answers.tickets.WithLabelValues(code.String()).Inc()
		s.log.Debug("ticket refused", zap.Stringer("addr", addr), zap.Stringer("code", code))
		refuse(w, code, "")
	}
	token, code := s.bearer(r)
	now := httpNow()
	if code == wire.OK {
		code = usable(token, now)
	}
	if code != wire.OK {
		refused(code)
		return
	}
	wait := s.ticketsOfSubject.take(now, token.Issuer(), token.Subject())
	if wait == 0 {
		wait = s.ticketsOfAddress.take(now, addressKey(addr).String())
	}
	if wait > 0 {
		setRetryAfter(w, wait)
		refused(wire.RateLimited)
		return
	}
	record, err := json.Marshal(ticketRecord{Addr: addr, Token: token.Record()})
	ttl := min(s.opts.TicketTTL, time.Duration(token.Expires()-now))
	ticket := authz.NewTicket()
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
		defer cancel()
		err = s.store.PutTicket(ctx, authz.TicketKey(ticket), record, ttl)
	}
	if err != nil {
		s.log.Warn("no ticket can be kept", zap.Error(err))
		refused(wire.Unavailable)
		return
	}
	s.answers.tickets.WithLabelValues("ok").Inc()
	writeJSON(w, http.StatusCreated, mediaJSON, struct {
		Ticket    string `json:"ticket"`
		ExpiresIn int    `json:"expires_in"`
	}{ticket, int(ttl / time.Second)})
}
