package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

const postRevocations = "/v1/revocations"

// admin is the header of somebody who may revoke.
func (n *node) admin(t testing.TB) string {
	t.Helper()
	return "Authorization: Bearer " + sign(t, n.key, authz.Claims{Subject: "root", Expires: time.Now().Add(hour), IssuedAt: time.Now(), Admin: true})
}

// A call says which tokens it revokes, and nothing else; only an admin makes one.
func TestRevocationCalls(t *testing.T) {
	n := start(t, setup{alg: "HS256"})
	admin := n.admin(t)
	for _, x := range []struct {
		body   string
		status int
	}{
		{`{"jti":"a"}`, 204},
		{`{"jti":"a"}`, 204}, // again
		{`{"jti":"a","iss":"i"}`, 204},
		{`{"sub":"bob","before":"2026-01-02T03:04:05Z"}`, 204},
		{`{"sub":"bob","before":"2026-01-02T03:04:05.678+02:00"}`, 204},
		{` {"sub" : "bob"} `, 204},
		{``, 400},
		{`null`, 400},
		{`[]`, 400},
		{`"a"`, 400},
		{`{}`, 400},
		{`{`, 400},
		{`{"iss":"i"}`, 400},
		{`{"jti":""}`, 400},
		{`{"jti":"a","sub":"b"}`, 400},
		{`{"jti":"a","before":"2026-01-02T03:04:05Z"}`, 400},
		{`{"jti":"a","jti":"b"}`, 400},
		{`{"JTI":"a"}`, 400},
		{`{"jti":"a","Sub":"b"}`, 400},
		{`{"jti":"a","x":1}`, 400},
		{`{"jti":1}`, 400},
		{`{"jti":["a"]}`, 400},
		{`{"sub":"bob","before":1}`, 400},
		{`{"sub":"bob","before":"yesterday"}`, 400},
		{`{"jti":"a"}x`, 400},
		{`{"jti":"a"}}`, 400},
		{`{"jti":"a"}{"jti":"b"}`, 400},
		{"{\"jti\":\"a\xff\"}", 400},
		{`{"jti":"` + strings.Repeat("a", 5000) + `"}`, 400},
	} {
		if r := n.ask(t, request("POST", postRevocations, x.body, admin)); r.status != x.status || x.status == 400 && r.body == "" {
			t.Errorf("%.100s: %d %s", x.body, r.status, r.body)
		}
	}
	n.ask(t, request("GET", postRevocations, "", admin)).wantStatus(405)

	mint := func(c authz.Claims) string {
		c.Expires, c.Publish, c.Subscribe = time.Now().Add(hour), []string{">"}, []string{">"}
		return "Authorization: Bearer " + sign(t, n.key, c)
	}
	for _, x := range []struct {
		name, header string
		status       int
		code         string
	}{
		{"no token", "X-Y: z", 401, "token_missing"},
		{"no admin", mint(authz.Claims{Subject: "root"}), 403, "forbidden"},
		{"admin for one message", mint(authz.Claims{ID: "1", Admin: true, Once: true}), 403, "forbidden"},
		{"a stranger's", "Authorization: Bearer " + sign(t, newKey(t, "HS256"), authz.Claims{Admin: true, Expires: time.Now().Add(hour)}), 401, "token_invalid"},
	} {
		r := n.ask(t, request("POST", postRevocations, `{"jti":"untouched"}`, x.header)).wantStatus(x.status)
		var e struct{ Code string }
		if err := json.Unmarshal([]byte(r.body), &e); err != nil || e.Code != x.code {
			t.Error(x.name, r.body, err)
		}
	}
	n.dial(t).publish("a", strings.TrimPrefix(mint(authz.Claims{ID: "untouched"}), "Authorization: Bearer "), "1")

	// An admin can be revoked, and then revokes no more.
	n.ask(t, request("POST", postRevocations, `{"sub":"root","before":"2100-01-01T00:00:00Z"}`, admin)).wantStatus(204)
	n.ask(t, request("POST", postRevocations, `{"jti":"a"}`, admin)).wantStatus(401)
}

// Without NATS nobody is told that a revocation is kept.
func TestRevocationsWithoutNATS(t *testing.T) {
	nats := startNATS(t)
	n := start(t, setup{bus: bus.Options{URL: nats.ClientURL()}})
	admin := n.admin(t)
	nats.Shutdown()
	eventually(t, "NATS is away", func() bool { return !n.bus.Connected() })
	n.ask(t, request("POST", postRevocations, `{"jti":"a"}`, admin)).wantStatus(503)
	none := start(t, setup{fake: new(memBus), key: n.key})
	none.ask(t, request("POST", postRevocations, `{"jti":"a"}`, admin)).wantStatus(503)
}

