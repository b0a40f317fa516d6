package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// says sends a frame.
func (p *peer) says(t *testing.T, frame []byte) {
	t.Helper()
	if err := p.send(frame); err != nil {
		t.Errorf("send: %v", err)
	}
}

// resumes answers a subscribe, after it has checked from where it is.
func (p *peer) resumes(t *testing.T, after uint64, r wire.Resumption) {
	t.Helper()
	ask := p.next(t, wire.Subscribe)
	if ask.since.Kind != wire.SinceSeq || ask.since.N != after || string(ask.since.Epoch) != "e" {
		t.Errorf("subscribed since %+v, want %d", ask.since, after)
	}
	r.Stream, r.Epoch, r.Complete = "s", "e", r.First == 0
	p.says(t, wire.AppendResumeAck(nil, []byte(ask.id), 1<<40, &r))
}

// stores sends the event seq of the topic a.1, whose data is its seq.
func (p *peer) stores(t *testing.T, seq uint64) {
	t.Helper()
	p.says(t, wire.AppendStoredEvent(nil, "a.*", &wire.StoredEvent{
		Topic: "a.1", Data: fmt.Append(nil, seq), Seq: seq, Prev: seq - 1, Time: int64(seq) * 1e9, From: "alice",
	}))
}

// follower is a client with a subscription to durable topics.
type follower struct {
	*moved
	gaps   chan Gap
	errs   chan error
	handle func(Event)
}

func follow(t *testing.T, opts Options, since Since) *follower {
	t.Helper()
	f := &follower{
		moved: &moved{f: newPipeFake(t), events: make(chan string, 100), states: make(chan State, 100)},
		gaps:  make(chan Gap, 10), errs: make(chan error, 10),
	}
	f.handle = func(e Event) { f.events <- string(e.Data) }
	f.f.node("one")
	opts.OnError = func(err error) { f.errs <- err }
	f.c = f.f.dial(t, opts)
	f.one = f.f.peer(t)
	done := background(func() (err error) {
		f.sub, err = f.c.SubscribeWith(t.Context(), "a.*", SubscribeOptions{Since: since, OnGap: func(g Gap) { f.gaps <- g }}, func(e Event) { f.handle(e) })
		return err
	})
	if since.wire.Kind == wire.SinceNone {
		ask := f.one.next(t, wire.Subscribe)
		f.one.says(t, wire.AppendResumeAck(nil, []byte(ask.id), 1<<40, &wire.Resumption{Stream: "s", Epoch: "e", Seq: 5, Complete: true}))
	} else {
		f.one.resumes(t, since.wire.N, wire.Resumption{Seq: 5})
	}
	if err := receive(t, done, "SubscribeWith"); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *follower) wantPosition(t *testing.T, seq uint64) {
	t.Helper()
	synctest.Wait()
	if got := f.sub.Position(); got != (Position{seq, "e"}) {
		t.Errorf("position %v, want %d", got, seq)
	}
}

func (f *follower) wantNoErrors(t *testing.T) {
	t.Helper()
	synctest.Wait()
	for len(f.errs) > 0 {
		t.Error(<-f.errs)
	}
	for len(f.gaps) > 0 {
		t.Errorf("%+v", <-f.gaps)
	}
}

