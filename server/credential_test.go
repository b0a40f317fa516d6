package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// way is how a client presents a credential with its upgrade request.
type way struct {
	name     string
	strategy server.Strategy
	head     func(credential string) string
}

var ways = []way{
	{"header", server.StrategyHeader, func(c string) string { return head("", "Authorization: Bearer "+c) }},
	{"header, other case", server.StrategyHeader, func(c string) string {
		return head("", "authorization:  bearer  "+c, "Sec-WebSocket-Protocol: notifyd.v1")
	}},
	{"subprotocol", server.StrategySubprotocol, func(c string) string { return head("", "Sec-WebSocket-Protocol: notifyd.v1, bearer."+c) }},
	{"subprotocol, first", server.StrategySubprotocol, func(c string) string { return head("", "Sec-WebSocket-Protocol: bearer."+c+",notifyd.v1") }},
	{"subprotocol, two headers", server.StrategySubprotocol, func(c string) string {
		return head("", "Sec-WebSocket-Protocol: bearer."+c, "Sec-WebSocket-Protocol: mqtt, notifyd.v1")
	}},
	{"query", server.StrategyQuery, func(c string) string { return head("?access_token=" + c) }},
	{"query, escaped", server.StrategyQuery, func(c string) string { return head("?x=%20&access%5Ftoken=" + strings.ReplaceAll(c, ".", "%2E")) }},
	{"ticket", server.StrategyTicket, func(c string) string { return head("?ticket=" + c) }},
	{"ticket, subprotocol", server.StrategyTicket, func(c string) string { return head("", "Sec-WebSocket-Protocol: notifyd.v1, ticket."+c) }},
}

// ticket asks for one with a token.
func (n *node) ticket(t testing.TB, token string) string {
	t.Helper()
	r := n.ask(t, request("POST", "/v1/tickets", "", "Authorization: Bearer "+token)).wantStatus(http.StatusCreated)
	var x struct{ Ticket string }
	if err := json.Unmarshal([]byte(r.body), &x); err != nil || x.Ticket == "" {
		t.Fatal(err, r.body)
	}
	return x.Ticket
}

// Each strategy alone: its own credential opens the connection and stands for
// the token of a subscribe; a wrong one is refused, never treated as absent; and
// those of the others are refused whether they are good or not. Nothing of any
// is told or logged.
func TestStrategies(t *testing.T) {
	sets := map[string]server.Strategy{
		"message": server.StrategyMessage, "first-message": server.StrategyFirstMessage, "header": server.StrategyHeader,
		"subprotocol": server.StrategySubprotocol, "ticket": server.StrategyTicket, "query": server.StrategyQuery,
		"default": server.DefaultStrategies,
	}
	for _, alg := range []string{"HS256", "EdDSA"} { // verified on the loop, and off it
		for name, set := range sets {
			t.Run(alg+"/"+name, func(t *testing.T) {
				t.Parallel()
				secret, log := newSecrets(t)
				with := setup{alg: alg, log: log, server: server.Options{Strategies: set, AuthFailures: 1000}}
				if set&server.StrategyTicket == 0 {
					with.fake = new(memBus)
				}
				n := start(t, with)
				claims := authz.Claims{ID: "1", Expires: time.Now().Add(hour), Subscribe: []string{">"}, Publish: []string{">"}}
				mint := func(change func(*authz.Claims)) string {
					c := claims
					c.ID = fmt.Sprint(serial.Add(1))
					change(&c)
					return secret.keep(sign(t, n.key, c))
				}
				good := func() string { return mint(func(*authz.Claims) {}) }
				remembered := good()
				n.dial(t).publish("a", remembered, "1")
				stranger := secret.keep(sign(t, newKey(t, alg), claims))
				expired := mint(func(c *authz.Claims) { c.Expires = time.Now().Add(-time.Second) })
				early := mint(func(c *authz.Claims) { c.NotBefore = time.Now().Add(hour) })
				once := mint(func(c *authz.Claims) { c.Once = true })
				digest := mint(func(c *authz.Claims) { c.Digest = authz.DigestOf("a", []byte("1")) })
				for _, w := range ways {
					enabled := set&w.strategy != 0
					credentials := map[string]string{
						"fresh": good(), "remembered": remembered,
						"stranger": stranger, "expired": expired, "not yet valid": early, "once": once, "digest": digest, "empty": "", "x": "x",
						"cut": remembered[:len(remembered)-1],
					}
					right := []string{"fresh", "remembered"}
					if w.strategy == server.StrategyTicket {
						right = nil
						if enabled {
							credentials["ticket"] = secret.keep(n.ticket(t, remembered))
							right = []string{"ticket"}
						}
					}
					for what, c := range credentials {
						r := n.ask(t, w.head(c))
						secret.unseen(t, fmt.Sprint(r.header, r.body))
						offered := strings.Contains(w.head(c), "Sec-WebSocket-Protocol")
						if enabled && slices.Contains(right, what) {
							p := r.opened()
							if got := r.header.Values("Sec-WebSocket-Protocol"); offered && !slices.Equal(got, []string{wire.Subprotocol}) || !offered && got != nil {
								t.Errorf("%s: subprotocol %q", w.name, got)
							}
							p.send(`{"type":"subscribe","id":"1","topic":"a"}`)
							p.want(`"type":"ack","id":"1","exp":`)
							p.send(`{"type":"publish","id":"2","topic":"a","data":1}`)
							p.wantError(wire.TokenMissing, "2")
							p.publish("b", remembered, "1")
							continue
						}
						if r.status != http.StatusUnauthorized || !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer") {
							t.Errorf("%s, %s: %d %v", w.name, what, r.status, r.header)
						}
					}
				}
				p := n.ask(t, head("")).opened() // none at all
				p.send(`{"type":"subscribe","id":"1","topic":"a"}`)
				p.wantError(wire.TokenMissing, "1")
				p.send(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, remembered)
				if set&server.StrategyMessage != 0 {
					p.want(`"type":"ack","id":"1"`)
				} else {
					p.wantError(wire.Forbidden, "1")
				}
				p.send(`{"type":"auth","id":"3","token":%q}`, good())
				if set&server.StrategyFirstMessage != 0 {
					p.want(`"type":"ack","id":"3","exp":`)
					p.send(`{"type":"subscribe","id":"4","topic":"c"}`)
					p.want(`"type":"ack","id":"4","exp":`)
				} else {
					p.wantError(wire.Forbidden, "3")
				}
			})
		}
	}
}

