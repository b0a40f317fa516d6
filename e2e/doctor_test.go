//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/internal/testkit"
)

// prognosis is what "notifyd doctor --json" prints.
type prognosis struct {
	URL   string
	OK    bool
	Steps []struct{ Step, State, Detail string }
	Cause string
	code  int
	text  string
}

// consult runs doctor with a token. env is added to the environment.
func consult(t *testing.T, token string, env []string, args ...string) *prognosis {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"doctor", "--json"}, args...)...)
	cmd.Env = append(append(os.Environ(), "NOTIFYD_TOKEN="+token), env...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	p := &prognosis{code: cmd.ProcessState.ExitCode(), text: out.String()}
	if complaint.Len() > 0 || json.Unmarshal(out.Bytes(), p) != nil {
		t.Fatalf("doctor %q: %v\n%s%s", args, err, &complaint, &out)
	}
	if token != "" {
		searchForTokens(t, []string{token}, "doctor", []string{p.text})
	}
	return p
}

// failed is the first step that has failed.
func (p *prognosis) failed() string {
	for _, s := range p.Steps {
		if s.State == "failed" {
			return s.Step
		}
	}
	return ""
}

func (p *prognosis) state(step string) string {
	for _, s := range p.Steps {
		if s.Step == step {
			return s.State
		}
	}
	return ""
}

// wants asserts where the way breaks and what is said to be the cause.
func (p *prognosis) wants(t *testing.T, step, cause string) {
	t.Helper()
	if p.OK || p.code != 1 || p.failed() != step || !regexp.MustCompile(cause).MatchString(p.Cause) {
		t.Errorf("exit code %d, failed at %q: %q\nwant %q: %q\n%s", p.code, p.failed(), p.Cause, step, cause, p.text)
	}
}

// annsClaims are the claims of a good token with others beside them.
func annsClaims(more jwt.MapClaims) jwt.MapClaims {
	claims := jwt.MapClaims{
		"sub": "ann", "aud": "push", "exp": time.Now().Add(time.Hour).Unix(),
		"notify": map[string]any{"publish": []string{"rooms.*"}, "subscribe": []string{"rooms.*"}},
	}
	maps.Copy(claims, more)
	return claims
}

