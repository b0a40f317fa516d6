//go:build linux

package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const webClient = "../web/client"

// npmRun runs a script of web/client.
func npmRun(t *testing.T, script string) {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		leftOut(t, "no npm here, so no JavaScript client")
	}
	if _, err := os.Stat(webClient + "/node_modules"); err != nil {
		leftOut(t, "npm packages are not installed: (cd web/client && npm ci --ignore-scripts)")
	}
	cmd := exec.Command(npm, "run", "--silent", script)
	cmd.Dir = webClient
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm run %s: %v\n%s", script, err, out)
	}
}

var webBuild sync.Mutex

// webDist builds the JavaScript client and returns its folder.
func webDist(t *testing.T) string {
	t.Helper()
	webBuild.Lock()
	defer webBuild.Unlock()
	npmRun(t, "build")
	dist, err := filepath.Abs(webClient + "/dist")
	if err != nil {
		t.Fatal(err)
	}
	return dist
}

// The JavaScript client's own tests, and the bounds of its size.
func TestWebClient(t *testing.T) {
	webBuild.Lock()
	defer webBuild.Unlock()
	npmRun(t, "test")
}

// controller mints tokens and restarts the server for a client in another process.
type controller struct {
	t     *testing.T
	keys  issuer
	args  []string
	mu    sync.Mutex
	node  *server
	place string // host:port
}

func startController(t *testing.T, origin string) (c *controller, control string) {
	t.Helper()
	c = &controller{t: t, keys: newIssuer(t)}
	c.args = []string{"--auth.keys=" + c.keys.public, "--drain-window=100ms", "--auth.expiry-notice=2s"}
	if origin != "" {
		c.args = append(c.args, "--origins="+origin)
	}
	c.node = serve(t, "notifyd", nil, c.args...)
	u, err := url.Parse(c.node.url)
	if err != nil {
		t.Fatal(err)
	}
	c.place = u.Host
	mux := http.NewServeMux()
	allow := func(f http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			f(w, r)
		}
	}
	mux.HandleFunc("/token", allow(func(w http.ResponseWriter, _ *http.Request) {
		cmd := exec.Command(binary(t), "token", "--key="+c.keys.private, "--sub=ann", "--ttl=6s", "--publish=j.*", "--subscribe=j.*")
		out, err := cmd.Output()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(strings.TrimSpace(string(out))))
	}))
	mux.HandleFunc("/restart", allow(func(http.ResponseWriter, *http.Request) { c.restart() }))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return c, s.URL
}

// restart ends the server in good order and starts another in its place.
func (c *controller) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.node.cmd.Process.Signal(syscall.SIGTERM)
	<-c.node.gone
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // until the port is free
		l, err := net.Listen("tcp", c.place)
		if err == nil {
			_ = l.Close()
			break
		}
		if time.Now().After(end) {
			c.t.Errorf("the port stays taken: %v", err)
			return
		}
	}
	c.node = serve(c.t, "notifyd again", nil, append(c.args, "--listen="+c.place)...)
}

// outcomeOf is what the steps say.
type outcomeOf struct {
	Wrong         []string
	Acked, Minted int
}

func (o outcomeOf) check(t *testing.T) {
	t.Helper()
	for _, w := range o.Wrong {
		t.Error(w)
	}
	t.Logf("%d events acked, %d tokens", o.Acked, o.Minted)
}

// webTask is what the steps of js/steps.mjs are asked to do.
type webTask struct {
	Steps    string `json:"steps"`
	URL      string `json:"url"`
	Strategy string `json:"strategy"`
	Control  string `json:"control"`
	Count    int    `json:"count,omitempty"`
}

// stepsInNode does the steps in Node.
func stepsInNode(t *testing.T, dist string, task webTask) {
	t.Helper()
	c, control := startController(t, "")
	task.URL, task.Control = "ws://"+c.place+"/v1/ws", control
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := nodeScript(t, "journey.mjs", dist, string(text))
	says := newJournal("what the journey says")
	cmd.Stdout = says
	p := start(t, "journey", cmd)
	<-p.gone
	says.end()
	var o outcomeOf
	if err := json.Unmarshal([]byte(strings.Join(says.all(), "")), &o); err != nil || p.cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("%v: %s\n%s", err, says.tail(), p.output.tail())
	}
	o.check(t)
}

// stepsInChromium does the steps in a page.
func stepsInChromium(t *testing.T, dist string, task webTask) {
	t.Helper()
	files := http.NewServeMux()
	files.Handle("/client/", http.StripPrefix("/client/", http.FileServer(http.Dir(dist))))
	files.HandleFunc("/steps.mjs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		http.ServeFile(w, r, "js/steps.mjs")
	})
	files.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>journey</title>"))
	})
	site := httptest.NewServer(files)
	t.Cleanup(site.Close)
	c, control := startController(t, site.URL)
	task.URL, task.Control = "ws://"+c.place+"/v1/ws", control
	b := browser{startScript(t, "page.mjs", chromium(t))}
	answer := b.do(t, site.URL, "task", map[string]any{
		"source": `const { Client, RefusedError } = await import('/client/index.js')
			const steps = await import('/steps.mjs')
			return steps[task.steps]({ Client, RefusedError, ...task })`,
		"task": task,
	})
	var o outcomeOf
	if err := json.Unmarshal([]byte(answer.Body), &o); err != nil {
		t.Fatalf("%v: %+v", err, answer)
	}
	o.check(t)
}

// The JavaScript client against a real server: order, refusals by code, tokens that live for seconds, a restart.
func TestWebClientJourney(t *testing.T) {
	dist := webDist(t)
	for _, strategy := range []string{"message", "first-message", "subprotocol", "ticket"} {
		t.Run("Node with "+strategy, func(t *testing.T) {
			t.Parallel()
			stepsInNode(t, dist, webTask{Steps: "journey", Strategy: strategy})
		})
	}
	for _, strategy := range []string{"message", "ticket"} {
		t.Run("Chromium with "+strategy, func(t *testing.T) {
			t.Parallel()
			stepsInChromium(t, dist, webTask{Steps: "journey", Strategy: strategy})
		})
	}
}

// The JavaScript client lives through restarts of the server while its tokens are refreshed: E2E_ROUNDS of them, or 3.
func TestWebClientRestarts(t *testing.T) {
	count := 3
	if text := os.Getenv("E2E_ROUNDS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	dist := webDist(t)
	for _, strategy := range []string{"message", "ticket"} {
		t.Run("Node with "+strategy, func(t *testing.T) {
			t.Parallel()
			stepsInNode(t, dist, webTask{Steps: "rounds", Strategy: strategy, Count: count})
		})
	}
	t.Run("Chromium with first-message", func(t *testing.T) {
		t.Parallel()
		stepsInChromium(t, dist, webTask{Steps: "rounds", Strategy: "first-message", Count: count})
	})
}
