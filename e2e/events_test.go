//go:build linux

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/client"
)

// Clients for Server-Sent Events that others wrote read a stream, from its welcome to its end.
func TestEventSourceClients(t *testing.T) {
	t.Parallel()
	needScripts(t)
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public)
	token := keys.tokenFor(t, `{"sub":"ann","jti":"falls","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	s := startScript(t, "events.mjs", "http://"+node.address(), token)
	type said struct {
		Client, Name string
		End          bool
		Data         json.RawMessage
	}
	await := func(from, name, part string) {
		t.Helper()
		s.says.await(t, name+" of "+from, 0, func(line string) bool {
			var x said
			return json.Unmarshal([]byte(line), &x) == nil && x.Client == from && x.Name == name && strings.Contains(string(x.Data), part)
		})
	}
	clients := []string{"eventsource", "fetch-event-source"}
	for _, name := range clients {
		await(name, "welcome", `"ping_interval"`)
		await(name, "ack", `"rooms.*"`)
	}
	pub := dialCoder(t, "publisher", node.url)
	for _, data := range []string{`{"text":"héllo"}`, "[1,\n2]", `""`} {
		pub.publish(t, "rooms.42", token, data)
	}
	for _, name := range clients {
		await(name, "message", `"data":{"text":"héllo"}`)
		await(name, "message", `"data":[1,2]`)
		await(name, "message", `"data":""`)
	}
	if err := client.Revoke(t.Context(), node.url, keys.tokenFor(t, `{"sub":"admin","notify":{"admin":true}}`), client.Revocation{ID: "falls"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range clients {
		await(name, "error", `"token_revoked"`)
		await(name, "close", `"code":4401`)
		s.says.await(t, "end of "+name, 0, func(line string) bool {
			var x said
			return json.Unmarshal([]byte(line), &x) == nil && x.Client == name && x.End
		})
	}
}

// A page of another origin reads events as the protocol's page shows it, and publishes by HTTP.
func TestEventSourceInABrowser(t *testing.T) {
	t.Parallel()
	var example string
	for _, b := range readDocument(t, "docs/protocol.md").blocks {
		if b.lang == "js" && strings.Contains(b.text, "new EventSource(") {
			example = b.text
		}
	}
	b := browser{startScript(t, "page.mjs", chromium(t))}
	keys := newIssuer(t)
	home := website(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--origins="+home)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	source := strings.ReplaceAll(`
		const token = task, shown = []
		const console = { log: (value) => shown.push(value) }
		`+example+`
		await new Promise((resolve) => events.addEventListener('ack', resolve))
		const answer = await fetch('http://127.0.0.1:8080/v1/publish', {
			method: 'POST',
			headers: { Authorization: 'Bearer ' + token, 'Content-Type': 'application/json' },
			body: JSON.stringify({ topic: 'rooms.42', data: { text: 'hello' } }),
		})
		while (shown.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
		events.close()
		return { status: answer.status, shown }`, "127.0.0.1:8080", node.address())
	o := b.do(t, home, "task", map[string]any{"source": source, "task": token})
	if o.Body != `{"status":200,"shown":[{"text":"hello"}]}` {
		t.Errorf("the page says %+v", o)
	}
}
