//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
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
	s := startScript(t, "events.mjs", "http://"+node.address(), token, "rooms.*")
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

// Clients of others come back after a restart of the server, and go on behind the last event by its id: none is missed,
// each topic is in order, and none comes twice by a pattern.
func TestEventSourcesResume(t *testing.T) {
	t.Parallel()
	needScripts(t)
	begin := func(t *testing.T, origin string) (c *controller, control, token string) {
		c, control = startController(t, origin)
		c.args = append(c.args, everyStrategy) // a page's EventSource has no header, and a ticket is good once
		c.restart()
		return c, control, c.keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["d.*"],"subscribe":["d.*"]}}`)
	}
	t.Run("Node", func(t *testing.T) {
		t.Parallel()
		c, _, token := begin(t, "")
		n := 0 // d.1, d.2 and d.3 have them in turn
		publish := func() {
			p := dialCoder(t, "publisher", "ws://"+c.place+"/v1/ws")
			for range 9 {
				if m := p.publish(t, fmt.Sprint("d.", n%3+1), token, fmt.Sprint(n)); m.Type != "ack" {
					t.Fatalf("%+v", m)
				}
				n++
			}
		}
		type reader struct {
			script
			client string
			topics []string
		}
		var readers []reader
		for _, topics := range [][]string{{"d.*"}, {"d.1", "d.2"}, {"d.1", "d.2", "d.3"}} {
			s := startScript(t, "events.mjs", append([]string{"http://" + c.place, token}, topics...)...)
			for _, client := range []string{"eventsource", "fetch-event-source"} {
				for _, topic := range topics {
					s.says.await(t, "ack of "+topic+" to "+client, 0, func(line string) bool {
						return strings.Contains(line, `"name":"ack"`) && strings.Contains(line, quote(client)) && strings.Contains(line, `"id":`+quote(topic))
					})
				}
				readers = append(readers, reader{s, client, topics})
			}
		}
		// got is what a reader has had of a topic. Where it asks for several, the last id that came need not be the highest, and
		// events may come again: see docs/protocol.md. They count once.
		got := func(r reader, topic string) (data []string) {
			for _, line := range r.says.all() {
				var x struct {
					Client, Name string
					Data         struct {
						Topic string
						Data  json.RawMessage
					}
				}
				if json.Unmarshal([]byte(line), &x) == nil && x.Client == r.client && x.Name == "message" && x.Data.Topic == topic && (len(r.topics) == 1 || !slices.Contains(data, string(x.Data.Data))) {
					data = append(data, string(x.Data.Data))
				}
			}
			return data
		}
		for round := range 3 {
			if round > 0 {
				c.restart()
			}
			publish()
			for _, r := range readers {
				for i, topic := range []string{"d.1", "d.2", "d.3"} {
					if r.topics[0] != "d.*" && !slices.Contains(r.topics, topic) {
						continue
					}
					var want []string
					for j := i; j < n; j += 3 {
						want = append(want, fmt.Sprint(j))
					}
					eventually(t, fmt.Sprintf("%s of %q has the events of %s after %d restarts", r.client, r.topics, topic, round), func() bool { return len(got(r, topic)) >= len(want) })
					if got := got(r, topic); !slices.Equal(got, want) {
						t.Errorf("%s of %q has %q of %s, not %q", r.client, r.topics, got, topic, want)
					}
				}
			}
		}
	})
	t.Run("Chromium", func(t *testing.T) {
		t.Parallel()
		home := website(t)
		c, control, token := begin(t, home)
		b := browser{startScript(t, "page.mjs", chromium(t))}
		o := b.do(t, home, "task", map[string]any{"source": `
			const { server, control, token } = task, got = []
			const query = new URLSearchParams({ topic: 'd.*', access_token: token })
			const events = new EventSource(server + '/v1/events?' + query)
			events.onmessage = ({ data }) => got.push(JSON.parse(data).data)
			const until = async (count) => {
				for (let i = 0; got.length < count && i < 3000; i++) await new Promise((resolve) => setTimeout(resolve, 20))
			}
			await new Promise((resolve) => events.addEventListener('ack', resolve))
			const publish = async (...all) => {
				for (const data of all) {
					await fetch(server + '/v1/publish', {
						method: 'POST',
						headers: { Authorization: 'Bearer ' + token, 'Content-Type': 'application/json' },
						body: JSON.stringify({ topic: 'd.1', data }),
					})
				}
			}
			await publish(0, 1, 2)
			await until(3)
			await fetch(control + '/restart')
			await publish(3, 4, 5)
			await until(6)
			events.close()
			return got`, "task": map[string]string{"server": "http://" + c.place, "control": control, "token": token}})
		if o.Body != `[0,1,2,3,4,5]` {
			t.Errorf("the page has %+v", o)
		}
	})
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
