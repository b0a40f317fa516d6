// Answer: a language model speaks word by word, and the page has each word once, whatever happens to the page meanwhile.
package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/examples/internal/demo"
)

//go:embed index.html
var page string

const pause = 120 * time.Millisecond // between two words

func main() {
	d := demo.Start(page, `[{name: answers, topics: ["users.*.answers.*"], max_age: 1h, storage: memory}]`)
	const user = "ann" // a real service takes the user from its session

	notifyd, err := client.Dial(context.Background(), d.HTTP+"/v1/ws", client.Options{
		Token: func(context.Context, client.Request) (string, error) {
			return d.Token("model", []string{"users.*.answers.*"}, nil)
		},
	})
	if err != nil {
		d.Fail(err)
	}
	http.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		d.GiveToken(w, user, nil, []string{"users." + user + ".answers.*"})
	})
	http.HandleFunc("POST /ask", func(w http.ResponseWriter, r *http.Request) {
		id := rand.Text()
		go speak(notifyd, "users."+user+".answers."+id, r.FormValue("question")) // goes on when the page is gone
		_, _ = fmt.Fprint(w, id)                                                 // a page that is gone does not ask
	})
	d.Serve()
}

// speak publishes an answer, a word at a time. The name of each event has it stored once, also when it is sent again
// after a connection was lost.
func speak(notifyd *client.Client, topic, question string) {
	n := 0
	say := func(part any) (err error) {
		data, err := json.Marshal(part)
		if err != nil {
			return err
		}
		n++
		for range 5 {
			event := client.Publication{Topic: topic, Data: data, MsgID: fmt.Sprint(n)}
			if _, err = notifyd.PublishEvent(context.Background(), event); err == nil {
				return nil
			}
			time.Sleep(time.Second)
		}
		return err
	}
	for word := range generate(question) {
		if err := say(map[string]string{"text": word}); err != nil {
			log.Print(err)
			return
		}
		time.Sleep(pause)
	}
	if err := say(map[string]bool{"done": true}); err != nil {
		log.Print(err)
	}
}

// generate stands for a language model: it gives the parts of an answer, one after the other.
func generate(question string) func(yield func(string) bool) {
	answer := fmt.Sprintf("You asked: %s That is a good question. Each word of this answer is an event. A stream keeps "+
		"them for an hour. The page subscribes from the first word on, so it makes no difference whether "+
		"it was there from the beginning, came later, or was loaded again in the middle: "+
		"it shows every word once and in order.", question)
	return func(yield func(string) bool) {
		for word := range strings.SplitAfterSeq(answer, " ") {
			if !yield(word) {
				return
			}
		}
	}
}