// Doctor names the cause where the way from a client to a node breaks, in each of these set-ups.
func TestDoctorNamesTheCause(t *testing.T) {
	t.Parallel()
	keys, other := newIssuer(t), newIssuer(t)
	good := keys.sign(t, annsClaims(nil))
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--auth.audience=push", "--auth.token-bytes=4KiB")
	home := "ws://" + node.address()
	begins := time.Now().Add(10 * time.Minute).Unix()
	for name, c := range map[string]struct {
		url, token string
		args       []string
		step       string // "": nothing is wrong
		cause      string
	}{
		"nothing": {token: good, args: []string{"--strategy=message", "--strategy=header", "--strategy=ticket", "--strategy=first-message", "--strategy=subprotocol", "--origin=http://" + node.address(), "--idle=10ms", "--admin=" + node.admin}},

		"wrong key":                  {token: other.sign(t, annsClaims(nil)), step: "token", cause: "does not accept the token's signature, issuer or audience.*alg \"EdDSA\", kid .*push"},
		"wrong key, with --keys":     {token: other.sign(t, annsClaims(nil)), args: []string{"--keys=" + keys.public}, step: "token", cause: "fails a check: .*kid"},
		"forged":                     {token: good[:len(good)-20] + strings.Repeat("A", 20), args: []string{"--keys=" + keys.public}, step: "token", cause: "fails a check: .*signature"},
		"wrong audience":             {token: keys.sign(t, annsClaims(jwt.MapClaims{"aud": "pull"})), step: "token", cause: `signature, issuer or audience.*aud \["pull"\]`},
		"wrong audience, told":       {token: keys.sign(t, annsClaims(jwt.MapClaims{"aud": "pull"})), args: []string{"--audience=push"}, step: "token", cause: `aud is \["pull"\], wanted one of \["push"\]`},
		"wrong audience, with keys":  {token: keys.sign(t, annsClaims(jwt.MapClaims{"aud": "pull"})), args: []string{"--audience=push", "--keys=" + keys.public}, step: "token", cause: `aud.*pull.*push`},
		"other keys than the server": {token: other.sign(t, annsClaims(nil)), args: []string{"--keys=" + other.public}, step: "token", cause: "The keys of --keys verify the token, and the server's do not"},
		"expired":                    {token: keys.sign(t, annsClaims(jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})), step: "token", cause: "The token expired at .*server's clock says"},
		"the issuer's clock ahead":   {token: keys.sign(t, annsClaims(jwt.MapClaims{"iat": begins, "nbf": begins})), step: "token", cause: "The issuer's clock is ahead: .* earlier"},
		"malformed grants":           {token: keys.sign(t, annsClaims(jwt.MapClaims{"notify": map[string]any{"publsh": []string{"a"}}})), step: "token", cause: `grants in the token are malformed: notify has a member "publsh"`},
		"too long":                   {token: keys.sign(t, annsClaims(jwt.MapClaims{"filler": strings.Repeat("x", 5000)})), step: "token", cause: "cannot read the token, of 7"},
		"for one message":            {token: keys.sign(t, annsClaims(jwt.MapClaims{"jti": "1", "notify": map[string]any{"publish": []string{"rooms.*"}, "once": true}})), step: "token", cause: "good for one message alone"},
		"no token at all":            {token: "certainly.not", step: "token", cause: "is no token"},
		"origin refused":             {token: good, args: []string{"--origin=https://elsewhere.example"}, step: "origin", cause: "no page of the origin https://elsewhere.example"},
		"wrong path":                 {url: home + "/ws", token: good, step: "handshake", cause: "path of the URL is wrong.*notifyd is at /v1/ws"},
		"wrong path, deeper":         {url: home + "/push/v1/ws", token: good, step: "handshake", cause: "path of the URL is wrong.*notifyd is at /v1/ws"},
		"TLS to a plain port":        {url: "wss://" + node.address(), token: good, step: "tls", cause: "does not speak TLS, and the URL begins with wss://"},
		"port closed":                {url: "ws://" + freeAddress(t), token: good, step: "tcp", cause: "Nothing listens on"},
		"no such name":               {url: "ws://nowhere.invalid", token: good, step: "name", cause: "does not resolve|resolver does not answer"},
		"forbidden topic":            {token: good, args: []string{"--topic=invoices.7"}, step: "subscribe", cause: `does not permit to subscribe to invoices.7: it grants rooms\.\*`},
		"forbidden publish":          {token: keys.sign(t, annsClaims(jwt.MapClaims{"notify": map[string]any{"subscribe": []string{"rooms.*"}}})), args: []string{"--topic=rooms.1"}, step: "publish", cause: "does not permit to publish to rooms.1: it grants nothing"},
		"strategy not enabled":       {token: good, args: []string{"--strategy=query"}, step: "query", cause: "The strategy query is not enabled"},
		"not the admin listener":     {token: good, args: []string{"--admin=http://" + node.address()}, step: "ready", cause: "no admin listener"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.url == "" {
				c.url = home
			}
			p := consult(t, c.token, nil, append(c.args, c.url)...)
			if c.step != "" {
				p.wants(t, c.step, c.cause)
				return
			}
			if !p.OK || p.code != 0 || p.Cause != "" || p.failed() != "" {
				t.Errorf("%s", p.text)
			}
			for _, step := range []string{"http", "ready", "handshake", "clock", "origin", "token", "header", "ticket", "first-message", "subprotocol", "subscribe", "publish", "delivery", "events", "idle"} {
				if p.state(step) != "ok" {
					t.Errorf("%s: %s\n%s", step, p.state(step), p.text)
				}
			}
		})
	}
}

