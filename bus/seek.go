package bus

import (
	"context"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Seek gives the position behind which what since asks for begins. wire.SinceLast is for a topic; of a pattern
// [Stream.LastOfEach] gives the last events.
func (s *Stream) Seek(ctx context.Context, pattern string, since wire.Since) (after uint64, err error) {
	switch since.Kind {
	case wire.SinceSeq:
		return since.N, nil
	case wire.SinceTime:
		return s.seekTime(ctx, pattern, time.Unix(0, since.Time).UTC())
	case wire.SinceLast:
		return s.seekLast(ctx, pattern, since.N)
	}
	head, err := s.Head(ctx)
	return head.Last, err
}

func (s *Stream) seekTime(ctx context.Context, pattern string, t time.Time) (uint64, error) {
	head, err := s.Head(ctx) // first: what is stored from now on comes behind it
	if err != nil {
		return 0, err
	}
	e, err := s.leaderGet(ctx, getRequest{StartTime: &t, NextFor: s.bus.subject + pattern})
	if err != nil {
		return 0, err
	}
	if e == nil {
		return head.Last, nil
	}
	return e.Seq - 1, nil
}

// seekLast gives the position before the last n events of a topic. JetStream says how many follow an event, so it is
// looked for by halves.
func (s *Stream) seekLast(ctx context.Context, topic string, n uint64) (uint64, error) {
	last, err := s.leaderGet(ctx, getRequest{LastFor: s.bus.subject + topic})
	if err != nil {
		return 0, err
	}
	if last == nil || n == 0 {
		head, err := s.Head(ctx)
		return head.Last, err
	}
	if n == 1 {
		return last.Seq - 1, nil
	}
	low, high := uint64(1), last.Seq
	for after := last.Seq - 1; ; {
		if low > high {
			return after, nil // replicas that are not alike make the count inexact
		}
		mid := low + (high-low)/2
		if low == 1 && after == last.Seq-1 {
			mid = 1 // whether there are as many at all
		}
		p, err := s.direct(ctx, getRequest{Seq: mid, NextFor: s.bus.subject + topic, Batch: 1})
		if err != nil {
			return 0, err
		}
		if len(p.events) == 0 {
			high = mid - 1
			continue
		}
		seq, count := p.events[0].Seq, p.pending+1
		switch {
		case count == n || count < n && mid == 1:
			return seq - 1, nil
		case count > n:
			low, after = seq+1, seq
		default:
			high = mid - 1
		}
	}
}

// LastOfEach gives the last event up to the position upTo of each topic that pattern matches, ascending, behind after,
// at most most of them. It may give an event that another of the same topic follows. Prev is not known.
func (s *Stream) LastOfEach(ctx context.Context, pattern string, after, upTo uint64, most int) (wire.StreamPage, error) {
	most = min(max(most, 1), maxPage)
	if after >= upTo {
		return wire.StreamPage{End: true}, nil
	}
	p, err := s.direct(ctx, getRequest{
		MultiLast: []string{s.bus.subject + pattern}, Seq: after + 1, UpToSeq: upTo, Batch: most, MaxBytes: maxPageBytes,
	})
	if err != nil {
		return wire.StreamPage{}, err
	}
	if p.tooMany {
		return s.lastOfMany(ctx, pattern, after, upTo, most)
	}
	page := wire.StreamPage{Events: p.events, Pending: p.pending}
	if p.pending > 0 && len(p.events) > 0 {
		return page, nil
	}
	// That server may be behind: whatever the leader has yet is given as it is.
	if n := len(p.events); n > 0 {
		after = p.events[n-1].Seq
	}
	if len(page.Events) < most {
		rest, err := s.Read(ctx, pattern, after, most-len(page.Events), maxPageBytes)
		if err != nil {
			return page, err
		}
		page.End = rest.End
		for _, e := range rest.Events {
			if e.Seq > upTo {
				page.End = true
				break
			}
			page.Events = append(page.Events, e)
		}
	}
	return page, nil
}

// lastOfMany is LastOfEach for more topics than JetStream gives the last events of: it reads everything, and asks of
// each page which of its events are the last of their topics.
func (s *Stream) lastOfMany(ctx context.Context, pattern string, after, upTo uint64, most int) (page wire.StreamPage, err error) {
	for len(page.Events) == 0 && !page.End {
		read, err := s.Read(ctx, pattern, after, most, maxPageBytes)
		if err != nil {
			return page, err
		}
		page.End = read.End
		last := make(map[string]uint64)
		var topics []string
		for i, e := range read.Events {
			if e.Seq > upTo {
				read.Events, page.End = read.Events[:i], true
				break
			}
			if after = e.Seq; last[e.Topic] == 0 {
				topics = append(topics, e.Topic)
			}
			last[e.Topic] = e.Seq
		}
		if err := s.lastOf(ctx, topics, "", upTo, func(e *wire.StoredEvent) { last[e.Topic] = max(last[e.Topic], e.Seq) }); err != nil {
			return page, err
		}
		for _, e := range read.Events {
			if e.Seq == last[e.Topic] {
				page.Events = append(page.Events, e)
			}
		}
	}
	return page, nil
}
