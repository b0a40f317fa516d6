//go:build linux

package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// keptWord stands in the names of durable topics, behind "bench.".
	keptWord = "kept"
	// fillWindow is how many events are on their way to a stream that is filled.
	fillWindow = 256
)

// StreamFlag is for a notifyd whose streams keep the durable topics of a run.
func StreamFlag() string {
	return `--streams=[{name: bench, topics: ["bench.` + keptWord + `.>"], max_bytes: 1GiB, storage: file}]`
}

// durable publishes to durable topics, in turn with what NATS takes for the same.
func (r *run) durable(ctx context.Context) (results []Result, err error) {
	loads := r.Loads
	for _, l := range loads {
		r.Loads = []Load{l}
		stored, err := r.traffic(ctx, 0)
		if err != nil {
			return nil, err
		}
		if r.Plain == nil || l.Window == 0 {
			results = append(results, stored...)
			continue
		}
		r.report(Progress{Doing: "the same with nats.go"})
		plain, err := r.plain(ctx, plainJob{Window: l.Window * r.Plan.Publishers, Size: r.Size, Warmup: r.Warmup, Duration: r.Duration})
		if err != nil {
			return nil, err
		}
		stored[0].compare("CPU", plain.Server, stored[0].CPUPerPublish, plain.CPUPerPublish)
		results = append(results, stored[0], plain)
	}
	return results, nil
}

// session is an ordinary blocking connection, which has said hello.
type session struct {
	dialer *dialer
	conn   net.Conn
	from   io.Reader
}

func (r *run) session(ctx context.Context) (*session, error) {
	nc, early, err := r.dialer.dial(ctx, 0)
	if err != nil {
		return nil, err
	}
	s := &session{r.dialer, nc, io.MultiReader(early, nc)}
	if err := r.dialer.prepare(nc, s.from, nil); err != nil {
		reset(nc)
		return nil, err
	}
	return s, nil
}

// positions says where in each topic one is that has had everything.
func (r *run) positions(ctx context.Context) ([]Position, error) {
	s, err := r.session(ctx)
	if err != nil {
		return nil, err
	}
	defer reset(s.conn)
	all := make([]Position, len(r.names))
	for i, topic := range r.names {
		payload, awaits := r.Target.Subscribe(nil, topic)
		answer, err := r.dialer.ask(s.conn, s.from, payload, awaits, Subscribed)
		if err == nil {
			all[i], err = r.keeper.Position(answer)
		}
		if err != nil {
			return nil, fmt.Errorf("subscribe %s: %w", topic, err)
		}
	}
	return all, nil
}

// fill stores so many events of each topic.
func (r *run) fill(ctx context.Context, each int) error {
	s, err := r.session(ctx)
	if err != nil {
		return err
	}
	defer reset(s.conn)
	made := newMessages(r.Target, r.names, r.Size)
	made.publish = r.keeper.Store
	for all, sent := each*len(r.names), 0; sent < all; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var frames []byte
		from := sent
		for ; sent < all && sent-from < fillWindow; sent++ {
			m, err := made.next(sent % len(r.names))
			if err != nil {
				return err
			}
			frames = append(frames, m.frame...)
		}
		if err := s.stores(frames, r.keeper, sent-from); err != nil {
			return fmt.Errorf("event %d of %d to store: %w", sent, all, err)
		}
	}
	return nil
}

// stores writes so many publishes, and reads their answers.
func (s *session) stores(frames []byte, keeper Keeper, n int) error {
	if err := s.conn.SetDeadline(time.Now().Add(openTimeout)); err != nil {
		return err
	}
	if _, err := s.conn.Write(frames); err != nil {
		return err
	}
	for n > 0 {
		said, err := s.dialer.hear(s.conn, s.from)
		if err != nil {
			return err
		}
		stored, err := keeper.Stored(said)
		if err != nil {
			return err
		}
		n -= stored
	}
	return nil
}
