//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A newcomer is an application that has come from another server, as a page in docs describes it: with the configuration,
// a token, the code of a page in Chromium, and the calls of its backend.
type newcomer struct {
	keys  issuer
	node  *server
	shell *terminal
	show  func() string
}

// newNewcomer takes the first three examples of a page: yaml, json and js.
func newNewcomer(t *testing.T, d *document) (n newcomer) {
	t.Helper()
	needProgram(t, "curl")
	dist := webDist(t)
	files := http.NewServeMux()
	site := httptest.NewServer(files)
	t.Cleanup(site.Close)
	n.keys = newIssuer(t)
	config := d.next(t, "yaml", "https://app.example.com", site.URL, "/var/lib/notifyd", t.TempDir())
	n.node = serve(t, "notifyd", nil, "--config="+keyFile(t, "notifyd.yaml", exampleFile.ReplaceAllString(config.text, n.keys.public)))
	token := n.keys.tokenFor(t, d.next(t, "json").text)
	code := d.next(t, "js", "wss://push.example.com/v1/ws", n.node.url).text

	files.Handle("/client/", http.StripPrefix("/client/", http.FileServer(http.Dir(dist))))
	files.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(token)) }) // the page asks again
	files.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>page</title><script type="importmap">{"imports":{"@notifyd/client":"/client/index.js","@notifyd/client/durable":"/client/durable.js"}}</script><pre id="log"></pre>
			<script>console.log = (...values) => document.getElementById('log').append(values.join(' ') + '\n')</script><script type="module">%s</script>`, code) // the browser asks again
	})
	b := browser{startScript(t, "page.mjs", chromium(t))}
	n.show = func() string { return b.do(t, site.URL, "text", map[string]any{}).Body }
	n.shell = openTerminal(t, "backend", t.TempDir())
	return n
}

func (n newcomer) shows(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the page shows "+text, func() bool { return strings.Contains(n.show(), text) })
}

// calls makes the calls of the next block with a token, and returns the answers.
func (n newcomer) calls(t *testing.T, d *document, claims string) (answers []string) {
	t.Helper()
	n.shell.do(t, "export NOTIFYD_TOKEN="+n.keys.tokenFor(t, claims))
	for _, command := range d.next(t, "sh", "127.0.0.1:8080", n.node.address()).commands() {
		answers = append(answers, strings.Join(n.shell.do(t, command), "\n"))
	}
	return answers
}

func migrationFromCentrifugo(t *testing.T, d *document) {
	n := newNewcomer(t, d)
	n.shows(t, "42: hello")
	answers := n.calls(t, d, `{"sub":"shop","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	if len(answers) != 3 || answers[0] != `{"ok":true,"seq":2}` || answers[1] != `{"ok":true,"seq":3}`+"\n"+`{"ok":true,"seq":4}` ||
		strings.Contains(answers[2], `"one"`) || !strings.Contains(answers[2], `"two"`) || !strings.Contains(answers[2], `"three"`) {
		t.Errorf("the server answers %q", answers)
	}
	n.shows(t, "shop: one\nshop: two\nshop: three")
}

func migrationFromPusher(t *testing.T, d *document) {
	n := newNewcomer(t, d)
	n.shows(t, "connected\ntyping 42")
	if answers := n.calls(t, d, `{"sub":"shop","notify":{"publish":["rooms.>"]}}`); len(answers) != 1 || answers[0] != `{"ok":true,"seq":2}` {
		t.Errorf("the server answers %q", answers)
	}
	n.shows(t, "message hello")
}
