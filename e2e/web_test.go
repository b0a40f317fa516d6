//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
)

const webClient = "../web/client"

var webBuild = sync.OnceValues(func() (dist string, err error) {
	cmd := exec.Command("npm", "run", "--silent", "build")
	cmd.Dir = webClient
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm run build: %w\n%s", err, out)
	}
	return filepath.Abs(webClient + "/dist")
})

// webDist builds the JavaScript client once and returns its folder.
func webDist(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		leftOut(t, "no npm here, so no JavaScript client")
	}
	if _, err := os.Stat(webClient + "/node_modules"); err != nil {
		leftOut(t, "npm packages are not installed: (cd web/client && npm ci --ignore-scripts)")
	}
	dist, err := webBuild()
	if err != nil {
		t.Fatal(err)
	}
	return dist
}

// The JavaScript client's own tests, and the bounds of its size.
func TestWebClient(t *testing.T) {
	t.Parallel()
	webDist(t)
	text, err := os.ReadFile(webClient + "/package.json")
	if err != nil || !strings.Contains(string(text), `"test": "tsc && node --test"`) {
		t.Fatalf("npm test does something else: %v", err)
	}
	cmd := exec.Command("node", "--test")
	cmd.Dir = webClient
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("node --test: %v\n%s", err, out)
	}
}

// controller mints tokens and restarts the server for a client in another process.
type controller struct {
	t     *testing.T
	keys  issuer
	args  []string
	place string // host:port
	proxy *proxied

	// What the client asks for changes these: mu is held then.
	mu      sync.Mutex
	node    *server
	network *cutter // the way to it, or to the proxy before it
	other   *server // where clients go when the node restarts
}

// url is of the WebSocket, through all that is on the way.
func (c *controller) url() string {
	if c.proxy != nil {
		return "wss://" + c.network.address + "/v1/ws"
	}
	return "ws://" + c.network.address + "/v1/ws"
}

