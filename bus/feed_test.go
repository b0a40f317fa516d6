package bus

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/notifyd/notifyd/wire"
)

// feedModel is a stream, the leader's copies of its events on their way to a feed, and the questions of the feed that
// nobody has answered yet. It checks what the feed hands over at once.
type feedModel struct {
	t *rapid.T
	f feed

	life   int // of the stream
	log    []wire.StoredEvent
	gone   map[uint64]bool // discarded
	stamp  int64           // of the last event, over all lives
	lifeOf map[int64]int   // by stamp
	wire   []*wire.StoredEvent

	looks []modelLook
	reads []modelRead
	// stale: a leader that has lost its place answers, who knows the events up to here. It comes once.
	stale, wasStale bool
	knows           uint64

	// What the feed has come to.
	begun    bool
	feedLife int
	position uint64
}

type modelLook struct {
	number uint64
	then   *streamInfo // as of the question
}

type modelRead struct{ life, after uint64 }

func epochOfLife(life int) string { return fmt.Sprint("e", life) }

func (m *feedModel) askHead(number uint64) { m.looks = append(m.looks, modelLook{number, m.info()}) }

func (m *feedModel) readMissing(life, after uint64) {
	m.reads = append(m.reads, modelRead{life, after})
}

func (m *feedModel) last() uint64 {
	if m.stale {
		return min(m.knows, uint64(len(m.log)))
	}
	return uint64(len(m.log))
}

func (m *feedModel) info() *streamInfo {
	i := &streamInfo{}
	i.Epoch, i.Last, i.First = epochOfLife(m.life), m.last(), m.last()+1
	if i.Last > 0 {
		i.LastTime = m.log[i.Last-1].Time
	}
	for seq := i.Last; seq > 0; seq-- {
		if !m.gone[seq] {
			i.First = seq
		}
	}
	return i
}

// event implements feedOut.
func (m *feedModel) event(e *wire.StoredEvent) {
	life := m.lifeOf[e.Time]
	switch {
	case e.Seq != m.position+1:
		m.t.Fatalf("behind %d came %d", m.position, e.Seq)
	case life < m.feedLife:
		m.t.Fatalf("event %d is of life %d, the feed in %d", e.Seq, life, m.feedLife)
	case life == m.life && e.Topic != m.log[e.Seq-1].Topic:
		m.t.Fatalf("event %d is another", e.Seq)
	}
	m.position = e.Seq
}

// gap implements feedOut.
func (m *feedModel) gap(epoch string, after, first uint64) {
	if epoch != "" {
		if epoch != epochOfLife(m.life) && m.feedLife == m.life {
			m.t.Fatalf("a gap to life %s in %d", epoch, m.life)
		}
		_, _ = fmt.Sscanf(epoch, "e%d", &m.feedLife)
		after = 0
	} else if after != m.position {
		m.t.Fatalf("a gap behind %d at %d", after, m.position)
	}
	if m.feedLife == m.life {
		for seq := after + 1; seq < first; seq++ {
			if !m.gone[seq] {
				m.t.Fatalf("a gap from %d to %d, and %d is there", after, first, seq)
			}
		}
	}
	m.position = first - 1
}

func (m *feedModel) store() {
	m.stamp++
	e := wire.StoredEvent{Topic: fmt.Sprint("t", m.stamp), Seq: uint64(len(m.log) + 1), Time: m.stamp}
	m.lifeOf[m.stamp] = m.life
	m.log = append(m.log, e)
	m.wire = append(m.wire, &e)
}

func (m *feedModel) answerLook(i int, then bool) {
	q := m.looks[i]
	m.looks = append(m.looks[:i], m.looks[i+1:]...)
	info := m.info()
	if then && q.then.Epoch == info.Epoch {
		info = q.then
	}
	if !m.begun && m.f.doubt && q.number >= m.f.doubtAt { // it starts, and may hand over what waits
		m.begun, m.position, m.feedLife = true, info.Last, m.life
	}
	m.f.looked(q.number, info)
}

