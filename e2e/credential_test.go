//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/internal/testkit"
)

// call is the URL of an HTTP call.
func (s *server) call(name string) string {
	return "http" + strings.TrimSuffix(strings.TrimPrefix(s.url, "ws"), "ws") + name
}

// post makes an HTTP call with a token.
func (s *server) post(t *testing.T, name, token, body string) (status int, answer string) {
	t.Helper()
	return testkit.Post(t, s.call(name), token, body)
}

// subscribeAs asks to subscribe under the connection's credential.
func (p *peer) subscribeAs(t *testing.T, topic string) message {
	t.Helper()
	id := p.nextID()
	return p.ask(t, id, fmt.Sprintf(`{"type":"subscribe","id":%q,"topic":%s}`, id, quote(topic)))
}

// TestHeaderCredential opens a connection as backends do, with npm ws and an Authorization header.
func TestHeaderCredential(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--auth.require=connection")
	token := keys.subscriber(t, time.Hour, "header.>")
	header := func(value string) string { return fmt.Sprintf(`{"Authorization":%s}`, quote(value)) }

	p := dialScript(t, "npm ws with a header", nodeScript(t, "ws.mjs", node.url, header("Bearer "+token)))
	if m := p.subscribeAs(t, "header.in"); m.Type != "ack" || m.Exp != expiry(t, token).Unix() {
		t.Errorf("subscribe without a token: %+v", m)
	}
	if m := p.subscribeAs(t, "elsewhere"); m.Code != "forbidden" {
		t.Errorf("subscribe to what the credential does not grant: %+v", m)
	}
	id := p.nextID()
	if m := p.ask(t, id, fmt.Sprintf(`{"type":"publish","id":%q,"topic":"header.in","data":0}`, id)); m.Code != "token_missing" {
		t.Errorf("publish without a token: %+v", m)
	}
	if m := p.publish(t, "header.in", keys.publisher(t, time.Hour, "header.in"), "1"); m.Type != "ack" {
		t.Errorf("publish: %+v", m)
	}
	p.awaitEvents(t, 1)

	for name, value := range map[string]string{
		"damaged": "Bearer " + token[:len(token)-8], "of another kind": "Token " + token,
	} {
		says := startScript(t, "ws.mjs", node.url, header(value)).says
		says.await(t, "401 to a credential "+name, 0, func(line string) bool { return line == `{"close":401}` })
	}
}

// TestTicketOnAnotherNode gets a ticket on one node and uses it on another, once.
func TestTicketOnAnotherNode(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	_, address := natsProcess(t, ownHost()+":0")
	var nodes [2]*server
	for i := range nodes {
		nodes[i] = serve(t, fmt.Sprintf("node %d", i), nil, "--nats.url=nats://"+address, "--auth.keys="+keys.public, "--auth.require=connection")
	}
	token := keys.subscriber(t, time.Hour, "ticket.>")
	var answer struct {
		Ticket string
	}
	status, body := nodes[0].post(t, "tickets", token, "")
	if err := json.Unmarshal([]byte(body), &answer); status != http.StatusCreated || err != nil {
		t.Fatalf("%d %s", status, body)
	}
	p := dialCoder(t, "with a ticket", nodes[1].url+"?ticket="+answer.Ticket)
	if m := p.subscribeAs(t, "ticket.in"); m.Type != "ack" || m.Exp != expiry(t, token).Unix() {
		t.Errorf("subscribe: %+v", m)
	}
	for _, node := range nodes {
		if _, err := tryCoder(t, "with the same ticket", node.url+"?ticket="+answer.Ticket); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s, used ticket: %v, want a 401", node.output.name, err)
		}
	}
}
