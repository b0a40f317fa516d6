package server

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// What replays read, in chunks: finished messages, shared by all that read the same topic
// or pattern from the same position at about the same time, as many do after a node was
// lost. A reader that its socket holds up holds one chunk, and finds the next one here, or
// has it read again.
//
// A reader that goes on within a page of chunks has the next page read meanwhile, by what
// NATS keeps for it: so reading, encoding and sending go on at the same time. Each replay
// is at most a page and what it is sent ahead; pages are small where many replays run.

const (
	// chunkBytes is about how large a chunk is on the wire.
	chunkBytes = 32 << 10
	// firstEvents and firstBytes bound what is read of a stream for a replay that begins, or
	// that comes back late, and pageEvents and pageBytes what is read ahead.
	firstEvents = 512
	firstBytes  = 64 << 10
	pageEvents  = 4096
	pageBytes   = 1 << 20
	// aheadBytes is shared by all replays that have pages read ahead.
	aheadBytes = chunksBytes / 4
	// chunksBytes bounds the chunks that are kept, and chunkLife for how long.
	chunksBytes = 32 << 20
	chunkLife   = 2 * time.Second
	// chunkOverhead is what a chunk takes beside its messages.
	chunkOverhead = 512
)

// chunkKey says what is in a chunk.
type chunkKey struct {
	home    *home
	epoch   string
	pattern string // or topic
	after   uint64
	upTo    uint64 // the last event of each topic up to here; 0: all events
	events  bool   // for streams of Server-Sent Events, not frames
}

// chunk is a run of events as they are sent. It is counted: each holder releases it once.
type chunk struct {
	refs  atomic.Int32
	batch *loop.Batch // nil: no events
	made  time.Time
	among *chunks
	sent  atomic.Bool // some replay has sent it

	count  uint64 // events
	more   uint64 // that follow it, as far as is known
	last   uint64 // seq of the last event; where there is none, the position that it was read from
	oldest int64  // time of the first event
	first  uint64 // the oldest seq of the stream; 0: not known
	final  bool   // no more events match, up to upTo
	whole  bool   // count and more are all that matches up to upTo, and nothing behind it
	upTo   uint64 // where the stream was, at least, when it was read
	recent bool   // it is from this node's memory, and so is what follows
	page   *page  // where a reader of this chunk should have the next page read; nil: nowhere
}

// page says how to read what follows a page.
type page struct {
	end  uint64      // the position behind which that is
	next wire.ReadOn // nil: it has been taken; guarded by chunks.mu
}

// counted is the position up to which count and more are of all that matches. ok is false where
// that is not known.
func (c *chunk) counted() (upTo uint64, ok bool) {
	switch {
	case !c.recent:
		return c.upTo, c.whole
	case c.final:
		return c.last, true
	default:
		return 0, false
	}
}

// isBefore says that the chunk was read when the stream was not at upTo yet, and that a node
// which remembers what came behind recentFrom does not know how many events have come since.
func (c *chunk) isBefore(upTo, recentFrom uint64) bool {
	counted, ok := c.counted()
	return c.upTo < upTo && (!ok || counted < recentFrom)
}

// end is the position up to which all that matches is in the chunk, or before it.
func (c *chunk) end() uint64 {
	if c.final && !c.recent {
		return max(c.last, c.upTo)
	}
	return c.last
}

func (c *chunk) release() {
	if c == nil || c.refs.Add(-1) > 0 {
		return
	}
	c.among.held.Add(-int64(c.bytes()))
	if c.batch != nil {
		c.batch.Release()
	}
}

// encoding makes a chunk. Its maker alone uses it.
type encoding struct {
	batch                    *loop.Batch
	count, more, last, first uint64
	oldest                   int64
	final, whole, recent     bool
	upTo                     uint64

	server  *Server
	key     chunkKey
	pattern string // as events name it
	scratch []byte
	id      []byte
}

func (s *Server) encoding(key chunkKey) encoding {
	x := encoding{server: s, key: key}
	x.last = key.after
	if wire.HasWildcard(key.pattern) {
		x.pattern = key.pattern
	}
	return x
}

// size is how many bytes the events take so far.
func (x *encoding) size() int {
	if x.batch == nil {
		return 0
	}
	return x.batch.Len()
}