func (m *feedModel) answerRead(most int) {
	q := m.reads[0]
	m.reads = m.reads[1:]
	page := &wire.StreamPage{}
	for seq := q.after + 1; seq <= m.last() && len(page.Events) < most; seq++ {
		if !m.gone[seq] {
			page.Events = append(page.Events, m.log[seq-1])
		}
	}
	page.End = len(page.Events) < most
	m.f.read(q.life, page)
}

func (m *feedModel) pass(i int) {
	e := *m.wire[i]
	m.wire = append(m.wire[:i], m.wire[i+1:]...)
	m.f.passed(&e)
}

// Whatever happens on the way, a feed hands over each event once and in order, and tells a gap where, and only where,
// events are gone.
func TestFeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &feedModel{t: t, gone: map[uint64]bool{}, lifeOf: map[int64]int{}}
		m.f.source, m.f.out = m, m
		for range rapid.IntRange(0, 5).Draw(t, "before") {
			m.store()
		}
		m.wire = nil
		m.f.begin()
		t.Repeat(map[string]func(*rapid.T){
			"store": func(*rapid.T) { m.store() },
			"store and pass on": func(*rapid.T) {
				m.store()
				m.pass(len(m.wire) - 1)
			},
			"pass on": func(t *rapid.T) {
				if len(m.wire) > 0 {
					m.pass(rapid.IntRange(0, min(2, len(m.wire)-1)).Draw(t, "which"))
				}
			},
			"duplicate": func(t *rapid.T) {
				if len(m.wire) > 0 {
					m.wire = append(m.wire, m.wire[rapid.IntRange(0, len(m.wire)-1).Draw(t, "which")])
				}
			},
			"lose": func(t *rapid.T) {
				if len(m.wire) > 0 {
					i := rapid.IntRange(0, len(m.wire)-1).Draw(t, "which")
					m.wire = append(m.wire[:i], m.wire[i+1:]...)
				}
			},
			"reconnect": func(*rapid.T) {
				m.wire = nil
				m.f.suspect()
			},
			"tail": func(*rapid.T) { m.f.look() },
			"late": func(*rapid.T) { m.f.late() },
			"answer": func(t *rapid.T) {
				if len(m.looks) > 0 {
					m.answerLook(rapid.IntRange(0, min(2, len(m.looks)-1)).Draw(t, "which"), rapid.Bool().Draw(t, "then"))
				}
			},
			"no answer": func(*rapid.T) {
				if len(m.looks) > 0 {
					m.f.looked(m.looks[0].number, nil)
					m.looks = m.looks[1:]
				}
			},
			"read": func(t *rapid.T) {
				if len(m.reads) > 0 {
					m.answerRead(rapid.IntRange(1, 6).Draw(t, "most"))
				}
			},
			"cannot read": func(*rapid.T) {
				if len(m.reads) > 0 {
					m.f.read(m.reads[0].life, nil)
					m.reads = m.reads[1:]
				}
			},
			"discard the oldest": func(t *rapid.T) {
				for seq := range uint64(rapid.IntRange(0, len(m.log)).Draw(t, "up to")) {
					m.gone[seq+1] = true
				}
			},
			"discard one": func(t *rapid.T) {
				if len(m.log) > 0 {
					m.gone[uint64(rapid.IntRange(1, len(m.log)).Draw(t, "which"))] = true
				}
			},
			"a leader that is behind": func(t *rapid.T) {
				if !m.wasStale && len(m.log) > 0 {
					m.stale, m.wasStale = true, true
					m.knows = uint64(rapid.IntRange(0, len(m.log)).Draw(t, "knows"))
				}
			},
			"a leader that is not": func(*rapid.T) { m.stale = false },
			"made anew": func(*rapid.T) {
				m.life++
				m.log, m.wire, m.stale = nil, nil, false
				m.gone = map[uint64]bool{}
			},
			"": func(t *rapid.T) {
				if m.begun && m.f.position != m.position {
					t.Fatalf("position %d, handed over up to %d", m.f.position, m.position)
				}
			},
		})
		// Nothing more is stored or passed on. What the timers of a follower do brings the rest.
		m.stale, m.wire = false, nil
		for range 50 {
			m.f.look()
			m.f.late()
			for len(m.looks) > 0 {
				m.answerLook(0, false)
			}
			for len(m.reads) > 0 {
				m.answerRead(3)
			}
		}
		if m.feedLife != m.life || m.position != uint64(len(m.log)) {
			t.Fatalf("it has come to %d in life %d, the stream to %d in %d", m.position, m.feedLife, len(m.log), m.life)
		}
		if m.f.unfinished() || len(m.f.waiting) > 0 || m.f.waitingBytes != 0 {
			t.Fatalf("unfinished: need %d, position %d, waiting %d", m.f.need, m.f.position, len(m.f.waiting))
		}
	})
}

