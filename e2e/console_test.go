//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// The examples of docs/console.md lead to the page.
func TestConsoleExamples(t *testing.T) {
	t.Parallel()
	d := readDocument(t, "docs/console.md")
	shows := func(base string) {
		t.Helper()
		resp, err := http.Get(base + "/console/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(body), "<title>notifyd console</title>") {
			t.Errorf("%s/console/: %v: %s %s", base, err, resp.Status, body)
		}
	}
	if line := d.next(t, "sh").text; line != "notifyd serve --dev\n" {
		t.Fatalf("the first example is %q", line)
	}
	node := serve(t, "notifyd", nil, "--dev")
	base, secret, _ := strings.Cut(consolePage(t, node), "/console/#mint=")
	shows(base)
	if len(secret) < 26 {
		t.Errorf("the secret at the end of the address is %q", secret)
	}

	keys := newIssuer(t)
	config := filepath.Join(t.TempDir(), "notifyd.yaml")
	if err := os.WriteFile(config, []byte(exampleFile.ReplaceAllString(d.next(t, "yaml").text, keys.public)), 0o600); err != nil {
		t.Fatal(err)
	}
	shows(serve(t, "notifyd", nil, "--config="+config).admin)
	if d.used != len(d.blocks) {
		t.Errorf("nothing runs %q", d.blocks[d.used].text)
	}
}

// consoleTask is what web/console/test/journey.mjs is asked to do.
type consoleTask struct {
	Name     string   `json:"name"`
	Page     string   `json:"page"`
	Chromium string   `json:"chromium"`
	Foreign  string   `json:"foreign,omitempty"` // a token of another issuer
	Codes    []string `json:"codes,omitempty"`
	Token    string   `json:"token,omitempty"`
	Control  string   `json:"control,omitempty"`
	Shots    string   `json:"shots,omitempty"` // a folder for pictures
}

func (task consoleTask) run(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		leftOut(t, "no Node.js here (20 or later), so no browser")
	}
	needConsolePackages(t)
	task.Chromium, task.Shots = chromium(t), os.Getenv("E2E_SHOTS")
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "../web/console/test/journey.mjs", string(text))
	says := newJournal("what the page does")
	cmd.Stdout = says
	p := start(t, "journey in the console", cmd)
	<-p.gone
	says.end()
	var wrong []string
	if err := json.Unmarshal([]byte(strings.Join(says.all(), "")), &wrong); err != nil || p.cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("%v: %s\n%s", err, says.tail(), p.output.tail())
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func needConsolePackages(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("../web/console/node_modules"); err != nil {
		leftOut(t, "npm packages are not installed: (cd web/console && npm ci --ignore-scripts)")
	}
}

// memoryStream is a stream that tests of the console write to.
const memoryStream = `--streams=[{"name":"orders","topics":["orders.>"],"max_age":"1h","storage":"memory"}]`

// A developer tries a server out: tokens minted and pasted, every strategy, events, refusals, the end of a token.
func TestConsoleJourney(t *testing.T) {
	t.Parallel()
	node := serve(t, "notifyd", nil, "--dev", memoryStream, "--auth.strategies=message,first-message,header,subprotocol,ticket,query")
	task := consoleTask{Name: "tryOut", Page: consolePage(t, node), Foreign: newIssuer(t).tokenFor(t, `{"sub":"eve","notify":{"subscribe":[">"]}}`)}
	for _, code := range wire.Codes() {
		task.Codes = append(task.Codes, code.String())
	}
	task.run(t)
}

// In each view, in light, in dark and at the width of a phone, axe-core finds nothing serious, and nothing is wider than the
// window. E2E_SHOTS names a folder for pictures.
func TestConsoleLooks(t *testing.T) {
	t.Parallel()
	consoleTask{Name: "look", Page: consolePage(t, serve(t, "notifyd", nil, "--dev", memoryStream))}.run(t)
}

// consolePage is the address of the console that "serve --dev" prints.
func consolePage(t *testing.T, node *server) string {
	t.Helper()
	return strings.TrimSpace(node.output.await(t, "address of the console", 0, func(line string) bool { return strings.Contains(line, "/console/#mint=") }))
}

// The console of the admin listener, while its server is killed and started again: the page comes back by itself, and misses
// nothing of a durable topic.
func TestConsoleResumes(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	args := []string{
		"--auth.keys=" + keys.public, "--console.enabled", "--data-dir=" + t.TempDir(), "--drain-window=0s",
		`--streams=[{"name":"orders","topics":["orders.>"],"max_age":"1h"}]`,
	}
	node := serve(t, "notifyd", nil, args...)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["orders.>"],"subscribe":["orders.>"]}}`)
	place, admin := strings.TrimSuffix(strings.TrimPrefix(node.url, "ws://"), "/v1/ws"), strings.TrimPrefix(node.admin, "http://")
	events := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /kill", func(http.ResponseWriter, *http.Request) { node.kill() })
	mux.HandleFunc("POST /start", func(http.ResponseWriter, *http.Request) {
		node = serve(t, "notifyd again", nil, append(args, "--listen="+place, "--admin.listen="+admin)...)
	})
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, _ *http.Request) {
		events++
		header := map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json"}
		resp, answer := testkit.Call(t, http.MethodPost, node.call("publish"), header, fmt.Sprintf(`{"topic":"orders.7","data":{"event":%d}}`, events))
		if resp.StatusCode != http.StatusOK {
			http.Error(w, answer, http.StatusBadGateway)
		}
	})
	control := httptest.NewServer(mux)
	t.Cleanup(control.Close)
	consoleTask{Name: "resume", Page: node.admin + "/console/", Token: token, Control: control.URL}.run(t)
}

// A console whose node loses NATS: first nats-server is silent, as when a network ends, then it is killed and started again. The
// page says so and what it means, and events come again by themselves.
func TestConsoleWithoutNATS(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	nats, address := natsProcess(t, ownHost()+":0")
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--console.enabled", "--nats.url=nats://"+address,
		`--streams=[{"name":"orders","topics":["orders.>"],"max_age":"1h"}]`)
	signal := func(s syscall.Signal) {
		if err := nats.cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { signal(syscall.SIGSTOP) })
	mux.HandleFunc("POST /continue", func(http.ResponseWriter, *http.Request) { signal(syscall.SIGCONT) })
	mux.HandleFunc("POST /kill", func(http.ResponseWriter, *http.Request) { nats.kill() })
	mux.HandleFunc("POST /start", func(http.ResponseWriter, *http.Request) { nats, _ = natsProcess(t, address) })
	control := httptest.NewServer(mux)
	t.Cleanup(control.Close)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":[">"],"subscribe":[">"]}}`)
	consoleTask{Name: "withoutNATS", Page: node.admin + "/console/", Token: token, Control: control.URL}.run(t)
}
