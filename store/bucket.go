package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// bucketTimeout bounds each call, since a hung server is noticed only after pingsOut pings.
	bucketTimeout = 3 * time.Second
	// clockMargin is how much longer than the token's expiry an entry lives: nodes whose clocks are behind
	// by less still find it when they take the token for valid.
	clockMargin = time.Minute
	// maxLifetime keeps the server's sum of now and TTL, an int64 of nanoseconds, from wrapping round
	// into the past.
	maxLifetime = 100 * 365 * 24 * time.Hour
)

// validKey is narrower than a NATS subject token, and the connection does not check subjects: a key with a
// space or a line break would write into the protocol.
var validKey = regexp.MustCompile(`^[-/_=A-Za-z0-9]+(\.[-/_=A-Za-z0-9]+)*$`)

// A bucket is a NATS key-value bucket of history 1, looked for or made when it is first needed.
type bucket struct {
	store   *Store
	feature string // its name in errors
	name    string
	want    jetstream.StreamConfig

	opened  atomic.Pointer[openBucket] // nil: look for it first
	opening chan struct{}              // capacity 1: held while one caller looks
	made    time.Time                  // when the one was made that was opened last; guarded by opening

	last      probe // the prober's alone
	losses    atomic.Uint64
	reload    atomic.Bool // a loss was noticed since the follower has loaded
	lossLevel zapcore.Level
	lossMeans string

	mu     sync.Mutex
	closed bool
	epoch  context.Context // ended, with the cause, while no call can succeed
	end    context.CancelCauseFunc
	begun  chan struct{} // wake-up at each new epoch, capacity 1
}

type openBucket struct {
	stream jetstream.Stream
	kv     jetstream.KeyValue
}

func (o *openBucket) made() time.Time { return o.stream.CachedInfo().Created }

func (s *Store) newBucket(feature string, o Options, storage jetstream.StorageType) *bucket {
	name := bucketName(o.Prefix, feature)
	k := &bucket{store: s, feature: feature, name: name, opening: make(chan struct{}, 1), begun: make(chan struct{}, 1), lossLevel: zap.ErrorLevel}
	// As jetstream.CreateKeyValue makes it, with two differences: each value has a time to live of its own and
	// leaves no marker behind; and the leader answers reads, because a replica that lags does not know a
	// ticket that was made a millisecond ago.
	k.want = jetstream.StreamConfig{
		Name:              "KV_" + name,
		Description:       "notifyd: " + feature,
		Subjects:          []string{k.subject() + ">"},
		Storage:           storage,
		Replicas:          o.Replicas,
		MaxMsgsPerSubject: 1,
		MaxBytes:          -1,
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowMsgTTL:       true,
	}
	k.admit()
	k.interrupt(ErrUnavailable)
	return k
}

// subject is the prefix of every key.
func (k *bucket) subject() string { return "$KV." + k.name + "." }

// bucketName maps prefixes to names one to one, since two services in one NATS account must not share a
// bucket: "a.b" gives a_2eb_tickets, "my_app" gives my__app_tickets.
func bucketName(prefix, feature string) string {
	var s strings.Builder
	for i := range len(prefix) {
		switch c := prefix[i]; {
		case c == '_':
			s.WriteString("__")
		case c == '-', '0' <= c && c <= '9', 'a' <= c|0x20 && c|0x20 <= 'z':
			s.WriteByte(c)
		default:
			fmt.Fprintf(&s, "_%02x", c)
		}
	}
	return s.String() + "_" + feature
}

// resume is called for each new connection. The bucket is then looked for anew, as the server may have
// lost it.
func (k *bucket) resume() {
	k.opened.Store(nil)
	k.admit()
	wake(k.begun)
}

// admit lets calls through, unless the store is closed.
func (k *bucket) admit() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.epoch, k.end = context.WithCancelCause(context.Background())
	}
}

// interrupt fails all calls, those under way too, until admit.
func (k *bucket) interrupt(cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end(cause)
}

// close fails all calls for good.
func (k *bucket) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.end(ErrUnavailable)
}

func (k *bucket) session() context.Context {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.epoch
}

// do runs f on the open bucket. It runs f again if the bucket turned out to be gone, so f must have done
// nothing then.
func (k *bucket) do(ctx context.Context, key string, f func(context.Context, *openBucket) error) error {
	if len(key) > MaxKeyBytes || !validKey.MatchString(key) {
		return fmt.Errorf("%s: %w", k.feature, jetstream.ErrInvalidKey)
	}
	session := k.session()
	call, cancel := context.WithTimeout(ctx, bucketTimeout)
	defer cancel()
	defer context.AfterFunc(session, cancel)()
	err := k.attempt(call, f)
	switch {
	case err == nil:
		return nil
	case session.Err() != nil:
		err = context.Cause(session)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case call.Err() != nil, errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded):
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", k.feature, err)
}