// Once a call is answered, no frame with the token counts, its subscriptions
// have ended, and so has the connection whose credential it is; what has another
// token goes on.
func TestRevocation(t *testing.T) {
	for _, alg := range []string{"HS256", "EdDSA"} {
		for _, body := range []string{`{"jti":"j"}`, `{"sub":"ann","before":"2100-01-01T00:00:00Z"}`} {
			t.Run(alg+body, func(t *testing.T) {
				n := start(t, setup{alg: alg})
				every := []string{">"}
				falls := sign(t, n.key, authz.Claims{ID: "j", Subject: "ann", Expires: time.Now().Add(hour), Publish: every, Subscribe: every})
				stays := n.all(t)
				memo, cached, pub := n.dial(t), n.dial(t), n.dial(t)
				bound := n.ask(t, bearer(falls)).opened()
				mixed := n.ask(t, bearer(stays)).opened()
				memo.subscribe("a", falls)
				memo.subscribe("b", stays)
				memo.publish("z", falls, "1")
				mixed.subscribe("a", falls)
				for _, p := range []*peer{bound, mixed} {
					p.send(`{"type":"subscribe","id":"s","topic":"c"}`)
					p.want(`"ack"`)
				}
				n.ask(t, request("POST", postRevocations, body, n.admin(t))).wantStatus(204)

				for _, p := range []*peer{memo, mixed} {
					p.want(`"type":"error"`, `"topic":"a"`, `"code":"token_revoked"`)
				}
				bound.wantEnd(wire.CloseUnauthenticated)
				for _, p := range []*peer{memo, cached} {
					for kind := range map[string]bool{"publish": true, "subscribe": true, "auth": true} {
						p.send(`{"type":%q,"id":"1","topic":"a","token":%q,"data":1}`, kind, falls)
						p.wantError(wire.TokenRevoked, "1")
					}
				}
				n.ask(t, bearer(falls)).wantStatus(401)
				n.ask(t, request("POST", postTickets, "", "Authorization: Bearer "+falls)).wantStatus(401)
				for _, topic := range []string{"a", "b", "c"} {
					pub.publish(topic, stays, "2")
				}
				memo.wantExactly(`{"type":"event","topic":"b","data":2}`)
				mixed.wantExactly(`{"type":"event","topic":"c","data":2}`)
				memo.fence()
				mixed.fence()
				if m := n.metrics(t); m["notifyd_subscriptions"] != 2 {
					t.Errorf("%v subscriptions", m["notifyd_subscriptions"])
				}
				n.ask(t, request("POST", postRevocations, `{"jti":"else"}`, n.admin(t))).wantStatus(204)
			})
		}
	}
}

// What waits for a slow subscriber when its token is revoked is not sent to
// it any more, but for what was on its way in the sockets.
func TestRevocationOfASlowSubscriber(t *testing.T) {
	for _, credential := range []bool{false, true} {
		t.Run(fmt.Sprint("credential=", credential), func(t *testing.T) {
			n := start(t, setup{alg: "HS256", server: server.Options{Loop: loop.Options{PendingBytes: 64 << 20}}})
			falls := sign(t, n.key, authz.Claims{ID: "j", Expires: time.Now().Add(hour), Subscribe: []string{">"}})
			slow, pub, all := n.ask(t, bearer(n.all(t))).opened(), n.dial(t), n.all(t)
			if credential {
				slow = n.ask(t, bearer(falls)).opened()
				slow.send(`{"type":"subscribe","id":"s","topic":"a"}`)
				slow.want(`"ack"`)
			} else {
				slow.subscribe("a", falls)
			}
			text := strings.Repeat("x", 60_000)
			sent := 0
			for n.metrics(t)["notifyd_pending_bytes"] < 4<<20 {
				pub.publish("a", all, fmt.Sprintf(`[%d,%q]`, sent, text))
				sent++
			}
			n.ask(t, request("POST", postRevocations, `{"jti":"j"}`, n.admin(t))).wantStatus(204)
			if !credential {
				slow.send(`{"type":"ping","id":"1"}`)
			}
			events := 0
			for ended := false; !ended; {
				switch m := slow.next(); {
				case strings.HasPrefix(m, fmt.Sprintf(`{"type":"event","topic":"a","data":[%d,`, events)):
					events++
				case strings.Contains(m, `"token_revoked"`) && !credential:
				case m == `{"type":"pong","id":"1"}`, m == "close 4401" && credential:
					ended = true
				default:
					t.Fatalf("after %d events: %.200s", events, m)
				}
			}
			// 4 MiB and more were owed, in the server's hands.
			if most := sent - (4<<20)/70_000; events > most || events == 0 {
				t.Errorf("%d of %d events came, want at most %d", events, sent, most)
			}
		})
	}
}

