package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// The store of tickets is everybody's: one subject and one address get so many, and are told when there are more.
func TestTicketsAreRationed(t *testing.T) {
	n := start(t, setup{server: server.Options{TicketsPerSubject: 3, TicketsPerIP: 5, TicketTTL: hour}})
	post := func(from, subject, issuer string) reply {
		t.Helper()
		token := sign(t, n.key, authz.Claims{
			ID: fmt.Sprint(serial.Add(1)), Subject: subject, Issuer: issuer, Expires: time.Now().Add(2 * hour), Subscribe: []string{">"},
		})
		return n.askFrom(t, from, request("POST", postTickets, "", "Authorization: Bearer "+token))
	}
	const here, there = "127.0.0.1", "127.0.0.2"
	for _, x := range []struct {
		from, subject string
		status        int
	}{
		{here, "ann", 201},
		{there, "ann", 201}, // counted together
		{here, "ann", 201},
		{here, "ann", 429},
		{there, "ann", 429}, // with another token and from elsewhere
		{here, "bob", 201},
		{here, "", 201}, // tokens without a subject are one
		{here, "", 201},
		{here, "carl", 429}, // the address has had five
		{there, "carl", 201},
		{there, "bob", 201}, // the refusal has cost nobody anything
	} {
		r := post(x.from, x.subject, "").wantStatus(x.status)
		if x.status != 429 {
			continue
		}
		if s, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || s < 1 || s > 3600 {
			t.Errorf("Retry-After: %q", r.header.Get("Retry-After"))
		}
		if !strings.Contains(r.body, `"rate_limited"`) {
			t.Errorf("body %s", r.body)
		}
	}
}

// A client that does not read its answers is let go, and its place is free again.
func TestUnreadAnswersEnd(t *testing.T) {
	n := start(t, setup{server: server.Options{Loop: loop.Options{ConnectionsPerIP: 1, MessageTimeout: time.Second}}})
	c := n.dialFrom(t, "127.0.0.1")
	one := strings.Replace(request("GET", "/nothing", ""), "Connection: close\r\n", "", 1)
	many := strings.Repeat(one, 1000)
	for { // until neither side takes any more
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, many); err != nil {
			break // the server has ended it
		}
	}
	eventually(t, "another connection is let in", func() bool {
		r := n.ask(t, head(""))
		_ = r.conn.Close()
		return r.status == http.StatusSwitchingProtocols
	})
}

// Bad credentials in handshakes count with all others of their address.
func TestForgedHandshakesArePenalised(t *testing.T) {
	n := start(t, setup{alg: "ES384", server: server.Options{Penalty: hour, Loop: loop.Options{HandshakeTimeout: 2 * patience}}})
	forged := func() string {
		token := n.all(t)
		at := strings.LastIndexByte(token, '.') + 10
		return bearer(token[:at] + map[bool]string{true: "B", false: "A"}[token[at] == 'A'] + token[at+1:])
	}
	for range 4 { // 0, 10, 20, 40 ms
		_ = n.askFrom(t, "127.0.0.2", forged()).wantStatus(401).conn.Close()
	}
	// Twelve more at once: the last ones wait for 20 s and more, and nobody else does.
	for range 12 {
		c := n.dialFrom(t, "127.0.0.2")
		if _, err := io.WriteString(c, forged()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all have been checked", func() bool { return n.metrics(t)["notifyd_verify_queue"] == 0 })
	n.ask(t, bearer(n.all(t))).opened().fence()
	n.askFrom(t, "127.0.0.2", bearer(n.all(t))).opened().fence()
	if got := n.metrics(t)[`notifyd_handshakes_total{result="refused"}`]; got > 14 {
		t.Errorf("%v have been answered", got)
	}
}

// Each invented ticket costs the cluster a question. It is answered after the pause that a bad signature has, so that
// one address cannot ask without end; a good ticket of another is not held up.
func TestInventedTicketsArePenalised(t *testing.T) {
	n := start(t, setup{server: server.Options{Penalty: hour, Loop: loop.Options{HandshakeTimeout: 2 * patience}}})
	invented := head("?ticket=" + strings.Repeat("x", 32))
	for range 4 { // 0, 10, 20, 40 ms
		_ = n.askFrom(t, "127.0.0.2", invented).wantStatus(401).conn.Close()
	}
	// Twelve more at once: the last ones wait for 20 s and more, and nobody else does.
	for range 12 {
		c := n.dialFrom(t, "127.0.0.2")
		if _, err := io.WriteString(c, invented); err != nil {
			t.Fatal(err)
		}
	}
	ticket := n.ticket(t, n.all(t))
	n.ask(t, head("?ticket="+ticket)).opened().fence()
	if got := n.metrics(t)[`notifyd_handshakes_total{result="refused"}`]; got > 14 {
		t.Errorf("%v have been answered", got)
	}
}
