package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// CheckStreams says what keeps a bus from having the streams of o in the NATS of conn: an [OptionError] for what the
// operator has to change, joined with those of other streams. changes are what a start would change of streams that are
// there. It changes nothing there.
func CheckStreams(ctx context.Context, conn *nats.Conn, o Options) (changes []string, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.setDefaults()
	b := &Bus{conn: conn, subject: o.Prefix + ".ev."}
	for i, so := range o.Streams {
		b.streams = append(b.streams, newStream(b, i, so, o.Prefix))
	}
	if err := b.examineStreams(ctx); err != nil || len(b.streams) == 0 {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	for _, s := range b.streams {
		there, err := js.Stream(ctx, s.want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, s.explain(err)
		}
		has := there.CachedInfo().Config
		for _, d := range s.differences(&has) {
			changes = append(changes, s.Name()+": "+d)
		}
	}
	return changes, nil
}

// examineStreams compares all streams with what NATS has, before any of them is changed.
func (b *Bus) examineStreams(ctx context.Context) error {
	if len(b.streams) == 0 {
		return nil
	}
	js, err := jetstream.New(b.conn)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range b.streams {
		errs = append(errs, s.examine(ctx, js))
	}
	return errors.Join(errs...)
}

func (s *Stream) examine(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	there, err := js.Stream(ctx, s.want.Name)
	if err == nil {
		has := there.CachedInfo().Config
		err = s.compare(&has)
	} else if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = nil
	}
	if err != nil {
		return s.explain(err)
	}
	for i, subject := range s.want.Subjects {
		names := js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
		for name := range names.Name() {
			if !s.bus.declares(name) {
				return s.option("Topics", s.opts.Topics[i], fmt.Errorf("the stream %s of this NATS account has some of these topics", name), "leave its topics out here or there")
			}
		}
		if err := names.Err(); err != nil {
			return s.explain(err)
		}
	}
	return nil
}

// declares says whether a stream of JetStream is one of ours.
func (b *Bus) declares(name string) bool {
	return slices.ContainsFunc(b.streams, func(s *Stream) bool { return s.want.Name == name })
}
