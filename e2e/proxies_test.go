//go:build linux

package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// proxySample is a proxy of docs/proxies.md, which is started as it stands there but for addresses and paths.
type proxySample struct {
	name, file string
	tcp        bool // it relays TCP, and names clients by the PROXY protocol
	// start makes the command for a configuration that lies in folder, and may put something of the test's own around it.
	start func(t *testing.T, d *document, folder, listen, text string) *exec.Cmd
}

var proxySamples = []proxySample{
	{name: "nginx", file: "nginx.conf", start: startNginx},
	{name: "HAProxy", file: "haproxy.cfg", start: startHAProxy},
	{name: "Caddy", file: "Caddyfile", start: startCaddy},
	{name: "Apache", file: "notifyd.conf", start: startApache},
	{name: "nginx relaying TCP", file: "nginx-stream.conf", tcp: true, start: startNginx},
	{name: "HAProxy relaying TCP", file: "haproxy-tcp.cfg", tcp: true, start: startHAProxy},
}

// program finds what is to be run; Debian has some of it outside of a user's PATH.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	leftOut(t, "no "+name+" here, so its configuration is not tried")
	return ""
}

func write(t *testing.T, folder, name, text string) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func startNginx(t *testing.T, _ *document, folder, _, text string) *exec.Cmd {
	if module := regexp.MustCompile(`load_module (\S+);`).FindStringSubmatch(text); module != nil {
		if _, err := os.Stat(module[1]); err != nil {
			leftOut(t, "no nginx with the module stream here: "+err.Error())
		}
	}
	var temporary strings.Builder
	temporary.WriteString("http {\naccess_log off;\n")
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s/%s;\n", kind, folder, kind)
	}
	config := write(t, folder, "nginx.conf", strings.Replace(text, "http {\n", temporary.String(), 1))
	return exec.Command(program(t, "nginx"), "-p", folder, "-e", "stderr", "-c", config,
		"-g", "daemon off; master_process off; error_log stderr; pid "+folder+"/pid;")
}

func startHAProxy(t *testing.T, _ *document, folder, _, text string) *exec.Cmd {
	return exec.Command(program(t, "haproxy"), "-db", "-f", write(t, folder, "haproxy.cfg", text))
}

func startCaddy(t *testing.T, _ *document, folder, listen, text string) *exec.Cmd {
	host, _, _ := net.SplitHostPort(listen)
	config := write(t, folder, "Caddyfile", "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tdefault_bind "+host+"\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n"+text)
	cmd := exec.Command(program(t, "caddy"), "run", "--config", config, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+folder, "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
	return cmd
}

// startApache loads the modules that the document enables.
func startApache(t *testing.T, d *document, folder, listen, text string) *exec.Cmd {
	apache := program(t, "apache2")
	var main strings.Builder
	fmt.Fprintf(&main, "ServerRoot %[1]s\nDefaultRuntimeDir %[1]s\nPidFile %[1]s/pid\nErrorLog /dev/stderr\nServerName localhost\nListen %s\n", folder, listen)
	if os.Getuid() == 0 {
		main.WriteString("User daemon\nGroup daemon\n")
	}
	var modules strings.Builder
	modules.WriteString("mpm_event authz_core")
	for _, b := range d.blocks {
		if names, ok := strings.CutPrefix(b.text, "a2enmod "); ok {
			modules.WriteString(" " + names)
		}
	}
	for m := range strings.FieldsSeq(modules.String()) {
		fmt.Fprintf(&main, "LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", m)
	}
	return exec.Command(apache, "-DFOREGROUND", "-f", write(t, folder, "httpd.conf", main.String()+text))
}

// proxied is a notifyd behind a proxy.
type proxied struct {
	node        *server
	address     string
	certificate string // its file
}

// behind starts notifyd as the document says, and the proxy before it. edit changes the sample further; nil: not.
func behind(t *testing.T, p proxySample, keys issuer, edit func(sample string) string, args ...string) *proxied {
	t.Helper()
	var settings []string
	for _, b := range readDocument(t, "docs/proxies.md").blocks {
		if b.lang == "yaml" {
			settings = append(settings, b.text)
		}
	}
	if len(settings) != 2 {
		t.Fatalf("docs/proxies.md has %d blocks for notifyd", len(settings))
	}
	setting := settings[0]
	if p.tcp {
		setting = settings[1]
	}
	setting = strings.ReplaceAll(setting, "/etc/notifyd/keys/keys.json", keys.public)
	config := write(t, t.TempDir(), "notifyd.yaml", setting)
	node := serve(t, "notifyd behind "+p.name, nil, append([]string{"--config=" + config}, args...)...)
	x := p.before(t, node.address(), edit)
	x.node = node
	return x
}

// before starts the proxy before what listens at address.
func (p proxySample) before(t *testing.T, address string, edit func(sample string) string) *proxied {
	t.Helper()
	d := readDocument(t, "docs/proxies.md")
	sample := ""
	for _, b := range d.blocks {
		if b.file == p.file {
			sample = b.text
		}
	}
	if sample == "" {
		t.Fatalf("%s has no %s", d.name, p.file)
	}
	folder := t.TempDir()
	listen := freeAddress(t)
	host, port, _ := net.SplitHostPort(listen)
	certificate, key := selfSigned(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), "localhost", "push.example.com", host, "127.0.0.1")
	write(t, folder, "cert.pem", certificate)
	write(t, folder, "key.pem", key)
	write(t, folder, "haproxy.pem", certificate+key)
	sample = strings.NewReplacer(
		"127.0.0.1:8080", address, "/etc/ssl/push.example.com/", folder+"/",
		"listen 443 ", "listen "+listen+" ", "bind :443 ", "bind "+listen+" ", "*:443", listen, "https://push.example.com", "https://push.example.com:"+port+", https://"+listen,
	).Replace(sample)
	if edit != nil {
		sample = edit(sample)
	}
	proxy := start(t, p.name, p.start(t, d, folder, listen, sample))
	eventually(t, p.name+" speaks TLS", func() bool {
		select {
		case <-proxy.gone:
			t.Fatalf("%s has ended:\n%s", p.name, proxy.output.tail())
		default:
		}
		conn, err := tls.Dial("tcp", listen, speaking("http/1.1"))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return &proxied{address: listen, certificate: filepath.Join(folder, "cert.pem")}
}

// selfSigned is a certificate for names and addresses, as PEM.
func selfSigned(t *testing.T, from, to time.Time, names ...string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "made by a test"}, NotBefore: from, NotAfter: to}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", secret)
}