// add encodes an event, which it does not keep, and returns the size.
func (x *encoding) add(e *wire.StoredEvent) int {
	if x.batch == nil {
		x.batch, x.oldest = loop.NewBatch(), e.Time
	}
	x.last = e.Seq
	if !wire.ValidTopic(e.Topic) || !wire.ValidJSON(e.Data) {
		x.scratch = wire.AppendGap(x.scratch[:0], x.key.pattern, "", e.Seq-1, e.Seq+1)
		x.append(gapEvent, nil)
		return x.size()
	}
	x.count++
	if from := e.From; from != "" && !x.server.opts.EventsFrom {
		told := *e
		told.From = ""
		e = &told
	}
	x.scratch = wire.AppendStoredEvent(x.scratch[:0], x.pattern, e)
	x.id = appendPosition(x.id[:0], x.key.epoch, e.Seq)
	x.append(nil, x.id)
	return x.size()
}

func (x *encoding) append(name, id []byte) {
	if x.key.events {
		x.batch.AppendEvent(name, id, x.scratch)
	} else {
		x.batch.Append(ws.OpText, x.scratch)
	}
}

// drop forgets what was encoded.
func (x *encoding) drop() {
	if x.batch != nil {
		x.batch.Release()
	}
	*x = x.server.encoding(x.key)
}

// finish ends the encoding. The caller has the only reference.
func (x *encoding) finish() *chunk {
	if x.batch != nil {
		x.batch = x.batch.Fit()
	}
	c := &chunk{
		batch: x.batch, made: time.Now(), among: &x.server.chunks, count: x.count, more: x.more, last: x.last, oldest: x.oldest, first: x.first,
		final: x.final, whole: x.whole, upTo: x.upTo, recent: x.recent,
	}
	c.refs.Store(1)
	c.among.held.Add(int64(c.bytes()))
	return c
}

// chunks are those that are kept, and the reads that are under way.
type chunks struct {
	mu      sync.Mutex
	byKey   map[chunkKey]*chunk        // guarded by mu
	order   []keptChunk                // as they came; guarded by mu
	bytes   int                        // guarded by mu
	reading map[chunkKey][]waitingRead // for a read; guarded by mu

	held  atomic.Int64  // bytes of all chunks, kept or on their way to a replay
	pages atomic.Uint64 // that were read of streams
}

// waitingRead is a replay that waits for a chunk.
type waitingRead struct {
	gone *atomic.Bool // it has ended
	done func(c *chunk, err error)
}

type keptChunk struct {
	key chunkKey
	*chunk
}

// readAhead has the page behind the one of a chunk read, if it should be by now.
func (s *Server) readAhead(key chunkKey, after *page, upTo uint64, gone *atomic.Bool) {
	if after != nil && s.aheadBytes() > firstBytes {
		key.after = after.end
		s.readChunk(key, after, upTo, false, waitingRead{gone, func(c *chunk, _ error) { c.release() }})
	}
}

// aheadBytes is how much may be read ahead for each replay.
func (s *Server) aheadBytes() int {
	return min(pageBytes, aheadBytes/max(1, int(s.replaying.Load())))
}

// have gives a reference of the chunk behind a position, nil: it is not there. The stream's
// leader has said that it is at upTo. With counts, a chunk that was kept from before then
// will not do, unless this node remembers what came since: it does not know how many events
// follow.
func (x *chunks) have(key chunkKey, upTo uint64, counts bool) *chunk {
	recentFrom := key.home.RecentFrom()
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.find(key, upTo, counts, recentFrom)
}

// find is have. mu is held.
func (x *chunks) find(key chunkKey, upTo uint64, counts bool, recentFrom uint64) *chunk {
	c := x.byKey[key]
	if c == nil || time.Since(c.made) >= chunkLife || counts && c.isBefore(upTo, recentFrom) {
		return nil
	}
	c.refs.Add(1)
	return c
}

// readChunk calls w.done, at once or from a worker, with what have would give, when it is
// there, unless w is gone by then. before is the page before, nil if it is not known.
func (s *Server) readChunk(key chunkKey, before *page, upTo uint64, counts bool, w waitingRead) {
	x, recentFrom := &s.chunks, key.home.RecentFrom()
	x.mu.Lock()
	if c := x.find(key, upTo, counts, recentFrom); c != nil {
		x.mu.Unlock()
		w.done(c, nil)
		return
	}
	if x.reading == nil {
		x.byKey, x.reading = make(map[chunkKey]*chunk), make(map[chunkKey][]waitingRead)
	}
	others, reads := x.reading[key]
	x.reading[key] = append(others, w)
	var next wire.ReadOn
	if !reads && before != nil {
		next, before.next = before.next, nil
	}
	x.mu.Unlock()
	if reads {
		return
	}
	asked := time.Now()
	if !s.replays.push(job{run: func() {
		if !x.wanted(key) {
			return
		}
		if time.Since(asked) > 2*streamTimeout {
			x.read(key, nil, errTooLate)
			return
		}
		made, err := s.readStream(key, next, upTo)
		x.read(key, made, err)
	}}) {
		x.read(key, nil, errTooLate)
	}
}

