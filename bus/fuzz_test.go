package bus

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/bus/bustest"
)

// strange is what other NATS clients, or mappings of subjects, may bring.
var strange = []string{
	"", ".", "a", "notify", "notify.ev", "notify.ev.", "notify.ev.a", "notify.ev.a.b", "notify.ev..", "notify.ev.*", "notify.ev.>", "notify.ev.a.>",
	"other.subject.that.is.long", "$SYS.x", "notify.ev.\xff\xfe", "notify.ev.\u00e4", "notify.ev." + strings.Repeat("a.", 300),
	"notify.ev." + strings.Repeat("x", 4000), "NOTIFY.EV.A",
}

// fixture is a bus with a subscription to a topic, and to patterns, and without a NATS.
func fixture() (b *Bus, topic *subscription, l *link) {
	b = &Bus{log: zap.NewNop(), sink: bustest.NewRecorder(), subject: "notify.ev.", quit: make(chan struct{})}
	b.interest.init()
	for i, pattern := range []string{"a", "*", "a.*", "a.>", ">"} {
		sub := &subscription{pattern: pattern, wild: i > 0, sid: uint64(2 * (i + 1))}
		sub.handle.Store(hasHandle | uint64(i))
		if topic == nil {
			topic = sub
		} else {
			b.interest.patterns.add(sub)
		}
	}
	l = &link{b: b, subs: map[uint64]*subscription{topic.sid: topic}}
	b.events = l
	return b, topic, l
}

// No subject and no payload of a message from NATS ends the process, whichever way it comes.
func FuzzEvent(f *testing.F) {
	for _, subject := range strange {
		f.Add(subject, []byte(`{"a":1}`))
		f.Add(subject, []byte("\x00\xff\r\nMSG a 1 1\r\n"))
	}
	f.Fuzz(func(_ *testing.T, subject string, data []byte) {
		b, topic, l := fixture()
		of := &nats.Subscription{}
		b.interest.bySub.Store(of, topic)
		s := &shard{sink: b.sink}
		for _, sub := range []*nats.Subscription{of, {Queue: "node"}, {}} {
			b.event(s, &nats.Msg{Subject: subject, Data: data, Sub: sub})
		}
		for _, sid := range []uint64{topic.sid, ofPatterns, 0, 999} {
			l.event(msg{subject: []byte(subject), sid: sid, size: len(data)}, data)
		}
	})
}

// Whatever the embedded server writes is understood or refused, wherever a read cuts it.
func FuzzLinkOperations(f *testing.F) {
	for _, subject := range strange {
		f.Add(fmt.Appendf(nil, "MSG %s 2 1\r\nx\r\n", subject), uint16(9))
		f.Add(fmt.Appendf(nil, "PING\r\nMSG %s 3 reply.to 2\r\nxy\r\nPONG\r\n", subject), uint16(20))
	}
	for _, text := range []string{
		"\n", "\r\n", "M", "MSG", "MSG ", "MSG \r\n", "MSG  \r\n", "MSG a 1\r\n", "MSG a b c\r\n", "MSG a 1 -1\r\n", "MSG a 1 99999999999999999999\r\n",
		"HMSG a 1 2 3\r\n", "PONG\r\nPONG\r\n", "-ERR\r\n", "-ERR 'x'\r\n", "INFO {\r\n", "+OK\r\n", "ping\r\n",
	} {
		f.Add([]byte(text), uint16(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint16) {
		_, _, l := fixture()
		at := min(int(cut), len(text))
		used, _, err := l.readOperations(text[:at])
		if used > at || used < 0 {
			t.Fatalf("%d of %d bytes are used", used, at)
		}
		if err == nil {
			if again, _, _ := l.readOperations(text[used:]); again > len(text)-used || again < 0 {
				t.Fatalf("%d of %d bytes are used", again, len(text)-used)
			}
		}
	})
}
