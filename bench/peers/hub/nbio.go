//go:build linux

package hub

import (
	"context"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

// serveNbio does not batch: nbio hands over one message after the other and does
// not tell which is the last of a read, so every event is a write(2) for each
// subscriber. Handlers run in the poller, without a goroutine in between, and the
// frame is encoded once.
func serveNbio(addr string) error {
	logging.SetLevel(logging.LevelError)
	topics := newRegistry[*websocket.Conn]()
	upgrader := websocket.NewUpgrader()
	upgrader.KeepaliveTime = 0
	upgrader.OnMessage(func(c *websocket.Conn, _ websocket.MessageType, frame []byte) {
		switch op, topic, payload := parse(frame); op {
		case opSubscribe:
			topics.add(topic, c)
			_ = c.WriteMessage(websocket.TextMessage, []byte(subscribed)) // nbio closes a connection that fails
		case opPublish:
			event := appendFrame(nil, payload)
			for _, sub := range topics.subscribers(topic) {
				_, _ = sub.Conn.Write(event) // as above
			}
		}
	})
	upgrader.OnClose(func(c *websocket.Conn, _ error) { topics.drop(c) })
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp",
		Addrs:                   []string{addr},
		MaxLoad:                 1 << 20,
		ReleaseWebsocketPayload: true,
		ServerExecutor:          func(f func()) { f() },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = upgrader.Upgrade(w, r, nil) // it answers what it refuses
		}),
	})
	if err := engine.Start(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	<-ctx.Done()
	return engine.Shutdown(context.Background())
}
