//go:build linux

// Package hub holds the smallest servers that the peers' libraries allow: a
// client subscribes to topics, and what is published to a topic reaches its
// subscribers. Unless a library has a protocol of its own, a hub speaks this one,
// in WebSocket text frames:
//
//	S topic            subscribe; answered with the frame "ok"
//	P topic payload    publish; each subscriber gets the frame "payload"
//
// None but centrifuge and Mercure authenticates, and none has a message bus behind it. Each
// is as fast as its library reasonably allows, and says how it batches.
package hub

import (
	"bytes"
	"slices"
	"sync"
)

// A Server is one peer.
type Server struct {
	Name   string
	Module string                  // whose version is measured; "" for the floor, which is of this package
	Serve  func(addr string) error // blocks; addr is host:port
}

// Servers are all peers, the floor first.
var Servers = []Server{
	{"floor", "", serveFloor},
	{"gnet", "github.com/panjf2000/gnet/v2", serveGnet},
	{"nbio", "github.com/lesismal/nbio", serveNbio},
	{"gws", "github.com/lxzan/gws", serveGws},
	{"gorilla", "github.com/gorilla/websocket", serveGorilla},
	{"nats", "github.com/nats-io/nats-server/v2", serveNATS},
	{"centrifuge", "github.com/centrifugal/centrifuge", serveCentrifuge},
	{"mercure", "github.com/dunglas/mercure", serveMercure},
}

// Find gives the server with that name.
func Find(name string) (Server, bool) {
	i := slices.IndexFunc(Servers, func(s Server) bool { return s.Name == name })
	if i < 0 {
		return Server{}, false
	}
	return Servers[i], true
}

// What a client may ask.
const (
	opSubscribe = 'S'
	opPublish   = 'P'
)

// subscribed is the answer to a subscribe.
const subscribed = "ok"

// parse takes a frame's payload apart. op is 0 when it is none of the protocol.
// The slices lie in frame.
func parse(frame []byte) (op byte, topic, payload []byte) {
	if len(frame) < 3 || frame[1] != ' ' {
		return 0, nil, nil
	}
	switch topic = frame[2:]; frame[0] {
	case opSubscribe:
		return opSubscribe, topic, nil
	case opPublish:
		if topic, payload, ok := bytes.Cut(topic, []byte{' '}); ok {
			return opPublish, topic, payload
		}
	}
	return 0, nil, nil
}

// registry knows the subscribers of each topic, for libraries that call from many
// goroutines.
type registry[C comparable] struct {
	mu     sync.RWMutex
	topics map[string][]C // guarded by mu; elements are never overwritten, so a slice taken under mu may be read without
}

func newRegistry[C comparable]() *registry[C] { return &registry[C]{topics: map[string][]C{}} }

func (r *registry[C]) add(topic []byte, c C) {
	r.mu.Lock()
	r.topics[string(topic)] = append(r.topics[string(topic)], c)
	r.mu.Unlock()
}

// drop removes a connection that has ended.
func (r *registry[C]) drop(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, subs := range r.topics {
		if i := slices.Index(subs, c); i >= 0 {
			r.topics[topic] = slices.Concat(subs[:i], subs[i+1:])
		}
	}
}

// subscribers may be read, not changed.
func (r *registry[C]) subscribers(topic []byte) []C {
	r.mu.RLock()
	subs := r.topics[string(topic)]
	r.mu.RUnlock()
	return subs
}
