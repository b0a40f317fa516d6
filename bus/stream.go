package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// A Stream keeps the events of some topics in JetStream. All methods may be called from any goroutine.
type Stream struct {
	bus    *Bus
	number int // in Bus.streams
	opts   StreamOptions
	want   jetstream.StreamConfig

	// made says that JetStream has the stream, as it is to be, since this node looked; problem, if not nil, why not.
	made     atomic.Bool
	declared atomic.Bool            // it has been, at some time since the start
	again    atomic.Bool            // look again: the connection is new, or the stream was not there
	unheard  atomic.Bool            // nobody has listened to an event for it
	differs  atomic.Pointer[string] // what heed has said last
	problem  atomic.Pointer[error]
	lost     atomic.Pointer[string] // the epoch in which NATS has lost what it had stored; nil: it has not

	republished string // prefix of the subjects under which what was stored is passed on
	follower    *follower

	heads       heads
	noConsumers atomic.Int64 // until when readers make none, in Unix nanoseconds
	counters    struct{ stored, duplicates, timeouts, refused atomic.Uint64 }
}

const (
	// streamTimeout bounds each question about a stream.
	streamTimeout = 5 * time.Second
	// streamRetry is how long after a stream could not be made this is tried again.
	streamRetry = time.Second
)

// Name is that of the configuration.
func (s *Stream) Name() string { return s.opts.Name }

// AllowsTTL says whether an event may have a time to live of its own.
func (s *Stream) AllowsTTL() bool { return s.opts.TTL }

// Ready says whether JetStream has the stream and can be reached; if not, err is what was the matter last, or nil: nobody has looked yet.
func (s *Stream) Ready() (ready bool, err error) {
	if p := s.problem.Load(); p != nil {
		err = *p
	}
	return s.made.Load() && s.bus.sc.up.Load(), err
}

// AnswersSoon says whether what is stored is answered by this process alone, and not when a disk has it: in microseconds
// as a rule.
func (s *Stream) AnswersSoon() bool { return s.bus.sc.store != nil && s.bus.sc.store.soon }

// Streams are those that were declared, in their order.
func (b *Bus) Streams() []*Stream { return b.streams }

// StreamOf gives the stream that keeps topic, nil: none. It allocates nothing.
func (b *Bus) StreamOf(topic []byte) *Stream { return streamOf(b, topic) }

func streamOf[T ~string | ~[]byte](b *Bus, topic T) *Stream {
	for _, s := range b.streams {
		for _, pattern := range s.opts.Topics {
			if wire.Covers(pattern, topic) {
				return s
			}
		}
	}
	return nil
}

// StreamAround gives the stream in whose topics all topics lie that pattern matches. Where there is none, outside says
// to a client why.
func (b *Bus) StreamAround(pattern []byte) (s *Stream, outside string) {
	for _, s := range b.streams {
		for _, topics := range s.opts.Topics {
			if wire.Covers(topics, pattern) {
				return s, ""
			}
		}
		for _, topics := range s.opts.Topics {
			if wire.Overlap(topics, pattern) {
				return nil, fmt.Sprintf("only the part of it that %s matches has a history", topics)
			}
		}
	}
	return nil, "no topic of it has a history"
}

// streamsOf gives the streams that have topics which pattern matches. stored says that one of them has all.
func (b *Bus) streamsOf(pattern string) (list []*Stream, stored bool) {
	for _, s := range b.streams {
		for _, topics := range s.opts.Topics {
			if wire.Overlap(topics, pattern) {
				list = append(list, s)
				stored = wire.Covers(topics, pattern)
				break
			}
		}
	}
	return list, stored
}

// declare takes over the streams of the options.
func (b *Bus) declare(o *Options) error {
	if len(o.Streams) == 0 {
		return nil
	}
	sink, ok := b.sink.(StreamSink)
	if !ok {
		return errors.New("the sink takes no events of streams")
	}
	for i, so := range o.Streams {
		s := newStream(b, i, so, o.Prefix)
		s.follower = newFollower(s, o.Shards+i, sink)
		b.streams = append(b.streams, s)
	}
	return nil
}

func newStream(b *Bus, number int, o StreamOptions, prefix string) *Stream {
	o.setDefaults()
	o.Topics = slices.Clone(o.Topics)
	return &Stream{bus: b, number: number, opts: o, want: o.config(prefix), republished: republished(prefix, o.Name)}
}

// openStreams connects, and has the streams followed.
func (b *Bus) openStreams(ctx context.Context, o *Options) error {
	if err := b.openStreamConn(o); err != nil {
		return err
	}
	for _, s := range b.streams {
		if err := s.follower.open(); err != nil {
			return fmt.Errorf("connection for streams: %w", err)
		}
	}
	if b.connected.Load() { // else, and what may pass, keepStreams tries again
		var option *OptionError
		if err := b.makeStreams(ctx); errors.As(err, &option) {
			return err
		}
	}
	b.running.Go(b.keepStreams)
	return nil
}

