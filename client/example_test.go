package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/wire"
)

// The code blocks of README.md and of docs/authentication.md stand in this file: TestDocumentedCode compares them.

// Example subscribes to rooms and publishes to one of them.
func Example() {
	url, stop := server()
	defer stop()
	received := make(chan struct{})
	err := func(ctx context.Context, token string) error {
		c, err := client.Dial(ctx, url, client.Options{Token: client.StaticToken(token)})
		if err != nil {
			return err
		}
		defer c.Close()

		sub, err := c.Subscribe(ctx, "rooms.*", func(e client.Event) { fmt.Printf("%s: %s\n", e.Topic, e.Data); close(received) })
		if err != nil {
			return err
		}
		defer sub.Unsubscribe(ctx) //nolint:errcheck // as one writes it: the client ends all the same

		err = c.Publish(ctx, "rooms.42", []byte(`{"text":"hello"}`)) // nil: the server handed it to NATS
		<-received
		return err
	}(context.Background(), "eyJ…")
	if err != nil {
		log.Fatal(err)
	}
	// Output: rooms.42: {"text":"hello"}
}

// A token source mints a token for what it is asked for. Here the connection has a credential of its own, so that
// subscribes need none.
func ExampleOptions_tokenSource() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	mint := func(_ context.Context, action client.Action, topic string) (string, error) {
		fmt.Printf("token to %s %q\n", action, topic)
		return "eyJ…", nil
	}
	c, err := client.Dial(ctx, url, client.Options{
		Token:    func(ctx context.Context, r client.Request) (string, error) { return mint(ctx, r.Action, r.Topic) },
		Strategy: client.StrategyHeader, // left out: a token in each subscribe
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Subscribe(ctx, "rooms.*", func(client.Event) {}); err != nil {
		log.Fatal(err)
	}
	if err := c.Publish(ctx, "rooms.42", []byte(`1`)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// token to connect ""
	// token to publish "rooms.42"
}

// Many events can be on their way at once. Their answers come in any order that suits the caller.
func ExampleClient_PublishAsync() {
	url, stop := server()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, url, client.Options{Token: client.StaticToken("eyJ…")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var acks []*client.Ack
	for n := range 100 {
		ack, err := c.PublishAsync(ctx, "rooms.42", fmt.Append(nil, n))
		if err != nil {
			log.Fatal(err) // nothing was sent
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		if err := ack.Wait(ctx); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(len(acks), "events were taken")
	// Output: 100 events were taken
}

// A subscription to durable topics goes on where the application was, also after the program has ended.
func ExampleClient_SubscribeWith() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	c, err := client.Dial(ctx, url, client.Options{Token: client.StaticToken("eyJ…")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	kept, err := client.ParsePosition("k3x9.1041") // what the application has stored
	if err != nil {
		log.Fatal(err)
	}
	opts := client.SubscribeOptions{
		Since: client.After(kept), // client.Everything() the first time
		OnGap: func(g client.Gap) { fmt.Println("gone:", g.After, g.First) },
	}
	sub, err := c.SubscribeWith(ctx, "orders.*", opts, func(e client.Event) { fmt.Printf("%d %s %s\n", e.Seq, e.Topic, e.Data) })
	if err != nil {
		log.Fatal(err)
	}
	stored, err := c.PublishEvent(ctx, client.Publication{Topic: "orders.7", Data: []byte(`{"paid":true}`), MsgID: "order-7-paid"})
	if err != nil {
		log.Fatal(err)
	}
	for sub.Position().Seq < stored.Seq { // until the handler has returned
		time.Sleep(time.Millisecond)
	}
	fmt.Println("go on from", sub.Position()) // to be stored
	// Output:
	// 1042 orders.7 {"paid":true}
	// go on from k3x9.1042
}

// A refusal has a code, which errors.Is compares.
func ExampleClient_Publish_refused() {
	url, stop := server()
	defer stop()
	ctx := context.Background()
	c, err := client.Dial(ctx, url, client.Options{Token: client.StaticToken("eyJ…")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	err = c.Publish(ctx, "secrets", []byte(`1`))
	var refusal *wire.Error
	switch {
	case errors.Is(err, wire.Forbidden):
		fmt.Println("the token does not permit it")
	case errors.As(err, &refusal) && refusal.Code.Retry():
		fmt.Println("try again later")
	}
	// Output: the token does not permit it
}

// Any WebSocket library will do.
func Example_otherLibrary() {
	url, stop := server()
	defer stop()
	ctx, token := context.Background(), "eyJ"
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		Subprotocols: []string{"notifyd.v1", "bearer." + token}, // or "ticket." + ticket
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	fmt.Println(conn.Subprotocol())
	// Output: notifyd.v1
}
