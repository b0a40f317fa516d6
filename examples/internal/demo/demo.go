// Package demo is what the examples have in common and what is not worth reading in each: it starts a server with a key
// of its own, makes tokens with that key, and serves a page with the JavaScript client.
package demo

import (
	"context"
	"embed"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/notifyd/notifyd/authz"
)

const (
	defaultServer = "127.0.0.1:8080" // as the pages have it
	esbuild       = "github.com/evanw/esbuild/cmd/esbuild@v0.28.2"
	tokenLife     = 5 * time.Minute
)

//go:embed style.css
var style embed.FS

// Demo is a running server and a page that is about to be served.
type Demo struct {
	HTTP string // base URL of the server
	ctx  context.Context
	page string
	site string // host:port
	key  authz.Key
	dir  string // temporary: the program, its key file and the JavaScript client

	server *os.Process   // nil before it runs
	gone   chan struct{} // closed when it has ended
	state  error         // and how
}

// Start starts "notifyd serve" with these streams, written as YAML, and further arguments. The program ends when that
// fails.
func Start(page, streams string, args ...string) *Demo {
	server := flag.String("notifyd", defaultServer, "address of the server that is started")
	program := flag.String("program", "", "the program notifyd; empty: it is built")
	site := flag.String("listen", "127.0.0.1:8081", "address of the page")
	flag.Parse()
	d := &Demo{HTTP: "http://" + *server, site: *site, page: strings.ReplaceAll(page, defaultServer, *server), gone: make(chan struct{})}
	d.ctx, _ = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := d.start(*program, *server, append([]string{"--streams", streams}, args...)); err != nil {
		d.Fail(err)
	}
	return d
}

func (d *Demo) start(program, server string, args []string) (err error) {
	if d.dir, err = os.MkdirTemp("", "notifyd-example-"); err != nil {
		return err
	}
	if d.key, err = authz.GenerateKey("EdDSA"); err != nil {
		return err
	}
	public, err := d.key.Public()
	if err != nil {
		return err
	}
	keys := filepath.Join(d.dir, "keys.json")
	if err := os.WriteFile(keys, public, 0o600); err != nil {
		return err
	}
	log.Print("building the server and the JavaScript client; the first time takes a minute or two")
	if program == "" {
		program = filepath.Join(d.dir, "notifyd")
		if err := d.run("go", "build", "-o", program, "./cmd/notifyd"); err != nil {
			return err
		}
	}
	err = d.run("go", "run", esbuild, "--bundle", "--format=esm", "--splitting", "--log-level=warning",
		"--outdir="+filepath.Join(d.dir, "client"), "web/client/src/index.ts", "web/client/src/durable.ts")
	if err != nil {
		return err
	}
	args = append([]string{"serve", "--auth.keys", keys, "--origins", "http://" + d.site, "--listen", server, "--admin.listen=", "--drain-window=0s"}, args...)
	log.Print("notifyd ", strings.Join(args, " "))
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	d.server = cmd.Process
	go func() {
		d.state = cmd.Wait()
		close(d.gone)
	}()
	return d.await(server)
}

// run runs a command that ends by itself.
func (d *Demo) run(name string, args ...string) error {
	cmd := exec.CommandContext(d.ctx, name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w (run the example in the top folder of the project)", name, strings.Join(args, " "), err)
	}
	return nil
}

// await waits until the server listens.
func (d *Demo) await(server string) error {
	for {
		if conn, err := net.Dial("tcp", server); err == nil {
			return conn.Close()
		}
		select {
		case <-d.gone:
			return fmt.Errorf("the server has ended: %w", d.state)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Fail ends the example, and the server with it.
func (d *Demo) Fail(err error) {
	d.clear(0)
	log.Fatal(err)
}

// clear ends the server, unless it ends by itself within patience, and removes what was made for it.
func (d *Demo) clear(patience time.Duration) {
	if d.server != nil {
		select {
		case <-d.gone:
		case <-time.After(patience):
			_ = d.server.Signal(os.Interrupt) // fails when it has just ended
			<-d.gone
		}
	}
	_ = os.RemoveAll(d.dir) // the system clears it otherwise
}

// Token makes a token for a subject that may publish to and subscribe to these patterns for five minutes.
func (d *Demo) Token(subject string, publish, subscribe []string) (string, error) {
	now := time.Now()
	return authz.Sign(d.key, authz.Claims{Subject: subject, IssuedAt: now, Expires: now.Add(tokenLife), Publish: publish, Subscribe: subscribe})
}

// GiveToken answers a request with such a token.
func (d *Demo) GiveToken(w http.ResponseWriter, subject string, publish, subscribe []string) {
	token, err := d.Token(subject, publish, subscribe)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	_, _ = fmt.Fprint(w, token) // the page asks again
}

// Serve serves the page, and what http.Handle knows besides, until the program is interrupted.
func (d *Demo) Serve() {
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(w, d.page) // the browser asks again
	})
	http.Handle("GET /client/", http.FileServer(http.Dir(d.dir)))
	http.Handle("GET /style.css", http.FileServerFS(style))
	http.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	listener, err := net.Listen("tcp", d.site)
	if err != nil {
		d.Fail(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- http.Serve(listener, nil) }()
	log.Printf("the page is on http://%s/", listener.Addr())
	select {
	case err = <-failed:
	case <-d.gone:
		err = fmt.Errorf("the server has ended: %w", d.state)
	case <-d.ctx.Done():
	}
	if d.ctx.Err() == nil {
		d.Fail(err)
	}
	d.clear(5 * time.Second) // Ctrl-C in a terminal has reached the server too; a second signal would end it by force
}