func (k *bucket) attempt(ctx context.Context, f func(context.Context, *openBucket) error) error {
	for again := true; ; again = false {
		o, err := k.open(ctx)
		if err != nil {
			return err
		}
		if err = f(ctx, o); err == nil || !again || !isGone(err) {
			return err
		}
		k.opened.CompareAndSwap(o, nil)
	}
}

func isGone(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrStreamNotFound)
}

// open looks for the bucket, once for all callers that wait for it.
func (k *bucket) open(ctx context.Context) (*openBucket, error) {
	if o := k.opened.Load(); o != nil {
		return o, nil
	}
	select {
	case k.opening <- struct{}{}:
		defer func() { <-k.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if o := k.opened.Load(); o != nil {
		return o, nil
	}
	o, err := k.find(ctx)
	var api *jetstream.APIError
	switch {
	case err == nil:
		k.opened.Store(o)
		if !k.made.IsZero() && !k.made.Equal(o.made()) {
			k.lose("it was deleted and made anew")
		}
		k.made = o.made()
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		err = needsJetStream(err, "enable it in the NATS server and the account")
	case errors.As(err, &api) && api.ErrorCode == streamReplicasNotSupported:
		err = &SetupError{fmt.Errorf("%d replicas: %w", k.want.Replicas, err), "use 1, or a cluster of as many NATS servers"}
	}
	return o, err
}

const streamReplicasNotSupported = 10074 // a lone server keeps one copy

// oldestNATS has what the buckets need: a time to live for each value.
var oldestNATS = [2]int{2, 11}

// tooOld reports whether a server's version is below oldestNATS. One that cannot be read is not.
func tooOld(version string) bool {
	var have [2]int
	if n, _ := fmt.Sscanf(version, "%d.%d", &have[0], &have[1]); n < len(have) {
		return false
	}
	return slices.Compare(have[:], oldestNATS[:]) < 0
}

// checkVersion is about the server that conn is connected to, if it is.
func checkVersion(conn *nats.Conn) error {
	version := conn.ConnectedServerVersion()
	if !tooOld(version) {
		return nil
	}
	return &SetupError{
		fmt.Errorf("the NATS server is version %s, and %d.%d is the oldest that will do", version, oldestNATS[0], oldestNATS[1]),
		"use a newer NATS server",
	}
}

// Try looks whether the NATS server and the account have what a store needs. It changes nothing there.
func Try(ctx context.Context, conn *nats.Conn) error {
	if err := checkVersion(conn); err != nil {
		return err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bucketTimeout)
	defer cancel()
	if _, err := js.AccountInfo(ctx); err != nil {
		return needsJetStream(err, "enable it in the NATS server and the account, and let the account publish to $JS.API.>")
	}
	return nil
}

func (k *bucket) find(ctx context.Context) (*openBucket, error) {
	if err := checkVersion(k.store.conn); err != nil {
		return nil, err
	}
	js := k.store.js
	stream, err := js.Stream(ctx, k.want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, k.want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was faster, and has other options
			stream, err = js.Stream(ctx, k.want.Name)
		}
	}
	if err != nil {
		return nil, err
	}
	have := stream.CachedInfo().Config
	if have.Storage != k.want.Storage || have.MaxMsgsPerSubject != 1 || have.MaxAge != 0 ||
		!have.AllowMsgTTL || !have.AllowRollup || have.AllowDirect {
		return nil, &SetupError{
			fmt.Errorf("stream %s exists and was not made for %s", have.Name, k.feature),
			"use another prefix of subjects, or remove that stream",
		}
	}
	if have.Replicas < k.want.Replicas { // never fewer: another node may be configured with more
		have.Replicas = k.want.Replicas
		if _, err := js.UpdateStream(ctx, have); err != nil {
			k.store.log.Warn("a bucket keeps fewer replicas than configured", zap.String("stream", have.Name), zap.Error(err))
		}
	}
	kv, err := js.KeyValue(ctx, k.name)
	return &openBucket{stream, kv}, err
}

// isNew makes a put fail when the key is taken. (KeyValue.Create costs a read more when there is.)
var isNew = jetstream.WithExpectLastSequencePerSubject(0)

// put keeps value for ttl. KeyValue.Put knows no TTL.
func (k *bucket) put(ctx context.Context, key string, value []byte, ttl time.Duration, conditions ...jetstream.PublishOpt) error {
	_, err := k.store.js.Publish(ctx, k.subject()+key, value, append(conditions, jetstream.WithMsgTTL(wholeSeconds(ttl)))...)
	return err
}

// lifetime turns a token's expiry into the TTL of its entry.
func lifetime(until time.Time) time.Duration {
	return min(time.Until(until), maxLifetime) + clockMargin
}

// wholeSeconds rounds up, since NATS rounds down and refuses 0.
func wholeSeconds(d time.Duration) time.Duration {
	return max(time.Duration(math.Ceil(d.Seconds())), 1) * time.Second
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
