package server

import (
	"sync"
	"sync/atomic"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// topic is a topic or pattern that has subscribers on this node.
type topic struct {
	name   string
	wild   bool
	handle uint32

	// groups holds, for each loop, the subscribers that it owns; nil: none. A
	// loop stores its own, bus goroutines read. Behind them stand, for each loop,
	// those that are sent events of a stream instead of frames.
	groups  []atomic.Pointer[loop.Group]
	streams atomic.Int32 // how many of these there are

	// due is the batch of the round under way, and dueStreams the same for streams,
	// nil while there are none; the topic's shard owns them.
	due, dueStreams *loop.Batch

	// Of durable topics: see stored.go. home is the stream that keeps all of it, nil where
	// none does; dues are empty where there are no streams.
	home *home
	dues []due

	// Guarded by topics.mu.
	refs    int // subscriptions, waiting ones included
	waiting []func(wire.Code)

	// answer is what the bus has said; nil: nothing yet. Stored under topics.mu, read
	// without.
	answer atomic.Pointer[wire.Code]
}

// matches says whether an event on a topic of that name is for t. When t is a
// pattern, name must be valid.
func (t *topic) matches(name string) bool {
	if !t.wild {
		return t.name == name
	}
	return wire.Covers(t.name, name)
}

// pattern is t's name if that is a pattern, as events name it.
func (t *topic) pattern() string {
	if t.wild {
		return t.name
	}
	return ""
}

// groupOf is the place of the group that a subscriber's connection belongs into.
func (t *topic) groupOf(c *loop.Conn) *atomic.Pointer[loop.Group] {
	i := c.Loop().Index()
	if c.IsStream() {
		i += len(t.groups) / 2
	}
	return &t.groups[i]
}

// topics is the table of a node's topics. Its lock is taken when subscriptions
// come and go, never for an event.
type topics struct {
	bus    Bus
	loops  int
	shards int                                  // of the bus's goroutines
	homeOf func(pattern []byte) (*home, string) // nil where there are no streams

	// handles maps a handle to its topic. The slice is replaced to grow; its
	// elements are set under mu and read by bus goroutines without it.
	handles atomic.Pointer[[]atomic.Pointer[topic]]

	mu     sync.Mutex
	byName map[string]*topic // guarded by mu
	free   []uint32          // guarded by mu
}

func (x *topics) byHandle(h uint32) *topic {
	p := x.handles.Load()
	if p == nil || int(h) >= len(*p) {
		return nil
	}
	return (*p)[h].Load()
}

// acquire adds a subscription to the topic of that name; the first one has the
// bus deliver it.
func (x *topics) acquire(name []byte) *topic {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.byName[string(name)]; t != nil {
		t.refs++
		return t
	}
	t := &topic{
		name: string(name), wild: wire.HasWildcard(name), handle: x.handle(),
		groups: make([]atomic.Pointer[loop.Group], 2*x.loops), refs: 1,
	}
	if x.homeOf != nil {
		t.home, _ = x.homeOf(name)
		t.dues = make([]due, 1)
		if t.wild {
			t.dues = make([]due, x.shards)
		}
	}
	if x.byName == nil {
		x.byName = make(map[string]*topic)
	}
	x.byName[t.name] = t
	(*x.handles.Load())[t.handle].Store(t)
	x.bus.Subscribe(t.handle, t.name, func(code wire.Code) { x.confirm(t, code) })
	return t
}

// isLive says whether the bus has confirmed that it delivers t.
func (t *topic) isLive() bool {
	code := t.answer.Load()
	return code != nil && *code == wire.OK
}

// await has f called with what the bus says of t, from a goroutine of the bus.
// When it has said so already, f is not called and its answer returned.
func (x *topics) await(t *topic, f func(wire.Code)) (code wire.Code, waits bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if code := t.answer.Load(); code != nil {
		return *code, false
	}
	t.waiting = append(t.waiting, f)
	return wire.OK, true
}

// confirm passes the answer of the bus to those that wait for t.
func (x *topics) confirm(t *topic, code wire.Code) {
	x.mu.Lock()
	waiting := t.waiting
	t.waiting = nil
	t.answer.Store(&code)
	if code != wire.OK && x.byName[t.name] == t {
		// The interest is gone. The next subscribe asks the bus anew; those
		// that wait release this one.
		delete(x.byName, t.name)
	}
	x.mu.Unlock()
	for _, f := range waiting {
		f(code)
	}
}

// release takes a subscription away. The last one ends the interest in the bus.
func (x *topics) release(t *topic) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.refs--; t.refs > 0 {
		return
	}
	if x.byName[t.name] == t {
		delete(x.byName, t.name)
	}
	(*x.handles.Load())[t.handle].Store(nil)
	x.free = append(x.free, t.handle)
	x.bus.Unsubscribe(t.handle)
}

// handle returns an unused handle. An event that was on its way to the topic
// that had it last is not mistaken for another's: see [topic.matches].
func (x *topics) handle() uint32 {
	if len(x.free) > 0 {
		h := x.free[0] // the one that has been free for longest
		x.free = x.free[1:]
		return h
	}
	var old []atomic.Pointer[topic]
	if p := x.handles.Load(); p != nil {
		old = *p
	}
	grown := make([]atomic.Pointer[topic], max(64, 2*len(old)))
	for i := range old {
		grown[i].Store(old[i].Load())
	}
	x.handles.Store(&grown)
	first := max(1, len(old)) // 0 is not a handle
	for h := first + 1; h < len(grown); h++ {
		x.free = append(x.free, uint32(h))
	}
	return uint32(first)
}

// count is the number of topics that have subscribers.
func (x *topics) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.byName)
}
