// Orders: a shop that tells its customers by HTTP how far their orders are. It uses no library of notifyd for that.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/examples/internal/demo"
)

//go:embed index.html
var page string

var states = []string{"received", "paid", "packed", "shipped"}

func main() {
	d := demo.Start(page, `[{name: orders, topics: ["users.*.orders.*"], max_age: 24h, storage: memory}]`)
	shop := shop{url: d.HTTP + "/v1/publish", token: func() (string, error) { return d.Token("shop", []string{"users.*.orders.*"}, nil) }}
	const user = "ann" // a real service takes the user from its session
	http.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		d.GiveToken(w, user, nil, []string{"users." + user + ".orders.*"})
	})

	var orders atomic.Int64
	http.HandleFunc("POST /orders", func(w http.ResponseWriter, _ *http.Request) {
		number := orders.Add(1)
		go shop.handle(user, number)
		w.WriteHeader(http.StatusAccepted)
	})
	d.Serve()
}

type shop struct {
	url   string
	token func() (string, error)
}

// handle leads an order through its states.
func (s shop) handle(user string, number int64) {
	for _, state := range states {
		event := map[string]any{"topic": fmt.Sprintf("users.%s.orders.%d", user, number), "data": map[string]string{"state": state}}
		for pause := 100 * time.Millisecond; ; pause *= 2 {
			err := s.publish(event, fmt.Sprintf("order-%d-%s", number, state))
			if err == nil {
				break
			}
			log.Print(err)
			if pause > 10*time.Second {
				return
			}
			time.Sleep(pause)
		}
		time.Sleep(time.Second) // somebody is at work
	}
}

// publish returns nil when the stream has stored the event. After any error it can be called again: an event of that name
// is stored once.
func (s shop) publish(event map[string]any, name string) error {
	body, err := json.Marshal(event)
	if err != nil {
		return err
	}
	token, err := s.token()
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", name)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		var problem struct{ Code, Message string }
		_ = json.NewDecoder(response.Body).Decode(&problem) // the status says enough
		return fmt.Errorf("publish: %s: %s %s", response.Status, problem.Code, problem.Message)
	}
	return nil
}
