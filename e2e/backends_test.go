//go:build linux

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A backend is the program of a page in docs/backends, with the server that the page starts.
type backend struct {
	folder string
	node   *server
	place  string // where the program listens: host:port
}

// newBackend begins a page: it does what the first block says, in folder.
func newBackend(t *testing.T, d *document, folder string) backend {
	t.Helper()
	b := backend{folder: folder, place: freeAddress(t)}
	first := openTerminal(t, "first terminal", folder, serverEnv...)
	first.do(t, "PATH="+filepath.Dir(binary(t))+`:$PATH`)
	serving := d.next(t, "sh", "127.0.0.1:3000", b.place).commands()
	first.do(t, serving[:len(serving)-1]...)
	first.leave(t, serving[len(serving)-1])
	b.node = first.listening(t)
	return b
}

// files writes the next n blocks into the files that the page names for them.
func (b backend) files(t *testing.T, d *document, lang string, n int) {
	t.Helper()
	host, port, _ := strings.Cut(b.place, ":")
	for range n {
		block := d.next(t, lang, "127.0.0.1:3000", b.place, "3000, '127.0.0.1'", port+", '"+host+"'")
		if block.file == "" {
			t.Fatalf("no file is named before\n%s", block.text)
		}
		path := filepath.Join(b.folder, block.file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(block.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// try runs a program in the folder, for a server of notifyd, and returns what it printed.
func (b backend) try(node *server, name string, args ...string) (out string, err error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = b.folder
	cmd.Env = append(os.Environ(), "NOTIFYD_HTTP=http://"+node.address(), "NOTIFYD_KEY=key.jwk")
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (b backend) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := b.try(b.node, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// works checks what every page promises of the token of a user and of two calls that ship an order, given the calls. refused
// publishes an event to another server.
func (b backend) works(t *testing.T, user string, token func() string, ship func(number int), refused func(node *server) (string, error)) {
	t.Helper()
	text := token()
	claims := claimsOf(t, text)
	if claims.Sub != user || claims.Exp-claims.Iat != 300 || !slices.Equal(claims.Notify.Subscribe, []string{"users.{sub}.>"}) || len(claims.Notify.Publish) > 0 {
		t.Errorf("the token says %+v", claims)
	}
	p := dialCoder(t, "page", b.node.url)
	p.subscribe(t, "users."+user+".>", text)
	for _, topic := range []string{"users.>", "users.7.orders"} {
		if m := p.ask(t, "other", `{"type":"subscribe","id":"other","topic":"`+topic+`","token":`+quote(text)+`}`); m.Code != "forbidden" {
			t.Errorf("%s under a user's token: %+v", topic, m)
		}
	}
	for _, number := range []int{7, 7, 8} {
		ship(number)
	}
	p.got.await(t, "the last order", 0, func(frame string) bool {
		return strings.Contains(frame, `"order":8`) || strings.Contains(frame, `"order": 8`)
	})
	var orders []int
	for _, frame := range p.got.all() {
		var event struct {
			Type, Topic string
			Data        struct {
				Order int
				State string
			}
		}
		if err := json.Unmarshal([]byte(frame), &event); err != nil {
			t.Fatal(err)
		}
		if event.Type == "event" {
			orders = append(orders, event.Data.Order)
			if event.Topic != "users."+user+".orders" || event.Data.State != "shipped" {
				t.Errorf("the event is %s", frame)
			}
		}
	}
	if !slices.Equal(orders, []int{7, 8}) {
		t.Errorf("the page has had the orders %d", orders)
	}

	stranger := serve(t, "notifyd with other keys", nil, "--auth.keys="+newIssuer(t).public)
	if out, err := refused(stranger); err == nil || !strings.Contains(out, "token_invalid") {
		t.Errorf("a server with other keys: %v\n%s", err, out)
	}
}

type userClaims struct {
	Sub      string
	Iat, Exp int64
	Notify   struct{ Publish, Subscribe []string }
}

func claimsOf(t *testing.T, token string) (c userClaims) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %q", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &c)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, payload)
	}
	return c
}

// npmFolder makes a folder in which Node.js finds the packages of e2e/js, and checks that those which a page installs are
// among them.
func npmFolder(t *testing.T, install string) string {
	t.Helper()
	needScripts(t)
	text, err := os.ReadFile("js/package.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(install)[2:] {
		if !strings.Contains(string(text), `"`+name+`"`) {
			t.Errorf("%s: e2e/js has no %s", install, name)
		}
	}
	folder, err := os.MkdirTemp("js", "generated-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.WriteFile(filepath.Join(folder, "package.json"), []byte(`{"type":"module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// express starts the shop of docs/backends/express.md, up to where the page tries it.
func express(t *testing.T, d *document) (b backend, shop *terminal) {
	t.Helper()
	needProgram(t, "curl")
	folder := npmFolder(t, "npm install express jose")
	b = newBackend(t, d, folder)
	if install := d.next(t, "sh").commands(); len(install) != 1 || install[0] != "npm install express jose" {
		t.Errorf("the page installs with %q", install)
	}
	b.files(t, d, "js", 2)
	shop = openTerminal(t, "shop", folder, "NOTIFYD_HTTP=http://"+b.node.address())
	shop.leave(t, d.next(t, "sh").commands()[0])
	shop.awaitText(t, "the shop is on http://"+b.place+"/")
	return b, shop
}

func expressBackend(t *testing.T, d *document) {
	b, shop := express(t, d)
	b.tryShop(t, d, func(node *server) (string, error) {
		return b.try(node, "node", "-e", "import('./notifyd.mjs').then(({ publish }) => publish('users.42.orders', 1))")
	})
	kept := b.run(t, "node", "--input-type=module", "-e", `import { keep } from './notifyd.mjs'
		const token = keep({ publish: ['users.42.orders'] })
		const [first, second, now] = [token(), token(), Date.now]
		Date.now = () => now() + 250_000 // ten seconds later the server sends "expiring"
		console.log(first === second, first === token())`)
	if strings.TrimSpace(kept) != "true false" {
		t.Errorf("a token is kept, and then replaced: %s", kept)
	}
	shop.kill()
	b.answersSurviveReload(t, d)
}

// answersSurviveReload asks the model of docs/backends/express.md, and loads the page again and again while it speaks.
func (b backend) answersSurviveReload(t *testing.T, d *document) {
	t.Helper()
	for _, lang := range []string{"js", "html"} {
		d.blocks[d.used].text = strings.ReplaceAll(d.blocks[d.used].text, "127.0.0.1:8080", b.node.address())
		b.files(t, d, lang, 1)
	}
	model := openTerminal(t, "model", b.folder, "NOTIFYD_HTTP=http://"+b.node.address())
	model.leave(t, d.next(t, "sh").commands()[0])
	model.awaitText(t, "the model is on http://"+b.place+"/")
	home := "http://" + b.place + "/"
	page := browser{startScript(t, "page.mjs", chromium(t))}
	page.do(t, home, "text", map[string]any{})
	eventually(t, "an answer comes slowly enough to be loaded again in the middle", func() bool {
		return readAnswer(t, page, home+"#"+ask(t, home+"answers")) > 0
	})
}

// readAnswer reads the forty words of the made-up models until they are whole, and loads the page again whenever there are
// more. reloads is how often that was.
func readAnswer(t *testing.T, page browser, url string) (reloads int) {
	t.Helper()
	var spoken strings.Builder
	for n := 1; n <= 40; n++ {
		fmt.Fprintf(&spoken, "word %d, ", n)
	}
	whole := strings.TrimSpace(spoken.String())
	had, reload := "", true
	eventually(t, "the page shows the whole answer", func() bool {
		text := page.do(t, url, "text", map[string]any{"reload": reload}).Body
		words, complete := strings.CutSuffix(strings.TrimSpace(text), "This is all.")
		words = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(words), "Ask"))
		if !strings.HasPrefix(whole, words) || complete && words != whole {
			t.Fatalf("the page shows %q", text)
		}
		if reload = !complete && len(words) > len(had); reload {
			had = words
			reloads++
		}
		return complete
	})
	return reloads
}

// ask makes a POST without a body and returns what is answered.
func ask(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tryShop does what the pages say of a shop that runs: it subscribes in a second terminal and ships an order in a third one.
func (b backend) tryShop(t *testing.T, d *document, refused func(node *server) (string, error)) {
	t.Helper()
	here := []string{"127.0.0.1:3000", b.place}
	second := openTerminal(t, "second terminal", b.folder, "NOTIFYD_URL="+b.node.url)
	second.do(t, "PATH="+filepath.Dir(binary(t))+`:$PATH`)
	second.leave(t, d.next(t, "sh", here...).commands()[0])
	third := openTerminal(t, "third terminal", b.folder)
	ship := d.next(t, "sh", here...).commands()[0]
	b.works(t, "42",
		func() string { return strings.Join(third.do(t, "curl -s -X POST http://"+b.place+"/token"), "") },
		func(number int) {
			third.do(t, strings.Replace(ship, "/7/", fmt.Sprintf("/%d/", number), 1)+" -f")
		},
		refused)
	number := 100
	eventually(t, "notifyd sub shows an order", func() bool { // which is there only after a while
		number++
		third.do(t, strings.Replace(ship, "/7/", fmt.Sprintf("/%d/", number), 1))
		return strings.Contains(second.output.tail(), `"shipped"`) // with a space before it or not
	})
}

// backendsReadme runs the code for a page in a page, whose tokens come from the shop of docs/backends/express.md.
func backendsReadme(t *testing.T, d *document) {
	needScripts(t)
	needProgram(t, "npm")
	shown := d.next(t, "json").text
	var want userClaims
	if err := json.Unmarshal([]byte(shown), &want); err != nil {
		t.Fatal(err)
	}
	files := http.NewServeMux()
	site := httptest.NewServer(files)
	t.Cleanup(site.Close)
	page := readDocument(t, "docs/backends/express.md")
	page.blocks[0].text = strings.Replace(page.blocks[0].text, "http://127.0.0.1:3000", site.URL, 1) // this is where the page is
	b, _ := express(t, page)
	shop := &url.URL{Scheme: "http", Host: b.place}
	files.Handle("POST /token", httputil.NewSingleHostReverseProxy(shop))
	project := t.TempDir()
	if err := os.Rename(cleanCopy(t), filepath.Join(project, "notifyd")); err != nil {
		t.Fatal(err)
	}
	openTerminal(t, "project", project).do(t, d.next(t, "sh").commands()...)
	files.Handle("/client/", http.StripPrefix("/client/", http.FileServer(http.Dir(filepath.Join(project, "node_modules/@notifyd/client/dist")))))
	names, code := d.next(t, "html").text, d.next(t, "js", "127.0.0.1:8080", b.node.address()).text
	files.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>page</title>%s<p id="log"></p>
			<script>console.log = (...values) => document.getElementById('log').append(JSON.stringify(values))</script><script type="module">%s</script>`, names, code) // the browser asks again
	})
	chrome := browser{startScript(t, "page.mjs", chromium(t))}
	number := 0
	eventually(t, "the page shows an order", func() bool {
		number++
		answer, err := http.Post("http://"+b.place+fmt.Sprintf("/orders/%d/ship", number), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return strings.Contains(chrome.do(t, site.URL, "text", map[string]any{}).Body, `["users.42.orders",{"order":`)
	})

	got := claimsOf(t, ask(t, "http://"+b.place+"/token"))
	if got.Exp-got.Iat != want.Exp-want.Iat || fmt.Sprint(got.Sub, got.Notify) != fmt.Sprint(want.Sub, want.Notify) {
		t.Errorf("the page says that a token has %+v, and it has %+v", want, got)
	}
}

func nextBackend(t *testing.T, d *document) {
	const install = "npm install jose"
	b := newBackend(t, d, npmFolder(t, install))
	if got := d.next(t, "sh").commands(); !slices.Equal(got, []string{install}) {
		t.Errorf("the page installs with %q", got)
	}
	b.files(t, d, "js", 3)
	// As Next.js calls a route: its folder names the parameters, which are promised.
	const call = `const [file, number] = process.argv.slice(1)
		const { POST } = await import(file)
		const response = await POST(new Request('http://127.0.0.1/', { method: 'POST' }), { params: Promise.resolve({ number }) })
		if (!response.ok) throw new Error(response.status)
		process.stdout.write(await response.text())`
	node := func(args ...string) []string { return append([]string{"--input-type=module", "-e", call}, args...) }
	const shipping = "./app/orders/[number]/ship/route.js"
	b.works(t, "42",
		func() string { return b.run(t, "node", node("./app/token/route.js")...) },
		func(number int) { b.run(t, "node", node(shipping, fmt.Sprint(number))...) },
		func(other *server) (string, error) { return b.try(other, "node", node(shipping, "9")...) })
}

// python finds a Python that has these modules, which are in these packages of Debian.
func python(t *testing.T, modules, packages string) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		path, err := exec.LookPath(name)
		if err == nil && exec.Command(path, "-c", "import "+modules).Run() == nil {
			return path
		}
	}
	leftOut(t, "no Python with "+modules+" here: install "+packages)
	return ""
}

func fastAPIBackend(t *testing.T, d *document) {
	needProgram(t, "curl")
	path := python(t, "fastapi, uvicorn, httpx, jwt, cryptography", "python3-fastapi, python3-uvicorn, python3-httpx, python3-jwt and python3-cryptography")
	b := newBackend(t, d, t.TempDir())
	if install := d.next(t, "sh").commands(); !slices.Equal(install, []string{"pip install fastapi uvicorn httpx 'pyjwt[crypto]'"}) {
		t.Errorf("the page installs with %q", install)
	}
	b.files(t, d, "python", 2)
	host, port, _ := strings.Cut(b.place, ":")
	shop := openTerminal(t, "shop", b.folder, "NOTIFYD_HTTP=http://"+b.node.address())
	shop.leave(t, d.next(t, "sh", "python3", path, "--host 127.0.0.1 --port 3000", "--host "+host+" --port "+port).commands()[0])
	shop.awaitText(t, "Uvicorn running on http://"+b.place)
	b.tryShop(t, d, func(node *server) (string, error) {
		return b.try(node, path, "-c", "import asyncio, notifyd; asyncio.run(notifyd.publish('users.42.orders', 1))")
	})
}

func djangoBackend(t *testing.T, d *document) {
	path := python(t, "django, jwt, cryptography", "python3-django, python3-jwt and python3-cryptography")
	folder := t.TempDir()
	b := newBackend(t, d, folder)
	if install := d.next(t, "sh").commands(); !slices.Equal(install, []string{"pip install django 'pyjwt[crypto]'"}) {
		t.Errorf("the page installs with %q", install)
	}
	bin := t.TempDir()
	write(t, bin, "python3", "#!/bin/sh\nexec "+path+" \"$@\"\n")
	write(t, bin, "django-admin", "#!/bin/sh\nexec "+path+" -m django \"$@\"\n")
	for _, name := range []string{"python3", "django-admin"} {
		if err := os.Chmod(filepath.Join(bin, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const password = "not-so-secret"
	shell := openTerminal(t, "shop", folder, "NOTIFYD_HTTP=http://"+b.node.address(), "DJANGO_SUPERUSER_PASSWORD="+password, "PYTHONUNBUFFERED=1")
	shell.do(t, "PATH="+bin+`:$PATH`)
	shell.do(t, d.next(t, "sh").commands()...)
	b.files(t, d, "python", 3)
	starting := d.next(t, "sh", "127.0.0.1:3000", b.place).commands()
	if len(starting) != 3 {
		t.Fatalf("%q", starting)
	}
	shell.do(t, starting[0], starting[1]+" --noinput") // with the password of the environment
	// The development server permits the name 127.0.0.1 alone; the tests have addresses of their own.
	shell.do(t, `sed -i "s/^ALLOWED_HOSTS = .*/ALLOWED_HOSTS = ['*']/" shop/settings.py`)
	shell.leave(t, starting[2])
	shell.awaitText(t, "Starting development server")

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client, home := &http.Client{Jar: jar}, "http://"+b.place
	call := func(path string, form url.Values) string {
		t.Helper()
		at, err := url.Parse(home)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(http.MethodPost, home+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, cookie := range jar.Cookies(at) {
			if cookie.Name == "csrftoken" {
				request.Header.Set("X-CSRFToken", cookie.Value)
			}
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode >= 300 {
			t.Fatalf("%s: %s %v\n%s", path, answer.Status, err, body)
		}
		return string(body)
	}
	eventually(t, "Django answers", func() bool {
		answer, err := client.Get(home + "/admin/login/")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	stranger, err := http.Post(home+"/token", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = stranger.Body.Close()
	if stranger.StatusCode < 400 {
		t.Errorf("a stranger's request for a token: %s", stranger.Status)
	}
	call("/admin/login/?next=/admin/", url.Values{"username": {"ann"}, "password": {password}})
	b.works(t, "1",
		func() string { return call("/token", nil) },
		func(number int) { call(fmt.Sprintf("/users/1/orders/%d/ship", number), nil) },
		func(node *server) (string, error) {
			return b.try(node, path, "manage.py", "shell", "-c", "from shop import notifyd; notifyd.publish('users.1.orders', 1)")
		})
	p := dialCoder(t, "page at the end", b.node.url)
	p.subscribe(t, "users.1.>", call("/token", nil))
	b.run(t, path, "manage.py", "shell", "-c", d.next(t, "python").text)
	p.got.await(t, "event", 0, func(frame string) bool { return strings.Contains(frame, "packed") })
}

// railsStand stands for what Rails and Devise provide.
const railsStand = `
class ApplicationController
  def self.before_action(name) = @@before = name
  def response = @response ||= Struct.new(:headers).new({})
  def current_user = Struct.new(:id).new(42)
  def render(plain:) = print(plain)
end
class ApplicationRecord
  attr_accessor :id, :user_id, :state
  def self.after_update_commit(name) = define_method(:committed) { send(name) }
end
module Rails
  def self.application = self
  def self.routes = self
  def self.draw(&block) = instance_eval(&block)
  def self.post(path, to:) = $routes = { path => to }
end
%w[app/models/notifyd app/models/order app/controllers/notifyd_controller config/routes].each { |file| require "./#{file}" }
if ARGV[0] == "token"
  $routes.fetch("token") == "notifyd#token" or abort "the route leads elsewhere"
  NotifydController.new.token
else
  order = Order.new
  order.id, order.user_id, order.state = ARGV[0].to_i, 42, "shipped"
  order.committed
end
`

func railsBackend(t *testing.T, d *document) {
	needProgram(t, "ruby")
	if exec.Command("ruby", "-rjwt", "-e", "0").Run() != nil {
		leftOut(t, "no gem jwt here: install ruby-jwt")
	}
	b := newBackend(t, d, t.TempDir())
	if install := d.next(t, "sh").commands(); !slices.Equal(install, []string{"bundle add jwt"}) {
		t.Errorf("the page installs with %q", install)
	}
	b.files(t, d, "ruby", 4)
	write(t, b.folder, "stand.rb", railsStand)
	b.works(t, "42",
		func() string { return b.run(t, "ruby", "stand.rb", "token") },
		func(number int) { b.run(t, "ruby", "stand.rb", fmt.Sprint(number)) },
		func(node *server) (string, error) { return b.try(node, "ruby", "stand.rb", "9") })
}

// laravelStand stands for what Laravel provides.
const laravelStand = `<?php
namespace Illuminate\Http { class Request { public function user() { return (object) ['id' => 42]; } } }
namespace Illuminate\Support { class ServiceProvider { public function __construct(public $app) {} } }
namespace Illuminate\Support\Facades {
    class Route {
        public static array $to = [];
        public static function post($path, $to) { self::$to[$path] = $to; return new self; }
        public function middleware($name) { if ($name !== 'auth') exit('another middleware'); }
    }
}
namespace App\Http\Controllers { class Controller {} }
namespace {
    function base_path($path) { return $path; }
    function env($name, $default) { return getenv($name) ?: $default; }
    function config($name) { [, $part, $key] = explode('.', $name); return (require 'config/services.php')[$part][$key]; }
    function response($text, $status, $headers = []) { if ($status >= 300) exit($status); echo $text; }
    spl_autoload_register(fn ($class) => require strtr($class, ['App\\' => 'app/', '\\' => '/']) . '.php');
    class Container { public array $made = []; public function singleton($class, $make) { $this->made[$class] = $make(); } }
    $app = new Container;
    (new App\Providers\AppServiceProvider($app))->register();
    require 'routes/web.php';
    [$class, $method] = Illuminate\Support\Facades\Route::$to[$argv[1]];
    $given = isset($argv[2]) ? (int) $argv[2] : new Illuminate\Http\Request;
    (new $class($app->made[App\Services\Notifyd::class]))->$method($given);
}
`

func laravelBackend(t *testing.T, d *document) {
	needProgram(t, "php")
	if exec.Command("php", "-r", "exit((int) !extension_loaded('sodium'));").Run() != nil {
		leftOut(t, "this PHP has no sodium")
	}
	b := newBackend(t, d, t.TempDir())
	b.files(t, d, "php", 2)
	if err := os.Mkdir(filepath.Join(b.folder, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, b.folder, "config/services.php", "<?php\nreturn [\n"+d.next(t, "php").text+"];\n")
	b.files(t, d, "php", 2)
	write(t, b.folder, "stand.php", laravelStand)
	const shipping = "/orders/{number}/ship"
	b.works(t, "42",
		func() string { return b.run(t, "php", "stand.php", "/token") },
		func(number int) { b.run(t, "php", "stand.php", shipping, fmt.Sprint(number)) },
		func(node *server) (string, error) { return b.try(node, "php", "stand.php", shipping, "9") })
}
