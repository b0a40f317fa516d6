package node_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/node"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

var (
	firstSeed  = flag.Uint64("model.seed", 1, "the first seed of TestModel")
	modelSeeds = flag.Int("model.seeds", 6, "how many seeds TestModel tries, one after another from the first")
	modelSteps = flag.Int("model.steps", 40, "how many steps TestModel takes with each seed")
)

// TestModel does at random what clients, administrators and operators do with a node, and compares what the node does
// with the model. What failed is tried again with
//
//	go test ./node -run TestModel -model.seed=N -model.seeds=1
func TestModel(t *testing.T) {
	seeds, first := *modelSeeds, *firstSeed
	if text := os.Getenv("NOTIFYD_MODEL_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = n, 1
	}
	for seed := first; seed < first+uint64(seeds); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			for range *modelSteps {
				if w.step(); t.Failed() {
					break
				}
			}
			w.end()
		})
	}
}

const (
	// slots is how many connections there are at once.
	slots = 7
	// modelFailures is how many bad tokens in a row close a connection.
	modelFailures = 5
)

var (
	modelTopics   = []string{"a.1", "a.2", "b.1", "b.1.x", "d.1"}
	modelPatterns = []string{"a.1", "a.2", "b.1", "a.*", "b.>", "*.1", ">", "d.1", "d.>"}
)

// world is a node, its clients, and what the model knows of them.
type world struct {
	t     *testing.T
	rng   *rand.Rand // for the goroutine of the test alone
	node  *node.Node
	nats  *testkit.NATS // nil: embedded
	turns [2]atomic.Int64
	admin string

	mu      sync.Mutex
	history []string
	keys    []authz.Key
	tokens  []*modelToken
	revoked []revokedSubject
	peers   [slots]*modelPeer
	left    [slots]*modelPeer // those before them
	numbers int
	events  map[int][]*modelEvent // by publisher; number is the place
	recent  []*modelEvent         // since the last look at what has to arrive
	away    bool                  // NATS is away, or may be
	down    bool                  // it certainly is
	outages int                   // how often it has been
	back    time.Time             // when it was away last
	log     []*modelEvent         // the stream by seq from 1 on; nil: not known
	epoch   string                // of the stream
	filled  bool                  // the stream has more than sockets take; of the test's goroutine
	seen    map[string]int        // what happened how often
}

// revokedSubject is a revocation of the tokens of a subject that were issued before a time.
type revokedSubject struct {
	subject string
	before  int64
	cause   *cause
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), events: map[int][]*modelEvent{}, seen: map[string]int{}}
	for range 3 {
		w.keys = append(w.keys, newKey(t))
	}
	o := node.Options{Auth: authz.Options{Trusted: w.keys, NotBeforeLeeway: -1}}
	o.Server.AuthFailures = modelFailures
	o.Server.Loop = loop.Options{Loops: len(w.turns), OnTurn: func(l *loop.Loop, _ int) {
		w.turns[l.Index()].Store(time.Now().UnixNano())
	}}
	o.Bus.Streams = []bus.StreamOptions{{Name: "kept", Topics: []string{"d.>"}, MaxAge: time.Hour}}
	o.Bus.Linger = []time.Duration{-1, 50 * time.Millisecond, 0}[w.rng.IntN(3)]
	if w.rng.IntN(2) == 0 {
		w.nats = testkit.StartJetStream(t)
		o.Bus.URL = w.nats.URL()
	}
	w.note("embedded NATS: %v, linger %v", w.nats == nil, o.Bus.Linger)
	t.Cleanup(func() {
		if t.Failed() {
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("try again with -model.seed=%d -model.seeds=1; the last steps:\n%s", seed,
				strings.Join(w.history[max(0, len(w.history)-120):], "\n"))
		}
	})
	var err error
	if w.node, err = node.Start(t.Context(), o, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.node.Close(); err != nil {
			t.Error(err)
		}
	})
	testkit.Eventually(t, "the node is connected to NATS", w.connected)
	if w.admin, err = authz.Sign(w.keys[0], authz.Claims{Expires: time.Now().Add(time.Hour), Admin: true}); err != nil {
		t.Fatal(err)
	}
	for i := range w.peers {
		w.connect(i, nil, false)
	}
	return w
}

func newKey(t *testing.T) authz.Key {
	t.Helper()
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// note keeps what happens for the reader of a failure.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(format, args...)
}

func (w *world) noteLocked(format string, args ...any) {
	w.history = append(w.history, time.Now().Format("05.000000 ")+fmt.Sprintf(format, args...))
}

// wrong says that the node did what the model does not permit. mu is held.
func (w *world) wrong(format string, args ...any) {
	w.noteLocked("WRONG: "+format, args...)
	w.t.Errorf(format, args...)
}

// now is the moment at which something is about to be sent.
func (w *world) now() moment {
	clock := w.turns[0].Load()
	for i := range w.turns {
		clock = min(clock, w.turns[i].Load())
	}
	return moment{time.Now(), time.Unix(0, clock)}
}

// await waits until ok, which is called with mu held, and says what is wrong when that does not happen.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	testkit.Eventually(w.t, what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return ok()
	})
}

// Steps. What is random is drawn before anything runs side by side, so that a seed always draws the same.

// step has some connections do one thing each, side by side; an administrator or NATS may do something meanwhile.
func (w *world) step() {
	switch w.rng.IntN(10) {
	case 0, 1:
		w.outliveToken()
	case 2:
		w.heldUp()
	default:
		var all sync.WaitGroup
		for _, i := range w.rng.Perm(slots)[:1+w.rng.IntN(slots-1)] {
			all.Go(w.action(i))
		}
		switch w.rng.IntN(3) {
		case 0:
			all.Go(w.disturbance())
		case 1:
			if w.away {
				all.Go(w.startNATS)
			}
		}
		all.Wait()
	}
	w.awaitEvents()
	if w.rng.IntN(4) == 0 {
		w.awaitEnds()
	}
}

