package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/wire"
	"pgregory.net/rapid"
)

// whole is a history in which every promise was kept. Its first reader saw four events or more of three topics, so two of
// some topic.
type whole struct {
	acks    []Ack
	events  []Event
	readers []Reader
}

func draw(t *rapid.T) *whole {
	h := &whole{}
	seq := uint64(rapid.IntRange(1, 1000).Draw(t, "first"))
	ofTopic := map[string]uint64{}
	for i := range rapid.IntRange(6, 60).Draw(t, "events") {
		topic := rapid.SampledFrom([]string{"a.1", "a.2", "b.1"}).Draw(t, "topic")
		e := Event{topic, fmt.Sprint("event ", i), seq, ofTopic[topic]}
		h.events = append(h.events, e)
		if rapid.Bool().Draw(t, "acked") || i == 0 {
			h.acks = append(h.acks, Ack{e.Topic, e.Data, e.Seq})
		}
		ofTopic[topic] = seq
		seq += uint64(rapid.IntRange(1, 3).Draw(t, "step")) // some were discarded
	}
	for _, pattern := range []string{">", "a.*", "b.1"} {
		r := Reader{Name: "reader of " + pattern, Pattern: pattern}
		if rapid.Bool().Draw(t, "from the middle") {
			r.After = h.events[1].Seq
		}
		resumes := pattern != ">" // the faults are planted in the other one
		for _, e := range h.events {
			if e.Seq > r.After && wire.Covers(pattern, e.Topic) {
				if resumes && rapid.IntRange(0, 3).Draw(t, "resumes") == 0 {
					r.Resumed = append(r.Resumed, len(r.Seen))
				}
				since := 0
				if n := len(r.Resumed); n > 0 {
					since = r.Resumed[n-1]
				}
				if !slices.ContainsFunc(r.Seen[since:], func(x Event) bool { return x.Topic == e.Topic }) && rapid.Bool().Draw(t, "untold") {
					e.Prev = PrevUnknown
				}
				r.Seen = append(r.Seen, e)
			}
		}
		h.readers = append(h.readers, r)
	}
	return h
}

// A whole history has no fault.
func TestWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := draw(t)
		if p := Check(h.acks, h.events, h.readers); len(p) > 0 {
			t.Fatalf("%+v\n%s", h, strings.Join(p, "\n"))
		}
	})
}

// Each fault is found wherever it is planted.
func TestPlanted(t *testing.T) {
	for _, fault := range []struct {
		name  string
		plant func(t *rapid.T, h *whole)
		want  string
	}{
		{"a reader loses an event", func(t *rapid.T, h *whole) {
			s := &h.readers[0].Seen
			i := rapid.IntRange(0, len(*s)-1).Draw(t, "at")
			*s = slices.Delete(*s, i, i+1)
		}, "never saw"},
		{"a reader loses the last event", func(_ *rapid.T, h *whole) {
			s := &h.readers[0].Seen
			*s = (*s)[:len(*s)-1]
		}, "never saw"},
		{"a reader sees one twice", func(t *rapid.T, h *whole) {
			s := &h.readers[0].Seen
			i := rapid.IntRange(0, len(*s)-1).Draw(t, "at")
			*s = slices.Insert(*s, rapid.IntRange(i, len(*s)).Draw(t, "again"), (*s)[i])
		}, "twice"},
		{"two of a topic are swapped", func(t *rapid.T, h *whole) {
			s := h.readers[0].Seen
			for i := range s {
				for j := i + 1; j < len(s); j++ {
					if s[i].Topic == s[j].Topic {
						s[i], s[j] = s[j], s[i]
						return
					}
				}
			}
			t.Fatal("no topic has two")
		}, "after"},
		{"prev is another", func(t *rapid.T, h *whole) {
			s := h.readers[0].Seen
			i := rapid.IntRange(0, len(s)-1).Draw(t, "at")
			s[i].Prev = s[i].Seq - 1
			if s[i].Prev == prevOf(h, s[i].Seq) {
				s[i].Prev += 7
			}
		}, "came before"},
		{"prev is missing in the middle", func(t *rapid.T, h *whole) {
			s := h.readers[0].Seen
			for i := range s {
				if slices.ContainsFunc(s[:i], func(e Event) bool { return e.Topic == s[i].Topic }) {
					s[i].Prev = PrevUnknown
					return
				}
			}
			t.Fatal("no topic has two")
		}, "was not told"},
		{"an event of another topic", func(_ *rapid.T, h *whole) {
			r := &h.readers[0]
			r.Pattern = "elsewhere"
		}, "not for it"},
		{"other data", func(_ *rapid.T, h *whole) { h.readers[0].Seen[0].Data = "other" }, "it is"},
		{"from nowhere", func(_ *rapid.T, h *whole) { h.readers[0].Seen[0].Seq += 1 << 40 }, "does not hold"},
		{"the stream loses what was acknowledged", func(_ *rapid.T, h *whole) {
			h.events = h.events[1:]
			h.readers = nil
		}, "acknowledged and lost"},
		{"the stream has something else there", func(_ *rapid.T, h *whole) { h.events[0].Data = "other" }, "acknowledged and lost"},
		{"stored twice", func(_ *rapid.T, h *whole) {
			e := h.events[0]
			e.Seq = h.events[len(h.events)-1].Seq + 1
			h.events = append(h.events, e)
		}, "twice"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				h := draw(t)
				fault.plant(t, h)
				p := Check(h.acks, h.events, h.readers)
				if !slices.ContainsFunc(p, func(s string) bool { return strings.Contains(s, fault.want) }) {
					t.Fatalf("not found: %q", p)
				}
			})
		})
	}
}

func prevOf(h *whole, seq uint64) uint64 {
	for _, e := range h.events {
		if e.Seq == seq {
			return e.Prev
		}
	}
	return 0
}

// A hole that was told is none; what lies beside it still is.
func TestGap(t *testing.T) {
	events := []Event{{"a", "1", 1, 0}, {"a", "2", 2, 1}, {"a", "3", 3, 2}, {"a", "4", 4, 3}}
	r := Reader{Name: "r", Pattern: "a", Seen: []Event{events[0], events[3]}, Gaps: []Gap{{After: 1, First: 4}}}
	if p := Check(nil, events, []Reader{r}); len(p) > 0 {
		t.Error(p)
	}
	r.Gaps[0].First = 3
	if p := Check(nil, events, []Reader{r}); len(p) != 1 || !strings.Contains(p[0], "never saw 3") {
		t.Error(p)
	}
}