// One credential at most, and nothing that only looks like one.
func TestOddCredentials(t *testing.T) {
	n := one(t, server.Options{Strategies: server.DefaultStrategies | server.StrategyQuery})
	a, b := n.all(t), n.all(t)
	const protocols = "Sec-WebSocket-Protocol: notifyd.v1"
	for _, x := range []struct {
		name, head string
		status     int
	}{
		{"header and query", head("?access_token="+b, "Authorization: Bearer "+a), 400},
		{"the same one twice", head("?access_token="+a, "Authorization: Bearer "+a), 400},
		{"header and subprotocol", head("", "Authorization: Bearer "+a, protocols+", bearer."+b), 400},
		{"header and ticket", head("?ticket=x", "Authorization: Bearer "+a), 400},
		{"header and an empty ticket", head("?ticket=", "Authorization: Bearer "+a), 400},
		{"two headers", head("", "Authorization: Bearer "+a, "Authorization: Bearer "+b), 400},
		{"two headers, another scheme first", head("", "Authorization: Basic dTpw", "Authorization: Bearer "+a), 400},
		{"two in one header", head("", "Authorization: Bearer "+a+", Bearer "+b), 400},
		{"two in the query", head("?access_token=" + a + "&access_token=" + b), 400},
		{"two tickets", head("?ticket=x&ticket=y"), 400},
		{"ticket and query", head("?ticket=x&access_token=" + a), 400},
		{"two items", head("", protocols+", bearer."+a+", bearer."+b), 400},
		{"two items in two headers", head("", protocols+", bearer."+a, "Sec-WebSocket-Protocol: ticket.x"), 400},
		{"a query that nobody can read", head("?access_token=%zz"), 400},
		{"a semicolon in the query", head("?x=1;access_token=" + a), 400},
		{"no subprotocol but the token", head("", "Sec-WebSocket-Protocol: bearer."+a), 400},
		{"Basic, of a proxy on the way", head("", "Authorization: Basic dTpw"), 101},
		{"negotiate, of a proxy on the way", head("", "Authorization: negotiate YII"), 101},
		{"a scheme of nobody's", head("", "Authorization: Token x"), 401},
		{"a token without a scheme", head("", "Authorization: "+a), 401},
		{"the scheme alone", head("", "Authorization: Bearer"), 401},
		{"Bearer twice", head("", "Authorization: Bearer Bearer "+a), 401},
		{"a tab", head("", "Authorization: Bearer\t"+a), 401},
		{"an item of another case", head("", protocols+", Bearer."+a), 101}, // just another subprotocol
		{"another parameter", head("?token=" + a), 101},
		{"a semicolon in another parameter", head("?utm=a;b&x=%zz&%&=&&y"), 101},
		{"a semicolon before a ticket", head("?utm=a;ticket=x"), 400},
		{"a semicolon behind a ticket", head("?ticket=x;utm=a"), 400},
		{"no subprotocol at all", head("", "Sec-WebSocket-Protocol:"), 101},
		{"an empty list of subprotocols", head("", "Sec-WebSocket-Protocol: , ,"), 101},
		{"a parameter of another case", head("?Access_Token=" + a), 101},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := n.ask(t, x.head).wantStatus(x.status)
			if x.status == http.StatusSwitchingProtocols { // without a credential
				p := r.opened()
				p.send(`{"type":"subscribe","id":"1","topic":"a"}`)
				p.wantError(wire.TokenMissing, "1")
			}
		})
	}
	n.ask(t, head("", "Authorization: Bearer "+a)).opened().fence()
}

