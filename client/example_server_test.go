package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

// server starts a server for the examples: it acks all but what concerns the topic "secrets", and brings each connection
// what it publishes under the pattern that it has subscribed to last. Topics that begin with "orders." are durable: the last
// event is 1041, and the next one is 1042.
func server() (url string, stop func()) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		ctx := context.Background()
		pattern := ""
		for frame := wire.AppendWelcome(nil, "c", "n", time.Now(), 0, 1<<16); ; {
			if conn.Write(ctx, websocket.MessageText, frame) != nil {
				return
			}
			_, request, err := conn.Read(ctx)
			if err != nil {
				return
			}
			var e wire.Envelope
			if wire.Parse(request, &e) != nil {
				return
			}
			frame = wire.AppendAck(nil, e.ID)
			switch {
			case string(e.Topic) == "secrets":
				frame = wire.AppendError(nil, e.ID, e.Topic, wire.Forbidden, "")
			case e.Kind == wire.Subscribe && strings.HasPrefix(string(e.Topic), "orders."):
				pattern = string(e.Topic)
				frame = wire.AppendResumeAck(nil, e.ID, 1<<40, &wire.Resumption{Stream: "orders", Epoch: "k3x9", Seq: 1041, Complete: true})
			case e.Kind == wire.Publish && strings.HasPrefix(string(e.Topic), "orders."):
				event := wire.StoredEvent{Topic: string(e.Topic), Data: e.Data, Seq: 1042, Prev: 1038}
				if pattern != "" && conn.Write(ctx, websocket.MessageText, wire.AppendStoredEvent(nil, pattern, &event)) != nil {
					return
				}
				frame = wire.AppendStoredAck(nil, e.ID, event.Seq, false)
			case e.Kind == wire.Subscribe:
				pattern = string(e.Topic)
			case e.Kind == wire.Publish && pattern != "":
				if conn.Write(ctx, websocket.MessageText, wire.AppendEvent(nil, string(e.Topic), pattern, e.Data)) != nil {
					return
				}
			}
		}
	}))
	return "ws" + strings.TrimPrefix(s.URL, "http") + wire.Path, s.Close
}

var goBlock = regexp.MustCompile("(?s)\n```go\n(.*?)\n```")

// TestDocumentedCode finds each line of the documents' Go code in the examples, which are compiled and run, in one piece
// and in its order.
func TestDocumentedCode(t *testing.T) {
	examples := lines(t, "example_test.go")
	blocks := 0
	for _, path := range []string{"../README.md", "../docs/authentication.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range goBlock.FindAllStringSubmatch(string(text), -1) {
			blocks++
			want := split(block[1])
			found := false
			for i := range examples {
				found = found || i+len(want) <= len(examples) && slices.Equal(examples[i:i+len(want)], want)
			}
			if !found {
				t.Errorf("%s: no example has these lines:\n%s", path, block[1])
			}
		}
	}
	if blocks < 3 {
		t.Errorf("only %d blocks of Go code were found", blocks)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return split(string(text))
}

// split gives the lines of code, without what the place makes differ: indentation, the server's URL, and what the example
// needs to await the event.
func split(code string) (lines []string) {
	code = strings.ReplaceAll(code, `"ws://127.0.0.1:8080/v1/ws"`, "url")
	code = strings.ReplaceAll(code, "; close(received) })", " })")
	for line := range strings.Lines(code) {
		line, _, _ = strings.Cut(line, "//nolint")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
