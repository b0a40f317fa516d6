//go:build linux

package hub

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/golang-jwt/jwt/v5"
)

// TokenKey signs the tokens that centrifuge's clients connect with (HS256).
const TokenKey = "the tokens of this benchmark guard nothing"

// serveCentrifuge speaks centrifuge's JSON protocol; a token is checked once, at
// connect. Clients publish with "send", which has no answer, as an event of
// notifyd without an id has none: {"send":{"data":"topic payload"}}. It batches in
// a goroutine per client, without a delay and without a limit to what one frame
// takes; a delay would save more, at the price of latency.
func serveCentrifuge(addr string) error {
	node, err := centrifuge.New(centrifuge.Config{ClientQueueMaxSize: 64 << 20}) // a whole history
	if err != nil {
		return err
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		var claims jwt.RegisteredClaims
		if _, err := parser.ParseWithClaims(e.Token, &claims, func(*jwt.Token) (any, error) { return []byte(TokenKey), nil }); err != nil {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
		}
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{UserID: claims.Subject},
			MaxMessagesInFrame: -1,
		}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(e centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			kept := strings.HasPrefix(e.Channel, KeptPrefix)
			answer(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnableRecovery: kept, EnablePositioning: kept}}, nil)
		})
		c.OnPublish(func(e centrifuge.PublishEvent, answer centrifuge.PublishCallback) {
			var reply centrifuge.PublishReply
			for _, option := range history(e.Channel) {
				option(&reply.Options)
			}
			answer(reply, nil)
		})
		c.OnMessage(func(e centrifuge.MessageEvent) {
			topic, payload, ok := bytes.Cut(bytes.TrimPrefix(e.Data, []byte{'"'}), []byte{' '})
			if !ok {
				return
			}
			event := append(append(make([]byte, 0, 1+len(payload)), '"'), payload...)
			_, _ = node.Publish(string(topic), event, history(string(topic))...) // the memory broker refuses nothing
		})
	})
	if err := node.Run(); err != nil {
		return err
	}
	return http.ListenAndServe(addr, centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		UseWriteBufferPool: true,
		PingPongConfig:     centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1}, // the driver answers none
	}))
}

// KeptPrefix begins the names of topics of which centrifuge keeps a history, in memory.
const KeptPrefix = "bench.kept."

// history says how much is kept of a topic.
func history(topic string) []centrifuge.PublishOption {
	if !strings.HasPrefix(topic, KeptPrefix) {
		return nil
	}
	return []centrifuge.PublishOption{centrifuge.WithHistory(100_000, time.Hour)}
}

// Token is what a client of centrifuge connects with.
func Token() (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Subject: "bench", ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).SignedString([]byte(TokenKey))
}
