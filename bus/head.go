package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/notifyd/notifyd/wire"
)

// streamInfo is what the leader of a stream says of it.
type streamInfo struct {
	wire.StreamHead
	Bytes, Events uint64
	Created       time.Time
	LastTime      int64 // of the event at Last, in Unix nanoseconds
}

// heads are the questions for a stream's head. Only one is under way; callers that come meanwhile share the next one,
// so that each gets an answer that was asked for after its call, however many they are.
type heads struct {
	latest atomic.Pointer[streamInfo] // the last answer

	mu       sync.Mutex
	underWay bool
	next     *question
}

type question struct {
	done chan struct{} // closed when the rest is there
	info *streamInfo
	err  error
}

var errClosed = errors.New("the bus is closed")

// Head asks the stream's leader how far the stream has come.
func (s *Stream) Head(ctx context.Context) (wire.StreamHead, error) {
	info, err := s.info(ctx)
	if err != nil {
		return wire.StreamHead{}, err
	}
	return info.StreamHead, nil
}

func (s *Stream) info(ctx context.Context) (*streamInfo, error) {
	h := &s.heads
	h.mu.Lock()
	if h.next == nil {
		h.next = &question{done: make(chan struct{})}
	}
	q := h.next
	if !h.underWay {
		h.underWay = true
		go s.askForHeads()
	}
	h.mu.Unlock()
	select {
	case <-q.done:
		return q.info, q.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// askForHeads runs while there are questions.
func (s *Stream) askForHeads() {
	h := &s.heads
	for {
		h.mu.Lock()
		q := h.next
		h.next, h.underWay = nil, q != nil
		h.mu.Unlock()
		if q == nil {
			return
		}
		ctx, cancel := context.WithTimeout(s.bus.sc.ctx, streamTimeout)
		q.info, q.err = s.askLeader(ctx)
		cancel()
		if q.err == nil {
			h.latest.Store(q.info)
		}
		close(q.done)
	}
}

func (s *Stream) askLeader(ctx context.Context) (*streamInfo, error) {
	var a struct {
		Error   *apiError              `json:"error"`
		Created time.Time              `json:"created"`
		Config  jetstream.StreamConfig `json:"config"`
		State   struct {
			Messages uint64    `json:"messages"`
			Bytes    uint64    `json:"bytes"`
			FirstSeq uint64    `json:"first_seq"`
			LastSeq  uint64    `json:"last_seq"`
			LastTime time.Time `json:"last_ts"`
		} `json:"state"`
	}
	if err := s.ask(ctx, "STREAM.INFO", nil, &a); err != nil {
		return nil, err
	}
	if a.Error != nil {
		if a.Error.ErrCode == errStreamNotFound {
			s.again.Store(true) // keepStreams makes it again
		}
		return nil, s.apiError(a.Error)
	}
	if s.made.Load() && s.declared.Load() {
		s.heed(&a.Config)
	}
	info := &streamInfo{Bytes: a.State.Bytes, Events: a.State.Messages, Created: a.Created, LastTime: a.State.LastTime.UnixNano()}
	info.Epoch = epochOf(a.Created, a.Config.Metadata)
	info.First, info.Last = a.State.FirstSeq, a.State.LastSeq
	if info.Events == 0 {
		info.First = info.Last + 1
	}
	return info, nil
}

// ask sends a question about the stream to JetStream, whose answer is JSON.
func (s *Stream) ask(ctx context.Context, what string, question []byte, answer any) error {
	select {
	case <-s.bus.quit:
		return errClosed
	default:
	}
	m, err := s.bus.sc.conn.RequestWithContext(ctx, "$JS.API."+what+"."+s.want.Name, question)
	if err == nil {
		err = json.Unmarshal(m.Data, answer)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", s.Name(), err)
	}
	return nil
}

func (s *Stream) apiError(e *apiError) error {
	return fmt.Errorf("stream %s: JetStream says: %s (%d)", s.Name(), e.Description, e.ErrCode)
}
