package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// ErrUnavailable is a tickets, once or revocations call that NATS did not answer, or not in time. Whether
// NATS did what was asked is then unknown, so a caller that decides about access refuses it.
var ErrUnavailable = errors.New("NATS is unreachable")

const (
	// bucketTimeout bounds each call, since a hung server is noticed only after pingsOut pings.
	bucketTimeout = 3 * time.Second
	// clockMargin is how much longer than the token's expiry an entry lives: nodes whose clocks are behind
	// by less still find it when they take the token for valid.
	clockMargin = time.Minute
	// maxLifetime keeps the server's sum of now and TTL, an int64 of nanoseconds, from wrapping round
	// into the past.
	maxLifetime = 100 * 365 * 24 * time.Hour
	// MaxKeyBytes bounds the key of a ticket, a once or a revocation.
	MaxKeyBytes = 255
)

// validKey is narrower than a NATS subject token, and the connection does not check subjects: a key with a
// space or a line break would write into the protocol.
var validKey = regexp.MustCompile(`^[-/_=A-Za-z0-9]+(\.[-/_=A-Za-z0-9]+)*$`)

// A bucket is a NATS key-value bucket of history 1, looked for or made when it is first needed.
type bucket struct {
	bus     *Bus
	feature string // what errors call it
	name    string
	want    jetstream.StreamConfig

	opened  atomic.Pointer[openBucket] // nil: look for it first
	opening chan struct{}              // capacity 1: held by who looks

	mu    sync.Mutex
	epoch context.Context // ended, with the cause, while no call can succeed
	end   context.CancelCauseFunc
	begun chan struct{} // wake-up at each new epoch, capacity 1
}

type openBucket struct {
	stream jetstream.Stream
	kv     jetstream.KeyValue
}

// initBuckets decides what is kept where.
//
// Tickets are in memory: a restart of a lone server loses those that wait to be used, within their half
// minute of life, and can bring none back that was. Used jtis and revocations are in files, since a server
// that forgot them would accept what it had refused.
func (b *Bus) initBuckets(o *Options) {
	b.tickets = b.newBucket("tickets", o, jetstream.MemoryStorage)
	b.tickets.want.MaxBytes = 64 << 20 // a token that is good for one ticket is good for any number
	b.once = b.newBucket("once", o, jetstream.FileStorage)
	b.revocations = b.newBucket("revocations", o, jetstream.FileStorage)
}

func (b *Bus) newBucket(feature string, o *Options, storage jetstream.StorageType) *bucket {
	name := bucketName(o.Prefix, feature)
	k := &bucket{bus: b, feature: feature, name: name, opening: make(chan struct{}, 1), begun: make(chan struct{}, 1)}
	// What jetstream.CreateKeyValue makes, but: values live as long as each is told and leave no marker
	// behind; and reads ask the leader, because a replica that lags does not know a ticket that was
	// made a millisecond ago.
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

// subject is what every key has before it.
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

func (b *Bus) buckets() [3]*bucket { return [...]*bucket{b.tickets, b.once, b.revocations} }

// resume is called for each new connection. The bucket is then looked for anew, as the server may have
// lost it.
func (k *bucket) resume() {
	k.opened.Store(nil)
	k.admit()
	wake(k.begun)
}

// admit lets calls through.
func (k *bucket) admit() {
	k.mu.Lock()
	k.epoch, k.end = context.WithCancelCause(context.Background())
	k.mu.Unlock()
}

// interrupt fails all calls, those under way too, until admit.
func (k *bucket) interrupt(cause error) {
	k.mu.Lock()
	k.end(cause)
	k.mu.Unlock()
}

func (k *bucket) session() context.Context {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.epoch
}

// deny fails the calls that NATS account permissions forbid; NATS tells that only by the way.
func (b *Bus) deny(subject string, err error) {
	inbox := strings.HasPrefix(subject, nats.InboxPrefix)
	if !inbox && !strings.HasPrefix(subject, "$JS.") && !strings.HasPrefix(subject, "$KV.") {
		return
	}
	for _, k := range b.buckets() {
		if !inbox && !strings.Contains(subject, k.name) {
			continue
		}
		k.interrupt(k.fault(err, fmt.Sprintf(
			"let the account publish to $JS.API.> and %s>, and subscribe to %s>", k.subject(), nats.InboxPrefix)))
		if !inbox { // which nats.go subscribes to once a connection
			k.admit()
		}
	}
}

// fault blames the configuration.
func (k *bucket) fault(err error, remedy string) error {
	return &OptionError{"nats.url", redact(k.bus.url), fmt.Errorf("JetStream is needed: %w", err), remedy}
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
		if err = f(ctx, o); err == nil || !again || !gone(err) {
			return err
		}
		k.opened.CompareAndSwap(o, nil)
	}
}

func gone(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrStreamNotFound)
}

// open looks for the bucket, once for all that wait for it.
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
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		err = k.fault(err, "enable it in the NATS server and the account")
	case errors.As(err, &api) && api.ErrorCode == streamReplicasNotSupported:
		err = &OptionError{"nats.replicas", fmt.Sprint(k.want.Replicas), err, "use 1, or a cluster of as many NATS servers"}
	}
	return o, err
}

const streamReplicasNotSupported = 10074 // a lone server keeps one copy

func (k *bucket) find(ctx context.Context) (*openBucket, error) {
	js := k.bus.js
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
		return nil, &OptionError{
			"nats.prefix", k.bus.prefix, fmt.Errorf("stream %s is there and was not made for %s", have.Name, k.feature),
			"use another prefix, or remove that stream",
		}
	}
	if have.Replicas < k.want.Replicas { // never fewer: another node may have been told more
		have.Replicas = k.want.Replicas
		if _, err := js.UpdateStream(ctx, have); err != nil {
			k.bus.log.Warn("a bucket keeps fewer replicas than nats.replicas", zap.String("stream", have.Name), zap.Error(err))
		}
	}
	kv, err := js.KeyValue(ctx, k.name)
	return &openBucket{stream, kv}, err
}

// isNew is the condition of a put that nothing is there. (KeyValue.Create costs a read more when there is.)
var isNew = jetstream.WithExpectLastSequencePerSubject(0)

// put keeps value for ttl. KeyValue.Put knows no TTL.
func (k *bucket) put(ctx context.Context, key string, value []byte, ttl time.Duration, conditions ...jetstream.PublishOpt) error {
	_, err := k.bus.js.Publish(ctx, k.subject()+key, value, append(conditions, jetstream.WithMsgTTL(wholeSeconds(ttl)))...)
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
