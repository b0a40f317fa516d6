package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// inNATS is a stream as a client of NATS has it.
func inNATS(t *testing.T, s *Stream) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js, err := jetstream.New(s.bus.conn)
	if err != nil {
		t.Fatal(err)
	}
	there, err := js.Stream(t.Context(), s.want.Name)
	if err != nil {
		t.Fatal(err)
	}
	return js, there
}

// consumersOf gives the names of the consumers of a stream in NATS.
func consumersOf(t *testing.T, s *Stream) (names []string) {
	t.Helper()
	_, there := inNATS(t, s)
	list := there.ConsumerNames(t.Context())
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

func fillKept(t *testing.T, s *Stream, n int) {
	t.Helper()
	for i := range n {
		bustest.MustStore(t, s, fmt.Sprint("kept.", i%3), fmt.Sprint(i))
	}
}

// A reader that goes on has a consumer, which ends with it. Where the consumer is lost, or is late, the reader goes on without
// one until the next page.
func TestReaderGoesOn(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s, _ := openKept(t, func(*StreamOptions) {})
		fillKept(t, s, 300)
		page, err := s.Read(t.Context(), "kept.*", 0, 50, 1<<20)
		all := page.Events
		if names := consumersOf(t, s); len(names) != 0 {
			t.Errorf("the first page needs %v", names)
		}
		with := 0 // pages that had one
		for err == nil && !page.End {
			if page, err = page.Next(t.Context(), 50, 1<<20); err != nil {
				t.Fatal(err)
			}
			all = append(all, page.Events...)
			names := consumersOf(t, s)
			switch {
			case len(names) == 1 && len(all) < 250 && lost:
				js, _ := jetstream.New(s.bus.conn)
				if err := js.DeleteConsumer(t.Context(), s.want.Name, names[0]); err != nil {
					t.Fatal(err)
				}
			case len(names) > 1:
				t.Errorf("consumers: %v", names)
			}
			with += len(names)
		}
		if with < 2 {
			t.Errorf("%d pages had a consumer", with)
		}
		if len(all) != 300 {
			t.Fatalf("%d events", len(all))
		}
		for i, e := range all {
			if e.Seq != uint64(i+1) || e.Prev != uint64(max(0, i-2)) || string(e.Data) != fmt.Sprint(i) {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
		testkit.Eventually(t, "no consumer is left", func() bool { return len(consumersOf(t, s)) == 0 })
	}
}

// A page that nobody asks for keeps nothing: neither its consumer in NATS, nor what it was asked for.
func TestReaderThatIsLeft(t *testing.T) {
	t.Parallel()
	s, _ := openKept(t, func(*StreamOptions) {})
	fillKept(t, s, 100)
	page, err := s.Read(t.Context(), "kept.*", 0, 10, 1<<20)
	if err == nil {
		page, err = page.Next(t.Context(), 10, 1<<20)
	}
	if err != nil || page.Next == nil || len(consumersOf(t, s)) != 1 {
		t.Fatal("no consumer", err)
	}
	open := func() int {
		r := &s.bus.sc.readings
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.open)
	}
	testkit.Eventually(t, "nothing is left", func() bool { return len(consumersOf(t, s)) == 0 && open() == 0 })
	// One that comes late reads on nevertheless.
	if page, err = page.Next(t.Context(), 10, 1<<20); err != nil || len(page.Events) != 10 || page.Events[0].Seq != 21 {
		t.Errorf("%+v %v", page.Events, err)
	}
}

// An event that is larger than a page comes, and what follows it.
func TestReaderOfLargeEvents(t *testing.T) {
	s, _ := openKept(t, func(*StreamOptions) {})
	for i := range 60 {
		bustest.MustStore(t, s, fmt.Sprint("kept.", i%3), strings.Repeat("x", 1+i%20*300))
	}
	seen := 0
	page, err := s.Read(t.Context(), "kept.*", 0, 50, 1000)
	for ; err == nil; page, err = page.Next(t.Context(), 50, 1000) {
		for i, e := range page.Events {
			if e.Seq != uint64(seen+1) || len(e.Data) != 1+seen%20*300 || e.Prev != uint64(max(0, seen-2)) || i > 50 {
				t.Fatalf("event %d is %d, behind %d", seen, e.Seq, e.Prev)
			}
			seen++
		}
		if page.End {
			break
		}
	}
	if err != nil || seen != 60 {
		t.Errorf("%d events, %v", seen, err)
	}
}

// What the stream has of topics that are declared no more is not given to a reader of those that are.
func TestReaderOfTopicsThatAreDeclared(t *testing.T) {
	url := testkit.ServeNATS(t, server.Options{JetStream: true, StoreDir: t.TempDir()})
	open := func(topics ...string) *Stream {
		s, _ := openStream(t, Options{URL: url, Streams: []StreamOptions{{Name: "kept", Topics: topics, MaxAge: time.Hour}}})
		return s
	}
	both := open("kept.>", "more.>")
	for i := range 40 {
		bustest.MustStore(t, both, fmt.Sprint([]string{"kept.", "more."}[i%2], i%3), "1")
	}
	s := open("kept.>")
	seen := 0
	page, err := s.Read(t.Context(), "kept.>", 0, 3, 1<<20)
	for ; err == nil; page, err = page.Next(t.Context(), 3, 1<<20) {
		for _, e := range page.Events {
			if seen++; !wire.Covers("kept.>", e.Topic) || e.Seq != uint64(2*seen-1) {
				t.Fatalf("event %d is %+v", seen, e)
			}
		}
		if page.End {
			break
		}
	}
	if err != nil || seen != 20 {
		t.Errorf("%d events, %v", seen, err)
	}
}

// Where NATS permits no consumers a reader does without them.
func TestReaderWithoutConsumers(t *testing.T) {
	t.Parallel()
	url := testkit.ServeNATS(t, server.Options{JetStream: true, StoreDir: t.TempDir(), Users: []*server.User{{
		Username: "u", Password: "p",
		Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.>"}}},
	}}})
	s, _ := openStream(t, Options{URL: url, User: "u", Password: "p", Streams: []StreamOptions{{Name: "kept", Topics: []string{"kept.>"}, MaxAge: time.Hour}}})
	fillKept(t, s, 100)
	seen := 0
	page, err := s.Read(t.Context(), "kept.>", 0, 10, 1<<20)
	for ; err == nil; page, err = page.Next(t.Context(), 10, 1<<20) {
		if seen += len(page.Events); page.End {
			break
		}
	}
	if err != nil || seen != 100 || s.noConsumers.Load() == 0 {
		t.Errorf("%d events, %v", seen, err)
	}
}

// Names of domains and accounts may be in front of the stream's.
func TestDeliveryOf(t *testing.T) {
	want := delivery{seq: 20, number: 3, time: 1764000000000000001, pending: 7}
	for _, reply := range []string{
		"$JS.ACK.notify-kept.notifyd-x-1.1.20.3.1764000000000000001.7",
		"$JS.ACK._.hash.notify-kept.notifyd-x-1.1.20.3.1764000000000000001.7",
		"$JS.ACK.domain.hash.notify-kept.notifyd-x-1.1.20.3.1764000000000000001.7.random",
	} {
		if d, ok := deliveryOf(reply); !ok || d != want {
			t.Errorf("%s: %+v %v", reply, d, ok)
		}
	}
	for _, reply := range []string{"", "$JS.ACK.", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.1.x.3.4.5", "$JS.ACK.a.b.1.2.3.4.-5", "_INBOX.x.r.1"} {
		if d, ok := deliveryOf(reply); ok {
			t.Errorf("%s: %+v", reply, d)
		}
	}
}

// A page of many topics asks for the events before them a few topics at a time: JetStream stores nothing while it looks.
func TestEventsBeforeAreAskedForInParts(t *testing.T) {
	const topics = 5*topicsAtOnce/2 + 1
	s, _ := openKept(t, func(*StreamOptions) {})
	for i := range 2 * topics {
		bustest.MustStore(t, s, fmt.Sprintf("kept.%d", i%topics), "1")
	}
	asked, err := s.bus.conn.SubscribeSync("$JS.API.DIRECT.GET." + s.want.Name)
	if err != nil || s.bus.conn.Flush() != nil {
		t.Fatal(err)
	}
	page, err := s.Read(t.Context(), "kept.>", topics, topics, 1<<20)
	if err != nil || len(page.Events) != topics {
		t.Fatalf("%d events, %v", len(page.Events), err)
	}
	for i, e := range page.Events {
		if e.Seq != uint64(topics+i+1) || e.Prev != uint64(i+1) {
			t.Fatalf("event %d is %d behind %d", i, e.Seq, e.Prev)
		}
	}
	for all := 0; all < topics; {
		m, err := asked.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatalf("%d topics were asked for: %v", all, err)
		}
		var q getRequest
		if err := json.Unmarshal(m.Data, &q); err != nil {
			t.Fatal(err)
		}
		if all += len(q.MultiLast); len(q.MultiLast) > topicsAtOnce {
			t.Errorf("%d topics at once", len(q.MultiLast))
		}
	}
}

