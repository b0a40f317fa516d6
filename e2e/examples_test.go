//go:build linux

package e2e

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// repeat is how often the examples for browsers and Node.js are run, each time on a new server.
var repeat = flag.Int("repeat", 3, "how often to run the examples for browsers and Node.js, on a new server each time")

// examples run what the documents print, as it is printed. Only addresses are replaced: 127.0.0.1:8080 is that of the
// server under test. An example that nothing runs is an error.
var examples = map[string]func(*testing.T, *document){
	"README.md":                         readmeExamples,
	"docs/authentication.md":            authenticationExamples,
	"docs/backends/README.md":           backendsReadme,
	"docs/backends/django.md":           djangoBackend,
	"docs/backends/express.md":          expressBackend,
	"docs/backends/fastapi.md":          fastAPIBackend,
	"docs/backends/go.md":               goBackend,
	"docs/backends/laravel.md":          laravelBackend,
	"docs/backends/nextjs.md":           nextBackend,
	"docs/backends/rails.md":            railsBackend,
	"docs/configuration.md":             configurationExamples,
	"docs/doctor.md":                    doctorExamples,
	"docs/load-testing.md":              loadTestingExamples,
	"docs/migrating-from-centrifugo.md": migrationFromCentrifugo,
	"docs/migrating-from-pusher.md":     migrationFromPusher,
	"docs/protocol.md":                  protocolExamples,
	"docs/tutorial.md":                  tutorialSteps,
}

// testedElsewhere are documents whose examples another file tests, which names the document.
var testedElsewhere = map[string]string{
	"docs/console.md":            "console_test.go",
	"docs/identity-providers.md": "../authz/identity_providers_test.go",
	"docs/monitoring.md":         "../deploy/validate/monitoring_test.go",
	"docs/proxies.md":            "proxies_test.go",
	"docs/streams.md":            "../cmd/notifyd/check_test.go",
}

func TestExamples(t *testing.T) {
	t.Parallel()
	names := []string{"README.md"}
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	backends, err := filepath.Glob("../docs/backends/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, backends...) {
		names = append(names, strings.TrimPrefix(page, "../"))
	}
	left := maps.Clone(examples)
	for _, name := range names {
		d := readDocument(t, name)
		run, ok := left[name]
		delete(left, name)
		switch {
		case ok:
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, d)
				if !t.Failed() && !t.Skipped() && d.used != len(d.blocks) {
					t.Errorf("nothing runs the last %d examples, from here on:\n%s", len(d.blocks)-d.used, d.blocks[d.used].text)
				}
			})
		case testedElsewhere[name] != "":
			if text, err := os.ReadFile(testedElsewhere[name]); err != nil || !strings.Contains(string(text), name) {
				t.Errorf("%s does not test %s: %v", testedElsewhere[name], name, err)
			}
		case len(d.blocks) > 0:
			t.Errorf("nothing runs the examples of %s:\n%s", name, d.blocks[0].text)
		}
	}
	for name := range left {
		t.Errorf("there is no %s", name)
	}
}

// document is a Markdown file and the examples in it, in order.
type document struct {
	name   string
	blocks []block
	used   int
}

// block is a fenced block of a language that a reader can use. file is the name in backquotes at the end of the
// paragraph before it, if it ends with one: "Put this into `a.go`:".
type block struct{ lang, file, text string }

var fence = regexp.MustCompile("(?ms)(?:`([^`\n]+)`:\n\n)?^```(sh|go|js|jsx|html|json|yaml|text|nginx|haproxy|caddy|apache|python|ruby|php)\n(.*?)^```$")

func readDocument(t *testing.T, name string) *document {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	d := &document{name: name}
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		d.blocks = append(d.blocks, block{lang: m[2], file: m[1], text: m[3]})
	}
	return d
}

// next returns the next example, which must be of that language, with other addresses.
func (d *document) next(t *testing.T, lang string, replace ...string) block {
	t.Helper()
	if d.used == len(d.blocks) || d.blocks[d.used].lang != lang {
		t.Fatalf("%s: block %d is no %s", d.name, d.used+1, lang)
	}
	b := d.blocks[d.used]
	d.used++
	b.text = strings.NewReplacer(replace...).Replace(b.text)
	return b
}

