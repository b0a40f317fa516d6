//go:build linux

package hub

import (
	"bytes"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// gorillaConn is a connection that several publishers may write to.
type gorillaConn struct {
	*websocket.Conn
	mu sync.Mutex // held for writing
}

// serveGorilla does not batch: gorilla flushes each message on its own. The
// reader's goroutine itself writes to the subscribers, without a queue and another
// goroutine for each; where there are several, they share a prepared message.
func serveGorilla(addr string) error {
	topics := newRegistry[*gorillaConn]()
	upgrader := websocket.Upgrader{WriteBufferPool: &sync.Pool{}}
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		go func() { // so that the request can be collected
			c := &gorillaConn{Conn: conn}
			_ = c.read(topics) // whatever the reason, it has ended
			topics.drop(c)
			_ = c.Close()
		}()
	}))
}

func (c *gorillaConn) read(topics *registry[*gorillaConn]) error {
	var buf bytes.Buffer
	for {
		_, r, err := c.NextReader()
		if err != nil {
			return err
		}
		buf.Reset()
		if _, err = buf.ReadFrom(r); err != nil {
			return err
		}
		switch op, topic, payload := parse(buf.Bytes()); op {
		case opSubscribe:
			topics.add(topic, c)
			c.write([]byte(subscribed))
		case opPublish:
			if err = publish(topics.subscribers(topic), payload); err != nil {
				return err
			}
		}
	}
}

func publish(subs []*gorillaConn, payload []byte) error {
	if len(subs) == 1 {
		subs[0].write(payload)
		return nil
	}
	m, err := websocket.NewPreparedMessage(websocket.TextMessage, payload)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		sub.mu.Lock()
		_ = sub.WritePreparedMessage(m) // the reader learns of a connection that fails
		sub.mu.Unlock()
	}
	return nil
}

func (c *gorillaConn) write(payload []byte) {
	c.mu.Lock()
	_ = c.WriteMessage(websocket.TextMessage, payload) // as above
	c.mu.Unlock()
}