// An issuer's administrator revokes its own tokens, unless it may revoke everybody's.
func TestRevocationOfOtherIssuers(t *testing.T) {
	own, all := newKey(t, "HS256"), newKey(t, "HS256")
	n := start(t, setup{alg: "HS256", auth: authz.Options{Issuer: "flat", Issuers: []authz.Issuer{
		{Name: "own", Trusted: []authz.Key{own}, Admin: true, Subscribe: []string{">"}},
		{Name: "all", Trusted: []authz.Key{all}, Admin: true, AdminOfAll: true, Subscribe: []string{">"}},
	}}})
	keys := map[string]authz.Key{"own": own, "all": all, "flat": n.key}
	admin := func(iss string) string {
		return "Authorization: Bearer " + sign(t, keys[iss], authz.Claims{Issuer: iss, Expires: time.Now().Add(hour), Admin: true})
	}
	for _, x := range []struct {
		by, body string
		status   int
		falls    string // issuers whose token with that jti does
	}{
		{"own", `{"jti":"1"}`, 204, "own"},
		{"own", `{"jti":"2","iss":"own"}`, 204, "own"},
		{"own", `{"jti":"3","iss":"all"}`, 403, ""},
		{"own", `{"jti":"4","iss":"nobody"}`, 403, ""},
		{"own", `{"sub":"5"}`, 204, "own"},
		{"all", `{"jti":"6"}`, 204, "own all flat"},
		{"all", `{"jti":"7","iss":"own"}`, 204, "own"},
		{"flat", `{"sub":"8"}`, 204, "own all flat"},
		{"flat", `{"sub":"9","iss":"all"}`, 204, "all"},
	} {
		name := strings.FieldsFunc(x.body, func(r rune) bool { return r < '0' || r > '9' })[0]
		r := n.ask(t, request("POST", postRevocations, x.body, admin(x.by))).wantStatus(x.status)
		if x.status == 403 && !strings.Contains(r.body, "forbidden") {
			t.Errorf("%s by %s: %s", x.body, x.by, r.body)
		}
		for iss, key := range keys {
			token := sign(t, key, authz.Claims{Issuer: iss, ID: name, Subject: name, Expires: time.Now().Add(hour), Subscribe: []string{"a"}})
			want := wire.OK
			if strings.Contains(x.falls, iss) {
				want = wire.TokenRevoked
			}
			if _, code := n.auth.Verify([]byte(token)); code != want {
				t.Errorf("%s by %s: the token of %s: %v, want %v", x.body, x.by, iss, code, want)
			}
		}
	}
}

// An administrator's token that ends while the body of its call is on the way revokes
// nothing.
func TestRevocationWithASlowBody(t *testing.T) {
	n := start(t, setup{alg: "HS256"})
	admin := sign(t, n.key, authz.Claims{ID: "admin", Expires: time.Now().Add(hour), Admin: true})
	c := n.dialFrom(t, "127.0.0.1")
	const body = `{"jti":"x"}`
	// The server asks for the body when it has checked the token.
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", postRevocations, admin, len(body))
	if _, err := c.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	if r := readReply(t, c); r.status != 100 {
		t.Fatal(r.status)
	}
	if err := n.auth.Revoke(authz.Revocation{JTI: "admin"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	readReply(t, c).wantStatus(401)
	if n := n.auth.Stats().Revocations; n != 1 {
		t.Error(n, "revocations")
	}
}

// The longest names that a token may have can be revoked, however they are written.
func TestRevocationOfLongNames(t *testing.T) {
	n := start(t, setup{alg: "HS256"})
	long := strings.Repeat("\\u0001", 1024)
	n.ask(t, request("POST", postRevocations, `{"jti":"`+long+`","iss":"`+long+`"}`, n.admin(t))).wantStatus(204)
	n.ask(t, request("POST", postRevocations, `{"jti":"`+long+`a"}`, n.admin(t))).wantStatus(400)
}