var errTooLate = errors.New("too many wait for streams")

// wanted says whether anybody waits for a read; if not, it will not be made.
func (x *chunks) wanted(key chunkKey) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.reading[key] {
		if !w.gone.Load() {
			return true
		}
	}
	delete(x.reading, key)
	return false
}

// read ends a read: it keeps the chunks, one behind another, and gives the first to those
// that wait.
func (x *chunks) read(key chunkKey, made []*chunk, err error) {
	x.mu.Lock()
	waiting := x.reading[key]
	delete(x.reading, key)
	if len(made) > 0 {
		made[0].refs.Add(int32(len(waiting)))
	}
	for _, c := range made {
		x.keep(key, c)
		key.after = c.last
	}
	x.mu.Unlock()
	for _, w := range waiting {
		if err != nil {
			w.done(nil, err)
		} else {
			w.done(made[0], nil)
		}
	}
}

// discard has c not be found any more.
func (x *chunks) discard(key chunkKey, c *chunk) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byKey[key] == c {
		delete(x.byKey, key)
	}
}

// keep takes over the reference. mu is held.
func (x *chunks) keep(key chunkKey, c *chunk) {
	x.byKey[key] = c
	x.order = append(x.order, keptChunk{key, c})
	x.bytes += c.bytes()
	x.forget(c.made)
}

// forget lets go of chunks that are old or too many. mu is held.
func (x *chunks) forget(now time.Time) {
	for len(x.order) > 0 && (x.bytes > chunksBytes || now.Sub(x.order[0].made) >= chunkLife) {
		k := x.order[0]
		x.order[0] = keptChunk{}
		x.order = x.order[1:]
		x.bytes -= k.bytes()
		if x.byKey[k.key] == k.chunk {
			delete(x.byKey, k.key)
		}
		k.release()
	}
}

// tick lets go of chunks that are old.
func (x *chunks) tick() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(time.Now())
}

func (c *chunk) bytes() int {
	if c.batch == nil {
		return chunkOverhead
	}
	return chunkOverhead + c.batch.Len()
}

// readStream reads from this node's memory, or from the stream where that does not reach
// back far enough. It is called by a worker.
func (s *Server) readStream(key chunkKey, next wire.ReadOn, upTo uint64) ([]*chunk, error) {
	limit := min(chunkBytes, s.opts.Loop.PendingBytes/4)
	if key.upTo == 0 && key.home.RecentFrom() <= key.after {
		x := s.encoding(key)
		if key.home.Recent(key.after, math.MaxUint64, key.pattern, func(e *wire.StoredEvent) bool {
			if x.size() < limit {
				x.add(e)
			} else {
				x.more++
			}
			return true
		}) {
			x.recent, x.final, x.upTo = true, x.more == 0, upTo
			return []*chunk{x.finish()}, nil
		}
		x.drop()
	}
	ctx, cancel := context.WithTimeout(s.streamContext, streamTimeout)
	defer cancel()
	var got wire.StreamPage
	var err error
	switch {
	case key.upTo > 0:
		got, err = key.home.LastOfEach(ctx, key.pattern, key.after, key.upTo, firstEvents)
	case next != nil:
		got, err = next(ctx, pageEvents, s.aheadBytes())
		if !got.End {
			upTo = 0 // Pending is not of a known moment
		}
	default:
		got, err = key.home.Read(ctx, key.pattern, key.after, firstEvents, firstBytes)
	}
	s.chunks.pages.Add(1)
	if err != nil {
		return nil, err
	}
	if n := len(got.Events); got.End && n > 0 {
		upTo = max(upTo, got.Events[n-1].Seq)
	}
	var made []*chunk
	x := s.encoding(key)
	for i := range got.Events {
		if x.add(&got.Events[i]) >= limit && i < len(got.Events)-1 {
			x.first, x.more, x.whole, x.upTo = got.First, uint64(len(got.Events)-1-i)+got.Pending, got.End, upTo
			key.after = x.last
			made = append(made, x.finish())
			x = s.encoding(key)
		}
	}
	x.first, x.more, x.final, x.whole, x.upTo = got.First, got.Pending, got.End, got.End, upTo
	made = append(made, x.finish())
	if got.Next != nil {
		made[min(1, len(made)-1)].page = &page{end: made[len(made)-1].last, next: got.Next}
	}
	return made, nil
}