// What is wrong with the node itself: NATS, limits, settings, its end.
func TestDoctorOfASickNode(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.sign(t, annsClaims(nil))
	t.Run("NATS away", func(t *testing.T) {
		t.Parallel()
		nats, address := natsProcess(t, ownHost()+":0")
		node := serve(t, "notifyd", nil, "--nats.url=nats://"+address, "--auth.keys="+keys.public, "--auth.revocation-outage=open")
		if p := consult(t, token, nil, node.url); !p.OK {
			t.Fatal(p.text)
		}
		nats.kill()
		eventually(t, "the node misses NATS", func() bool {
			status, _ := node.get("/readyz")
			return status == http.StatusServiceUnavailable
		})
		consult(t, token, nil, node.url).wants(t, "subscribe", "takes the token, .* NATS is out of reach")
		consult(t, token, nil, "--admin="+node.admin, node.url).wants(t, "ready", "not ready: .*NATS")
		consult(t, token, nil, "--strategy=ticket", node.url).wants(t, "ticket", "NATS is out of reach")
	})
	t.Run("connections", func(t *testing.T) {
		t.Parallel()
		node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--limits.connections-per-ip=1")
		dialCoder(t, "the one", node.url)
		consult(t, token, nil, node.url).wants(t, "handshake", "as many connections of this address")
		full := serve(t, "full notifyd", nil, "--auth.keys="+keys.public, "--limits.connections=1")
		dialCoder(t, "the one", full.url)
		consult(t, token, nil, full.url).wants(t, "handshake", "limits.connections permits")
	})
	t.Run("a credential is required", func(t *testing.T) {
		t.Parallel()
		for _, strategies := range []string{"header", "header,first-message"} {
			node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--auth.require=connection", "--auth.strategies="+strategies)
			if p := consult(t, token, nil, "--strategy=header", node.url); !p.OK || p.state("delivery") != "ok" {
				t.Errorf("%s", p.text)
			}
			p := consult(t, token, nil, node.url)
			p.wants(t, p.failed(), "auth.require: connection")
			consult(t, token, nil, "--strategy=ticket", node.url).wants(t, "ticket", "strategy ticket is not enabled")
		}
	})
	t.Run("message is not enabled", func(t *testing.T) {
		t.Parallel()
		node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--auth.strategies=header")
		consult(t, token, nil, node.url).wants(t, "subscribe", "strategy message is not enabled")
		consult(t, token, nil, "--strategy=first-message", node.url).wants(t, "first-message", "strategy first-message is not enabled")
	})
	t.Run("draining", func(t *testing.T) {
		t.Parallel()
		node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--drain-delay=1h")
		node.terminate(t)
		eventually(t, "the node drains", func() bool {
			status, _ := node.get("/readyz")
			return status == http.StatusServiceUnavailable
		})
		if p := consult(t, token, nil, node.url); !p.OK {
			t.Errorf("a node that goes on: %s", p.text)
		}
		consult(t, token, nil, "--admin="+node.admin, node.url).wants(t, "ready", "not ready: draining")
	})
	t.Run("the connection ends", func(t *testing.T) {
		t.Parallel()
		node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--drain-window=0s")
		cmd := exec.Command(binary(t), "doctor", "--idle=1h", node.url)
		cmd.Env = append(os.Environ(), "NOTIFYD_TOKEN="+token)
		doctor := start(t, "doctor", cmd)
		doctor.awaitLine(t, "ok       events     ")
		node.terminate(t)
		doctor.awaitLine(t, "FAILED   idle       closed after ")
		doctor.awaitLine(t, "cause:  The node restarts: it drains.")
		<-doctor.gone
		if code := cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("the PROXY protocol", func(t *testing.T) {
		t.Parallel()
		node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--proxy-protocol")
		consult(t, token, nil, node.url).wants(t, "handshake", "proxy_protocol is on and no proxy writes its header")
	})
	t.Run("durable topics", func(t *testing.T) {
		t.Parallel()
		node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, `--streams=[{name: rooms, topics: ["rooms.>"], max_bytes: 64MiB, storage: memory}]`)
		if p := consult(t, token, nil, node.url); !p.OK || p.state("subscribe") != "ok" || p.state("publish") != "skipped" {
			t.Errorf("%s", p.text)
		}
		if p := consult(t, token, nil, "--topic=rooms.1", node.url); !p.OK || p.state("delivery") != "ok" {
			t.Errorf("%s", p.text)
		}
	})
}

// awaitLine waits for a line of output that begins so.
func (p *process) awaitLine(t *testing.T, prefix string) {
	t.Helper()
	p.output.await(t, "line that begins with "+prefix, 0, func(line string) bool { return strings.HasPrefix(line, prefix) })
}

// What stands in front of a node, or in its place.
func TestDoctorOfWhatStandsInFront(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.sign(t, annsClaims(nil))
	quiet := log.New(io.Discard, "", 0)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Server", "Elsewhere/1.0")
		_, _ = io.WriteString(w, "<h1>It works</h1>")
	})
	web := func(handler http.Handler, config *tls.Config) string {
		s := httptest.NewUnstartedServer(handler)
		s.Config.ErrorLog = quiet
		if config == nil {
			s.Start()
		} else {
			s.TLS = config
			s.StartTLS()
		}
		t.Cleanup(s.Close)
		_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		return port
	}
	certified := func(from, to time.Time, name string) (*tls.Config, string) {
		certificate, key := selfSigned(t, from, to, name)
		pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}}, write(t, t.TempDir(), "ca.pem", certificate)
	}
	now := time.Now()
	fresh, freshCA := certified(now.Add(-time.Hour), now.Add(time.Hour), "localhost")
	stale, staleCA := certified(now.Add(-2*time.Hour), now.Add(-time.Hour), "localhost")
	early, earlyCA := certified(now.Add(time.Hour), now.Add(2*time.Hour), "localhost")
	alien, alienCA := certified(now.Add(-time.Hour), now.Add(time.Hour), "elsewhere.example")
	old := fresh.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	mutual := fresh.Clone()
	mutual.ClientAuth = tls.RequireAnyClientCert
	mutual12 := mutual.Clone()
	mutual12.MaxVersion = tls.VersionTLS12
	answers := func(status int, headers ...string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
		})
	}
	for name, c := range map[string]struct {
		url, ca     string
		step, cause string
	}{
		"a web server":                 {"ws://127.0.0.1:" + web(page, nil), "", "handshake", "not notifyd that answers.*Elsewhere/1.0, with a web page"},
		"a web server with TLS":        {"wss://localhost:" + web(page, fresh), freshCA, "handshake", "not notifyd that answers"},
		"plain to a TLS port":          {"ws://localhost:" + web(page, fresh), "", "http", "speaks TLS, and the URL begins with ws://"},
		"self-signed":                  {"wss://localhost:" + web(page, fresh), "", "tls", "self-signed"},
		"expired certificate":          {"wss://localhost:" + web(page, stale), staleCA, "tls", "certificate has expired"},
		"certificate of tomorrow":      {"wss://localhost:" + web(page, early), earlyCA, "tls", "certificate is valid from .* this machine's clock"},
		"certificate of another name":  {"wss://localhost:" + web(page, alien), alienCA, "tls", "of another name: it is for elsewhere.example, and the URL says localhost"},
		"old TLS":                      {"wss://localhost:" + web(page, old), freshCA, "tls", "no TLS newer than TLS 1.1"},
		"client certificates":          {"wss://localhost:" + web(page, mutual), freshCA, "http", "wants a certificate of the client"},
		"client certificates, TLS 1.2": {"wss://localhost:" + web(page, mutual12), freshCA, "tls", "wants a certificate of the client"},
		"client certificates, a reset": {"wss://localhost:" + resets(t, mutual), freshCA, "http", "wants a certificate of the client"},
		"it resets":                    {"wss://localhost:" + resets(t, fresh), freshCA, "http", "closes connections without an answer"},
		"a redirect":                   {"ws://127.0.0.1:" + web(http.RedirectHandler("https://push.example.com/v1/ws?access_token=1", http.StatusMovedPermanently), nil), "", "handshake", "sends clients elsewhere, to https://push.example.com/v1/ws,"},
		"a password of the proxy":      {"ws://127.0.0.1:" + web(answers(401, "WWW-Authenticate", `Basic realm="staging"`), nil), "", "handshake", `password of its own \(Basic realm="staging"\)`},
		"a firewall":                   {"ws://127.0.0.1:" + web(answers(403, "Server", "cloudflare"), nil), "", "handshake", "firewall for web applications"},
		"a proxy without a node":       {"ws://127.0.0.1:" + web(answers(503, "Server", "nginx"), nil), "", "handshake", "proxy does not reach notifyd"},
		"silence":                      {"ws://" + deaf(t, nil), "", "http", "takes the connection and does not answer"},
		"no HTTP":                      {"ws://" + deaf(t, []byte("SSH-2.0-OpenSSH_9.2\r\n")), "", "http", "no HTTP server"},
		"it hangs up":                  {"ws://" + deaf(t, []byte{}), "", "http", "closes connections without an answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{"SSL_CERT_DIR=" + t.TempDir(), "SSL_CERT_FILE=" + c.ca}
			consult(t, token, env, "--timeout=3s", c.url).wants(t, c.step, c.cause)
		})
	}
}

