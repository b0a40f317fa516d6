package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

const (
	receivers = 500
	perTopic  = 10
)

// receiver is a subscriber that is told on its topic when each event was sent:
// [number, Unix nanoseconds], without a gap.
type receiver struct {
	*peer
	topic int
	exp   int64  // Unix nanoseconds; 0: for a long time
	renew string // what it sends when it is warned
	ends  string // with what its subscription ends
	next  int64  // number of the event that must come next; 0: any
	last  int64  // when the last event was sent that has come
}

// listen takes events until the subscription ends or, where it does not, until
// the last event has come. seen is told of each.
func (r *receiver) listen(seen func(number int64)) error {
	prefix := fmt.Sprintf(`{"type":"event","topic":"t.%d","data":`, r.topic)
	for {
		m, err := r.read()
		if err != nil {
			return err
		}
		data, isEvent := strings.CutPrefix(m, prefix)
		switch {
		case isEvent:
			var x [2]int64
			if err := json.Unmarshal([]byte(strings.TrimSuffix(data, "}")), &x); err != nil {
				return err
			}
			number, sent := x[0], x[1]
			if sent == 0 {
				if r.exp != 0 && r.renew == "" {
					return fmt.Errorf("its token expired before the last event came")
				}
				return nil
			}
			if r.next != 0 && number != r.next {
				return fmt.Errorf("event %d came for %d", number, r.next)
			}
			if r.exp != 0 && r.renew == "" && sent >= r.exp {
				return fmt.Errorf("an event that was sent %v after exp", time.Duration(sent-r.exp))
			}
			r.next, r.last = number+1, sent
			seen(number)
		case strings.Contains(m, `"expiring"`):
			if r.renew != "" {
				if err := wsutil.WriteClientText(r.conn, []byte(r.renew)); err != nil {
					return err
				}
			}
		case m == r.ends:
			if now := time.Now().UnixNano(); now < r.exp {
				return fmt.Errorf("ended %v before exp", time.Duration(r.exp-now))
			}
			return nil
		default:
			return fmt.Errorf("%.200s", m)
		}
	}
}

// Under 1,000 events a second, 500 subscribers whose tokens expire at different
// moments: none gets an event that was sent at or after its token's exp, none
// lacks one that was sent before, and those that refresh, in either way, get
// all, each once.
func TestReceiversExpire(t *testing.T) {
	t.Parallel()
	// A loop reads the clock once a turn, which may take long on a busy machine: an event is sent at the time that all
	// loops have seen.
	var turns [2]atomic.Int64
	clock := func() int64 { return min(turns[0].Load(), turns[1].Load()) }
	n := start(t, setup{alg: "HS256", server: server.Options{
		ExpiryNotice: 10 * time.Second,
		Loop: loop.Options{Loops: len(turns), OnTurn: func(l *loop.Loop, _ int) {
			turns[l.Index()].Store(time.Now().UnixNano())
		}},
	}})
	mint := func(exp int64) string {
		return sign(t, n.key, authz.Claims{ID: fmt.Sprint(serial.Add(1)), Subject: "r", Expires: time.Unix(0, exp), Subscribe: []string{"t.*"}})
	}
	far := time.Now().Add(hour).UnixNano()
	// Late enough for all to connect before, and for those that refresh to be warned and do so.
	begin := time.Now().Add(12 * time.Second).Truncate(time.Second)
	var all []*receiver
	for i := range receivers {
		r := &receiver{topic: i / perTopic, exp: begin.Add(time.Duration(i%4) * time.Second).UnixNano()}
		token, kind := mint(r.exp), i%5
		subscribe := `{"type":"subscribe","id":"s","topic":"t.%d","token":%q}`
		switch kind {
		case 0: // for ever; what it has seen the others must have seen
			r.exp, token = 0, mint(far)
		case 1:
			r.ends = fmt.Sprintf(`{"type":"expired","topic":"t.%d"}`, r.topic)
		case 2:
			r.renew = fmt.Sprintf(`{"type":"subscribe","topic":"t.%d","token":%q}`, r.topic, mint(far))
		case 3:
			r.ends = "close 4401"
		case 4:
			r.renew = fmt.Sprintf(`{"type":"auth","token":%q}`, mint(far))
		}
		if kind < 3 {
			r.peer = n.dial(t)
			r.send(subscribe, r.topic, token)
		} else {
			r.peer = n.ask(t, bearer(token)).opened()
			r.send(`{"type":"subscribe","id":"s","topic":"t.%d"}`, r.topic)
		}
		r.want(`"ack"`)
		all = append(all, r)
	}

	var arrived [receivers / perTopic]sync.Map // by number: when, at one that stays
	var done sync.WaitGroup
	for i, r := range all {
		done.Go(func() {
			err := r.listen(func(number int64) {
				if i%perTopic == 0 {
					arrived[r.topic].Store(number, time.Now().UnixNano())
				}
			})
			if err != nil {
				t.Errorf("receiver %d: %v", i, err)
			}
		})
	}
	pub, token := n.dial(t), n.all(t)
	var numbers [receivers / perTopic]int64
	sent := 0
	publish := func(at int64) {
		topic := sent % len(numbers)
		sent++
		numbers[topic]++
		pub.send(`{"type":"publish","topic":"t.%d","token":%q,"data":[%d,%d]}`, topic, token, numbers[topic], at)
	}
	time.Sleep(time.Until(begin.Add(-2 * time.Second)))
	from := time.Now()
	for end := begin.Add(3500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for due := int(time.Since(from) / time.Millisecond); sent < due; {
			publish(clock())
		}
	}
	for sent%len(numbers) != 0 {
		publish(clock())
	}
	for range numbers {
		publish(0)
	}
	done.Wait()
	pub.fence() // nothing was refused
	for i, r := range all {
		if r.ends == "" && r.next != numbers[r.topic] {
			t.Errorf("receiver %d, which stays, got %d of %d", i, r.next, numbers[r.topic])
		}
		// The next one reached others so long before exp that it had to come here.
		if at, ok := arrived[r.topic].Load(r.next); ok && r.ends != "" && at.(int64) < r.exp-int64(time.Second) {
			t.Errorf("receiver %d lost an event that others got %v before its exp", i, time.Duration(r.exp-at.(int64)))
		}
		if strings.HasPrefix(r.ends, "{") {
			r.fence() // and nothing came since
		}
	}
}
