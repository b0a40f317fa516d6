// Bell: notices for a user, kept for a month, and a page that knows which of them are unread.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"sync/atomic"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/examples/internal/demo"
)

//go:embed index.html
var page string

var happenings = []string{"Bob has answered you", "Your invoice is ready", "Carol likes your photo", "A new device has signed in"}

func main() {
	d := demo.Start(page, `[{name: notices, topics: ["users.*.notices"], max_age: 720h, max_per_topic: 100, storage: memory}]`)
	const user = "ann" // a real service takes the user from its session

	http.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		d.GiveToken(w, user, nil, []string{"users." + user + ".notices"})
	})
	// Something happens while the button is pressed; elsewhere it is a part of the service that knows nothing of pages.
	var count atomic.Int64
	http.HandleFunc("POST /happen", func(w http.ResponseWriter, r *http.Request) {
		n := count.Add(1) - 1
		if err := notify(r.Context(), d, user, happenings[n%int64(len(happenings))]); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	d.Serve()
}

// notify tells a user something. It opens no connection that stays.
func notify(ctx context.Context, d *demo.Demo, user, text string) error {
	token, err := d.Token("service", []string{"users.*.notices"}, nil)
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return err
	}
	event := client.Publication{Topic: "users." + user + ".notices", Data: data}
	_, err = client.PublishBatch(ctx, nil, d.HTTP, token, []client.Publication{event})
	return err
}