// commands are the lines of a shell block that are not comments.
func (b block) commands() (commands []string) {
	for line := range strings.Lines(b.text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands = append(commands, line)
		}
	}
	return commands
}

func (b block) lines() []string { return strings.Split(strings.TrimSuffix(b.text, "\n"), "\n") }

// address is host and port of a server.
func (s *server) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(s.url, "ws://"), "/v1/ws")
}

// listening waits until "notifyd serve" in the terminal says where it listens.
func (x *terminal) listening(t *testing.T) *server {
	t.Helper()
	return listening(t, x.process)
}

// tokenFor signs claims, a JSON object, with the key of an issuer. It is good for an hour, whatever they say.
func (i issuer) tokenFor(t *testing.T, claims string) string {
	t.Helper()
	all := jwt.MapClaims{}
	if err := json.Unmarshal([]byte(claims), &all); err != nil {
		t.Fatalf("%v: %s", err, claims)
	}
	all["exp"] = time.Now().Add(time.Hour).Unix()
	return i.sign(t, all)
}

// sign signs claims with the key of an issuer.
func (i issuer) sign(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	text, err := os.ReadFile(i.private)
	if err != nil {
		t.Fatal(err)
	}
	var key struct{ D, Kid string }
	if err := json.Unmarshal(text, &key); err != nil {
		t.Fatal(err)
	}
	seed, err := base64.RawURLEncoding.DecodeString(key.D)
	if err != nil {
		t.Fatal(err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	token.Header["kid"] = key.Kid
	signed, err := token.SignedString(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// serverEnv has "notifyd serve" pick its ports and say which.
var serverEnv = []string{"NOTIFYD_LISTEN=127.0.0.1:0", "NOTIFYD_ADMIN_LISTEN=127.0.0.1:0", "NOTIFYD_LOG_FORMAT=json"}

func readmeExamples(t *testing.T, d *document) {
	d.next(t, "sh") // TestReadme
	tree := cleanCopy(t)

	first := openTerminal(t, "first terminal", tree, serverEnv...)
	serving := d.next(t, "sh").commands()
	first.do(t, serving[:len(serving)-1]...)
	first.leave(t, serving[len(serving)-1])
	node := first.listening(t)

	second := openTerminal(t, "second terminal", tree, "NOTIFYD_URL="+node.url)
	subscribing := d.next(t, "sh").commands()
	second.do(t, subscribing[0])
	second.leave(t, subscribing[1])
	publishing := d.next(t, "sh").commands()
	third := openTerminal(t, "third terminal", tree, "NOTIFYD_URL="+node.url)
	third.do(t, subscribing[0])
	arrives := func(at *terminal) {
		t.Helper()
		seen := at.output.len()
		eventually(t, "the event is shown", func() bool {
			third.do(t, publishing...)
			return slices.ContainsFunc(at.output.all()[seen:], func(line string) bool { return strings.Contains(line, `"text":"hello"`) })
		})
	}
	arrives(second)

	claims := d.next(t, "json")
	keys := issuer{private: filepath.Join(tree, "key.jwk")}
	third.do(t, "notifyd pub --token "+keys.tokenFor(t, claims.text)+` rooms.42 '{"text":"granted"}'`)
	second.awaitText(t, "granted")

	more := d.next(t, "sh").commands()
	if len(more) != 3 {
		t.Fatalf("%d commands about tokens", len(more))
	}
	once := third.do(t, more[0])
	third.do(t, "notifyd pub --token "+once[0]+` rooms.42 '{"text":"hello"}'`)
	if out, code := third.try(t, "notifyd pub --token "+once[0]+` rooms.42 '{"text":"hello"}'`); code == 0 {
		t.Errorf("a token for one message was good for two: %q", out)
	}
	fourth := openTerminal(t, "fourth terminal", tree, "NOTIFYD_URL="+node.url)
	fourth.do(t, subscribing[0])
	fourth.leave(t, more[1])
	arrives(fourth)
	third.do(t, more[2])
	if out, code := third.try(t, publishing[0]); code == 0 {
		t.Errorf("a revoked token still publishes: %q", out)
	}

	// The tokens of ann are revoked, so this is another's.
	bob := keys.tokenFor(t, strings.Replace(claims.text, "ann", "bob", 1))
	goExample(t, "", d.next(t, "go", "127.0.0.1:8080", node.address()).text, "", bob, `rooms.42: {"text":"hello"}`,
		"context", "fmt", "github.com/notifyd/notifyd/client")
	third.do(t, "export NOTIFYD_TOKEN="+bob)
	if out := third.do(t, d.next(t, "sh", "127.0.0.1:8080", node.address()).commands()[0]); !slices.Contains(out, "{}") {
		t.Errorf("publishing by HTTP is answered with %q", out)
	}
	d.next(t, "js") // TestScriptExamples
}

// goExample runs a fragment of Go as the body of a function with ctx and token that returns an error, and waits until it
// prints what is expected. head and tail stand before and behind it.
func goExample(t *testing.T, head, fragment, tail, token, want string, imports ...string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("package main\n\nimport (\n\t\"os\"\n")
	for _, path := range imports {
		fmt.Fprintf(&b, "\t%q\n", path)
	}
	if !slices.Contains(imports, "fmt") {
		b.WriteString("\t\"fmt\"\n")
	}
	fmt.Fprintf(&b, `)

func run(ctx context.Context, token string) error {
	%s
%s
	%s
	if err == nil {
		<-ctx.Done() // the test has seen what it waits for
	}
	return err
}

func main() {
	ctx, done := context.WithCancel(context.Background())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		done()
	}()
	if err := run(ctx, os.Getenv("TOKEN")); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}
`, head, fragment, tail)
	file := keyFile(t, "main.go", b.String())
	cmd := exec.Command("go", "run", file)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "TOKEN="+token)
	p := start(t, "Go example", cmd)
	p.output.await(t, want, 0, func(line string) bool { return line == want })
	_ = p.stdin.Close()
	<-p.gone
	if !cmd.ProcessState.Success() {
		t.Errorf("the example ended with %v:\n%s", cmd.ProcessState, p.output.tail())
	}
}

func authenticationExamples(t *testing.T, d *document) {
	needProgram(t, "curl")
	folder := t.TempDir()
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public)
	here := []string{"127.0.0.1:8080", node.address()}
	for range 4 {
		d.next(t, "js") // TestScriptExamples
	}

	both := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.42"],"subscribe":["rooms.42"]}}`)
	goExample(t, `mint := func(context.Context, client.Action, string) (string, error) { return token, nil }`, d.next(t, "go", here...).text, `
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err = c.Subscribe(ctx, "rooms.42", func(client.Event) {}); err == nil {
		fmt.Println("subscribed")
	}`, both, "subscribed", "context", "github.com/notifyd/notifyd/client")
	goExample(t, "", d.next(t, "go", here...).text, `
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	var m struct{ Type string }
	if err = wsjson.Read(ctx, conn, &m); err == nil {
		fmt.Println(m.Type)
	}`, both, "welcome", "context", "github.com/coder/websocket", "github.com/coder/websocket/wsjson")

	shell := openTerminal(t, "terminal", folder, "NOTIFYD_URL="+node.url, "NOTIFYD_TOKEN="+both)
	shell.do(t, "PATH="+filepath.Dir(binary(t))+`:$PATH`, "cp "+keys.private+" key.jwk")
	for _, command := range d.next(t, "sh", here...).commands() { // curl
		if out := strings.Join(shell.do(t, command), "\n"); !strings.Contains(out, `"ticket":`) {
			t.Errorf("%s: %s", command, out)
		}
	}
	needScripts(t)
	sockets := d.next(t, "sh", here...).commands()
	asked := 0
	for _, command := range sockets {
		if !strings.HasPrefix(command, "wscat") {
			shell.do(t, command)
			continue
		}
		asked++
		seen := shell.output.len()
		shell.leave(t, command)
		shell.output.await(t, "answer to "+command, seen, func(line string) bool { return strings.Contains(line, `"type":"ack"`) })
	}
	if asked != 4 {
		t.Errorf("wscat is called %d times", asked)
	}

	issuers := d.next(t, "yaml")
	checkConfig(t, issuers.text)

	admin := openTerminal(t, "terminal of the operator", folder, "NOTIFYD_URL="+node.url)
	admin.do(t, "PATH="+filepath.Dir(binary(t))+`:$PATH`)
	admin.do(t, d.next(t, "sh").commands()...)
	if out, code := shell.try(t, "notifyd pub rooms.42 1"); code == 0 {
		t.Errorf("a token of ann's is still accepted: %q", out)
	}

	admin.do(t, d.next(t, "sh").commands()...)
	claims := strings.Split(strings.TrimSpace(strings.Join(admin.do(t, `echo "$token"`), "")), ".")[1]
	payload, err := base64.RawURLEncoding.DecodeString(claims)
	if err != nil {
		t.Fatal(err)
	}
	var bound struct{ Notify struct{ Digest string } }
	if err := json.Unmarshal(payload, &bound); err != nil {
		t.Fatal(err)
	}
	cmd := nodeScript(t, "")
	out, err := evaluate(cmd, d.next(t, "js").text+"\nconsole.log(digest)").Output()
	if err != nil || strings.TrimSpace(string(out)) != bound.Notify.Digest || bound.Notify.Digest == "" {
		t.Errorf("the digest of the page's code is %q, %v; that of notifyd token is %q", out, err, bound.Notify.Digest)
	}
}

// evaluate has Node.js run a module, where the packages of e2e/js are found.
func evaluate(node *exec.Cmd, source string, args ...string) *exec.Cmd {
	cmd := exec.Command(node.Path, append([]string{"--input-type=module", "-e", source, "--"}, args...)...)
	cmd.Dir = "js"
	return cmd
}

var exampleFile = regexp.MustCompile(`/etc/notifyd/[\w.]+`)

// checkConfig has "notifyd check" look at a configuration, with keys where it names files.
func checkConfig(t *testing.T, text string) {
	t.Helper()
	keys := newIssuer(t)
	run(t, "", "check", "--config="+keyFile(t, "notifyd.yaml", exampleFile.ReplaceAllString(text, keys.public)))
}

func configurationExamples(t *testing.T, d *document) {
	for range 3 {
		checkConfig(t, d.next(t, "yaml").text)
	}
}

func loadTestingExamples(t *testing.T, d *document) {
	shell := openTerminal(t, "terminal", t.TempDir())
	shell.do(t, "PATH="+filepath.Dir(binary(t))+`:$PATH`)
	for _, few := range []string{" -n 10", ""} {
		for _, command := range d.next(t, "sh").commands() {
			if out := strings.Join(shell.do(t, command+few+" -d 200ms --warmup 100ms"), "\n"); !strings.Contains(out, "µs/publish") {
				t.Errorf("%s printed\n%s", command, out)
			}
		}
	}
	checkConfig(t, d.next(t, "yaml").text+"    storage: memory\nauth:\n  keys: [/etc/notifyd/keys.json]\n") // a folder of a test's does not last
}

// protocolExamples sends each envelope that the protocol's page shows for clients, and compares the members of what the
// server sends with those that the page shows.
func protocolExamples(t *testing.T, d *document) {
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.*"],"subscribe":["rooms.>"]}}`)
	p := dialCoder(t, "client of the page", node.url)

	sent := d.next(t, "json", "eyJ…", token).lines()
	for _, line := range sent {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if m := p.ask(t, e.ID, line); m.Type != "ack" && m.Type != "pong" {
			t.Errorf("%+v answers %s", m, line)
		}
	}

	// One connection that gets everything that the server can send.
	short := keys.mint(t, "ann", 8*time.Second, "--subscribe=rooms.>")
	credential := keys.mint(t, "ann", 12*time.Second, "--subscribe=rooms.>")
	p.subscribe(t, "rooms.42", token)
	p.subscribe(t, "rooms.*", token)
	p.subscribe(t, "rooms.>", short)
	p.publish(t, "rooms.42", token, `{"any":"JSON"}`)
	p.publish(t, "forbidden", token, `1`)
	q := dialCoder(t, "client with a credential", node.url)
	q.ask(t, "1", `{"type":"auth","id":"1","token":`+quote(credential)+`}`)
	p.got.await(t, "expired", 0, func(frame string) bool { return decode(t, frame).Type == "expired" })
	q.got.await(t, "expiring", 0, func(frame string) bool { return decode(t, frame).Type == "expiring" })
	shapes := map[string]bool{}
	ends := serve(t, "notifyd that ends", nil, "--auth.keys="+keys.public)
	last := dialCoder(t, "client of a node that ends", ends.url)
	last.ping(t)
	ends.terminate(t)
	last.got.await(t, "restart", 0, func(frame string) bool { return decode(t, frame).Type == "restart" })
	for _, frame := range slices.Concat(p.got.all(), q.got.all(), last.got.all()) {
		shapes[shape(t, frame)] = true
	}
	for _, line := range d.next(t, "json").lines() {
		if !shapes[shape(t, line)] {
			t.Errorf("the server did not send the like of %s, but %q", line, slices.Sorted(maps.Keys(shapes)))
		}
	}

	for i, grants := range d.next(t, "json").lines() {
		var claims map[string]any
		if err := json.Unmarshal([]byte(grants), &claims); err != nil {
			t.Fatalf("%v: %s", err, grants)
		}
		claims["sub"] = "ann"
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		token := keys.tokenFor(t, string(text))
		if m := p.publish(t, "rooms.42", token, "1"); m.Type != "ack" {
			t.Errorf("%+v answers a publish under %s", m, grants)
		}
		if i == 0 {
			p.subscribe(t, "users.ann.orders", token)
		}
	}

	needProgram(t, "curl")
	shell := openTerminal(t, "terminal", t.TempDir(), "NOTIFYD_TOKEN="+token)
	answers := []string{"{}", strings.TrimSuffix(strings.Repeat(`{"ok":true}`+"\n", 3), "\n")}
	for i, command := range d.next(t, "sh", "127.0.0.1:8080", node.address()).commands() {
		if out := strings.Join(shell.do(t, command), "\n"); out != answers[i] {
			t.Errorf("%s: %s", command, out)
		}
	}
	d.next(t, "js") // TestEventSourceInABrowser

	// Durable topics.
	node = serve(t, "notifyd with a stream", nil, "--auth.keys="+keys.public, `--streams=[{name: orders, topics: ["orders.>"], max_bytes: 64MiB, storage: memory}]`)
	token = keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["orders.*"],"subscribe":["orders.*"]}}`)
	p = dialCoder(t, "client of a stream", node.url)
	subscribe := func(topic, since string) {
		if m := p.ask(t, topic+since, fmt.Sprintf(`{"type":"subscribe","id":%q,"topic":%q,"since":{"seq":%s},"token":%q}`, topic+since, topic, since, token)); m.Type != "ack" {
			t.Errorf("%+v", m)
		}
	}
	subscribe("orders.7", "0")
	for _, id := range []string{"1", "2"} {
		p.ask(t, id, fmt.Sprintf(`{"type":"publish","id":%q,"msg_id":"m","topic":"orders.7","token":%q,"data":1}`, id, token))
	}
	subscribe("orders.*", "100") // behind the end: in another life
	p.got.await(t, "event", 0, func(frame string) bool { return decode(t, frame).Type == "event" })
	clear(shapes)
	for _, frame := range p.got.all() {
		shapes[shape(t, frame)] = true
	}
	for range 3 {
		for _, line := range d.next(t, "json").lines() {
			if !shapes[shape(t, line)] {
				t.Errorf("the server did not send the like of %s, but %q", line, slices.Sorted(maps.Keys(shapes)))
			}
		}
	}
	d.next(t, "js") // TestScriptExamples
}

// shape is an envelope's type and the names of its members.
func shape(t *testing.T, frame string) string {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal([]byte(frame), &members); err != nil {
		t.Fatalf("%v: %s", err, frame)
	}
	return fmt.Sprint(members["type"], slices.Sorted(maps.Keys(members)))
}

// TestScriptExamples runs the examples for browsers and Node.js, each time on a new server.
func TestScriptExamples(t *testing.T) {
	t.Parallel()
	inBrowser := map[string]int{"README.md": 1, "docs/protocol.md": 1, "docs/authentication.md": 4}
	var sources []block
	for _, name := range slices.Sorted(maps.Keys(inBrowser)) {
		n := 0
		for _, b := range readDocument(t, name).blocks {
			if b.lang == "js" && strings.Contains(b.text, "new WebSocket(") {
				n++
				b.file = name
				sources = append(sources, b)
			}
		}
		if n != inBrowser[name] {
			t.Errorf("%s has %d examples with a socket, want %d", name, n, inBrowser[name])
		}
	}
	b := browser{startScript(t, "page.mjs", chromium(t))}
	home := website(t)
	keys := newIssuer(t)
	token := keys.tokenFor(t, `{"sub":"ann","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	for round := range *repeat {
		node := serve(t, fmt.Sprintf("notifyd %d", round+1), nil, "--auth.keys="+keys.public, "--origins="+home)
		for _, example := range sources {
			source := strings.ReplaceAll(example.text, "127.0.0.1:8080", node.address())
			if example.file == "docs/authentication.md" {
				o := b.do(t, home, "code", map[string]any{"source": source, "token": token})
				if m := decode(t, o.First); m.Type != "ack" || m.Exp != expiry(t, token).Unix() {
					t.Errorf("round %d: %+v from\n%s", round+1, o, source)
				}
				continue
			}
			if o := b.do(t, home, "console", map[string]any{"source": source, "token": token}); o.Body != `rooms.42 {"text":"hello"}` {
				t.Errorf("round %d: a browser: %+v from\n%s", round+1, o, source)
			}
			inNode(t, source, token)
		}
		node.kill()
	}
}