// makeStreams makes the streams, or changes them, as they were declared, unless they have been since the connection was
// made. When something is wrong with one that only the operator can mend, an [OptionError], it changes nothing.
func (b *Bus) makeStreams(ctx context.Context) error {
	if !slices.ContainsFunc(b.streams, func(s *Stream) bool { return !s.made.Load() || s.again.Load() }) {
		return nil
	}
	var option *OptionError
	if err := b.examineStreams(ctx); errors.As(err, &option) {
		for _, s := range b.streams {
			s.problem.Store(&err)
		}
		return err
	}
	var errs []error
	for _, s := range b.streams {
		if again := s.again.Swap(false); !s.made.Load() || again {
			errs = append(errs, s.make(ctx))
		}
	}
	return errors.Join(errs...)
}

// keepStreams runs for the life of the bus, if it has streams: it makes what could not be made at the start or was removed
// since, and looks again after each new connection.
func (b *Bus) keepStreams() {
	timer := time.NewTimer(streamRetry)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-b.streamsLook:
		case <-b.quit:
			return
		}
		timer.Reset(streamRetry)
		if !b.connected.Load() {
			continue
		}
		for _, s := range b.streams {
			if s.unheard.Swap(false) && s.made.Load() {
				_, _ = s.info(b.sc.ctx) // says whether it is still there
			}
		}
		if err := b.makeStreams(b.sc.ctx); err != nil && b.errors.allow() {
			b.log.Error("streams are not there as declared; their topics may not be published to", zap.Error(err))
		}
		for _, s := range b.streams {
			if err := s.renewEpoch(b.sc.ctx); err != nil && b.errors.allow() {
				b.log.Error("a stream cannot be given another epoch, though NATS has lost what it had stored: clients that are away do not learn of it", zap.Error(err))
			}
		}
	}
}

// make has JetStream keep the stream as it is declared.
func (s *Stream) make(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	err := s.makeNow(ctx)
	if err != nil {
		s.problem.Store(&err)
	} else {
		s.problem.Store(nil)
		_, _ = s.info(ctx) // for the statistics, which ask nobody
	}
	if s.made.Store(err == nil); err == nil {
		s.declared.Store(true)
	}
	return err
}

func (s *Stream) makeNow(ctx context.Context) error {
	js, err := jetstream.New(s.bus.conn)
	if err != nil {
		return err
	}
	there, err := js.Stream(ctx, s.want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = js.CreateStream(ctx, s.want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err // another node has just made it, a little different: look again
		}
		switch {
		case err == nil && s.declared.Load():
			s.bus.log.Error("a stream was removed while this node runs; it is made again, and empty", zap.String("stream", s.Name()))
		case err == nil:
			s.bus.log.Info("made a stream", zap.String("stream", s.Name()), zap.Strings("topics", s.opts.Topics))
		}
		return s.explain(err)
	case err != nil:
		return s.explain(err)
	}
	has := there.CachedInfo().Config
	if err := s.compare(&has); err != nil {
		return err
	}
	differs := s.differences(&has)
	if s.declared.Load() {
		s.heed(&has) // another node's change is not undone: the last start counts
		return nil
	}
	if len(differs) == 0 {
		return nil
	}
	want := s.want
	want.Metadata = epochMetadata(s.opts.Epoch, has.Metadata[epochLost])
	if _, err = js.UpdateStream(ctx, want); err == nil {
		s.bus.log.Warn("changed a stream, which was declared otherwise: all nodes need the same configuration of streams",
			zap.String("stream", s.Name()), zap.Strings("differences", differs))
	}
	return s.explain(err)
}

// heed says in the log when the stream that is there is not as this node has declared it, each time that it changes.
func (s *Stream) heed(has *jetstream.StreamConfig) {
	differs := s.differences(has)
	text := strings.Join(differs, "; ")
	if before := s.differs.Swap(&text); text == "" || before != nil && *before == text {
		return
	}
	s.bus.log.Warn("a stream has been changed by a node with another configuration, or by hand; it is left as it is",
		zap.String("stream", s.Name()), zap.Strings("differences", differs))
}

