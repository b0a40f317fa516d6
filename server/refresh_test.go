package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// An auth envelope replaces the connection's credential. What relies on it goes
// on under the new one as far as that permits; what has a token of its own does
// not care.
func TestAuthRefresh(t *testing.T) {
	for _, alg := range []string{"HS256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			n := start(t, setup{alg: alg, fake: new(memBus)})
			mint := func(sub string, subscribe ...string) string {
				return sign(t, n.key, authz.Claims{ID: fmt.Sprint(serial.Add(1)), Subject: sub, Expires: time.Now().Add(hour), Subscribe: subscribe})
			}
			p, pub, all := n.dial(t), n.dial(t), n.all(t)
			auth := func(token string) {
				t.Helper()
				p.send(`{"type":"auth","id":"a","token":%q}`, token)
			}
			auth(mint("ann", ">"))
			p.want(`{"type":"ack","id":"a","exp":`)
			for _, topic := range []string{"a.1", "b.1", "b.*"} {
				p.send(`{"type":"subscribe","id":"s","topic":%q}`, topic)
				p.want(`{"type":"ack","id":"s"`)
			}
			p.subscribe("c", all)

			for _, x := range []struct {
				token string
				code  wire.Code
			}{
				{mint("bob", ">"), wire.Forbidden},
				{mint("", ">"), wire.Forbidden},
				{sign(t, newKey(t, alg), authz.Claims{Subject: "ann", Expires: time.Now().Add(hour)}), wire.TokenInvalid},
				{sign(t, n.key, authz.Claims{Subject: "ann", Expires: time.Now().Add(-hour)}), wire.TokenExpired},
				{sign(t, n.key, authz.Claims{Subject: "ann", ID: "o", Once: true, Expires: time.Now().Add(hour)}), wire.Forbidden},
				{sign(t, n.key, authz.Claims{Subject: "ann", Digest: authz.DigestOf("a", nil), Expires: time.Now().Add(hour)}), wire.Forbidden},
			} {
				auth(x.token)
				p.wantError(x.code, "a")
			}
			pub.publish("a.1", all, "1") // nothing has changed
			p.wantExactly(`{"type":"event","topic":"a.1","data":1}`)

			auth(mint("ann", "b.*"))
			p.want(`"type":"error"`, `"topic":"a.1"`, `"code":"forbidden"`)
			p.want(`{"type":"ack","id":"a","exp":`)
			for _, topic := range []string{"a.1", "b.1", "c"} {
				pub.publish(topic, all, "2")
			}
			got := p.next() + p.next()
			for _, want := range []string{`{"type":"event","topic":"b.1","data":2}`, `{"type":"event","topic":"b.1","pattern":"b.*","data":2}`} {
				if !strings.Contains(got, want) {
					t.Errorf("%s without %s", got, want)
				}
			}
			p.wantExactly(`{"type":"event","topic":"c","data":2}`)
			p.send(`{"type":"subscribe","id":"s","topic":"a.1"}`)
			p.wantError(wire.Forbidden, "s")
			if m := n.metrics(t); m["notifyd_subscriptions"] != 3 {
				t.Errorf("%v subscriptions", m["notifyd_subscriptions"])
			}
		})
	}
}

// A refresh comes from the issuer of the credential: two issuers may have a subject
// of one name.
func TestAuthRefreshByAnotherIssuer(t *testing.T) {
	other := newKey(t, "HS256")
	n := start(t, setup{alg: "HS256", fake: new(memBus), auth: authz.Options{
		Issuer: "a", Issuers: []authz.Issuer{{Name: "b", Trusted: []authz.Key{other}, Publish: []string{">"}, Subscribe: []string{">"}}},
	}})
	mint := func(key authz.Key, issuer string) string {
		return sign(t, key, authz.Claims{Issuer: issuer, Subject: "ann", ID: fmt.Sprint(serial.Add(1)), Expires: time.Now().Add(hour), Subscribe: []string{">"}})
	}
	p := n.dial(t)
	for _, x := range []struct {
		token string
		code  wire.Code
	}{
		{mint(n.key, "a"), wire.OK},
		{mint(other, "b"), wire.Forbidden},
		{mint(n.key, "a"), wire.OK},
	} {
		p.send(`{"type":"auth","id":"1","token":%q}`, x.token)
		if x.code == wire.OK {
			p.want(`{"type":"ack","id":"1","exp":`)
		} else {
			p.wantError(x.code, "1")
		}
	}
}

// A credential that runs out is announced once, for the connection and not for
// each subscription; events flow until then, and then the connection ends. One
// that is refreshed in time goes on and loses nothing.
func TestCredentialExpires(t *testing.T) {
	for _, by := range []string{"header", "first-message"} {
		for _, refreshed := range []bool{false, true} {
			t.Run(fmt.Sprint(by, " refreshed=", refreshed), func(t *testing.T) {
				t.Parallel()
				n := start(t, setup{alg: "HS256", fake: new(memBus), server: server.Options{ExpiryNotice: time.Second, RequireConnection: true}})
				exp, token := n.soon(t)
				open := func(token string) *peer {
					if by == "header" {
						return n.ask(t, bearer(token)).opened()
					}
					p := n.dial(t)
					p.send(`{"type":"auth","id":"a","token":%q}`, token)
					p.want(`{"type":"ack","id":"a","exp":`)
					return p
				}
				p := open(token)
				for _, topic := range []string{"a", "other.*"} {
					p.send(`{"type":"subscribe","id":"s","topic":%q}`, topic)
					p.wantExactly(fmt.Sprintf(`{"type":"ack","id":"s","exp":%d}`, exp.Unix()))
				}
				p.subscribe("own", n.all(t))
				stop := open(n.all(t)).flood("a", n.all(t))
				events, warned := 0, false
				for !refreshed || time.Now().Before(exp.Add(1500*time.Millisecond)) {
					m := p.next()
					if m == fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, events) {
						events++
						continue
					}
					if !warned && m == fmt.Sprintf(`{"type":"expiring","exp":%d}`, exp.Unix()) {
						if warned = true; refreshed {
							p.send(`{"type":"auth","token":%q}`, sign(t, n.key, authz.Claims{Subject: "", Expires: time.Now().Add(hour), Subscribe: []string{">"}}))
						}
						continue
					}
					if m == "close 4401" && !refreshed && !time.Now().Before(exp) {
						break
					}
					t.Fatalf("%v before exp, after %d events: %s", time.Until(exp), events, m)
				}
				sent := stop()
				if !warned || events == 0 || events > sent {
					t.Errorf("warned %v, %d events of %d", warned, events, sent)
				}
				if refreshed {
					for ; events < sent; events++ {
						p.wantExactly(fmt.Sprintf(`{"type":"event","topic":"a","data":%d}`, events))
					}
					p.fence()
				}
			})
		}
	}
}
