// Metrics: machines that publish figures each second, many at once, and a wall that shows the last of each.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/examples/internal/demo"
)

//go:embed index.html
var page string

var (
	machines = []string{"ams-1", "ams-2", "fra-1", "nyc-1", "sgp-1", "syd-1"}
	figures  = []string{"cpu", "memory", "requests"}
)

func main() {
	// max_per_topic: 1 keeps the last value of each topic. A page that comes later begins with these.
	d := demo.Start(page, `[{name: metrics, topics: ["metrics.*.*"], max_per_topic: 1, storage: memory}]`)
	http.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		d.GiveToken(w, "wall", nil, []string{"metrics.*.*"})
	})
	go measure(d)
	d.Serve()
}

// measure publishes figures for ever. They are made up: each wanders between 0 and 100.
func measure(d *demo.Demo) {
	values := map[string]float64{}
	for ; ; time.Sleep(time.Second) {
		var events []client.Publication
		for _, machine := range machines {
			for _, figure := range figures {
				topic := "metrics." + machine + "." + figure
				if _, known := values[topic]; !known {
					values[topic] = 20 + 60*rand.Float64()
				}
				values[topic] = min(max(values[topic]+rand.NormFloat64()*5, 0), 100)
				events = append(events, client.Publication{Topic: topic, Data: fmt.Appendf(nil, "%.1f", values[topic])})
			}
		}
		token, err := d.Token("collector", []string{"metrics.*.*"}, nil)
		if err == nil {
			_, err = client.PublishBatch(context.Background(), nil, d.HTTP, token, events) // one request
		}
		if err != nil {
			log.Print(err) // the next figures come in a second
		}
	}
}