// compare says what of the stream that is there cannot be changed to what was declared.
func (s *Stream) compare(has *jetstream.StreamConfig) error {
	for _, subject := range has.Subjects {
		if !strings.HasPrefix(subject, s.bus.subject) {
			return s.option("Name", s.Name(), fmt.Errorf("NATS has a stream %s of something else (%s)", has.Name, subject), "use another name, or another %s", "Prefix")
		}
	}
	if has.Storage != s.want.Storage {
		return s.option("Storage", s.opts.Storage, errors.New("the stream that is there is of the other kind, and NATS cannot change that"), "use another name, or remove the stream with its events (nats stream rm "+has.Name+")")
	}
	if has.AllowMsgTTL && !s.want.AllowMsgTTL {
		return s.option("TTL", "false", errors.New("the stream that is there has it, and NATS cannot switch it off"), "switch it on, or use another name")
	}
	return nil
}

// differences says in what the stream that is there is not as it was declared, with both values.
func (s *Stream) differences(has *jetstream.StreamConfig) (list []string) {
	w := &s.want
	add := func(member string, there, here any) {
		if a, b := fmt.Sprint(there), fmt.Sprint(here); a != b {
			list = append(list, fmt.Sprintf("%s is %s, and %s here", member, a, b))
		}
	}
	topics := func(subjects []string) (topics []string) {
		for _, subject := range subjects {
			topics = append(topics, strings.TrimPrefix(subject, s.bus.subject))
		}
		return topics
	}
	bound := func(n int64) any {
		if n <= 0 {
			return "not set"
		}
		return n
	}
	part := func(metadata map[string]string) any {
		if p := metadata[epochDeclared]; p != "" {
			return p
		}
		return bound(0)
	}
	add("topics", topics(has.Subjects), topics(w.Subjects))
	add("max_age", has.MaxAge, w.MaxAge)
	add("max_per_topic", bound(has.MaxMsgsPerSubject), bound(w.MaxMsgsPerSubject))
	add("max_bytes", bound(has.MaxBytes), bound(w.MaxBytes))
	add("replicas", has.Replicas, w.Replicas)
	add("duplicate_window", has.Duplicates, w.Duplicates)
	add("ttl", has.AllowMsgTTL, w.AllowMsgTTL)
	add("epoch", part(has.Metadata), part(w.Metadata))
	add("JetStream's allow_direct", has.AllowDirect, w.AllowDirect)
	there := "not set"
	if has.RePublish != nil {
		there = fmt.Sprint(*has.RePublish)
	}
	add("JetStream's republish", there, *w.RePublish)
	return list
}

// Codes of JetStream's errors (errors.json of nats-server).
const (
	errReplicasNotSupported = 10074
	errNoPeers              = 10005
	errSubjectOverlap       = 10065
	errStorageExceeded      = 10047
	errMemoryExceeded       = 10028
	errStreamNotFound       = 10059
	errNotEnabled           = 10076
	errNotEnabledForAccount = 10039
	errMaxBytesRequired     = 10113
)

// explain says of an error of JetStream which option is behind it.
func (s *Stream) explain(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fmt.Errorf("stream %s: JetStream does not answer; is it enabled, and for this account? %w", s.Name(), err)
	}
	if !errors.As(err, &api) {
		if err != nil {
			err = fmt.Errorf("stream %s: %w", s.Name(), err)
		}
		return err
	}
	switch api.ErrorCode {
	case errReplicasNotSupported:
		return s.option("Replicas", strconv.Itoa(s.opts.Replicas), errors.New("this NATS is one server"), "use 1, or a cluster")
	case errSubjectOverlap:
		return s.option("Topics", strings.Join(s.opts.Topics, " "), errors.New("another stream of this NATS account has some of these topics"), "find it (nats stream ls), and leave its topics out here or there")
	case errMaxBytesRequired:
		return s.option("MaxBytes", "0", errors.New("this NATS account demands a bound"), "set it")
	case errStorageExceeded, errMemoryExceeded:
		return s.option("MaxBytes", strconv.FormatInt(s.opts.MaxBytes, 10), fmt.Errorf("NATS has no room for it: %s", api.Description), "use less, or give NATS more")
	case errNotEnabled, errNotEnabledForAccount:
		return s.option("Name", s.Name(), errors.New("JetStream is not enabled in this NATS, or not for this account"), "enable it")
	case errNoPeers:
		return fmt.Errorf("stream %s: the NATS cluster has too few members with room for %d replicas now: %w", s.Name(), s.opts.Replicas, err)
	}
	return fmt.Errorf("stream %s: %w", s.Name(), err)
}

func (s *Stream) option(field, value string, err error, remedy string, others ...string) error {
	return optionError(fmt.Sprintf("Streams[%d].%s", s.number, field), value, err, remedy, others...)
}

// lookAtStreams has keepStreams look at all of them again, after a new connection.
func (b *Bus) lookAtStreams() {
	for _, s := range b.streams {
		s.again.Store(true)
	}
	wake(b.streamsLook)
}
