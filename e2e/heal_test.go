//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/client"
)

// jwksIssuer signs tokens and publishes its keys at a URL.
type jwksIssuer struct {
	url   string
	asked atomic.Int64 // fetches of the set

	mu        sync.Mutex
	signs     authz.Key
	published []byte
	claims    func() authz.Claims
}

func newJWKSIssuer(t *testing.T, claims func() authz.Claims) *jwksIssuer {
	t.Helper()
	i := &jwksIssuer{claims: claims}
	i.rotate(t)
	i.publish(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		_, _ = w.Write(i.published)
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

// rotate signs with a new key from now on.
func (i *jwksIssuer) rotate(t *testing.T) {
	t.Helper()
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.signs = key
}

// publish publishes the key of now.
func (i *jwksIssuer) publish(t *testing.T) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	set, err := i.signs.Public()
	if err != nil {
		t.Fatal(err)
	}
	i.published = set
}

func (i *jwksIssuer) says(claims func() authz.Claims) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims = claims
}

// token is a client.TokenSource.
func (i *jwksIssuer) token(context.Context, client.Request) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return authz.Sign(i.signs, i.claims())
}

// claimsFor gives what a token says that begins at a time from now, and ends at another.
func claimsFor(topic string, from, to time.Duration) func() authz.Claims {
	return func() authz.Claims {
		now := time.Now()
		return authz.Claims{Subject: "reader", Subscribe: []string{topic}, IssuedAt: now.Add(from), NotBefore: now.Add(from), Expires: now.Add(to)}
	}
}

// TestRefusalsThatHeal has the tokens of 110 Go clients refused for some seconds, for reasons that are nobody's fault.
// None of them may end, and each has to receive events when it is over.
func TestRefusalsThatHeal(t *testing.T) {
	t.Parallel()
	const topic = "heal.all"
	const cooldown = 8 * time.Second
	binary(t) // built once, before the four begin together
	good := claimsFor(topic, 0, time.Hour)
	for _, s := range []struct {
		name    string
		clients int
		happens func(t *testing.T, i *jwksIssuer, node *server) (over func())
	}{
		{"invented kid and a rotation", 20, func(t *testing.T, i *jwksIssuer, node *server) func() {
			stranger := dialCoder(t, "stranger", node.url)
			before := i.asked.Load()
			stranger.publish(t, topic, "eyJhbGciOiJFZERTQSIsImtpZCI6ImludmVudGVkIn0.eyJleHAiOjQxMDI0NDQ4MDB9.AAAA", "0")
			eventually(t, "the node has looked for the invented kid", func() bool { return i.asked.Load() > before })
			i.rotate(t)
			i.publish(t)
			i.says(good)
			return func() {}
		}},
		{"stale key set", 40, func(t *testing.T, i *jwksIssuer, _ *server) func() {
			i.rotate(t)
			i.says(good)
			return func() {
				time.Sleep(5 * time.Second)
				i.publish(t)
			}
		}},
		{"issuer ahead", 25, func(_ *testing.T, i *jwksIssuer, _ *server) func() {
			i.says(func() authz.Claims {
				c := claimsFor(topic, 8*time.Second, time.Hour)()
				c.NotBefore = time.Time{}
				return c
			})
			return func() {} // for ever
		}},
		{"not before a moment to come", 25, func(_ *testing.T, i *jwksIssuer, _ *server) func() {
			begins := time.Now().Add(15 * time.Second) // the node allows for 5
			i.says(func() authz.Claims {
				c := good()
				c.NotBefore = begins
				return c
			})
			return func() {}
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			i := newJWKSIssuer(t, claimsFor(topic, 0, 5*time.Second))
			keys := newIssuer(t)
			node := serve(t, "notifyd", nil, "--auth.keys="+i.url, "--auth.keys="+keys.public, "--auth.jwks-cooldown="+cooldown.String())
			type reader struct {
				c    *client.Client
				sub  *client.Subscription
				last atomic.Pointer[string]
			}
			var refused atomic.Int64
			readers := make([]*reader, s.clients)
			for n := range readers {
				r := &reader{}
				strategy := client.StrategyMessage
				if n%2 == 1 {
					strategy = client.StrategyHeader
				}
				var err error
				if r.c, err = client.Dial(t.Context(), node.url, client.Options{
					Token: i.token, Strategy: strategy, MaxBackoff: 10 * time.Second,
					OnError: func(error) { refused.Add(1) },
				}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(r.c.Close)
				if r.sub, err = r.c.Subscribe(t.Context(), topic, func(e client.Event) {
					data := string(e.Data)
					r.last.Store(&data)
				}); err != nil {
					t.Fatal(err)
				}
				readers[n] = r
			}
			over := s.happens(t, i, node)
			over()

			ended := func() (n int) {
				for _, r := range readers {
					if err := errors.Join(r.c.Err(), r.sub.Err()); err != nil {
						t.Log(err)
						n++
					}
				}
				return n
			}
			// The first tokens end within 5 s; what comes after 15 is delivered under tokens that were refused first.
			time.Sleep(15 * time.Second)
			publisher := dialCoder(t, "publisher", node.url)
			token := keys.publisher(t, time.Hour, topic)
			round := 0
			eventually(t, "all clients receive events again", func() bool {
				if n := ended(); n > 0 {
					t.Fatalf("%d of %d clients ended for good", n, s.clients)
				}
				round++
				data := fmt.Sprint(round)
				if m := publisher.publish(t, topic, token, data); m.Type != "ack" {
					t.Fatalf("publish: %+v", m)
				}
				time.Sleep(200 * time.Millisecond)
				for _, r := range readers {
					if last := r.last.Load(); last == nil || *last != data {
						return false
					}
				}
				return true
			})
			// Else nothing was tested: each kind of client was refused at least once.
			if refused.Load() == 0 {
				t.Error("no token was refused")
			}
			t.Logf("0 of %d clients ended for good, %d refusals", s.clients, refused.Load())
		})
	}
}
