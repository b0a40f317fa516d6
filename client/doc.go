// Package client connects Go programs to a notifyd server.
//
//	c, err := client.Dial(ctx, "ws://127.0.0.1:8080/v1/ws", client.Options{Token: client.StaticToken(jwt)})
//	…
//	sub, err := c.Subscribe(ctx, "rooms.*", func(e client.Event) { fmt.Printf("%s %s\n", e.Topic, e.Data) })
//	…
//	err = c.Publish(ctx, "rooms.42", []byte(`{"hello":"world"}`)) // nil: the server handed it on
//
// A Client reconnects for ever, with full-jitter exponential back-off, and subscribes again to what it was subscribed
// to, until Close or until the server closes with a code that says not to come back ([wire.CloseCode.Reconnect]).
// Tokens are asked for when they are needed, and again when the server says that one expires, so a [TokenSource] that
// mints short-lived tokens is all that a long-lived client needs. A client, or a subscription, whose tokens are refused
// asks for others; it ends when at least three in a row were refused, over at least twice Options.MaxBackoff.
//
// When a node says that it restarts, a Client connects to another one, behind the same URL, before it gives up the
// connection that it has: no event is lost, and the handler sees each once. Events that are equal byte for byte, on one
// topic, less than half a second apart, may count as one in that moment.
//
// Topics that belong to a stream are durable. A subscription to them knows its [Position] and goes on from there by itself
// after a reconnect, a move or a refresh, so that the handler sees each event once, in order; [Client.SubscribeWith]
// begins from a position that an application has kept, or from other places. The chain of each topic (Event.Prev) is
// checked: an event that is missing, or comes again, is an [*OrderError] for Options.OnError, and a [Gap] is what the
// stream had to discard. A handler that is too slow loses nothing: when Options.QueueBytes wait for it, the client ends
// the subscription at the server, and reads on from the stream when the handler has done what waits.
//
// Options.Strategy gives the connection a credential of its own, so that subscribes carry no token; each publish always
// carries one. Revoke takes tokens back.
//
// A publish whose connection is lost before the answer came fails with [ErrDisconnected] and is not sent again by
// itself: it may have arrived. With a MsgID ([Client.PublishEvent]) the stream of a durable topic stores it once, however
// often it is sent within the stream's duplicate window. Refusals by the server are *[wire.Error]; errors.Is(err, wire.Forbidden) compares codes.
//
// The WebSocket below is coder/websocket. It brings net/http's way to a server (proxies, TLS settings, HTTP headers),
// takes the protocol's odd corners seriously, and runs wherever Go does. gobwas/ws, which the server uses, could put
// many frames into one write, but would leave all of that to this package.
package client
