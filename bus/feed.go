package bus

import (
	"math"

	"github.com/notifyd/notifyd/wire"
)

// A feed puts in order what a stream's leader passes on of what it has stored, and fills the holes: the leader passes
// each event on at most once, and a new leader nothing of what the old one had stored last. Each event is handed over
// once, ascending, and where events are gone from the stream a gap is told before what follows.
//
// Positions of a stream have no holes, so an event that is not the next one shows that others are missing; and the
// leader is asked now and then how far the stream has come, since nothing may follow the last one. What is missing is
// read from the stream.
//
// The methods are called by one goroutine. Questions go to source, and answers come back by looked and read.
type feed struct {
	source feedSource
	out    feedOut
	window window

	epoch    string // life of the stream; "": it does not follow yet
	position uint64 // everything up to here was handed over, or told as a gap
	time     int64  // of the event there; math.MaxInt64: not known
	need     uint64 // the last event that is known to be stored

	// waiting are events behind a hole, or behind a doubt. They may be dropped, and are read then.
	waiting      map[uint64]*wire.StoredEvent
	waitingBytes int

	// doubt: the stream may be another by now. Nothing is handed over before the leader has answered a question asked
	// since, which is number doubtAt or a later one.
	doubt   bool
	doubtAt uint64
	asked   uint64
	heard   uint64 // the number of the last answer
	// back is the lowest position that came a second time with another event; backSure: the window has the first.
	back     uint64
	backSure bool

	reading  bool
	readNeed uint64 // need at the beginning of the reading
	life     uint64 // counts restarts: what was read before one is of no use

	// gone: the leader had nothing behind position, though an event at gone was stored. Before that is believed the
	// leader has to know of gone (goneSure), and to say so again: a leader that has lost its place may be behind.
	gone     uint64
	goneSure bool

	// lost: the stream has gone back in this epoch. Another epoch of the same stream says that, and nothing new.
	lost bool

	healed, gaps, renewals uint64 // counters
}

type feedSource interface {
	// askHead asks the leader for the head of the stream; the answer goes to looked.
	askHead(number uint64)
	// readMissing reads a page of the stream behind after, which goes to read.
	readMissing(life, after uint64)
}

type feedOut interface {
	event(e *wire.StoredEvent)
	// gap says that what was stored behind after and before first is gone. epoch is told where it is a new one.
	gap(epoch string, after, first uint64)
}

const (
	maxWaiting      = 8 << 10
	maxWaitingBytes = 8 << 20
)

// begin starts to follow, from where the leader is.
func (f *feed) begin() {
	f.restart(0, 0)
	f.epoch = ""
	f.suspect()
}

// follows says whether the feed has a position.
func (f *feed) follows() bool { return f.epoch != "" }

// end stops it until begin.
func (f *feed) end() {
	f.restart(0, 0)
	f.epoch = ""
}

func (f *feed) restart(position, need uint64) {
	f.position, f.need, f.time = position, need, math.MaxInt64
	f.waiting, f.waitingBytes = nil, 0
	f.doubt, f.back, f.backSure, f.gone, f.goneSure = false, 0, false, 0, false
	f.life++
	f.window.reset(position)
}

// suspect stops handing over until the leader was asked which life of the stream this is.
func (f *feed) suspect() {
	f.doubt = true
	f.look()
	f.doubtAt = f.asked
}

// look asks the leader how far the stream has come.
func (f *feed) look() {
	f.asked++
	f.source.askHead(f.asked)
}

// unfinished says whether late should be called soon.
func (f *feed) unfinished() bool { return f.doubt || f.follows() && f.need > f.position }

// late is called when something has taken long: what was passed on has not come, or an answer has not.
func (f *feed) late() {
	if f.doubt {
		f.look()
	} else if f.follows() {
		f.heal()
	}
}

// passed takes an event that the leader has passed on.
func (f *feed) passed(e *wire.StoredEvent) {
	if f.follows() && e.Seq <= f.position {
		f.repeated(e)
		return
	}
	if !f.follows() && !f.doubt {
		return // it has ended
	}
	f.need = max(f.need, e.Seq)
	if f.doubt || e.Seq != f.position+1 {
		f.keep(e)
		f.heal()
		return
	}
	f.hand(e)
	f.advance()
}

// repeated takes an event at a position that was handed over: mostly that very event, but a stream that was made anew, or
// has lost what it had stored, gives positions out a second time.
func (f *feed) repeated(e *wire.StoredEvent) {
	sure := false
	if was := f.window.find(e.Seq); was != nil {
		if sure = was.Time != e.Time || was.Topic != e.Topic; !sure {
			return
		}
	} else if e.Time <= f.time {
		return
	}
	if f.back == 0 || e.Seq < f.back {
		f.back = e.Seq
	}
	f.backSure = f.backSure || sure
	if !f.doubt {
		f.suspect()
	}
}