// A subscription goes on from its position after its connection was lost, whatever came last.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		f.wantPosition(t, 5)
		got := make(chan Event, 1)
		f.handle = func(e Event) { got <- e }
		f.one.stores(t, 6)
		e := receive(t, got, "event")
		if e.Seq != 6 || e.Prev != 5 || !e.Time.Equal(time.Unix(6, 0)) || e.From != "alice" || e.Topic != "a.1" || e.Pattern != "a.*" {
			t.Errorf("%+v", e)
		}
		f.wantPosition(t, 6)
		f.handle = func(e Event) { f.events <- string(e.Data) }

		_ = f.one.conn.CloseNow()
		two := f.f.peer(t)
		two.resumes(t, 6, wire.Resumption{Seq: 8, Recovered: 2})
		two.stores(t, 7)
		two.stores(t, 8)
		two.stores(t, 9)
		f.want(t, "7", "8", "9")
		f.wantPosition(t, 9)

		_ = two.conn.CloseNow()
		three := f.f.peer(t)
		three.resumes(t, 9, wire.Resumption{Seq: 20})
		f.wantPosition(t, 20) // nothing of it was for this subscription
		_ = three.conn.CloseNow()
		four := f.f.peer(t)
		four.resumes(t, 20, wire.Resumption{Seq: 20})
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// A position that an application has kept is where another client goes on.
func TestResumeFromKeptPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, err := ParsePosition(Position{3, "e"}.String())
		if err != nil {
			t.Fatal(err)
		}
		f := follow(t, Options{}, After(kept))
		f.wantPosition(t, 5) // the answer says that nothing came since
		f.one.says(t, wire.AppendStoredEvent(nil, "a.*", &wire.StoredEvent{Topic: "a.1", Data: []byte("6"), Seq: 6, Prev: 3}))
		f.want(t, "6")
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// What the handler has not seen is not behind the position, so that an application which ends here reads it again.
func TestPositionIsTheHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		wait := make(chan struct{})
		f.handle = func(e Event) { <-wait; f.events <- string(e.Data) }
		f.one.stores(t, 6)
		f.one.stores(t, 7)
		f.wantPosition(t, 5)
		wait <- struct{}{}
		f.wantPosition(t, 6)
		_ = f.one.conn.CloseNow()
		f.f.peer(t).resumes(t, 7, wire.Resumption{Seq: 9}) // but the client has it all the same
		f.wantPosition(t, 6)
		wait <- struct{}{}
		f.wantPosition(t, 9)
		f.want(t, "6", "7")
		f.c.Close()
	})
}

// A new token neither moves the position nor repeats anything.
func TestRenewalKeepsPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		f.one.stores(t, 6)
		f.one.says(t, wire.AppendExpiring(nil, "a.*", time.Now().Add(20*time.Second).Unix()))
		ask := f.one.next(t, wire.Subscribe)
		if ask.since.Kind != wire.SinceNone {
			t.Errorf("a renewal reads since %+v", ask.since)
		}
		f.one.says(t, wire.AppendResumeAck(nil, []byte(ask.id), 1<<40, &wire.Resumption{Stream: "s", Epoch: "e", Seq: 90, Complete: true}))
		f.wantPosition(t, 6)
		f.one.stores(t, 7)
		f.want(t, "6", "7")
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// The token may end while its successor is on the way. The server takes that for a new subscription then, and what was
// between the two is read.
func TestRenewalThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		f.one.says(t, wire.AppendExpiring(nil, "a.*", time.Now().Add(20*time.Second).Unix()))
		ask := f.one.next(t, wire.Subscribe)
		f.one.says(t, wire.AppendExpired(nil, "a.*"))
		f.one.says(t, wire.AppendResumeAck(nil, []byte(ask.id), 1<<40, &wire.Resumption{Stream: "s", Epoch: "e", Seq: 7, Complete: true}))
		f.one.stores(t, 8)
		f.want(t)
		f.one.resumes(t, 5, wire.Resumption{Seq: 8, Recovered: 3})
		for seq := uint64(6); seq <= 9; seq++ {
			f.one.stores(t, seq)
		}
		f.want(t, "6", "7", "8", "9")
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// A node that restarts is left when another one brings the events. Each comes once, at once and in order.
func TestRestartMovesDurableSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		f.one.stores(t, 6)
		f.f.node("two")
		f.one.restart(t)
		f.one.stores(t, 7)
		f.want(t, "6", "7")
		f.two = f.f.peer(t)
		f.two.resumes(t, 7, wire.Resumption{Seq: 8, Recovered: 1})
		f.one.stores(t, 8)
		f.want(t, "8")
		f.two.stores(t, 8)
		f.two.stores(t, 9)
		f.want(t, "9") // nothing is held back
		f.one.stores(t, 9)
		f.one.ack(t, f.one.next(t, wire.Unsubscribe))
		f.two.stores(t, 10)
		f.want(t, "10")
		f.one.closes(t)
		f.wantPosition(t, 10)
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// A handler that is too slow for its queue loses nothing: the server is told to stop, and what follows is read from the
// stream when the handler has caught up.
func TestSlowHandlerOfDurableTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := Event{Topic: "a.1", Data: []byte("6"), From: "alice"}
		f := follow(t, Options{QueueBytes: 2 * e.size()}, Since{})
		next := make(chan struct{})
		f.handle = func(e Event) { <-next; f.events <- string(e.Data) }
		for seq := uint64(6); seq <= 9; seq++ { // one is handled, two wait
			f.one.stores(t, seq)
			synctest.Wait()
		}
		f.one.ack(t, f.one.next(t, wire.Unsubscribe))
		f.wantPosition(t, 5)
		for range 3 {
			if synctest.Wait(); len(f.one.got) > 0 {
				t.Error("asked for more before the handler was done")
			}
			next <- struct{}{}
		}
		f.one.resumes(t, 8, wire.Resumption{Seq: 9, Recovered: 1})
		f.one.stores(t, 9)
		next <- struct{}{}
		f.want(t, "6", "7", "8", "9")
		if err := receive(t, f.errs, "error"); !errors.Is(err, ErrBehind) {
			t.Error(err)
		}
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// What the stream had to discard is told, in its place.
func TestGapIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		wantGap := func(want Gap) {
			t.Helper()
			want.Pattern = "a.*"
			if got := receive(t, f.gaps, "gap"); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
		f.one.says(t, wire.AppendGap(nil, "a.*", "", 5, 9))
		wantGap(Gap{After: 5, First: 9})
		f.wantPosition(t, 8)
		_ = f.one.conn.CloseNow()
		two := f.f.peer(t)
		two.resumes(t, 8, wire.Resumption{Seq: 20, Recovered: 1, First: 12})
		wantGap(Gap{After: 8, First: 12})
		two.stores(t, 20)
		f.want(t, "20")

		// A token that may read no history: from now on, and what is between is a gap.
		_ = two.conn.CloseNow()
		three := f.f.peer(t)
		three.refuse(t, three.next(t, wire.Subscribe), wire.HistoryUnavailable)
		ask := three.next(t, wire.Subscribe)
		if ask.since.Kind != wire.SinceNone {
			t.Errorf("since %+v", ask.since)
		}
		three.says(t, wire.AppendResumeAck(nil, []byte(ask.id), 1<<40, &wire.Resumption{Stream: "s", Epoch: "e", Seq: 30, Complete: true}))
		wantGap(Gap{After: 20, First: 31})
		f.wantPosition(t, 30)
		f.wantNoErrors(t)
		f.c.Close()
	})
}

