//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/wire"
)

// One suite for whatever subscribes: over a WebSocket and by Server-Sent Events, with the Go and the JavaScript client. The
// Go client has no Server-Sent Events; a reader of this file stands in for it.

// subscription is what a subscriber of the suite is asked for.
type subscription struct {
	URL       string `json:"url"`
	Token     string `json:"token"`
	Topic     string `json:"topic"`
	Since     uint64 `json:"since,omitempty"` // 0: from now on
	Slow      bool   `json:"slow,omitempty"`  // it stops for two seconds at the first event
	Transport string `json:"transport,omitempty"`
}

// subscribers begin a subscription each, and say what happens, as lines: event N, gap AFTER FIRST, ended CODE.
var subscribers = []struct {
	name  string
	begin func(t *testing.T, x subscription) *journal
}{
	{"Go over WebSocket", subscribeGo},
	{"Go over SSE", subscribeEvents},
	{"JavaScript over WebSocket", func(t *testing.T, x subscription) *journal { return subscribeJS(t, x, "websocket") }},
	{"JavaScript over SSE", func(t *testing.T, x subscription) *journal { return subscribeJS(t, x, "sse") }},
}

// number is the n of an event's data.
func number(data []byte) string {
	var x struct{ N int }
	if err := json.Unmarshal(data, &x); err != nil {
		return err.Error()
	}
	return fmt.Sprint("event ", x.N)
}