func (f *feed) keep(e *wire.StoredEvent) {
	if len(f.waiting) >= maxWaiting || f.waitingBytes >= maxWaitingBytes || f.waiting[e.Seq] != nil {
		return
	}
	if f.waiting == nil {
		f.waiting = make(map[uint64]*wire.StoredEvent)
	}
	f.waiting[e.Seq] = e
	f.waitingBytes += sizeOf(e)
}

func (f *feed) hand(e *wire.StoredEvent) {
	f.forget(e.Seq)
	f.position, f.time = e.Seq, e.Time
	f.window.add(e)
	f.out.event(e)
}

func (f *feed) forget(seq uint64) {
	if e := f.waiting[seq]; e != nil {
		f.waitingBytes -= sizeOf(e)
		delete(f.waiting, seq)
	}
}

// advance hands over what waits and is next.
func (f *feed) advance() {
	for len(f.waiting) > 0 {
		e := f.waiting[f.position+1]
		if e == nil {
			return
		}
		f.hand(e)
	}
}

// skipTo goes to the position before seq: what is between is gone from the stream, unless it waits.
func (f *feed) skipTo(seq uint64) {
	for f.advance(); f.position+1 < seq; f.advance() {
		first := seq
		for n := range f.waiting {
			if f.position < n && n < first {
				first = n
			}
		}
		f.gap("", f.position, first)
	}
}

func (f *feed) gap(epoch string, after, first uint64) {
	f.gaps++
	f.position, f.time = first-1, math.MaxInt64
	f.window.reset(f.position)
	f.out.gap(epoch, after, first)
}

// heal reads what is missing.
func (f *feed) heal() {
	if f.reading || f.doubt || f.need <= f.position {
		return
	}
	f.reading, f.readNeed = true, f.need
	f.source.readMissing(f.life, f.position)
}

// looked takes the leader's answer to look, nil if there was none.
func (f *feed) looked(number uint64, info *streamInfo) {
	if info == nil || number < f.heard || f.doubt && number < f.doubtAt {
		return
	}
	f.heard = number
	switch {
	case !f.follows():
		if !f.doubt {
			return // it has ended meanwhile
		}
		f.start(info)
	case info.Epoch != f.epoch && f.lost && madeOf(info.Epoch) == madeOf(f.epoch):
		f.epoch, f.lost = info.Epoch, false
		f.out.gap(f.epoch, 0, f.position+1)
		f.look()
	case info.Epoch != f.epoch:
		f.renew(info.Epoch, info.First, info.Last)
	case f.back > 0 && (f.backSure || info.Last < f.position):
		f.renew("", f.back, max(info.Last, f.back))
	default:
		f.doubt, f.back = false, 0
		f.need = max(f.need, info.Last)
		f.window.forgetBefore(min(info.First, f.position+1))
		if f.gone > f.position && !f.goneSure {
			if f.goneSure = info.Last >= f.gone; !f.goneSure {
				f.gone = 0
			}
		}
		f.advance()
		if len(f.waiting) > 0 || f.goneSure {
			f.heal()
		}
	}
}

// start begins where the leader is. What was passed on until now may be of another life of the stream, so it is dropped,
// and read if it lies behind that.
func (f *feed) start(info *streamInfo) {
	f.restart(info.Last, info.Last)
	f.epoch, f.time, f.lost = info.Epoch, info.LastTime, false
	f.look()
}

// renew begins anew at first: the stream is another one (epoch), or has gone back.
func (f *feed) renew(epoch string, first, last uint64) {
	f.renewals++
	f.restart(first-1, last)
	if f.lost = epoch == ""; !f.lost {
		f.epoch = epoch
	}
	f.gap(f.epoch, 0, first)
	f.heal()
}

// read takes what was read of the stream behind the position that the feed had, nil if that did not work.
func (f *feed) read(life uint64, page *wire.StreamPage) {
	f.reading = false
	if life != f.life {
		f.heal()
		return
	}
	if page == nil || f.doubt {
		return
	}
	for i := range page.Events {
		e := &page.Events[i]
		if f.skipTo(e.Seq); e.Seq > f.position {
			f.healed++
			f.hand(e)
		}
	}
	f.advance()
	if page.End && f.readNeed > f.position {
		if f.goneSure && f.gone > f.position {
			f.skipTo(f.gone + 1)
			f.gone, f.goneSure = 0, false
		} else {
			f.gone, f.goneSure = f.readNeed, false
			f.look()
			return
		}
	}
	f.heal()
}
