package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/store"
)

const (
	// reportInterval is how often the verifier learns how recent the revocations are.
	reportInterval = time.Second
	// loadTimeout bounds how long a start waits for the revocations that there are.
	loadTimeout = 5 * time.Second
)

// revocations brings revocations from this node's clients to every node, and from every node to this one's tokens and
// subscriptions:
//
//	call → Complete → verifier, here at once → bucket
//	bucket → watch → verifier, on every node
//	verifier → rechecker → subscriptions and connections that hold such a token
//
// What is in force here and not in the bucket, since that could not be written or has lost it, is kept in unsaved. It is
// written as soon as that can be done.
type revocations struct {
	verifier *authz.Verifier
	store    *store.Store
	recheck  *rechecker
	log      *zap.Logger

	calls  *prometheus.CounterVec
	synced chan struct{} // closed when all were loaded for the first time
	once   sync.Once

	// For the calls of the store alone.
	missed  map[string]time.Time // by key, when it was first seen
	removed map[string]bool      // keys that somebody removed from the bucket by hand, in this load

	since   time.Time // what was called earlier is history, which says nothing of how long it took
	mu      sync.Mutex
	seen    map[string]seenCall     // by key: loading them anew brings each again
	unsaved map[string]unsavedEntry // by key
}

// unsavedEntry is an entry that the bucket should have.
type unsavedEntry struct {
	value []byte
	until time.Time
}

// seenCall is a call that was measured, or soon will be.
type seenCall struct{ called, expires int64 }

func newRevocations(v *authz.Verifier, s *store.Store, recheck *rechecker, log *zap.Logger) *revocations {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "notifyd_revocations_total",
		Help: "Calls to revoke on this node.",
	}, []string{"result"})
	for _, result := range []string{"ok", "refused", "failed"} {
		calls.WithLabelValues(result) // 0 is a value too
	}
	return &revocations{
		verifier: v, store: s, recheck: recheck, log: log, calls: calls,
		synced: make(chan struct{}), since: time.Now(), seen: map[string]seenCall{}, unsaved: map[string]unsavedEntry{}, missed: map[string]time.Time{},
	}
}

// stored is a revocation in the bucket.
type stored struct {
	Called     int64           `json:"called"` // Unix nanoseconds, by the clock of the node that was called
	Revocation json.RawMessage `json:"revocation"`
}

// revoke is [server.Store.Revoke]. When it returns nil the revocation is kept for all nodes, and nothing more comes of
// such a token on this one. When it cannot be kept, with [server.ErrNotShared], it is in force here all the same: on the
// wrong side of a partition, too, a token has to be stopped.
func (r *revocations) revoke(ctx context.Context, of server.Revocation) (err error) {
	called := time.Now()
	result := "failed"
	defer func() { r.calls.WithLabelValues(result).Inc() }()
	complete, err := r.verifier.Complete(authz.Revocation{
		Issuer: of.Issuer, JTI: of.ID, Subject: of.Subject, Before: ceilSeconds(of.Before),
	})
	if err != nil {
		result = "refused"
		return fmt.Errorf("%w: %w", server.ErrBadRevocation, err)
	}
	key := bucketKey(complete)
	inForce := r.enforce(key, complete, called) // an error has the same effect
	ended := r.recheck.await(time.Time{})
	value, until := encode(complete, called), r.verifier.End(complete)
	kept := r.store.PutRevocation(ctx, key, value, until)
	if kept != nil {
		r.addUnsaved(key, unsavedEntry{value, until})
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("subscriptions of revoked tokens have not ended yet: %w", ctx.Err()), inForce, kept)
	}
	switch {
	case inForce != nil:
		return errors.Join(inForce, kept)
	case kept != nil:
		return fmt.Errorf("%w: %w", server.ErrNotShared, kept)
	}
	result = "ok"
	return nil
}

// encode gives what the bucket keeps. A called of zero is that of a revocation whose call is not known any more.
func encode(of authz.Revocation, called time.Time) []byte {
	s := stored{Revocation: of.Encode()}
	if !called.IsZero() {
		s.Called = called.UnixNano()
	}
	value, err := json.Marshal(s)
	if err != nil {
		panic(err) // a number, and valid JSON
	}
	return value
}

// addUnsaved reports whether this is news.
func (r *revocations) addUnsaved(key string, entry unsavedEntry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.unsaved[key]
	r.unsaved[key] = entry
	return !known
}

func (r *revocations) removeUnsaved(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unsaved, key)
}

// countUnsaved is how many entries the bucket should have and has not, as far as is known.
func (r *revocations) countUnsaved() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.unsaved)
}