func subscribeGo(t *testing.T, x subscription) *journal {
	t.Helper()
	says := newJournal("Go over WebSocket")
	c, err := client.Dial(t.Context(), x.URL, client.Options{Token: client.StaticToken(x.Token), MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	opts := client.SubscribeOptions{OnGap: func(g client.Gap) { says.add(fmt.Sprintf("gap %d %d", g.After, g.First)) }}
	if x.Since > 0 {
		opts.Since = client.After(client.Position{Seq: x.Since})
	}
	s, err := c.SubscribeWith(t.Context(), x.Topic, opts, func(e client.Event) {
		if x.Slow {
			time.Sleep(2 * time.Second)
		}
		x.Slow = false
		says.add(number(e.Data))
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-s.Done()
		var refused *wire.Error
		if errors.As(s.Err(), &refused) {
			says.add("ended " + refused.Code.String())
		}
	}()
	return says
}

func subscribeEvents(t *testing.T, x subscription) *journal {
	t.Helper()
	says := newJournal("Go over SSE")
	query := url.Values{"topic": {x.Topic}}
	if x.Since > 0 {
		query.Set("since", fmt.Sprint(x.Since))
	}
	address := "http" + strings.TrimSuffix(strings.TrimPrefix(x.URL, "ws"), "ws") + "events?" + query.Encode()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+x.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	began := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var m struct {
				Type, Code   string
				Data         json.RawMessage
				Seq          uint64
				After, First uint64
				Complete     *bool
			}
			if !ok || json.Unmarshal([]byte(data), &m) != nil {
				continue
			}
			switch m.Type {
			case "ack":
				if m.Complete != nil && !*m.Complete {
					says.add(fmt.Sprintf("gap %d %d", x.Since, m.First))
				}
				close(began)
			case "event":
				if x.Slow {
					time.Sleep(2 * time.Second)
				}
				x.Slow = false
				says.add(number(m.Data))
			case "gap":
				says.add(fmt.Sprintf("gap %d %d", m.After, m.First))
			case "expired":
				says.add("ended token_expired")
			case "error":
				says.add("ended " + m.Code)
			}
		}
	}()
	select {
	case <-began:
	case <-time.After(patience):
		t.Fatal("no ack")
	}
	return says
}

func subscribeJS(t *testing.T, x subscription, transport string) *journal {
	t.Helper()
	x.Transport = transport
	task, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	s := startScript(t, "subscriber.mjs", webDist(t), string(task))
	s.says.await(t, "ready", 0, func(line string) bool { return line == "ready" })
	return s.says
}

// TestSubscribers has every kind of subscriber go through the same cases at the same time.
func TestSubscribers(t *testing.T) {
	t.Parallel()
	webDist(t)
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, `--streams=[{name: d, topics: ["d.*"], max_bytes: 64MiB, storage: memory}, {name: s, topics: ["s.*"], max_bytes: 256KiB, storage: memory}]`)
	grant := `"notify":{"publish":["d.*","s.*","o.*"],"subscribe":["d.*","s.*","o.*"]}`
	token := keys.tokenFor(t, `{"sub":"ann",`+grant+`}`)
	// publish publishes from to to, each with a filling, and gives the position of the first.
	publish := func(t *testing.T, topic string, from, to, filling int) (first uint64) {
		t.Helper()
		var events []client.Publication
		for n := from; n <= to; n++ {
			events = append(events, client.Publication{Topic: topic, Data: fmt.Appendf(nil, `{"n":%d,"x":%q}`, n, strings.Repeat("x", filling))})
		}
		at, err := client.PublishBatch(t.Context(), nil, node.url, token, events)
		if err != nil {
			t.Fatal(err)
		}
		return at[0].Seq
	}
	numbers := func(from, to int) (lines []string) {
		for n := from; n <= to; n++ {
			lines = append(lines, fmt.Sprint("event ", n))
		}
		return lines
	}
	begin := func(t *testing.T, x subscription) (all []*journal) {
		t.Helper()
		x.URL = node.url
		if x.Token == "" {
			x.Token = token
		}
		for _, s := range subscribers {
			all = append(all, s.begin(t, x))
		}
		return all
	}
	// check waits until each has said what it should, and no more.
	check := func(t *testing.T, all []*journal, want []string) {
		t.Helper()
		for i, says := range all {
			says.await(t, want[len(want)-1], 0, func(line string) bool { return line == want[len(want)-1] })
			got := slices.DeleteFunc(slices.Clone(says.all()), func(line string) bool { return line == "ready" })
			if !slices.Equal(got, want) {
				t.Errorf("%s: %d lines instead of %d: %.300q", subscribers[i].name, len(got), len(want), got)
			}
		}
	}
	t.Run("order", func(t *testing.T) {
		t.Parallel()
		all := begin(t, subscription{Topic: "o.1"})
		publish(t, "o.1", 1, 300, 10)
		check(t, all, numbers(1, 300))
	})
	t.Run("resume", func(t *testing.T) {
		t.Parallel()
		publish(t, "d.resume", 1, 9, 10)
		since := publish(t, "d.resume", 10, 10, 10)
		publish(t, "d.resume", 11, 20, 10)
		all := begin(t, subscription{Topic: "d.resume", Since: since})
		publish(t, "d.resume", 21, 40, 10)
		check(t, all, numbers(11, 40))
	})
	t.Run("gap", func(t *testing.T) {
		t.Parallel()
		since := publish(t, "s.1", 1, 500, 1000) // more than the stream holds
		all := begin(t, subscription{Topic: "s.1", Since: since})
		all[0].await(t, "event 500", 0, func(line string) bool { return line == "event 500" })
		told := all[0].all()
		var after, first int
		if _, err := fmt.Sscanf(told[0], "gap %d %d", &after, &first); err != nil || after != 1 || first < 100 {
			t.Fatalf("%q: %v", told[0], err)
		}
		check(t, all, append([]string{told[0]}, numbers(first, 500)...))
	})
	t.Run("slow reader", func(t *testing.T) {
		t.Parallel()
		since := publish(t, "d.slow", 1, 1, 2000)
		publish(t, "d.slow", 2, 2000, 2000) // more than may be pending
		check(t, begin(t, subscription{Topic: "d.slow", Since: since, Slow: true}), numbers(2, 2000))
	})
	t.Run("expiry", func(t *testing.T) {
		t.Parallel()
		exp := time.Now().Add(25 * time.Second).Unix()
		all := begin(t, subscription{Topic: "d.expiry", Token: keys.sign(t, jwt.MapClaims{"sub": "bob", "exp": exp, "notify": map[string]any{"subscribe": []string{"d.*"}}})})
		publish(t, "d.expiry", 1, 3, 10)
		for _, says := range all {
			says.await(t, "event 3", 0, func(line string) bool { return line == "event 3" })
		}
		time.Sleep(time.Until(time.Unix(exp, 0)))
		publish(t, "d.expiry", 4, 6, 10)
		check(t, all, append(numbers(1, 3), "ended token_expired"))
	})
	t.Run("revocation", func(t *testing.T) {
		t.Parallel()
		all := begin(t, subscription{Topic: "d.revoked", Token: keys.tokenFor(t, `{"sub":"eve","jti":"falls",`+grant+`}`)})
		publish(t, "d.revoked", 1, 3, 10)
		for _, says := range all {
			says.await(t, "event 3", 0, func(line string) bool { return line == "event 3" })
		}
		if err := client.Revoke(t.Context(), node.url, keys.tokenFor(t, `{"sub":"admin","notify":{"admin":true}}`), client.Revocation{ID: "falls"}); err != nil {
			t.Fatal(err)
		}
		publish(t, "d.revoked", 4, 6, 10)
		check(t, all, append(numbers(1, 3), "ended token_revoked"))
	})
}
