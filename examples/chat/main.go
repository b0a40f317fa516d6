// Chat: a lobby, and a private room for each two people. The server of notifyd decides who reads and writes where.
package main

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/notifyd/notifyd/examples/internal/demo"
)

//go:embed index.html
var page string

var people = []string{"ann", "bob", "carol"}

// roomsOf lists the rooms of a person: the lobby, and one with each of the others. A real service asks its database.
func roomsOf(person string) []string {
	rooms := []string{"lobby"}
	for _, other := range people {
		if other != person {
			rooms = append(rooms, min(person, other)+"-"+max(person, other))
		}
	}
	return rooms
}

func main() {
	// Subscribers are told who published an event: that name is of the token, and no page can invent one.
	d := demo.Start(page, `[{name: rooms, topics: ["rooms.*"], max_age: 24h, storage: memory}]`, "--events.from")

	// A real service takes the person from its session.
	signedIn := func(handle func(w http.ResponseWriter, person string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			person := r.FormValue("person")
			if !slices.Contains(people, person) {
				http.Error(w, "there is nobody of that name here", http.StatusForbidden)
				return
			}
			handle(w, person)
		}
	}
	http.HandleFunc("GET /rooms", signedIn(func(w http.ResponseWriter, person string) {
		_ = json.NewEncoder(w).Encode(roomsOf(person)) // the page asks again
	}))
	http.HandleFunc("POST /token", signedIn(func(w http.ResponseWriter, person string) {
		var topics []string
		for _, room := range roomsOf(person) {
			topics = append(topics, "rooms."+room)
		}
		d.GiveToken(w, person, topics, topics)
	}))
	d.Serve()
}