// A NATS that has lost what it had stored last gives its positions out again: the feed begins anew at the first of them,
// whether it remembers the event that was there or not.
func TestFeedOfAStreamThatWentBack(t *testing.T) {
	for name, before := range map[string]uint64{"remembered": 0, "not remembered": 20} {
		t.Run(name, func(t *testing.T) {
			r := &feedRecorder{}
			var f feed
			f.source, f.out = r, r
			info := func(last uint64, at int64) *streamInfo {
				i := &streamInfo{LastTime: at}
				i.Epoch, i.First, i.Last = "e", 1, last
				return i
			}
			f.begin()
			f.looked(r.asked, info(before, 1000))
			for seq := before + 1; before == 0 && seq <= 20; seq++ {
				f.passed(&wire.StoredEvent{Topic: "a", Seq: seq, Time: 980 + int64(seq)})
			}
			// 18 to 20 are lost, and 18 and 19 are others now.
			r.log = nil
			f.passed(&wire.StoredEvent{Topic: "b", Seq: 18, Time: 2000})
			f.passed(&wire.StoredEvent{Topic: "b", Seq: 19, Time: 2001})
			if len(r.log) != 0 {
				t.Errorf("handed over in doubt: %v", r.log)
			}
			f.looked(r.asked, info(19, 2001))
			f.read(r.life, &wire.StreamPage{End: true, Events: []wire.StoredEvent{{Topic: "b", Seq: 18, Time: 2000}, {Topic: "b", Seq: 19, Time: 2001}}})
			f.passed(&wire.StoredEvent{Topic: "b", Seq: 20, Time: 2002})
			if want := []string{"gap e 0 18", "18", "19", "20"}; !slices.Equal(r.log, want) {
				t.Errorf("%v", r.log)
			}
			// Repeats are no such thing.
			asked := r.asked
			f.passed(&wire.StoredEvent{Topic: "b", Seq: 19, Time: 2001})
			f.passed(&wire.StoredEvent{Topic: "b", Seq: 20, Time: 2002})
			if len(r.log) != 4 || r.asked != asked || f.unfinished() {
				t.Errorf("%v", r.log)
			}
		})
	}
}

// A stream that went back gets another epoch. The feed tells that, and hands over nothing again. An epoch that comes for
// another reason is that of another stream.
func TestFeedOfALossThatIsTold(t *testing.T) {
	r := &feedRecorder{}
	var f feed
	f.source, f.out = r, r
	info := func(epoch string, last uint64) *streamInfo {
		i := &streamInfo{LastTime: 1000}
		i.Epoch, i.First, i.Last = epoch, 1, last
		return i
	}
	stored := func(seq uint64, at int64) wire.StoredEvent { return wire.StoredEvent{Topic: "a", Seq: seq, Time: at} }
	f.begin()
	f.looked(r.asked, info("e", 9))
	back := stored(6, 2000)
	f.passed(&back)
	f.looked(r.asked, info("e", 6))
	f.read(r.life, &wire.StreamPage{End: true, Events: []wire.StoredEvent{back}})
	for _, epoch := range []string{"e-2", "e-2", "e-3"} {
		f.look()
		f.looked(r.asked, info(epoch, 6))
	}
	f.read(r.life, &wire.StreamPage{End: true, Events: []wire.StoredEvent{stored(1, 1), back}})
	if want := []string{"gap e 0 6", "6", "gap e-2 0 7", "gap e-3 0 1", "1", "gap  1 6", "6"}; !slices.Equal(r.log, want) {
		t.Errorf("%q", r.log)
	}
}

