//go:build linux

package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// browser is headless Chromium, which loads pages and does there what it is told.
type browser struct{ script }

// outcome is what a page says of a request or a WebSocket.
type outcome struct {
	Status                       int
	Body, Error, Protocol, First string
	Open                         bool
	Protocols                    []string // of what Chromium has asked for so far
}

func (b browser) do(t *testing.T, page, what string, details map[string]any) outcome {
	t.Helper()
	return b.doFor(t, patience, page, what, details)
}

// doFor is do for what takes longer than others.
func (b browser) doFor(t *testing.T, patience time.Duration, page, what string, details map[string]any) (o outcome) {
	t.Helper()
	seen := b.says.len()
	if strings.Count(page, "/") == len("://")-1 {
		page += "/" // an origin
	}
	b.tell(t, map[string]any{"page": page, what: details})
	b.hearFor(t, patience, seen, &o)
	return o
}

func (b browser) fetch(t *testing.T, page string, details map[string]any) outcome {
	t.Helper()
	return b.do(t, page, "fetch", details)
}

func (b browser) socket(t *testing.T, page, url string, protocols ...string) outcome {
	t.Helper()
	return b.do(t, page, "socket", map[string]any{"url": url, "protocols": append([]string{}, protocols...)})
}

// website serves an empty page at an origin of its own.
func website(t *testing.T) string {
	t.Helper()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>page</title>")) // the browser asks again or fails
	}))
	t.Cleanup(site.Close)
	return site.URL
}

// TestBrowserCredentials opens WebSockets from pages in the ways that a browser has, since it can set no headers for
// them: the token as a subprotocol item, and a ticket that fetch got for it. Pages of another origin get neither.
func TestBrowserCredentials(t *testing.T) {
	t.Parallel()
	home, foreign := website(t), website(t)
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--auth.require=connection", "--origins="+home)
	b := browser{startScript(t, "page.mjs", chromium(t))}
	token := keys.subscriber(t, time.Hour, "browser.>")
	secrets := []string{token}

	opens := func(how, page, url string, protocols ...string) {
		t.Helper()
		o := b.socket(t, page, url, protocols...)
		if !o.Open || o.Protocol != "notifyd.v1" || decode(t, o.First).Type != "welcome" {
			t.Errorf("%s: %+v", how, o)
		}
	}
	refuses := func(how, page, url string, protocols ...string) {
		t.Helper()
		if o := b.socket(t, page, url, protocols...); o.Open || o.Error == "" {
			t.Errorf("%s: %+v", how, o)
		}
	}
	ticket := func(page string) (string, outcome) {
		t.Helper()
		o := b.fetch(t, page, map[string]any{
			"url": node.call("tickets"), "method": "POST", "headers": map[string]string{"Authorization": "Bearer " + token},
		})
		var answer struct {
			Ticket    string
			ExpiresIn int `json:"expires_in"`
		}
		if o.Error != "" {
			return "", o
		}
		if err := json.Unmarshal([]byte(o.Body), &answer); err != nil || o.Status != http.StatusCreated || answer.ExpiresIn < 1 {
			t.Fatalf("the answer to a ticket's request: %v: %+v", err, o)
		}
		secrets = append(secrets, answer.Ticket)
		return answer.Ticket, o
	}

	opens("subprotocol", home, node.url, "notifyd.v1", "bearer."+token)
	refuses("subprotocol, another origin", foreign, node.url, "notifyd.v1", "bearer."+token)
	refuses("subprotocol, damaged token", home, node.url, "notifyd.v1", "bearer."+token[:len(token)-8])

	in, _ := ticket(home)
	opens("ticket as subprotocol", home, node.url, "notifyd.v1", "ticket."+in)
	refuses("ticket, a second time", home, node.url, "notifyd.v1", "ticket."+in)
	in, _ = ticket(home)
	opens("ticket in the query", home, node.url+"?ticket="+in, "notifyd.v1")
	if in, o := ticket(foreign); in != "" || o.Error == "" {
		t.Errorf("a page of another origin got a ticket: %+v", o)
	}
	in, _ = ticket(home)
	refuses("ticket, another origin", foreign, node.url+"?ticket="+in, "notifyd.v1")
	opens("ticket that another origin was refused with", home, node.url+"?ticket="+in, "notifyd.v1")

	refuses("query, which is off", home, node.url+"?access_token="+token, "notifyd.v1")
	node.kill()
	searchForTokens(t, secrets, "the log", node.output.all())
}
