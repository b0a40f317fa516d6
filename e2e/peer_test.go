//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// peer is one connection of a WebSocket client that others wrote.
type peer struct {
	name   string
	got    *journal                 // every text frame that it received
	send   func(frame string) error // one text frame
	closed chan struct{}            // closed when the connection is
	code   int                      // the close code; read it after closed
	lastID atomic.Int64
}

// message is any envelope from the server.
type message struct {
	Type, ID, Topic, Pattern, Code, Message string
	Data                                    json.RawMessage // byte for byte
	Exp                                     int64
}

func decode(t *testing.T, frame string) message {
	t.Helper()
	var m message
	if err := json.Unmarshal([]byte(frame), &m); err != nil {
		t.Errorf("the server sent what is not JSON: %v: %q", err, frame)
	}
	return m
}

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return string(text)
}

func publishFrame(id, topic, token, data string) string {
	return fmt.Sprintf(`{"type":"publish","id":%s,"topic":%s,"token":%s,"data":%s}`,
		quote(id), quote(topic), quote(token), data)
}

func (p *peer) nextID() string { return strconv.FormatInt(p.lastID.Add(1), 10) }

// ask sends a frame that has that id and returns its ack, error or pong.
func (p *peer) ask(t *testing.T, id, frame string) message {
	t.Helper()
	seen := p.got.len()
	if err := p.send(frame); err != nil {
		t.Fatalf("%s: send: %v", p.name, err)
	}
	return p.answer(t, id, seen)
}

// answer finds the answer to id among the frames from index seen on.
func (p *peer) answer(t *testing.T, id string, seen int) message {
	t.Helper()
	return decode(t, p.got.await(t, "answer to "+id, seen, func(frame string) bool { return decode(t, frame).ID == id }))
}

// publish sends one event and returns the answer.
func (p *peer) publish(t *testing.T, topic, token, data string) message {
	t.Helper()
	id := p.nextID()
	return p.ask(t, id, publishFrame(id, topic, token, data))
}

// subscribe does not return before the server has confirmed it.
func (p *peer) subscribe(t *testing.T, topic, token string) {
	t.Helper()
	id := p.nextID()
	frame := fmt.Sprintf(`{"type":"subscribe","id":%q,"topic":%s,"token":%s}`, id, quote(topic), quote(token))
	if m := p.ask(t, id, frame); m.Type != "ack" {
		t.Fatalf("%s: subscribe %s: %s %s: %s", p.name, topic, m.Type, m.Code, m.Message)
	}
}

// ping makes sure that all frames the server had sent to this connection before are in the journal.
func (p *peer) ping(t *testing.T) {
	t.Helper()
	id := p.nextID()
	if m := p.ask(t, id, fmt.Sprintf(`{"type":"ping","id":%q}`, id)); m.Type != "pong" {
		t.Fatalf("%s: ping was answered by %+v", p.name, m)
	}
}

// events returns the events that it received so far, in order.
func (p *peer) events(t *testing.T) []message {
	t.Helper()
	var events []message
	for _, frame := range p.got.all() {
		if m := decode(t, frame); m.Type == "event" {
			events = append(events, m)
		}
	}
	return events
}

func (p *peer) awaitEvents(t *testing.T, n int) {
	t.Helper()
	seen := 0
	p.got.await(t, fmt.Sprintf("event number %d", n), 0, func(frame string) bool {
		if decode(t, frame).Type == "event" {
			seen++
		}
		return seen == n
	})
}

// dialCoder connects with github.com/coder/websocket.
func dialCoder(t *testing.T, name, url string) *peer {
	t.Helper()
	p, err := tryCoder(t, name, url)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

func tryCoder(t *testing.T, name, url string) (*peer, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"notifyd.v1"}})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(-1)
	p := &peer{name: name, got: newJournal(name), closed: make(chan struct{})}
	p.send = func(frame string) error {
		return conn.Write(context.Background(), websocket.MessageText, []byte(frame))
	}
	go func() {
		defer close(p.closed)
		defer p.got.end()
		for {
			_, frame, err := conn.Read(context.Background())
			if err != nil {
				p.code = int(websocket.CloseStatus(err))
				return
			}
			p.got.add(string(frame))
		}
	}()
	t.Cleanup(func() {
		_ = conn.CloseNow() // it may have ended already
		<-p.closed
	})
	return p, nil
}

// dialNPM connects with npm ws.
func dialNPM(t *testing.T, name, url string) *peer {
	t.Helper()
	return dialScript(t, name, nodeScript(t, "ws.mjs", url))
}

// dialChromium connects from a page in headless Chromium.
func dialChromium(t *testing.T, name, url string) *peer {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<!doctype html><title>subscriber</title>") // the browser asks again or fails
	}))
	t.Cleanup(page.Close)
	return dialScript(t, name, nodeScript(t, "chromium.mjs", url, page.URL, chromium(t)))
}

// nodeScript is one of the programs in e2e/js.
func nodeScript(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		leftOut(t, "no Node.js here (20 or later), so no npm jose and ws, and no browser")
	}
	if _, err := os.Stat("js/node_modules"); err != nil {
		leftOut(t, "npm packages are not installed: (cd e2e/js && npm ci --ignore-scripts)")
	}
	return exec.Command(node, append([]string{"js/" + name}, args...)...)
}

func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("NOTIFYD_CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	leftOut(t, "no Chromium here: install it or name it in NOTIFYD_CHROMIUM")
	return ""
}

// dialScript drives a client in another process: a line of its standard input is a frame to send, as a JSON string; a
// line of its output is {"open":true}, a frame as a JSON string, or {"close":CODE}.
func dialScript(t *testing.T, name string, cmd *exec.Cmd) *peer {
	t.Helper()
	out, in := io.Pipe()
	cmd.Stdout = in
	p := &peer{name: name, got: newJournal(name), closed: make(chan struct{})}
	child := start(t, name, cmd)
	go func() {
		<-child.gone
		_ = in.Close() // it never fails
	}()
	opened := make(chan struct{})
	go func() {
		defer close(p.closed)
		defer p.got.end()
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var frame string
			var state struct {
				Open  bool
				Close int
			}
			switch {
			case json.Unmarshal(line, &frame) == nil:
				p.got.add(frame)
			case json.Unmarshal(line, &state) != nil:
				p.got.add("not understood: " + string(line))
			case state.Open:
				close(opened)
			default:
				p.code = state.Close
				return
			}
		}
	}()
	p.send = func(frame string) error {
		select {
		case <-p.closed:
			return errors.New("closed")
		default:
			_, err := fmt.Fprintln(child.stdin, quote(frame))
			return err
		}
	}
	select {
	case <-opened:
	case <-p.closed:
		child.kill()
		t.Fatalf("%s did not connect; it said:\n%s", name, child.output.tail())
	}
	return p
}
