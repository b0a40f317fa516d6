package server

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// Stored events by HTTP: GET /v1/history answers with a page of what a stream keeps, under
// the rules for a subscribe with since.

const (
	// defaultHistory and maxHistory are how many events a page of history has.
	defaultHistory = 100
	maxHistory     = 1000
	// historyBytes is about how large its events are together.
	historyBytes = 1 << 20
)

// historyQuery is what a request for a history asks for.
type historyQuery struct {
	pattern string
	since   wire.Since
	limit   int
}

// historyHandler answers GET /v1/history.
func (s *Server) historyHandler(w http.ResponseWriter, r *http.Request) {
	token, code := s.streamToken(r, s.httpClientAddr(r))
	if code != wire.OK {
		refuse(w, code, "")
		return
	}
	q, code, wrong := s.historyQuery(r, token)
	if code != wire.OK {
		refuse(w, code, wrong)
		return
	}
	answer, ok := await(r.Context(), &s.replays, 0, func() *history { return s.history(r.Context(), token, q) })
	if !ok || answer == nil {
		refuse(w, wire.Unavailable, "the stream does not answer now")
		return
	}
	if code := usable(token, httpNow()); code != wire.OK {
		refuse(w, code, "") // it has ended meanwhile
		return
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(answer.append(nil))
}

// historyQuery reads the parameters. Those that are not ours are left alone.
func (s *Server) historyQuery(r *http.Request, token *authz.Token) (q historyQuery, code wire.Code, wrong string) {
	query := r.URL.Query()
	topics := query["topic"]
	if len(topics) != 1 || !wire.ValidPattern(topics[0]) {
		return q, wire.BadTopic, "say topic=orders.7, once: a topic or pattern"
	}
	q.pattern, q.limit = topics[0], defaultHistory
	if !token.MaySubscribe([]byte(q.pattern)) {
		return q, wire.Forbidden, ""
	}
	q.since.Kind = wire.SinceSeq // everything
	if list := query["since"]; len(list) > 0 {
		ok := len(list) == 1
		if ok {
			q.since, ok = parseSince(list[0])
		}
		if !ok {
			return q, wire.BadEnvelope, "since must be SEQ, EPOCH.SEQ, last:N or a time of RFC 3339, once"
		}
	}
	if list := query["limit"]; len(list) > 0 {
		n, ok := parseSeq(list[0])
		if len(list) > 1 || !ok || n < 1 || n > maxHistory {
			return q, wire.BadEnvelope, "limit must be a number from 1 to " + strconv.Itoa(maxHistory) + ", once"
		}
		q.limit = int(n)
	}
	code, wrong = s.mayRead(token, []byte(q.pattern), q.since)
	return q, code, wrong
}

// history is a page of a stream.
type history struct {
	stream, epoch string
	complete      bool   // nothing of what since asked for is gone
	first         uint64 // the oldest event that may be read; 0 if it is complete
	events        []wire.StoredEvent
	more          bool   // another page follows
	next          string // since for that one; "": it cannot be asked for
}

// history reads a page. It is called by a worker, and returns nil if the stream does not
// answer.
func (s *Server) history(ctx context.Context, token *authz.Token, q historyQuery) *history {
	x, _ := s.homeOf([]byte(q.pattern))
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	head, err := x.Head(ctx)
	if err != nil {
		return nil
	}
	b := &beginning{since: q.since, floor: math.MinInt64}
	if bound := token.History(); bound > 0 {
		b.floor = httpNow() - int64(bound)
	}
	b.from(head)
	if b.seeks() {
		if err := s.seek(b, x, q.pattern); err != nil {
			return nil
		}
	}
	h := &history{stream: x.Name(), epoch: head.Epoch, complete: b.complete}
	var page wire.StreamPage
	if q.since.Kind == wire.SinceLast && wire.HasWildcard(q.pattern) {
		page, err = x.LastOfEach(ctx, q.pattern, b.after, head.Last, q.limit)
	} else {
		page, err = x.Read(ctx, q.pattern, b.after, q.limit, historyBytes)
		next := b.after
		if n := len(page.Events); n > 0 {
			next = page.Events[n-1].Seq
		}
		if page.End {
			next = max(next, head.Last) // nothing up to there is for this pattern
		}
		h.next = head.Epoch + "." + strconv.FormatUint(next, 10)
	}
	if err != nil {
		return nil
	}
	h.more = !page.End
	for _, e := range page.Events {
		if !s.opts.EventsFrom {
			e.From = ""
		}
		if wire.ValidTopic(e.Topic) && wire.ValidJSON(e.Data) {
			h.events = append(h.events, e)
		} else {
			h.complete = false // a client of NATS has written it
		}
	}
	if !h.complete {
		h.first = b.first
	}
	return h
}

// append appends the page as JSON: the envelopes of its events, and where it stands.
func (h *history) append(dst []byte) []byte {
	dst = append(dst, `{"events":[`...)
	for i := range h.events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = wire.AppendStoredEvent(dst, "", &h.events[i])
	}
	rest, _ := json.Marshal(struct { // cannot fail
		Stream   string `json:"stream"`
		Epoch    string `json:"epoch"`
		Complete bool   `json:"complete"`
		First    uint64 `json:"first,omitempty"`
		More     bool   `json:"more"`
		Next     string `json:"next,omitempty"`
	}{h.stream, h.epoch, h.complete, h.first, h.more, h.next})
	dst = append(dst, "],"...)
	return append(append(dst, rest[1:]...), '\n')
}