// saveUnsaved writes what the bucket has not, as far as that can be done now.
func (r *revocations) saveUnsaved(ctx context.Context) {
	r.mu.Lock()
	unsaved := maps.Clone(r.unsaved) // in an order of its own on each node: together they are faster
	r.mu.Unlock()
	for key, entry := range unsaved {
		if time.Now().Before(entry.until) && r.store.PutRevocation(ctx, key, entry.value, entry.until) != nil {
			return
		}
		r.removeUnsaved(key)
	}
	if len(unsaved) > 0 {
		r.log.Info("revocations that NATS did not have are written", zap.Int("revocations", len(unsaved)))
	}
}

// enforce puts a revocation in force on this node, and has the time that it takes measured once.
func (r *revocations) enforce(key string, of authz.Revocation, called time.Time) error {
	if err := r.verifier.Revoke(of); err != nil {
		return err
	}
	if called.After(r.since) && r.isNew(key, seenCall{called.UnixNano(), of.Expires}) {
		r.recheck.await(called)
	}
	return nil
}

func (r *revocations) isNew(key string, call seenCall) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[key].called == call.called {
		return false
	}
	now, n := time.Now().Unix(), 0
	for key, old := range r.seen { // a few at random for each that comes, so that what has expired stays few
		if old.expires < now {
			delete(r.seen, key)
		}
		if n++; n == 8 {
			break
		}
	}
	r.seen[key] = call
	return true
}

// ceilSeconds gives the Unix second that is not before t, and 0 for no time: rather more is revoked than less.
func ceilSeconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Add(time.Second - 1).Unix()
}

// bucketKey keeps revocations of one subject apart that differ in their time: the bucket would replace the one that
// reaches further by one that comes later.
func bucketKey(r authz.Revocation) string {
	if r.Subject == "" {
		return r.Key()
	}
	return r.Key() + "." + strconv.FormatInt(r.Before, 10)
}

// apply is called by the store for every revocation, those of this node included.
func (r *revocations) apply(key string, value []byte) {
	r.removeUnsaved(key)
	var s stored
	err := json.Unmarshal(value, &s)
	var of authz.Revocation
	if err == nil {
		of, err = authz.DecodeRevocation(s.Revocation)
	}
	if err == nil {
		err = r.enforce(key, of, time.Unix(0, s.Called)) // an error has the same effect
	} else {
		r.verifier.MissRevocation(r.firstMissed(key, s.Called)) // of a newer version perhaps, or damaged
	}
	if err == nil {
		return
	}
	r.log.Error("a revocation cannot be put in force; tokens that were issued before it are unavailable here", zap.String("key", key), zap.Error(err))
}

// firstMissed is when a revocation that nobody understands was made: by its own account or, if it has none, when it was
// first seen, so that loading it anew does not make more tokens unavailable.
func (r *revocations) firstMissed(key string, called int64) time.Time {
	now := time.Now()
	if at := time.Unix(0, called); called > 0 && at.Before(now) {
		return at
	}
	if at, known := r.missed[key]; known {
		return at
	}
	r.missed[key] = now
	return now
}

// watch is what the store tells it.
func (r *revocations) watch() store.Watch {
	return store.Watch{Begin: r.begin, Apply: r.apply, Removed: func(key string) { r.removed[key] = true }, Loaded: r.loaded}
}

func (r *revocations) begin() {
	r.removed = map[string]bool{}
	r.verifier.BeginRevocations()
}

// loaded is called when all revocations have been applied. What is in force here and was not among them has been lost,
// unless somebody has removed it by hand.
func (r *revocations) loaded() {
	r.fresh()
	lost := 0
	for _, of := range r.verifier.UnseenRevocations() {
		if key := bucketKey(of); !r.removed[key] && r.addUnsaved(key, unsavedEntry{encode(of, time.Time{}), r.verifier.End(of)}) {
			lost++
		}
	}
	if lost > 0 {
		r.log.Error("NATS lacks revocations that are in force here, writing them back", zap.Int("revocations", lost))
	}
	r.once.Do(func() { close(r.synced) })
}

func (r *revocations) fresh() {
	if at := r.store.LastFresh(); !at.IsZero() {
		r.verifier.SetRevocationsFresh(at)
	}
}

// run keeps the verifier informed until ctx ends.
func (r *revocations) run(ctx context.Context) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.fresh()
			r.saveUnsaved(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// await waits until all are loaded, so that the first clients find a node that can answer.
func (r *revocations) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	select {
	case <-r.synced:
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return // nobody wants the node any more
		}
		r.log.Warn("revocations are not loaded yet; is JetStream enabled at nats.url, and permitted to this account?")
	}
}

// ready says why this node should not be relied on for what was revoked; nil if it can.
func (r *revocations) ready(maxAge time.Duration) error {
	if maxAge > 0 && time.Since(r.store.LastFresh()) > maxAge {
		return errors.New("revocations are out of date")
	}
	if err := r.store.Writable(); err != nil {
		return fmt.Errorf("revocations cannot be stored: %w", err)
	}
	if n := r.countUnsaved(); n > 0 {
		return fmt.Errorf("%d revocations are in force here and not stored yet", n)
	}
	return nil
}