// What came before an event is not taken from a replica that is behind: one that had hung told of 0.
func TestReplicaThatIsBehind(t *testing.T) {
	t.Parallel()
	s, _ := openKept(t, func(*StreamOptions) {})
	s.want.Replicas = 3 // as far as reading is concerned
	bustest.Subscribe(t, s.bus, 1, "kept.>")
	fillKept(t, s, 12)
	testkit.Eventually(t, "memory has all", func() bool {
		n := 0
		return s.Recent(0, math.MaxUint64, ">", func(*wire.StoredEvent) bool { n++; return true }) && n == 12
	})
	topics := []string{"kept.0", "kept.1", "kept.2"}
	prevs := func() (string, error) {
		last := map[string]uint64{}
		err := s.lastInto(t.Context(), last, topics, 5)
		return fmt.Sprint(last), err
	}
	if got, err := prevs(); err != nil || got != "map[kept.0:4 kept.1:5 kept.2:3]" {
		t.Errorf("%s, %v", got, err)
	}
	topics = topics[2:] // the witness is of another topic
	if got, err := prevs(); err != nil || got != "map[kept.1:5 kept.2:3]" {
		t.Errorf("%s, %v", got, err)
	}

	js, there := inNATS(t, s)
	config := there.CachedInfo().Config
	config.AllowDirect = false // this answers instead, as a replica that has come to 2, and to none
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	for _, come := range []int{2, 0} {
		replica, err := s.bus.conn.Subscribe("$JS.API.DIRECT.GET."+s.want.Name, func(m *nats.Msg) {
			before := ""
			for seq := 1; seq <= come; seq++ {
				_ = m.RespondMsg(&nats.Msg{Data: []byte("1"), Header: nats.Header{
					"Nats-Subject": {s.bus.subject + fmt.Sprint("kept.", seq-1)}, "Nats-Sequence": {strconv.Itoa(seq)}, "Nats-Last-Sequence": {before},
					"Nats-Time-Stamp": {"2026-02-01T10:00:00Z"},
				}})
				before = strconv.Itoa(seq)
			}
			end := nats.Header{"Status": {"404"}}
			if come > 0 {
				end = nats.Header{"Status": {"204"}, "Nats-Last-Sequence": {before}}
			}
			_ = m.RespondMsg(&nats.Msg{Header: end})
		})
		if err != nil || s.bus.conn.Flush() != nil {
			t.Fatal(err)
		}
		if got, err := prevs(); !errors.Is(err, errBehind) {
			t.Errorf("%s, %v, of a replica that has %d", got, err, come)
		}
		if err := replica.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
	config.AllowDirect = true
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}

	topics = nil // so long that they are asked for in parts, of which each has to have the witness
	asked, err := s.bus.conn.SubscribeSync("$JS.API.DIRECT.GET." + s.want.Name)
	if err != nil || s.bus.conn.Flush() != nil {
		t.Fatal(err)
	}
	for i := range 2 * topicsAtOnce {
		topics = append(topics, fmt.Sprintf("kept.%d.%s", i, strings.Repeat("x", 900)))
	}
	if got, err := prevs(); err != nil || got != "map[kept.1:5]" {
		t.Errorf("%s, %v", got, err)
	}
	for all := 0; all < len(topics); {
		m, err := asked.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatalf("%d topics were asked for: %v", all, err)
		}
		var q getRequest
		if err := json.Unmarshal(m.Data, &q); err != nil {
			t.Fatal(err)
		}
		if all += len(q.MultiLast) - 1; q.MultiLast[0] != s.bus.subject+"kept.1" || len(q.MultiLast) > topicsAtOnce || len(m.Data) > 48<<10 {
			t.Errorf("%d topics and %.20s in %d bytes", len(q.MultiLast), q.MultiLast[0], len(m.Data))
		}
	}

	if err := there.DeleteMsg(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	for _, known := range []bool{true, false} {
		if !known {
			s.follower.feed.window.reset(12) // memory has nothing, and nothing shows that the replica had come to 5
		}
		page, err := s.Read(t.Context(), "kept.>", 5, 100, 1<<20)
		if err != nil || len(page.Events) != 7 {
			t.Fatalf("%d events, %v", len(page.Events), err)
		}
		for i, e := range page.Events {
			want := e.Seq - 3
			if i < 3 && !known {
				want = wire.PrevUnknown
			}
			if e.Prev != want {
				t.Errorf("%d came before %d, want %d", e.Prev, e.Seq, want)
			}
		}
	}

	if err := there.Purge(t.Context(), jetstream.WithPurgeSequence(7)); err != nil { // the stream begins with 7
		t.Fatal(err)
	}
	if head, err := s.Head(t.Context()); err != nil || head.First != 7 {
		t.Fatalf("%+v, %v", head, err)
	}
	page, err := s.Read(t.Context(), "kept.0", 5, 1, 1<<20)
	if err != nil || len(page.Events) != 1 || page.Events[0].Prev != 0 {
		t.Errorf("%+v, %v: nothing is left that could come before", page.Events, err)
	}
}
