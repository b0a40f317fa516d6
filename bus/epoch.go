package bus

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// The epoch names the life of a stream. It is the moment at which the stream was made, and behind that what its metadata
// in JetStream says, for a stream that was put back to an older copy is the same one to JetStream.
const (
	epochDeclared = "notifyd-epoch" // StreamOptions.Epoch
	epochLost     = "notifyd-lost"  // when a node noticed last that it had been put back
	// maxEpochPart leaves room for all three parts in wire.MaxEpochBytes.
	maxEpochPart = 10
)

func epochOf(created time.Time, metadata map[string]string) string {
	parts := []string{formatMicros(created)}
	for _, key := range []string{epochDeclared, epochLost} {
		if part := metadata[key]; len(part) <= maxEpochPart && validStreamName(part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "-")
}

func formatMicros(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 36) }

// madeOf is the part of an epoch that says when the stream was made.
func madeOf(epoch string) string {
	made, _, _ := strings.Cut(epoch, "-")
	return made
}

// epochMetadata is the metadata of a stream with these two parts of its epoch.
func epochMetadata(declared, lost string) map[string]string {
	m := map[string]string{}
	for key, part := range map[string]string{epochDeclared: declared, epochLost: lost} {
		if part != "" {
			m[key] = part
		}
	}
	return m
}

// lose has the stream get another epoch, because NATS has lost what it had stored in the one that is known. Clients that
// are away learn of the loss by that.
func (s *Stream) lose(known string) {
	s.lost.Store(&known)
	wake(s.bus.streamsLook)
}

// renewEpoch does that, unless another node has.
func (s *Stream) renewEpoch(ctx context.Context) error {
	known := s.lost.Load()
	if known == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	js, err := jetstream.New(s.bus.conn)
	if err != nil {
		return err
	}
	there, err := js.Stream(ctx, s.want.Name)
	if err != nil {
		return s.explain(err)
	}
	info := there.CachedInfo()
	if epochOf(info.Created, info.Config.Metadata) == *known {
		c := info.Config
		c.Metadata = epochMetadata(c.Metadata[epochDeclared], formatMicros(time.Now()))
		if _, err := js.UpdateStream(ctx, c); err != nil {
			return s.explain(err)
		}
		s.bus.log.Error("a stream has another epoch now, since NATS has lost what it had stored",
			zap.String("stream", s.Name()), zap.String("epoch_before", *known), zap.String("epoch", epochOf(info.Created, c.Metadata)))
	}
	s.lost.CompareAndSwap(known, nil)
	return nil
}