// inNode runs an example in Node.js with npm ws, as the README says.
func inNode(t *testing.T, source, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := evaluate(nodeScript(t, ""), "import WebSocket from 'ws'\nconst token = process.argv[1]\n"+source, token)
	cmd.Args[0] = "node"
	p := start(t, "example in Node.js", cmd)
	defer p.kill()
	go func() {
		<-ctx.Done()
		p.kill()
	}()
	p.output.await(t, "event", 0, func(line string) bool { return line == "rooms.42 { text: 'hello' }" })
}

// tutorialSteps does what docs/tutorial.md says, step by step.
func tutorialSteps(t *testing.T, d *document) {
	needProgram(t, "curl")
	tree := cleanCopy(t)
	service := freeAddress(t)
	first := openTerminal(t, "first terminal", tree, serverEnv...)
	serving := d.next(t, "sh", "127.0.0.1:8081", service).commands()
	first.do(t, serving[:len(serving)-1]...)
	first.leave(t, serving[len(serving)-1])
	node := first.listening(t)

	here := []string{"127.0.0.1:8080", node.address(), "127.0.0.1:8081", service}
	for _, lang := range []string{"go", "html"} {
		b := d.next(t, lang, here...)
		if b.file == "" {
			t.Fatalf("no file is named before\n%s", b.text)
		}
		if err := os.WriteFile(filepath.Join(tree, b.file), []byte(b.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	second := openTerminal(t, "second terminal", tree)
	second.leave(t, d.next(t, "sh").commands()[0])
	second.awaitText(t, "the page is on http://"+service+"/")

	page := "http://" + service
	b := browser{startScript(t, "page.mjs", chromium(t))}
	shows := func(reload bool, text string) {
		t.Helper()
		eventually(t, "the page shows "+text, func() bool {
			o := b.do(t, page, "text", map[string]any{"reload": reload})
			return strings.Contains(o.Body, text)
		})
	}
	shows(false, "live until")

	third := openTerminal(t, "third terminal", tree, "NOTIFYD_URL="+node.url)
	third.do(t, d.next(t, "sh").commands()...)
	shows(false, strings.TrimSpace(d.next(t, "text").text))

	denied := d.next(t, "sh", here...).commands()[0]
	reason := strings.TrimSpace(d.next(t, "text").text)
	if out, code := third.try(t, denied); code == 0 || !strings.Contains(strings.Join(out, "\n"), reason) {
		t.Errorf("%s: exit code %d: %q", denied, code, out)
	}

	third.do(t, d.next(t, "sh").commands()...)
	shows(false, "revoked")
	shows(true, "live until")

	first.kill()
	second.kill()
	second = survivesReload(t, d, b, tree, node, here)

	// The page renews its token: with tokens of seconds it says so again and again, and stays connected.
	second.kill()
	program := filepath.Join(tree, "tutorial", "main.go")
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	short := strings.Replace(string(text), "5 * time.Minute", "6 * time.Second", 1)
	if short == string(text) {
		t.Fatal("tokens of the tutorial do not live for 5 minutes")
	}
	if err := os.WriteFile(program, []byte(short), 0o644); err != nil {
		t.Fatal(err)
	}
	second = openTerminal(t, "second terminal again", tree)
	second.leave(t, "go run ./tutorial")
	second.awaitText(t, "the page is on ")
	b.do(t, page, "text", map[string]any{"reload": true})
	ends := map[string]bool{}
	eventually(t, "the page has had three tokens", func() bool {
		o := b.do(t, page, "text", map[string]any{"reload": false})
		for line := range strings.Lines(o.Body) {
			if strings.HasPrefix(line, "live until ") {
				ends[line] = true
			}
		}
		if strings.Contains(o.Body, "connecting again") {
			t.Fatalf("the page lost its connection: %q", o.Body)
		}
		return len(ends) >= 3
	})
}

// survivesReload is the part of the tutorial with a stream. It leaves a service running, in the terminal returned, and a
// server where node was.
func survivesReload(t *testing.T, d *document, b browser, tree string, node *server, here []string) *terminal {
	t.Helper()
	service := here[len(here)-1]
	serve := d.next(t, "sh", here...).commands()[0]
	first := openTerminal(t, "first terminal, with a stream", tree, append(slices.Clone(serverEnv), "NOTIFYD_LISTEN="+node.address())...)
	first.leave(t, serve)
	first.listening(t)

	page := d.next(t, "html", here...)
	if err := os.WriteFile(filepath.Join(tree, page.file), []byte(page.text), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(tree, "tutorial", "main.go")
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const behind = "\thttp.HandleFunc(\"POST /token\""
	if !strings.Contains(string(text), behind) {
		t.Fatal("main.go has another order now")
	}
	more := strings.Replace(string(text), behind, d.next(t, "go").text+behind, 1)
	if err := os.WriteFile(program, []byte(more), 0o644); err != nil {
		t.Fatal(err)
	}
	second := openTerminal(t, "second terminal, with an answer", tree)
	second.leave(t, d.next(t, "sh").commands()[0])
	second.awaitText(t, "the page is on http://"+service+"/")

	third := openTerminal(t, "third terminal, the model", tree, "NOTIFYD_URL="+node.url)
	speaking := d.next(t, "sh").commands()
	whole := strings.TrimSpace(d.next(t, "text").text)
	third.do(t, speaking[:len(speaking)-1]...)
	answer := "http://" + service + "/answer"
	shows := func(reload bool) string {
		return strings.Join(strings.Fields(strings.TrimPrefix(b.do(t, answer, "text", map[string]any{"reload": reload}).Body, "The answer")), " ")
	}
	shows(false)
	third.leave(t, speaking[len(speaking)-1])
	eventually(t, "the page, loaded again and again, shows the whole answer", func() bool {
		got := shows(true)
		if !strings.HasPrefix(whole, got) {
			t.Fatalf("the page shows %q", got)
		}
		return got == whole
	})
	first.kill()
	first = openTerminal(t, "first terminal, started again", tree, append(slices.Clone(serverEnv), "NOTIFYD_LISTEN="+node.address())...)
	first.leave(t, serve)
	first.listening(t)
	third.do(t, strings.Replace(speaking[len(speaking)-1], "in What", "in And so on, What", 1))
	eventually(t, "the page has what came after the server was back", func() bool {
		return shows(false) == whole+" And so on, "+whole
	})
	return second
}