// Without OnGap, OnError has it.
func TestGapIsNeverSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		f.sub.opts.OnGap = nil
		f.one.says(t, wire.AppendGap(nil, "a.*", "", 5, 9))
		var gap *Gap
		if err := receive(t, f.errs, "error"); !errors.As(err, &gap) || err.Error() != "a.*: the events after 5 and before 9 are gone" {
			t.Error(err)
		}
		f.one.says(t, wire.AppendGap(nil, "a.*", "f", 0, 1))
		if err := receive(t, f.errs, "error"); !errors.As(err, &gap) || gap.Epoch != "f" || err.Error() != "a.*: the stream was made anew, what came after 8 is gone" {
			t.Error(err)
		}
		f.c.Close()
	})
}

// The server's broken promise is an error of its own.
func TestOrderErrorIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Options{}, Since{})
		for _, seq := range []uint64{6, 8, 8} {
			f.one.stores(t, seq)
		}
		f.want(t, "6", "8")
		for _, want := range []string{"a.1: event 8 follows 7, but the last that came is 6", "a.1: the server sent event 8 after 8"} {
			var order *OrderError
			if err := receive(t, f.errs, "error"); !errors.As(err, &order) || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		unknown := OrderError{Topic: "a", Seq: 3, Prev: wire.PrevUnknown, Last: 1}
		if text := unknown.Error(); text != "a: the server did not say what was before event 3; the last that came is 1" {
			t.Error(text)
		}
		f.c.Close()
	})
}

