// Package store keeps what all nodes of a cluster share, in NATS key-value buckets: tickets, the keys of
// one-use tokens, and revocations. It needs JetStream; events, which are package bus's, do not.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
)

// ErrUnavailable means that NATS did not answer a call, or not in time. Whether NATS did what it was asked
// is then unknown, so a caller that decides about access refuses it.
var ErrUnavailable = errors.New("NATS is unreachable")

// MaxKeyBytes bounds the key of a ticket, of a one-use token and of a revocation.
const MaxKeyBytes = 255

// maxReplicas is NATS's own bound.
const maxReplicas = 5

// Options says how a store keeps things.
type Options struct {
	// Prefix begins the name of each bucket, so that several services can share a NATS account. It is the
	// prefix of the bus. Default "notify".
	Prefix string
	// Replicas is how many servers of a NATS cluster keep a copy, 1 to 5. With the default of 1 everything is
	// out of reach while the one server that has it is down; with 3 one server may be lost. Existing buckets
	// are raised to it, never lowered.
	Replicas int
}

// A SetupError means that NATS, or the account in it, does not permit what a bucket needs.
type SetupError struct {
	Err    error
	Remedy string
}

func (e *SetupError) Error() string { return fmt.Sprintf("%v; %s", e.Err, e.Remedy) }

func (e *SetupError) Unwrap() error { return e.Err }

// A Store is a node's access to the buckets. All methods may be called from any goroutine.
//
// Calls wait for NATS, so they are not for event loops. They end with their context, and after 3 s at the
// latest; while NATS is known to be unreachable they fail at once, with [ErrUnavailable]. A [*SetupError]
// means that NATS or the account does not permit what they need; events flow all the same.
//
// A key has 1 to MaxKeyBytes bytes of A-Z a-z 0-9 - _ = / and single dots between them; anything else is
// jetstream.ErrInvalidKey. Everybody who may read the NATS account sees keys and values: let the key of a
// secret be its hash.
type Store struct {
	log  *zap.Logger
	conn *nats.Conn
	js   jetstream.JetStream

	tickets     *bucket
	once        *bucket
	revocations *bucket

	id         string                    // in the keys of probes
	fresh      atomic.Pointer[time.Time] // LastFresh
	unwritable atomic.Pointer[error]     // Writable
	silent     atomic.Int32              // writes to the revocations in a row without an answer

	mu      sync.Mutex
	closed  bool
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New makes a store that uses conn, which stays the caller's. The store learns of the connection's state by
// [Store.Connected], [Store.Disconnected] and [Store.Denied], and calls fail until the first of them.
func New(conn *nats.Conn, o Options, log *zap.Logger) (*Store, error) {
	o.setDefaults()
	if o.Replicas < 1 || o.Replicas > maxReplicas {
		return nil, fmt.Errorf("%d replicas: use 1 to %d", o.Replicas, maxReplicas)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	s := &Store{log: log, conn: conn, js: js, id: nuid.Next()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	// Tickets are in memory: a restart of a lone server loses those that wait to be used, within their half
	// minute of life, and can bring none back that was. Used keys and revocations are in files, since a
	// server that forgot them would accept what it had refused.
	s.tickets = s.newBucket("tickets", o, jetstream.MemoryStorage)
	s.tickets.want.MaxBytes = 64 << 20 // one token may fetch any number of tickets
	s.tickets.lossLevel, s.tickets.lossMeans = zap.WarnLevel, "tickets that were not used count no more"
	s.once = s.newBucket("once", o, jetstream.FileStorage)
	s.once.lossMeans = "one-use tokens that were used can be used again, until they expire"
	s.revocations = s.newBucket("revocations", o, jetstream.FileStorage)
	s.revocations.lossMeans = "revocations that this node knows are written back"
	return s, nil
}

func (o *Options) setDefaults() {
	o.Prefix = cmp.Or(o.Prefix, "notify")
	o.Replicas = cmp.Or(o.Replicas, 1)
}

func (s *Store) buckets() [3]*bucket { return [...]*bucket{s.tickets, s.once, s.revocations} }

// Connected tells the store of each new connection.
func (s *Store) Connected() {
	for _, k := range s.buckets() {
		k.resume()
	}
}

// Disconnected fails all calls, those under way too, until Connected.
func (s *Store) Disconnected() {
	for _, k := range s.buckets() {
		k.interrupt(ErrUnavailable)
	}
}

// Denied fails the calls that the permissions of the NATS account forbid. NATS reports that beside the
// calls, with a subject and no more.
func (s *Store) Denied(subject string, err error) {
	inbox := strings.HasPrefix(subject, nats.InboxPrefix)
	if !inbox && !strings.HasPrefix(subject, "$JS.") && !strings.HasPrefix(subject, "$KV.") {
		return
	}
	for _, k := range s.buckets() {
		if !inbox && !strings.Contains(subject, k.name) {
			continue
		}
		k.interrupt(needsJetStream(err, fmt.Sprintf(
			"let the NATS account publish to $JS.API.> and %s>, and subscribe to %s>", k.subject(), nats.InboxPrefix)))
		if !inbox { // nats.go subscribes to its inbox once a connection
			k.admit()
		}
	}
}

// Close fails all calls and ends the watch. It does not close the connection.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	for _, k := range s.buckets() {
		k.close()
	}
	s.running.Wait()
}

func needsJetStream(err error, remedy string) error {
	return &SetupError{fmt.Errorf("JetStream is needed: %w", err), remedy}
}
