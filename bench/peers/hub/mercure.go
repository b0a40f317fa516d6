//go:build linux

package hub

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/dunglas/mercure"
	"github.com/golang-jwt/jwt/v5"
)

// MercurePath is where Mercure takes publishes and sends events (Mercure §5 and §6).
const MercurePath = "/.well-known/mercure"

// serveMercure is the hub of Mercure's library with its transport in memory, which keeps no history. It checks the token
// of each request, and passes events on as Server-Sent Events only.
func serveMercure(addr string) error {
	h, err := mercure.NewHub(context.Background(),
		mercure.WithPublisherJWT([]byte(TokenKey), "HS256"),
		mercure.WithSubscriberJWT([]byte(TokenKey), "HS256"),
		mercure.WithTransport(mercure.NewLocalTransport(mercure.NewSubscriberList(100_000))),
		mercure.WithLogger(slog.New(slog.DiscardHandler)),
		mercure.WithWriteTimeout(0),
	)
	if err != nil {
		return err
	}
	return http.ListenAndServe(addr, h)
}

// MercureToken lets its bearer publish and subscribe everywhere.
func MercureToken() (string, error) {
	all := []string{"*"}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"mercure": map[string]any{"publish": all, "subscribe": all},
	}).SignedString([]byte(TokenKey))
}