// A since that the application asks for and cannot have ends the subscription; its connection lost, it is asked for again.
func TestSince(t *testing.T) {
	at := time.Date(2026, 2, 1, 10, 0, 0, 0, time.UTC)
	for name, x := range map[string]struct {
		since Since
		want  wire.Since
	}{
		"after":      {After(Position{7, "e"}), wire.Since{Kind: wire.SinceSeq, N: 7, Epoch: []byte("e")}},
		"everything": {Everything(), wire.Since{Kind: wire.SinceSeq}},
		"last":       {Last(3), wire.Since{Kind: wire.SinceLast, N: 3}},
		"time":       {SinceTime(at), wire.Since{Kind: wire.SinceTime, Time: at.UnixNano()}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := f.dial(t, Options{MinBackoff: time.Millisecond})
			p := f.peer(t)
			result := background(func() error {
				_, err := c.SubscribeWith(t.Context(), "a", SubscribeOptions{Since: x.since}, func(Event) {})
				return err
			})
			p.next(t, wire.Subscribe)
			_ = p.conn.CloseNow()
			p = f.peer(t)
			ask := p.next(t, wire.Subscribe)
			if fmt.Sprint(ask.since) != fmt.Sprint(x.want) {
				t.Errorf("%v, want %v", ask.since, x.want)
			}
			p.refuse(t, ask, wire.HistoryUnavailable)
			wantCode(t, receive(t, result, "Subscribe"), wire.HistoryUnavailable)
		})
	}
}

func TestPosition(t *testing.T) {
	for _, text := range []string{"", "7", ".7", "e.", "e.x", "e.-1", "e.18446744073709551616", strings.Repeat("e", 33) + ".7"} {
		if p, err := ParsePosition(text); err == nil {
			t.Errorf("%s is %v", text, p)
		}
	}
	for _, p := range []Position{{0, "e"}, {1<<64 - 1, "k3.x9"}} {
		if got, err := ParsePosition(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
}

// A publish says what the stream is to do with it, and learns what it did.
func TestPublishToStream(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	for _, x := range []struct {
		publication Publication
		ttl         uint32
		token       string
		want        Stored
	}{
		{Publication{Topic: "a", Data: []byte("1"), MsgID: "m", TTL: time.Hour}, 3600, "t0ken", Stored{Seq: 7}},
		{Publication{Topic: "a", Data: []byte("1"), MsgID: "m", TTL: time.Millisecond, Token: "own"}, 1, "own", Stored{Seq: 7, Duplicate: true}},
		{Publication{Topic: "a", Data: []byte("1"), TTL: wire.MaxTTL * time.Second}, wire.MaxTTL, "t0ken", Stored{}},
	} {
		result := make(chan Stored, 1)
		failed := background(func() error {
			stored, err := c.PublishEvent(t.Context(), x.publication)
			result <- stored
			return err
		})
		r := p.next(t, wire.Publish)
		if r.msgID != x.publication.MsgID || r.ttl != x.ttl || r.token != x.token || r.data != "1" {
			t.Errorf("%+v", r)
		}
		if x.want.Seq > 0 {
			p.says(t, wire.AppendStoredAck(nil, []byte(r.id), x.want.Seq, x.want.Duplicate))
		} else {
			p.ack(t, r)
		}
		if err := receive(t, failed, "PublishEvent"); err != nil {
			t.Error(err)
		}
		if got := <-result; got != x.want {
			t.Errorf("%+v, want %+v", got, x.want)
		}
	}
	for _, bad := range []Publication{
		{Topic: "a.*", Data: []byte("1")},
		{Topic: "a", Data: []byte("{")},
		{Topic: "a", Data: []byte("1"), TTL: -1},
		{Topic: "a", Data: []byte("1"), TTL: wire.MaxTTL*time.Second + 1},
		{Topic: "a", Data: []byte("1"), MsgID: strings.Repeat("m", 65)},
	} {
		var refusal *wire.Error
		if _, err := c.PublishEvent(t.Context(), bad); !errors.As(err, &refusal) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if len(p.got) > 0 {
		t.Error("a bad publish was sent")
	}
}

// A token that came with the event is not asked for again.
func TestOwnTokenOfPublication(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	result := background(func() error {
		_, err := c.PublishEvent(t.Context(), Publication{Topic: "a", Data: []byte("1"), Token: "own"})
		return err
	})
	p.refuse(t, p.next(t, wire.Publish), wire.TokenExpired)
	wantCode(t, receive(t, result, "PublishEvent"), wire.TokenExpired)
	if len(p.got) > 0 {
		t.Error("it was sent again")
	}
}