// deaf takes connections. It says nothing if says is nil, and else that, and hangs up.
func deaf(t *testing.T, says []byte) string {
	t.Helper()
	return testkit.ServeTCP(t, func(conn net.Conn) {
		if says != nil {
			_, _ = conn.Write(says)
			_ = conn.(*net.TCPConn).CloseWrite()
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	})
}

// resets takes connections, and resets each after its TLS handshake, so that an alert may be lost.
func resets(t *testing.T, config *tls.Config) (port string) {
	t.Helper()
	_, port, _ = net.SplitHostPort(testkit.ServeTCP(t, func(conn net.Conn) {
		_ = tls.Server(conn, config).Handshake() // fails without the client's certificate
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}))
	return port
}

// Behind each proxy of docs/proxies.md nothing is wrong; with one thing changed, doctor says what.
func TestDoctorBehindProxies(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	token := keys.sign(t, annsClaims(nil))
	visit := func(t *testing.T, x *proxied, args ...string) *prognosis {
		t.Helper()
		return consult(t, token, []string{"SSL_CERT_FILE=" + x.certificate, "SSL_CERT_DIR=" + t.TempDir()}, append(args, "wss://"+x.address)...)
	}
	eachProxy(t, true, func(t *testing.T, p proxySample) {
		x := behind(t, p, keys, nil)
		all := []string{"--strategy=message", "--strategy=header", "--strategy=ticket", "--strategy=first-message", "--strategy=subprotocol"}
		if r := visit(t, x, all...); !r.OK || r.state("tls") != "ok" || r.state("delivery") != "ok" || r.state("events") != "ok" {
			t.Errorf("%s", r.text)
		}
	})
	for name, c := range map[string]struct {
		sample      string
		old, new    string
		args        []string
		step, cause string
	}{
		"nginx without Upgrade":     {"nginx", "proxy_set_header Upgrade $http_upgrade;", "", nil, "handshake", "does not pass the headers Upgrade and Connection on"},
		"nginx without Connection":  {"nginx", "proxy_set_header Connection $connection_upgrade;", "", nil, "handshake", "does not pass the headers Upgrade and Connection on"},
		"nginx with HTTP/1.0":       {"nginx", "proxy_http_version 1.1;", "proxy_http_version 1.0;", nil, "handshake", "does not pass the headers Upgrade and Connection on"},
		"nginx adds a path":         {"nginx", "proxy_pass http://notifyd;", "proxy_pass http://notifyd/push/v1/;", nil, "handshake", "endpoint is not at /v1/ws"},
		"nginx with a short wait":   {"nginx", "proxy_read_timeout 60s;", "proxy_read_timeout 2s;", []string{"--idle=1m"}, "idle", "ends connections that are quiet for [1-9][0-9]?s, and the server pings every 25s"},
		"HAProxy with HTTP/2 alone": {"HAProxy", "alpn h2,http/1.1", "proto h2", nil, "http", "HTTP/2 alone"},
		"HAProxy speaks HTTP/2":     {"HAProxy", "server node1 ", "server node1 NODE proto h2 #", nil, "handshake", "proxy does not reach notifyd"},
		"Caddy passes one path":     {"Caddy", "reverse_proxy /v1/*", "reverse_proxy /v1/ws", []string{"--strategy=ticket"}, "ticket", "It is not notifyd that answers at /v1/tickets"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := 0
			for proxySamples[i].name != c.sample {
				i++
			}
			changed := false
			x := behind(t, proxySamples[i], keys, func(sample string) string {
				node := regexp.MustCompile(`127\.[0-9.]+:[0-9]+`).FindString(sample[strings.LastIndex(sample, "backend ")+1:])
				edited := strings.Replace(sample, c.old, strings.ReplaceAll(c.new, "NODE", node), 1)
				changed = edited != sample
				return edited
			})
			if !changed {
				t.Fatalf("the sample has no %q", c.old)
			}
			visit(t, x, c.args...).wants(t, c.step, c.cause)
		})
	}
}

