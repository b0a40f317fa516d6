//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// visit is what split found.
type visit struct {
	op      ws.OpCode
	payload string
}

// splitCut splits b as it would come from reads of these many bytes, in turn.
func splitCut(b []byte, cuts []byte) (frames []visit, rest []byte, err error) {
	var s splitter
	buf := make([]byte, 64)
	for i := 0; len(b) > 0; i++ {
		n := len(b)
		if len(cuts) > 0 {
			n = int(cuts[i%len(cuts)]) + 1
		}
		kept := copy(buf, s.tail)
		n = copy(buf[kept:], b[:min(n, len(b))])
		b = b[n:]
		need, err := s.split(buf[:kept+n], func(f frame) error {
			frames = append(frames, visit{f.op, string(f.payload)})
			return nil
		})
		if err != nil {
			return frames, nil, err
		}
		if need >= len(buf) {
			buf = make([]byte, need+1)
		}
	}
	return frames, s.tail, nil
}

// FuzzSplit holds the splitter to the library's reader, on any bytes cut
// anywhere.
func FuzzSplit(f *testing.F) {
	text := func(n int) []byte {
		b, err := ws.CompileFrame(ws.NewTextFrame(bytes.Repeat([]byte{'x'}, n)))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	all := slices.Concat(text(0), text(1), text(125), text(126), text(300), text(1<<16), ws.CompiledPing, ws.CompiledCloseNormalClosure)
	for _, cut := range []byte{0, 1, 2, 3, 7, 62, 255} {
		f.Add(all, []byte{cut})
	}
	f.Add(all, []byte{0, 200, 3})
	f.Add([]byte{0x81, 0x85, 1, 2, 3, 4, 'a', 'b', 'c', 'd', 'e'}, []byte{0})
	f.Add([]byte{0xc1, 0x00}, []byte{0})
	f.Add([]byte{0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}, []byte{0})
	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		var want []visit
		from := bytes.NewReader(b)
		at, refused := 0, false
		for {
			h, err := ws.ReadHeader(from)
			if errors.Is(err, ws.ErrHeaderLengthMSB) {
				refused = true
			}
			if err != nil {
				break
			}
			if h.Masked || h.Rsv != 0 || h.Length > maxFrame {
				refused = true
				break
			}
			if h.Length > int64(from.Len()) {
				break
			}
			payload := make([]byte, h.Length)
			_, _ = from.Read(payload)
			want = append(want, visit{h.OpCode, string(payload)})
			at = len(b) - from.Len()
		}
		got, rest, err := splitCut(b, cuts)
		if !slices.Equal(got, want) {
			t.Fatalf("got %d frames, want %d", len(got), len(want))
		}
		if refused && err == nil && len(b)-at >= 10 {
			t.Fatal("accepted what must be refused")
		}
		if err != nil && !refused && !breaksRules(b[at:]) {
			t.Fatalf("refused: %v", err)
		}
		if err == nil && !bytes.Equal(rest, b[at:]) {
			t.Fatalf("kept %d bytes, want %d", len(rest), len(b)-at)
		}
	})
}

// breaksRules says whether the header that b begins with, whole or not, already
// shows reserved bits, a mask or an excessive length.
func breaksRules(b []byte) bool {
	return len(b) >= 2 && (b[0]&0x70 != 0 || b[1]&0x80 != 0)
}

// unmasked reads b as a server does.
func unmasked(t *testing.T, b []byte) []byte {
	t.Helper()
	got, op, err := wsutil.ReadClientData(bytes.NewBuffer(b))
	if err != nil || op != ws.OpText {
		t.Fatal(op, err)
	}
	return got
}

func TestAppendFrame(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("ab"), n)[:n]
		if got := unmasked(t, appendFrame(nil, ws.OpText, payload)); !bytes.Equal(got, payload) {
			t.Errorf("%d bytes became %d", n, len(got))
		}
	}
}

// scrapbook is a target whose messages are the data and some more.
type scrapbook struct {
	Notifyd
	packs bool
	calls int
}

func (s *scrapbook) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	s.calls++
	return fmt.Appendf(dst, "%s %d %s", topic, s.calls, data), nil
}

func (s *scrapbook) Packs() bool { return s.packs }

func (*scrapbook) Answer([]byte) (Answer, error) { return Answer{}, nil }

func TestMessageHoldsItsTimeAndTopic(t *testing.T) {
	for _, size := range []int{MinSize, 31, 128, 1024, 70000} {
		target := &scrapbook{}
		m := newMessages(target, []string{"a", "bench.1"}, size)
		for _, at := range []int64{0, 1, 1 << 40, 1<<63 - 1} {
			msg, err := m.next(1)
			if err != nil {
				t.Fatal(err)
			}
			batch := append([]byte("before"), msg.frame...)
			stamp{6 + msg.times[0].at, msg.times[0].phase}.write(batch, at)
			p := unmasked(t, batch[6:])
			mark := findMark(p)
			if len(p) != len("bench.1 1 ")+size || !markAt(p, mark) {
				t.Fatalf("size %d: %.60s", size, p)
			}
			p = p[mark+len(markWord):]
			if got := int64(readDigits(p[:timeDigits])); got != at {
				t.Errorf("size %d: time %d, want %d", size, got, at)
			}
			if got := readDigits(p[timeDigits : timeDigits+topicDigit]); got != 1 {
				t.Errorf("size %d: topic %d", size, got)
			}
		}
		if target.calls != 1 {
			t.Errorf("made %d messages that are alike", target.calls)
		}
	}
}

func TestFreshMessagesAreMadeAnew(t *testing.T) {
	target := &scrapbook{Notifyd: Notifyd{Mint: func() (string, error) { return "", nil }}}
	m := newMessages(target, []string{"a"}, MinSize)
	var frames []string
	for range 3 {
		msg, err := m.next(0)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, string(msg.frame))
	}
	if frames[0] == frames[1] || frames[1] == frames[2] {
		t.Error("two messages are the same")
	}
}

// TestEventsAcrossMessages cuts three events at every place into two messages.
func TestEventsAcrossMessages(t *testing.T) {
	var all []byte
	for topic := range 3 {
		all = append(append(all, "MSG "...), newData(MinSize, topic)...)
	}
	for cut := range len(all) + 1 {
		target := &scrapbook{packs: true}
		e, err := newEngine(target, newMessages(target, []string{"a", "b", "c"}, MinSize))
		if err != nil {
			t.Fatal(err)
		}
		e.writers = make([][]*conn, 3)
		e.begin(Load{Window: 1}, []int{1, 1, 1})
		e.ready = nil
		e.reader = &conn{}
		for _, part := range [][]byte{all[:cut], all[cut:]} {
			if err := e.frame(frame{ws.OpBinary, part}); err != nil {
				t.Fatal(err)
			}
		}
		if e.count.delivered != 3 || len(e.ready) != 3 {
			t.Errorf("cut at %d: %d delivered, topics %v", cut, e.count.delivered, e.ready)
		}
		e.close()
	}
}