// Where a credential is required, a client without one is refused at once or, where
// an auth envelope may bring it, before anything else is done.
func TestRequireConnection(t *testing.T) {
	for name, set := range map[string]server.Strategy{"alone": server.StrategyHeader, "with message": server.StrategyHeader | server.StrategyMessage} {
		t.Run("not by first-message/"+name, func(t *testing.T) {
			n := one(t, server.Options{RequireConnection: true, Strategies: set})
			if r := n.ask(t, head("")).wantStatus(401); r.header.Get("WWW-Authenticate") != "Bearer" {
				t.Error(r.header)
			}
			n.ask(t, head("", "Authorization: Bearer x")).wantStatus(401)
			n.ask(t, head("", "Authorization: Bearer "+n.all(t))).opened().fence()
		})
	}
	for _, alg := range []string{"HS256", "EdDSA"} {
		n := start(t, setup{alg: alg, fake: new(memBus), server: server.Options{RequireConnection: true, AuthDeadline: time.Second, AuthFailures: 3}})
		for name, frame := range map[string]string{
			"ping":                   `{"type":"ping","id":"1"}`,
			"unsubscribe":            `{"type":"unsubscribe","id":"1","topic":"a"}`,
			"publish":                fmt.Sprintf(`{"type":"publish","id":"1","topic":"a","token":%q,"data":1}`, n.all(t)),
			"subscribe with a token": fmt.Sprintf(`{"type":"subscribe","id":"1","topic":"a","token":%q}`, n.all(t)),
			"subscribe":              `{"type":"subscribe","id":"1","topic":"a"}`,
		} {
			t.Run(alg+"/"+name, func(t *testing.T) {
				p := n.dial(t)
				p.send("%s", frame)
				p.wantError(wire.TokenMissing, "1")
				p.wantEnd(wire.CloseUnauthenticated)
			})
		}
		t.Run(alg+"/auth", func(t *testing.T) {
			p := n.dial(t)
			p.pipeline([]string{
				fmt.Sprintf(`{"type":"auth","id":"1","token":%q}`, n.all(t)),
				`{"type":"ping","id":"2"}`,
				`{"type":"subscribe","id":"3","topic":"a"}`,
			})
			p.want(`{"type":"ack","id":"1","exp":`)
			p.wantExactly(`{"type":"pong","id":"2"}`)
			p.want(`{"type":"ack","id":"3","exp":`)
		})
		t.Run(alg+"/wrong auth", func(t *testing.T) {
			p := n.dial(t)
			for range 3 {
				p.send(`{"type":"auth","id":"1","token":%q}`, sign(t, newKey(t, alg), authz.Claims{Expires: time.Now().Add(hour)}))
				p.wantError(wire.TokenInvalid, "1")
			}
			p.wantEnd(wire.CloseUnauthenticated)
		})
		t.Run(alg+"/nothing", func(t *testing.T) {
			p, q := n.dial(t), n.dial(t)
			q.send(`{"type":"auth","id":"1"}`)
			q.wantError(wire.TokenMissing, "1")
			has := n.ask(t, head("", "Authorization: Bearer "+n.all(t))).opened()
			p.wantEnd(wire.CloseAuthTimeout)
			q.wantEnd(wire.CloseAuthTimeout)
			has.fence()
		})
	}
}

func TestParseStrategies(t *testing.T) {
	for _, x := range []struct {
		names []string
		set   server.Strategy
		ok    bool
	}{
		{nil, 0, true},
		{[]string{"message", "first-message", "header", "subprotocol", "ticket"}, server.DefaultStrategies, true},
		{[]string{"query", "query"}, server.StrategyQuery, true},
		{[]string{"header", "Query"}, 0, false},
		{[]string{""}, 0, false},
	} {
		if set, err := server.ParseStrategies(x.names); set != x.set || (err == nil) != x.ok {
			t.Errorf("%q: %b %v", x.names, set, err)
		}
	}
}
