package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

const postTickets = "/v1/tickets"

// A ticket opens one connection, for the client that asked for it, as its token would.
func TestTickets(t *testing.T) {
	secret, log := newSecrets(t)
	n := start(t, setup{log: log, server: server.Options{TicketTTL: 7 * time.Second}})
	mint := func(c authz.Claims) string {
		c.Subject, c.ID = "ann", fmt.Sprint(serial.Add(1))
		return secret.keep(sign(t, n.key, c))
	}
	long := mint(authz.Claims{Expires: time.Now().Add(hour), Subscribe: []string{"a"}})
	short := mint(authz.Claims{Expires: time.Now().Add(4 * time.Second), Subscribe: []string{"a"}})
	for token, most := range map[string]int{long: 7, short: 4} {
		r := n.ask(t, request("POST", postTickets, "", "Authorization: Bearer "+token)).wantStatus(201)
		var x struct {
			Ticket    string
			ExpiresIn int `json:"expires_in"`
		}
		if err := json.Unmarshal([]byte(r.body), &x); err != nil || len(x.Ticket) < 22 || x.ExpiresIn > most || x.ExpiresIn < most-2 {
			t.Error(r.body, err)
		}
		if h := r.header; h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/json" {
			t.Error(h)
		}
	}

	for i, w := range ways {
		if w.strategy != server.StrategyTicket {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			ticket := secret.keep(n.ticket(t, long))
			p := n.ask(t, w.head(ticket)).opened()
			p.send(`{"type":"subscribe","id":"1","topic":"a"}`)
			p.want(`{"type":"ack","id":"1","exp":`)
			p.send(`{"type":"subscribe","id":"2","topic":"b"}`)
			p.wantError(wire.Forbidden, "2")
			p.send(`{"type":"publish","id":"3","topic":"a","token":"","data":1}`)
			p.wantError(wire.TokenMissing, "3")
			p.send(`{"type":"auth","id":"4","token":%q}`, mint(authz.Claims{Expires: time.Now().Add(hour)})) // of the same sub
			p.want(`"topic":"a"`, `"forbidden"`)
			p.want(`{"type":"ack","id":"4","exp":`)
			for range 2 {
				r := n.ask(t, w.head(ticket)).wantStatus(401)
				secret.unseen(t, fmt.Sprint(r.header, r.body))
			}
			if i%2 == 0 { // a token is no ticket
				n.ask(t, w.head(long)).wantStatus(401)
			}
			_ = p.conn.Close()
		})
	}
	t.Run("another address", func(t *testing.T) {
		ticket := secret.keep(n.ticket(t, long))
		n.askFrom(t, "127.0.0.2", head("?ticket="+ticket)).wantStatus(401)
		n.ask(t, head("?ticket="+ticket)).wantStatus(401) // used up: another client that has it is a thief
	})
	t.Run("two credentials do not use it up", func(t *testing.T) {
		ticket := secret.keep(n.ticket(t, long))
		n.ask(t, head("?ticket="+ticket, "Authorization: Bearer x")).wantStatus(400)
		_ = n.ask(t, head("?ticket="+ticket)).opened().conn.Close()
	})
	t.Run("its token is revoked", func(t *testing.T) {
		token := mint(authz.Claims{Expires: time.Now().Add(hour)})
		ticket := secret.keep(n.ticket(t, token))
		if err := n.auth.Revoke(authz.Revocation{Subject: "ann", Before: time.Now().Add(-hour).Unix()}); err != nil {
			t.Fatal(err)
		}
		n.ask(t, head("?ticket="+ticket)).wantStatus(401) // no iat: all of them are older
	})
	t.Run("its token expires", func(t *testing.T) {
		t.Parallel()
		exp, token := n.soon(t)
		ticket := n.ticket(t, token)
		time.Sleep(time.Until(exp))
		n.ask(t, head("?ticket="+ticket)).wantStatus(401)
	})
	t.Run("its key is withdrawn", func(t *testing.T) {
		n := start(t, setup{})
		ticket := n.ticket(t, n.all(t))
		if err := n.auth.SetKeys([]authz.Key{newKey(t, "EdDSA")}); err != nil {
			t.Fatal(err)
		}
		n.ask(t, head("?ticket="+ticket)).wantStatus(401)
	})
	t.Run("late", func(t *testing.T) {
		t.Parallel()
		n := start(t, setup{server: server.Options{TicketTTL: time.Second}})
		ticket := n.ticket(t, n.all(t))
		time.Sleep(3 * time.Second) // NATS counts in seconds, and looks each second
		n.ask(t, head("?ticket="+ticket)).wantStatus(401)
	})
}

