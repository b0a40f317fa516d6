package server_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
)

// onNATS starts a node with the stream orders in an embedded NATS whose files are in dir.
func onNATS(t *testing.T, dir, epoch string, key setup, log *zap.Logger) *node {
	t.Helper()
	key.log = log
	key.bus = bus.Options{DataDir: dir, Streams: []bus.StreamOptions{{Name: "orders", Topics: []string{"d.>"}, MaxBytes: 64 << 20, Epoch: epoch}}}
	n := start(t, key)
	eventually(t, "the stream is there", func() bool { ready, _ := n.bus.Streams()[0].Ready(); return ready })
	return n
}

// store publishes events of d.a with the numbers first to last as their data.
func (p *peer) store(token string, first, last int) {
	p.t.Helper()
	for i := first; i <= last; i++ {
		p.send(`{"type":"publish","id":"%d","topic":"d.a","token":%q,"data":%d}`, i, token, i)
		p.want(fmt.Sprintf(`{"type":"ack","id":"%d","seq":`, i))
	}
}

// A stream that was removed and made again while its subscribers listen: they are told of another life, and get what is
// stored in it, and so does a client that comes back from the old one. The log has an error.
func TestStreamIsMadeAnewOnNATS(t *testing.T) {
	log, seen := testkit.Log()
	n := onNATS(t, t.TempDir(), "", setup{}, log)
	token := n.all(t)
	live, pub := n.dial(t), n.dial(t)
	old := live.resume("d.*", token, "")
	pub.store(token, 1, 5)
	live.events(5)
	js, err := jetstream.New(n.bus.Conn())
	if err != nil {
		t.Fatal(err)
	}
	there, err := js.Stream(t.Context(), "notify-orders")
	if err != nil {
		t.Fatal(err)
	}
	config := there.CachedInfo().Config
	if err := js.DeleteStream(t.Context(), "notify-orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	pub.store(token, 6, 13) // beyond the old positions
	var gap got
	if m := live.next(); json.Unmarshal([]byte(m), &gap) != nil || gap.Type != "gap" || gap.Epoch == "" || gap.Epoch == old.Epoch || gap.After != 0 || gap.First != 1 {
		t.Fatalf("got %s", m)
	}
	for i, e := range live.events(8) {
		if e.Seq != uint64(i+1) || string(e.Data) != fmt.Sprint(i+6) {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	for _, since := range []string{`{"seq":5,"epoch":%q}`, `{"seq":100,"epoch":%q}`} {
		p := n.dial(t)
		r := p.resume("d.*", token, fmt.Sprintf(since, old.Epoch))
		if *r.Complete || r.Epoch != gap.Epoch || r.Recovered != 8 || r.First != 1 {
			t.Errorf("since %s: %+v", since, r)
		}
		p.events(8)
		p.fence()
	}
	if errs := seen.FilterLevelExact(zap.ErrorLevel).FilterMessageSnippet("begins anew"); errs.Len() != 1 {
		t.Errorf("%d errors in the log", errs.Len())
	}
}

// A store that was put back to an older copy keeps its epoch. A client that is further than the stream is told that its
// answer is not complete; one that was not further misses nothing. When the operator says what was done, by another
// epoch, clients are told also after the stream has grown beyond their position.
func TestStoreIsPutBackOnNATS(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	with := setup{key: newKey(t, "EdDSA")}
	run := func(declared string, f func(dial func() *peer, token string)) {
		n := onNATS(t, dir, declared, with, zap.NewNop())
		var peers []*peer
		f(func() *peer {
			p := n.dial(t)
			peers = append(peers, p)
			return p
		}, n.all(t))
		for _, p := range peers {
			_ = p.conn.Close()
		}
		n.stop()
	}
	epoch := ""
	run("", func(dial func() *peer, token string) {
		dial().store(token, 1, 5)
		epoch = dial().resume("d.a", token, "").Epoch
	})
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	run("", func(dial func() *peer, token string) { dial().store(token, 6, 9) })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	run("", func(dial func() *peer, token string) {
		for after, complete := range map[int]bool{9: false, 6: false, 5: true, 3: true} {
			p := dial()
			r := p.resume("d.a", token, fmt.Sprintf(`{"seq":%d,"epoch":%q}`, after, epoch))
			want := uint64(5)
			if complete {
				want -= uint64(after)
			}
			if *r.Complete != complete || r.Epoch != epoch || r.Seq != 5 || r.Recovered != want {
				t.Errorf("since %d: %+v, complete %v", after, r, *r.Complete)
			}
			p.events(int(want))
			p.fence()
		}
	})
	for _, declared := range []string{"2", "2", "3"} {
		was := epoch
		run(declared, func(dial func() *peer, token string) {
			dial().store(token, 10, 19)
			r := dial().resume("d.a", token, fmt.Sprintf(`{"seq":4,"epoch":%q}`, was))
			if same := strings.HasSuffix(was, "-"+declared); *r.Complete != same || (r.Epoch == was) != same || !strings.HasSuffix(r.Epoch, "-"+declared) {
				t.Errorf("epoch %s declared, the one before was %s: %+v, complete %v", declared, was, r, *r.Complete)
			}
			epoch = r.Epoch
		})
	}
}

// The same while the feed is open: NATS comes back with an older copy of its store, and goes on from there.
func TestStoreIsPutBackUnderAnOpenFeed(t *testing.T) {
	nats := testkit.StartJetStream(t)
	log, seen := testkit.Log()
	n := start(t, setup{log: log, bus: bus.Options{
		URL: nats.URL(), Streams: []bus.StreamOptions{{Name: "orders", Topics: []string{"d.>"}, MaxBytes: 64 << 20}},
	}})
	eventually(t, "the stream is there", func() bool { ready, _ := n.bus.Streams()[0].Ready(); return ready })
	token := n.all(t)
	live, pub := n.dial(t), n.dial(t)
	old := live.resume("d.*", token, "").Epoch
	pub.store(token, 1, 5)
	nats.Kill(t)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(nats.Store())); err != nil {
		t.Fatal(err)
	}
	nats.Start(t)
	ready := func() {
		eventually(t, "the stream is there", func() bool { ready, _ := n.bus.Streams()[0].Ready(); return ready })
	}
	again := func(data int) {
		for {
			pub.send(`{"type":"publish","id":"a","topic":"d.a","msg_id":"m%d","token":%q,"data":%d}`, data, token, data)
			if m := pub.next(); strings.HasPrefix(m, `{"type":"ack"`) {
				return
			}
		}
	}
	ready()
	for i := 6; i <= 9; i++ {
		again(i)
	}
	live.events(9)
	nats.Kill(t)
	entries, err := os.ReadDir(nats.Store())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(nats.Store(), e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(nats.Store(), os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	nats.Start(t)
	ready()
	again(100) // at a position that was told already
	var gap got
	if m := live.next(); json.Unmarshal([]byte(m), &gap) != nil || gap.Type != "gap" || gap.After != 0 || gap.Epoch != old {
		t.Fatalf("got %s", m)
	}
	last := uint64(0)
	for {
		e := live.events(1)[0]
		if last = e.Seq; string(e.Data) == "100" {
			break
		}
	}
	// The stream gets another epoch, so that clients which are away learn of it, also when it has grown beyond where they
	// were. What was delivered is not delivered again.
	if m := live.next(); json.Unmarshal([]byte(m), &gap) != nil || gap.Type != "gap" || gap.After != 0 || gap.Epoch == old || gap.First != last+1 {
		t.Fatalf("got %s", m)
	}
	for i := 101; i <= 110; i++ {
		again(i)
	}
	for i, e := range live.events(10) {
		if string(e.Data) != fmt.Sprint(101+i) || e.Seq != last+1+uint64(i) {
			t.Errorf("%+v", e)
		}
	}
	p := n.dial(t)
	if r := p.resume("d.a", token, fmt.Sprintf(`{"seq":9,"epoch":%q}`, old)); *r.Complete || r.Epoch != gap.Epoch || r.First != 1 {
		t.Errorf("%+v, complete %v", r, *r.Complete)
	}
	if errs := seen.FilterLevelExact(zap.ErrorLevel).FilterMessageSnippet("begins anew"); errs.Len() != 1 {
		t.Errorf("%d errors in the log", errs.Len())
	}
}