// changing is what differs from run to run in what doctor prints.
var changing = regexp.MustCompile(`node \w+,|after \d+ ms|expires in \w+`)

// doctorExamples runs the examples of docs/doctor.md: the first prints all that stands there, the second ends with it.
func doctorExamples(t *testing.T, d *document) {
	keys := newIssuer(t)
	claims := annsClaims(nil)
	delete(claims, "aud")
	token := keys.sign(t, claims)
	for i, args := range [][]string{{"--auth.keys=" + keys.public}, {"--auth.keys=" + keys.public, "--auth.audience=push"}} {
		node := serve(t, "notifyd", nil, args...)
		here := []string{"127.0.0.1:8080", node.address()}
		words := strings.Fields(d.next(t, "sh", here...).text)
		cmd := exec.Command(binary(t), words[1:]...)
		cmd.Env = append(os.Environ(), "NOTIFYD_TOKEN="+token)
		out, _ := cmd.CombinedOutput() // the exit code is looked at below
		if code := cmd.ProcessState.ExitCode(); code != i {
			t.Errorf("%q: exit code %d", words, code)
		}
		got, want := changing.ReplaceAllString(string(out), "…"), changing.ReplaceAllString(d.next(t, "text", here...).text, "…")
		if i == 0 && got != want || !strings.HasSuffix(got, want) {
			t.Errorf("%q prints\n%s\nand docs/doctor.md has\n%s", words, got, want)
		}
	}
}