// A client without a good token gets no ticket, and an answer in the words of RFC 6750.
func TestTicketsRefused(t *testing.T) {
	n := start(t, setup{})
	claims := authz.Claims{ID: "1", Expires: time.Now().Add(hour)}
	with := func(change func(*authz.Claims)) string {
		c := claims
		change(&c)
		return "Authorization: Bearer " + sign(t, n.key, c)
	}
	good := with(func(*authz.Claims) {})
	const invalid = `Bearer error="invalid_token"`
	for _, x := range []struct {
		name      string
		headers   []string
		status    int
		code      string
		challenge string
	}{
		{"none", nil, 401, "token_missing", "Bearer"},
		{"another scheme", []string{"Authorization: Basic dTpw"}, 401, "token_missing", "Bearer"},
		{"two", []string{good, good}, 401, "token_missing", "Bearer"},
		{"empty", []string{"Authorization: Bearer "}, 401, "token_missing", "Bearer"},
		{"malformed", []string{"Authorization: Bearer x"}, 401, "token_malformed", invalid},
		{"a stranger's", []string{"Authorization: Bearer " + sign(t, newKey(t, "EdDSA"), claims)}, 401, "token_invalid", invalid},
		{"expired", []string{with(func(c *authz.Claims) { c.Expires = time.Now().Add(-time.Second) })}, 401, "token_expired", invalid},
		{"not yet", []string{with(func(c *authz.Claims) { c.NotBefore = time.Now().Add(hour) })}, 401, "token_not_yet_valid", invalid},
		{"for one message", []string{with(func(c *authz.Claims) { c.Once = true })}, 403, "forbidden", `Bearer error="insufficient_scope"`},
	} {
		t.Run(x.name, func(t *testing.T) {
			for range 2 {
				r := n.ask(t, request("POST", postTickets, "", x.headers...)).wantStatus(x.status)
				var e struct{ Code, Message string }
				if err := json.Unmarshal([]byte(r.body), &e); err != nil || e.Code != x.code || e.Message == "" {
					t.Error(r.body, err)
				}
				if r.header.Get("WWW-Authenticate") != x.challenge || r.header.Get("Cache-Control") != "no-store" {
					t.Error(r.header)
				}
			}
		})
	}
	n.ask(t, request("GET", postTickets, "", good)).wantStatus(405)
	off := start(t, setup{server: server.Options{Strategies: server.StrategyHeader}, key: n.key})
	off.ask(t, request("POST", postTickets, "", good)).wantStatus(404)
	without := start(t, setup{fake: new(memBus), key: n.key}) // has no store
	without.ask(t, request("POST", postTickets, "", good)).wantStatus(503)
	without.ask(t, head("?ticket=x")).wantStatus(503)
}

// Of many clients that redeem one ticket at two nodes at once, one is let in.
func TestTicketRace(t *testing.T) {
	nats := startNATS(t)
	a := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}})
	b := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}, key: a.key})
	for range 3 {
		ticket := a.ticket(t, a.all(t))
		var done sync.WaitGroup
		var mu sync.Mutex
		statuses := make(map[int]int)
		for i := range 100 {
			n := []*node{a, b}[i%2]
			c := n.dialFrom(t, "127.0.0.1")
			done.Go(func() {
				if _, err := c.Write([]byte(head("?ticket=" + ticket))); err != nil {
					t.Error(err)
					return
				}
				r := readReply(t, c)
				mu.Lock()
				statuses[r.status]++
				mu.Unlock()
				_ = c.Close()
			})
		}
		done.Wait()
		if statuses[101] != 1 || statuses[401] != 99 {
			t.Errorf("answers %v", statuses)
		}
	}
	// One that is got here is good there.
	b.ask(t, head("?ticket="+a.ticket(t, a.all(t)))).opened().fence()
}

// Without NATS nobody is let in by a ticket, nor given one; all else goes on.
func TestTicketsWithoutNATS(t *testing.T) {
	nats := startNATS(t)
	n := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}})
	token := n.all(t)
	ticket := n.ticket(t, token)
	nats.Shutdown()
	eventually(t, "NATS is away", func() bool { return !n.bus.Connected() })
	for _, x := range []string{head("?ticket=" + ticket), request("POST", postTickets, "", "Authorization: Bearer "+token)} {
		if r := n.ask(t, x).wantStatus(http.StatusServiceUnavailable); r.header.Get("Retry-After") == "" {
			t.Error(r.header)
		}
	}
	n.ask(t, bearer(token)).opened().fence()
}

// A ticket is bound to the address that a trusted proxy vouches for. What
// anybody else writes into the header is not looked at.
func TestTicketsBehindProxies(t *testing.T) {
	n := start(t, setup{server: server.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}})
	auth := "Authorization: Bearer " + n.all(t)
	const proxy, other = "127.0.0.2", "127.0.0.3"
	for _, x := range []struct {
		name         string
		from, header string // of the POST
		at, with     string // of the handshake
		status       int
	}{
		{"through the proxy", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "X-Forwarded-For: 192.0.2.1", 101},
		{"through the proxy, in two ways", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "Forwarded: for=192.0.2.1", 101},
		{"with a header of its own before", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "X-Forwarded-For: 192.0.2.9, 192.0.2.1", 101},
		{"with a header line of its own before", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.1", 101},
		{"another client of the proxy", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "X-Forwarded-For: 192.0.2.2", 401},
		{"another client of the proxy, pretending", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "X-Forwarded-For: 192.0.2.1, 192.0.2.2", 401},
		{"another client of the proxy, pretending otherwise", proxy, "X-Forwarded-For: 192.0.2.1", proxy, "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.2", 401},
		{"spoofed from elsewhere", proxy, "X-Forwarded-For: 192.0.2.1", other, "X-Forwarded-For: 192.0.2.1", 401},
		{"spoofed from elsewhere, Forwarded", proxy, "Forwarded: for=192.0.2.1", other, "Forwarded: for=192.0.2.1", 401},
		{"no proxy, any header", other, "X-Forwarded-For: 192.0.2.1", other, "Forwarded: for=192.0.2.2", 101},
		{"the client's own address", other, "X-Y: z", proxy, "X-Forwarded-For: " + other, 101},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := n.askFrom(t, x.from, request("POST", postTickets, "", auth, x.header)).wantStatus(201)
			var got struct{ Ticket string }
			if err := json.Unmarshal([]byte(r.body), &got); err != nil {
				t.Fatal(err)
			}
			_ = n.askFrom(t, x.at, head("?ticket="+got.Ticket, x.with)).wantStatus(x.status).conn.Close()
		})
	}
}