// behind puts a proxy on the way.
func (c *controller) behind(p proxySample) {
	c.args = append(c.args, "--trusted-proxies=127.0.0.1/32")
	c.restart()
	c.proxy = p.before(c.t, c.place, nil)
	network := newCutter(c.t, c.proxy.address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.network = network
}

// join makes another node and the server nodes of one cluster. The server restarts with notice from then on.
func (c *controller) join() {
	_, nats := natsProcess(c.t, ownHost()+":0")
	c.args = slices.DeleteFunc(c.args, func(arg string) bool { return strings.HasPrefix(arg, "--data-dir=") })
	c.args = append(c.args, "--nats.url=nats://"+nats, "--drain-window=4s")
	c.restart()
	other := serve(c.t, "the other node", nil, c.args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other = other
}

// move ends the server in good order while the other node takes new connections.
func (c *controller) move() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.network.turn(c.other.address())
	_ = c.node.cmd.Process.Signal(syscall.SIGTERM)
	<-c.node.gone
}

// cut cuts the network for longer than a client waits.
func (c *controller) cut() {
	c.mu.Lock()
	network := c.network
	c.mu.Unlock()
	network.cut(6 * time.Second)
}

func startController(t *testing.T, origin string) (c *controller, control string) {
	t.Helper()
	c = &controller{t: t, keys: newIssuer(t)}
	c.args = []string{
		"--auth.keys=" + c.keys.public, "--drain-window=100ms", "--auth.expiry-notice=2s", "--ping-interval=1s",
		"--data-dir=" + t.TempDir(), `--streams=[{name: d, topics: ["d.*"], max_bytes: 64MiB}]`,
	}
	if origin != "" {
		c.args = append(c.args, "--origins="+origin)
	}
	c.node = serve(t, "notifyd", nil, append(c.args, "--listen="+ownHost()+":0")...)
	u, err := url.Parse(c.node.url)
	if err != nil {
		t.Fatal(err)
	}
	c.place = u.Host
	text, err := os.ReadFile(c.keys.private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := authz.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	var minted atomic.Int64
	mux := http.NewServeMux()
	allow := func(f http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			f(w, r)
		}
	}
	mux.HandleFunc("/token", allow(func(w http.ResponseWriter, _ *http.Request) {
		topics := []string{"j.*", "d.*"}
		token, err := authz.Sign(key, authz.Claims{
			ID: fmt.Sprint(minted.Add(1)), Subject: "ann", Expires: time.Now().Add(6 * time.Second), Publish: topics, Subscribe: topics,
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(token))
	}))
	mux.HandleFunc("/restart", allow(func(http.ResponseWriter, *http.Request) { c.restart() }))
	mux.HandleFunc("/move", allow(func(http.ResponseWriter, *http.Request) { c.move() }))
	c.network = newCutter(t, c.place)
	mux.HandleFunc("/cut", allow(func(http.ResponseWriter, *http.Request) { c.cut() }))
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

// webTask is a journey of js/steps.mjs, and what it needs.
type webTask struct {
	Journey  string `json:"journey"`
	URL      string `json:"url"`
	Other    string `json:"other,omitempty"` // another node
	Strategy string `json:"strategy"`
	Control  string `json:"control"`
	Count    int    `json:"count,omitempty"`
	// Transport is auto where it is empty: a WebSocket.
	Transport string `json:"transport,omitempty"`
	// proxy is on the way, if it has a name.
	proxy proxySample
}

// controller starts what the journey travels to, for clients from origin.
func (task *webTask) controller(t *testing.T, origin string) *controller {
	t.Helper()
	c, control := startController(t, origin)
	if task.proxy.name != "" {
		c.behind(task.proxy)
	}
	if task.Journey == "move" {
		c.join()
		task.Other = c.other.url
	}
	task.URL, task.Control = c.url(), control
	return c
}

// travelInNode makes a journey in Node.
func travelInNode(t *testing.T, dist string, task webTask) {
	t.Helper()
	travel(t, nodeScript(t, "journey.mjs"), dist, task)
}

// travel makes a journey by a command that runs journey.mjs.
func travel(t *testing.T, cmd *exec.Cmd, dist string, task webTask) {
	t.Helper()
	c := task.controller(t, "")
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, dist, string(text))
	if c.proxy != nil {
		cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+c.proxy.certificate)
	}
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

// travelInChromium makes a journey in a page. It returns with which protocols the page has spoken.
func travelInChromium(t *testing.T, dist string, task webTask) []string {
	t.Helper()
	return travelInPage(t, browser{startScript(t, "page.mjs", chromium(t))}, dist, task)
}

func travelInPage(t *testing.T, b browser, dist string, task webTask) (protocols []string) {
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
	task.controller(t, site.URL)
	answer := b.doFor(t, patience+time.Duration(task.Count)*time.Minute, site.URL, "task", map[string]any{
		"source": `const { Client, RefusedError } = await import('/client/index.js')
			const { sse } = await import('/client/sse.js')
			const { durable } = await import('/client/durable.js')
			const { journeys } = await import('/steps.mjs')
			// A WebSocket goes over HTTP/2 where a request with cookies has opened that, as the site's own page does.
			const calls = task.url.replace('ws', 'http').replace(/ws$/, 'openapi.json')
			await fetch(calls, { mode: 'no-cors', credentials: 'include' })
			return journeys[task.journey]({ Client, RefusedError, sse, durable, ...task })`,
		"task": task,
	})
	var o outcomeOf
	if err := json.Unmarshal([]byte(answer.Body), &o); err != nil {
		t.Fatalf("%v: %+v", err, answer)
	}
	o.check(t)
	return answer.Protocols
}

// The JavaScript client against a real server: order, refusals by code, tokens that live for seconds, a restart.
func TestWebClientJourney(t *testing.T) {
	t.Parallel()
	dist := webDist(t)
	for _, strategy := range []string{"message", "first-message", "subprotocol", "ticket"} {
		t.Run("Node with "+strategy, func(t *testing.T) {
			t.Parallel()
			travelInNode(t, dist, webTask{Journey: "journey", Strategy: strategy})
		})
	}
	for _, strategy := range []string{"message", "ticket"} {
		t.Run("Chromium with "+strategy, func(t *testing.T) {
			t.Parallel()
			travelInChromium(t, dist, webTask{Journey: "journey", Strategy: strategy})
		})
	}
	for _, strategy := range []string{"message", "first-message", "ticket"} {
		t.Run("Node over SSE with "+strategy, func(t *testing.T) {
			t.Parallel()
			travelInNode(t, dist, webTask{Journey: "journey", Strategy: strategy, Transport: "sse"})
		})
	}
	t.Run("Chromium over SSE", func(t *testing.T) {
		t.Parallel()
		travelInChromium(t, dist, webTask{Journey: "journey", Strategy: "message", Transport: "sse"})
	})
}

// roundsOr is E2E_ROUNDS, or count.
func roundsOr(t *testing.T, count int) int {
	t.Helper()
	if text := os.Getenv("E2E_ROUNDS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return count
}

// The JavaScript client loses and doubles no event of durable topics, while the server restarts, the network is cut, and
// its tokens are refreshed: E2E_ROUNDS times, or twice.
func TestWebClientDurableRounds(t *testing.T) {
	t.Parallel()
	count := roundsOr(t, 2)
	dist := webDist(t)
	for _, transport := range []string{"websocket", "sse"} {
		t.Run("Node over "+transport, func(t *testing.T) {
			t.Parallel()
			travelInNode(t, dist, webTask{Journey: "durableRounds", Strategy: "message", Transport: transport, Count: count})
		})
		t.Run("Chromium over "+transport, func(t *testing.T) {
			t.Parallel()
			travelInChromium(t, dist, webTask{Journey: "durableRounds", Strategy: "first-message", Transport: transport, Count: count})
		})
		t.Run("Firefox over "+transport, func(t *testing.T) {
			t.Parallel()
			travelInFirefox(t, dist, webTask{Journey: "durableRounds", Strategy: "ticket", Transport: transport, Count: count})
		})
	}
}

// The same behind the proxies of docs/proxies.md with TLS, and HTTP/2 towards the page: E2E_ROUNDS times, or once.
func TestWebClientRoundsBehindProxies(t *testing.T) {
	t.Parallel()
	count := roundsOr(t, 1)
	dist := webDist(t)
	for _, p := range proxySamples {
		if p.name != "nginx" && p.name != "HAProxy" {
			continue
		}
		for _, transport := range []string{"websocket", "sse"} {
			t.Run(p.name+" and Node over "+transport, func(t *testing.T) {
				t.Parallel()
				travelInNode(t, dist, webTask{Journey: "durableRounds", Strategy: "message", Transport: transport, Count: count, proxy: p})
			})
			t.Run(p.name+" and Chromium over "+transport, func(t *testing.T) {
				t.Parallel()
				protocols := travelInChromium(t, dist, webTask{Journey: "durableRounds", Strategy: "ticket", Transport: transport, Count: count, proxy: p})
				want := map[string]string{"nginx websocket": "WebSocket 101", "HAProxy websocket": "WebSocket 200"}[p.name+" "+transport]
				if transport == "sse" {
					want = "/v1/events h2"
				}
				if !slices.Contains(protocols, want) {
					t.Errorf("the page has spoken %q, not %s", protocols, want)
				}
			})
		}
	}
}

// A node says that it restarts and another one takes over: the JavaScript client loses no event and doubles none.
func TestWebClientMoves(t *testing.T) {
	t.Parallel()
	dist := webDist(t)
	for _, transport := range []string{"websocket", "sse"} {
		t.Run("Node over "+transport, func(t *testing.T) {
			t.Parallel()
			travelInNode(t, dist, webTask{Journey: "move", Strategy: "message", Transport: transport})
		})
		t.Run("Chromium over "+transport, func(t *testing.T) {
			t.Parallel()
			travelInChromium(t, dist, webTask{Journey: "move", Strategy: "first-message", Transport: transport})
		})
	}
}

// Firefox makes the journey that Chromium makes.
func TestWebClientInFirefox(t *testing.T) {
	t.Parallel()
	dist := webDist(t)
	for _, transport := range []string{"websocket", "sse"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			travelInFirefox(t, dist, webTask{Journey: "journey", Strategy: "ticket", Transport: transport})
		})
	}
	t.Run("a test that fails ends it amid its task", func(t *testing.T) {
		t.Parallel()
		b, home := startFirefox(t), website(t)
		b.do(t, home, "text", map[string]any{})
		b.tell(t, map[string]any{"page": home + "/", "task": map[string]any{"source": "await new Promise(() => {})", "task": 0}})
	})
}

// travelInFirefox makes a journey in a page of Firefox.
func travelInFirefox(t *testing.T, dist string, task webTask) {
	t.Helper()
	travelInPage(t, startFirefox(t), dist, task)
}

// startFirefox starts Firefox, which ends with the test.
func startFirefox(t *testing.T) browser {
	t.Helper()
	b := browser{startScript(t, "page.mjs", firefox(t), "firefox")}
	t.Cleanup(func() { // its group is its own: it ends by being asked to, and not with the script
		_ = b.stdin.Close()
		select {
		case <-b.gone:
		case <-time.After(time.Minute):
			t.Error("Firefox did not end")
		}
	})
	return b
}

func firefox(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("NOTIFYD_FIREFOX"); path != "" {
		return path
	}
	for _, name := range []string{"firefox-esr", "firefox"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	leftOut(t, "no Firefox here: install it or name it in NOTIFYD_FIREFOX")
	return ""
}

// Deno and Bun have a WebSocket and a fetch of their own: the client works with them.
func TestWebClientInDenoAndBun(t *testing.T) {
	t.Parallel()
	dist := webDist(t)
	for name, command := range map[string][]string{
		"Deno": {"@deno/linux-x64-glibc/deno", "run", "--quiet", "--no-lock", "--allow-all"},
		"Bun":  {"@oven/bun-linux-x64/bin/bun"},
	} {
		path, err := filepath.Abs("js/runtimes/node_modules/" + command[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, transport := range []string{"websocket", "sse"} {
			t.Run(name+" over "+transport, func(t *testing.T) {
				t.Parallel()
				if err := exec.Command(path, "--version").Run(); err != nil {
					leftOut(t, "no "+name+" for this machine, (cd e2e/js/runtimes && npm ci --ignore-scripts) brings it: "+err.Error())
				}
				cmd := exec.Command(path, append(command[1:], "js/journey.mjs")...)
				travel(t, cmd, dist, webTask{Journey: "visit", Strategy: "message", Transport: transport})
			})
		}
	}
}

// The JavaScript client lives through restarts of the server while its tokens are refreshed: E2E_ROUNDS of them, or 3.
func TestWebClientRestarts(t *testing.T) {
	t.Parallel()
	count := roundsOr(t, 3)
	dist := webDist(t)
	for _, strategy := range []string{"message", "ticket"} {
		t.Run("Node with "+strategy, func(t *testing.T) {
			t.Parallel()
			travelInNode(t, dist, webTask{Journey: "rounds", Strategy: strategy, Count: count})
		})
	}
	t.Run("Chromium with first-message", func(t *testing.T) {
		t.Parallel()
		travelInChromium(t, dist, webTask{Journey: "rounds", Strategy: "first-message", Count: count})
	})
}

// The examples of the client's README, as they are printed, in a page that is served by the issuer of its tokens.
func TestWebClientReadme(t *testing.T) {
	t.Parallel()
	webDist(t)
	d := readDocument(t, "web/client/README.md")
	keys := newIssuer(t)
	files := http.NewServeMux()
	site := httptest.NewServer(files)
	t.Cleanup(site.Close)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--origins="+site.URL, `--streams=[{name: orders, topics: ["orders.*"], max_bytes: 64MiB, storage: memory, ttl: true}]`)
	here := []string{"wss://push.example.com/v1/ws", node.url}
	first, iterator, durable, blocked, component := d.next(t, "js", here...).text, d.next(t, "js", here...).text, d.next(t, "js", here...).text, d.next(t, "js", here...).text, d.next(t, "jsx", here...).text
	if d.used != len(d.blocks) {
		t.Errorf("nothing runs %q", d.blocks[d.used].text)
	}

	// Compiled where the package finds itself by its name, as it is where it is installed.
	folder, err := os.MkdirTemp(webClient, "readme-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	compile := func(name, source string) {
		t.Helper()
		write(t, folder, name+".jsx", source)
		path := filepath.Base(folder) + "/" + name
		cmd := exec.Command("node_modules/.bin/esbuild", "--bundle", "--format=esm", "--jsx=automatic", "--log-level=warning", "--outfile="+path+".out.js", path+".jsx")
		cmd.Dir = webClient
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s\n%s", name, err, out, source)
		}
	}
	compile("events", first+`
		const again = setInterval(() => client.publish('rooms.7', { text: 'bye', last: true }), 200)
		`+iterator+`
		clearInterval(again)
		console.log('the loop has ended')`)
	const application = `
		const getToken = async () => (await fetch('/token')).text()
		const show = (event) => console.log('shown', event.seq ?? '', event.data ?? event)
		const showHole = (after, first) => console.log('a hole', after, first)
		`
	compile("durable", application+durable+`
		console.log('stored as', seq, duplicate)
		while (orders.position?.seq !== seq) await new Promise((resolve) => setTimeout(resolve, 20))
		console.log('at', orders.position.seq, (await client.publish('orders.7', { paid: true }, { msgId: 'order-7-paid' })).duplicate)`)
	compile("blocked", `
		globalThis.WebSocket = class extends EventTarget { // as a proxy that does not know them
			constructor() {
				super()
				setTimeout(() => {
					const closed = Object.assign(new Event('close'), { code: 1006, reason: '' })
					this.onclose(closed)
					this.dispatchEvent(closed)
				}, 1)
			}
			close() {}
		}
		`+application+blocked+`
		await client.publish('rooms.42', { text: 'over HTTP' })`)
	compile("room", `import { createRoot } from 'react-dom/client'
		`+component+`
		const getToken = async () => (await fetch('/token')).text()
		createRoot(document.getElementById('root')).render(
			<Room url="`+node.url+`" user="ann" room="42" getToken={getToken} onMessage={({ data }) => console.log('a message', data)} />)`)

	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.*","orders.*"],"subscribe":["rooms.*","orders.*"]}}`)
	files.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(token)) })
	files.HandleFunc("/page/{name}/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>README</title><pre id="log"></pre><p id="root"></p><script>
			console.log = (...x) => document.getElementById('log').append(x.map((v) => (typeof v === 'string' ? v : JSON.stringify(v))).join(' ') + '\n')
			for (const kind of ['error', 'unhandledrejection']) addEventListener(kind, (e) => console.log(String(e.reason ?? e.message)))
			</script><script type="module" src="/built/%s.out.js"></script>`, r.PathValue("name"))
	})
	files.Handle("/built/", http.StripPrefix("/built/", http.FileServer(http.Dir(folder))))
	b := browser{startScript(t, "page.mjs", chromium(t))}
	shows := func(page string, texts ...string) {
		t.Helper()
		body := ""
		defer func() {
			if t.Failed() {
				t.Logf("the page shows %q", body)
			}
		}()
		eventually(t, fmt.Sprintf("%s shows %q", page, texts), func() bool {
			body = b.do(t, site.URL+page, "text", map[string]any{}).Body
			for _, text := range texts {
				if !strings.Contains(body, text) {
					return false
				}
			}
			return true
		})
	}
	shows("/page/events/", `rooms.42 {"text":"hello"}`, `rooms.7 {"text":"bye","last":true}`, "the loop has ended")

	shows("/page/durable/", `shown 1 {"paid":true}`, "stored as 1", "at 1 true")
	shows("/page/blocked/", "now over sse: connection closed: 1006", `shown  {"text":"over HTTP"}`)

	p := dialCoder(t, "publisher", node.url)
	eventually(t, "the component shows an event", func() bool {
		p.publish(t, "rooms.42", token, `{"text":"to the room"}`) // until it has subscribed
		body := b.do(t, site.URL+"/page/room/", "text", map[string]any{}).Body
		return strings.Contains(body, "\nto the room") && strings.Contains(body, `a message {"text":"to the room"}`)
	})
	p.publish(t, "rooms.42", token, `{"text":"the latest"}`)
	shows("/page/room/", "\nthe latest")
}