// action draws what the connection in a slot does.
func (w *world) action(slot int) func() {
	token, pattern, n := w.anyToken(), modelPatterns[w.rng.IntN(len(modelPatterns))], w.rng.IntN(20)
	topics := []string{modelTopics[w.rng.IntN(len(modelTopics))], modelTopics[w.rng.IntN(len(modelTopics))]}
	events, luck, bare := 1+w.rng.IntN(40), w.rng.IntN(3), w.rng.IntN(3) == 0
	p := w.peers[slot]
	if p.ended() {
		if !bare {
			token = nil
		}
		return func() { w.connect(slot, token, false) }
	}
	if w.rng.IntN(3) == 0 {
		return w.durableAction(slot)
	}
	// Most publishes may be accepted, and most subscriptions end.
	if luck == 0 || luck == 1 && n < 9 {
		token = p.token
	}
	switch {
	case n < 9:
		return func() { p.publish(topics, token, events, 0, false) }
	case n < 15:
		if bare {
			token = nil
		}
		return func() { p.subscribe(pattern, token, wire.Since{}) }
	case n < 17:
		return func() { p.unsubscribe(pattern) }
	case n < 19:
		return func() { p.auth(token) }
	default:
		return func() { p.drop() }
	}
}

// disturbance draws what happens to all of them.
func (w *world) disturbance() func() {
	n, token, key := w.rng.IntN(6), w.anyToken(), 1+w.rng.IntN(len(w.keys)-1)
	before := time.Now().Add(-time.Duration(20+w.rng.IntN(60)) * time.Second)
	switch {
	case n < 2:
		return func() { w.revokeOne(token) }
	case n < 3:
		return func() { w.revokeSubject(token.subject, before) }
	case n < 4:
		return func() { w.withdraw(key, newKey(w.t)) }
	case w.nats == nil:
		return func() {}
	case w.away:
		return w.startNATS
	default:
		return w.killNATS
	}
}

// outliveToken waits until a token of a subscription has expired, and publishes to the subscription at once.
func (w *world) outliveToken() {
	alone := w.rng.IntN(2) == 0
	w.mu.Lock()
	var first time.Time
	pattern := ""
	for _, p := range w.peers {
		for _, s := range p.subs {
			if !s.live(time.Now()) {
				continue
			}
			if exp := s.expires(); first.IsZero() || exp.Before(first) {
				first, pattern = exp, s.pattern
			}
		}
	}
	w.mu.Unlock()
	if pattern == "" || time.Until(first) > 5*time.Second {
		return
	}
	w.note("waits until a token of a subscription to %s expires", pattern)
	w.expire(first, nil)
	topics := slices.DeleteFunc(slices.Concat(modelTopics, durableTopics), func(topic string) bool { return !wire.Covers(pattern, topic) })
	if alone { // what is due for one topic alone goes another way than what is due for several
		for _, p := range w.peers {
			if !p.ended() {
				p.publish(topics[:1], p.token, 1, 0, false)
				return
			}
		}
	}
	w.each(func(p *modelPeer) { p.publish(topics, p.token, 5, 0, false) })
}

// each calls f for every open connection, side by side.
func (w *world) each(f func(*modelPeer)) {
	var all sync.WaitGroup
	for _, p := range w.peers {
		if !p.ended() {
			all.Go(func() { f(p) })
		}
	}
	all.Wait()
}

// awaitEvents waits until all that was acked has arrived where it must.
func (w *world) awaitEvents() {
	missing := ""
	defer func() {
		if w.t.Failed() {
			w.note("missing: %s", missing)
		}
	}()
	w.await("every event arrives where it has to", func() bool {
		missing = ""
		at := time.Now()
		for _, p := range w.peers {
			for _, s := range p.subs {
				if e := p.missing(s, at); e != nil {
					missing = fmt.Sprintf("event %d, [%d,%d], on %s for %d: %s", e.seq, e.from, e.number, e.topic, p.number, s.pattern)
					return false
				}
				for _, e := range w.recent {
					if !p.ended() && s.must(e, at) && !s.got[e.from][e.number] {
						missing = fmt.Sprintf("event [%d,%d] on %s for %d: %s", e.from, e.number, e.topic, p.number, s.pattern)
						return false
					}
				}
			}
		}
		return true
	})
	w.mu.Lock()
	w.recent = nil
	w.mu.Unlock()
}

// awaitEnds waits until everything has ended whose token has.
func (w *world) awaitEnds() {
	left := ""
	defer func() {
		if w.t.Failed() {
			w.note("has not ended: %s", left)
		}
	}()
	w.await("everything ends that has no token any more", func() bool {
		m := w.now()
		dead := func(k *modelToken) bool {
			return slices.ContainsFunc(k.causes, func(c *cause) bool { return c.holds(m) })
		}
		for _, p := range w.peers {
			if p.ended() {
				continue
			}
			if n := len(p.credentials); n > 0 && dead(p.credentials[n-1]) {
				left = fmt.Sprintf("connection %d", p.number)
				return false
			}
			for _, s := range p.subs {
				for _, n := range s.tenures {
					if !s.since.IsZero() && n.ended.IsZero() && dead(n.token) {
						left = fmt.Sprintf("%d: %s", p.number, s.pattern)
						return false
					}
				}
			}
		}
		return true
	})
}

// end leaves in peace.
func (w *world) end() {
	if !w.t.Failed() && w.away {
		w.startNATS()
	}
	if !w.t.Failed() {
		w.awaitEvents()
	}
	w.each(func(p *modelPeer) { p.drop() })
	w.t.Log(w.seen)
}
