package bus

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// A Watcher uses the connection of a bus for something else than events, and needs to know its state. Its
// methods are called one after the other and must not block.
type Watcher interface {
	// Connected follows each new connection.
	Connected()
	// Disconnected follows the end of a connection.
	Disconnected()
	// Denied says that the permissions of the NATS account forbid subject.
	Denied(subject string, err error)
}

// Conn is the connection to NATS that is not for the path of events. It is the bus's to close.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// Watch tells w the state of Conn, now and at each change until Close.
func (b *Bus) Watch(w Watcher) { b.watchers.add(w, b.connected.Load) }

// watchers are the users of the connection. mu keeps their calls in order.
type watchers struct {
	mu  sync.Mutex
	all []Watcher
}

func (ws *watchers) add(w Watcher, connected func() bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.all = append(ws.all, w)
	if connected() {
		w.Connected()
	}
}

func (ws *watchers) denied(subject string, err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.all {
		w.Denied(subject, err)
	}
}

// setConnected is called by nats.go's callbacks alone.
func (b *Bus) setConnected(connected bool) {
	b.watchers.mu.Lock()
	defer b.watchers.mu.Unlock()
	if !connected { // Publish refuses first, and takes events again last
		b.connected.Store(false)
	}
	for _, w := range b.watchers.all {
		if connected {
			w.Connected()
		} else {
			w.Disconnected()
		}
	}
	if connected {
		b.connected.Store(true)
	}
}