// speaking is for a client that accepts certificates that the tests made, and speaks one protocol.
func speaking(protocol string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "push.example.com", NextProtos: []string{protocol}}
}

// visitor is a client of a proxy, byte by byte: what it sends is in the test.
type visitor struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// visit connects from an address of this machine that is not the proxy's.
func (x *proxied) visit(t *testing.T, from string) *visitor {
	t.Helper()
	d := &tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Config: speaking("http/1.1")}
	conn, err := d.DialContext(t.Context(), "tcp", x.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &visitor{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// reply is an answer and its body.
type reply struct {
	*http.Response
	body string
}

func (v *visitor) ask(method, target string, headers ...string) reply {
	v.t.Helper()
	_ = v.conn.SetDeadline(time.Now().Add(patience))
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: push.example.com"}, headers...)
	if _, err := io.WriteString(v.conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.ReadResponse(v.r, &http.Request{Method: method})
	if err != nil {
		v.t.Fatalf("%s %.60s: %v", method, target, err)
	}
	answer := reply{Response: resp}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			v.t.Fatal(err)
		}
		answer.body = string(body)
	}
	return answer
}

func (v *visitor) upgrade(target string, headers ...string) reply {
	v.t.Helper()
	return v.ask("GET", target, append([]string{
		"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, headers...)...)
}

// ticket asks for one and leaves the connection open.
func (v *visitor) ticket(path, token string, headers ...string) (ticket string, answer reply) {
	v.t.Helper()
	answer = v.ask("POST", path, append(headers, "Authorization: Bearer "+token, "Content-Length: 0")...)
	var body struct{ Ticket string }
	if answer.StatusCode == http.StatusCreated {
		if err := json.Unmarshal([]byte(answer.body), &body); err != nil {
			v.t.Fatal(err)
		}
	}
	return body.Ticket, answer
}

func (v *visitor) send(text string) {
	v.t.Helper()
	if err := ws.WriteFrame(v.conn, ws.MaskFrame(ws.NewTextFrame([]byte(text)))); err != nil {
		v.t.Fatal(err)
	}
}

// next returns the next message, or a close frame's code as "close 1012". It answers pings and counts them.
func (v *visitor) next() (message string, pings int, err error) {
	_ = v.conn.SetDeadline(time.Now().Add(patience))
	for {
		h, err := ws.ReadHeader(v.r)
		if err != nil {
			return "", pings, err
		}
		payload, err := io.ReadAll(io.LimitReader(v.r, h.Length))
		if err != nil {
			return "", pings, err
		}
		switch h.OpCode {
		case ws.OpText:
			return string(payload), pings, nil
		case ws.OpClose:
			code, _ := ws.ParseCloseFrameData(payload)
			return fmt.Sprint("close ", uint16(code)), pings, nil
		case ws.OpPing:
			pings++
			if err := ws.WriteFrame(v.conn, ws.MaskFrame(ws.NewPongFrame(payload))); err != nil {
				return "", pings, err
			}
		}
	}
}

// want reads messages up to one that contains the text.
func (v *visitor) want(text string) {
	v.t.Helper()
	var seen []string
	for {
		m, _, err := v.next()
		if err != nil {
			v.t.Fatalf("%v; got %q, want %s", err, seen, text)
		}
		if strings.Contains(m, text) {
			return
		}
		seen = append(seen, m)
	}
}

// eachProxy runs a test with each sample, or those that relay HTTP.
func eachProxy(t *testing.T, tcp bool, test func(t *testing.T, p proxySample)) {
	for _, p := range proxySamples {
		if tcp || !p.tcp {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				test(t, p)
			})
		}
	}
}