// Parts of an epoch that others have put into the metadata of a stream are bounded, and have no dot.
func TestEpochOf(t *testing.T) {
	made := time.UnixMicro(36 * 36)
	for want, metadata := range map[string]map[string]string{
		"100":                       nil,
		"100-2":                     {epochDeclared: "2"},
		"100-2-k3x9":                {epochDeclared: "2", epochLost: "k3x9"},
		"100-k3x9":                  {epochLost: "k3x9", epochDeclared: "a.b"},
		"100-0123456789":            {epochDeclared: "0123456789", epochLost: "0123456789a"},
		"100-0123456789-0123456789": {epochDeclared: "0123456789", epochLost: "0123456789"},
	} {
		if got := epochOf(made, metadata); got != want || madeOf(got) != "100" {
			t.Errorf("%v: %s, want %s", metadata, got, want)
		}
	}
	far := time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC)
	if longest := epochOf(far, epochMetadata(formatMicros(far), formatMicros(far))); len(longest) > wire.MaxEpochBytes || strings.Count(longest, "-") != 2 {
		t.Errorf("%s", longest)
	}
}

// feedRecorder notes what a feed does.
type feedRecorder struct {
	log         []string
	asked, life uint64
}

func (r *feedRecorder) askHead(number uint64)      { r.asked = number }
func (r *feedRecorder) readMissing(life, _ uint64) { r.life = life }
func (r *feedRecorder) event(e *wire.StoredEvent)  { r.log = append(r.log, fmt.Sprint(e.Seq)) }
func (r *feedRecorder) gap(epoch string, after, first uint64) {
	r.log = append(r.log, fmt.Sprintf("gap %s %d %d", epoch, after, first))
}

// What waits behind a hole is bounded; what has no room is read.
func TestFeedBoundsWhatWaits(t *testing.T) {
	r := &feedRecorder{}
	var f feed
	f.source, f.out = r, r
	f.begin()
	i := &streamInfo{}
	i.Epoch, i.First = "e", 1
	f.looked(r.asked, i)
	data := make([]byte, 4<<10)
	const last = 3 * maxWaiting
	for seq := uint64(2); seq <= last; seq++ {
		f.passed(&wire.StoredEvent{Topic: "a", Data: data, Seq: seq, Time: int64(seq)})
		if len(f.waiting) > maxWaiting || f.waitingBytes > maxWaitingBytes+sizeOf(f.waiting[2]) {
			t.Fatalf("%d events of %d bytes wait", len(f.waiting), f.waitingBytes)
		}
	}
	for f.position < last {
		page := &wire.StreamPage{}
		for seq := f.position + 1; seq <= last && len(page.Events) < 500; seq++ {
			page.Events = append(page.Events, wire.StoredEvent{Topic: "a", Data: data, Seq: seq, Time: int64(seq)})
		}
		page.End = len(page.Events) < 500
		was := f.position
		f.read(r.life, page)
		if f.position == was {
			t.Fatal("it stands")
		}
	}
	for k, e := range r.log {
		if e != fmt.Sprint(k+1) {
			t.Fatalf("event %d is %s", k, e)
		}
	}
	if len(f.waiting) != 0 || f.waitingBytes != 0 || len(f.window.events) > windowEvents || f.window.bytes > windowBytes {
		t.Errorf("%d wait, %d bytes; the window has %d, %d bytes", len(f.waiting), f.waitingBytes, len(f.window.events), f.window.bytes)
	}
	if got, ok := f.window.between(f.window.from, last); !ok || len(got) != len(f.window.events) || got[0].Seq != f.window.from+1 {
		t.Errorf("the window begins at %d", f.window.from)
	}
}
