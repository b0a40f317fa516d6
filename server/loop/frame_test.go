package loop

import (
	"bytes"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
	"pgregory.net/rapid"
)

func TestParseHeader(t *testing.T) {
	for _, test := range []struct {
		name string
		b    string
		want ws.Header
		n    int
		err  error
	}{
		{"empty text", "\x81\x80\x01\x02\x03\x04", ws.Header{Fin: true, OpCode: ws.OpText, Masked: true, Mask: [4]byte{1, 2, 3, 4}}, 6, nil},
		{"unmasked", "\x81\x05", ws.Header{Fin: true, OpCode: ws.OpText, Length: 5}, 2, nil},
		{"rsv, not final", "\x72\x05", ws.Header{Rsv: 7, OpCode: ws.OpBinary, Length: 5}, 2, nil},
		{"7 bits at most", "\x82\xfd\x00\x00\x00\x00", ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: 125}, 6, nil},
		{"16 bits at least", "\x82\x7e\x00\x7e", ws.Header{Fin: true, OpCode: ws.OpBinary, Length: 126}, 4, nil},
		{"16 bits at most", "\x82\xfe\xff\xff\x00\x00\x00\x01", ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Mask: [4]byte{0, 0, 0, 1}, Length: 65535}, 8, nil},
		{"16 bits too long a form", "\x82\x7e\x00\x7d", ws.Header{}, 4, errLengthShort},
		{"64 bits at least", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", ws.Header{Fin: true, OpCode: ws.OpBinary, Length: 65536}, 10, nil},
		{"64 bits at most", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00", ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Mask: [4]byte{1}, Length: 1<<63 - 1}, 14, nil},
		{"64 bits too long a form", "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", ws.Header{}, 10, errLengthShort},
		{"sign bit", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", ws.Header{}, 10, errLengthSign},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := []byte(test.b)
			h, n, err := parseHeader(append(b, "payload"...))
			if n != test.n || err != test.err || err == nil && h != test.want { //nolint:errorlint // the very value
				t.Errorf("got %+v, %d, %v", h, n, err)
			}
			for i := range b {
				if _, n, err := parseHeader(b[:i]); n != 0 || err != nil {
					t.Errorf("prefix of %d bytes: %d, %v", i, n, err)
				}
			}
		})
	}
}

func TestAppendHeader(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 1<<31 + 5} {
		for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary, ws.OpClose, ws.OpPing, ws.OpPong} {
			b := appendHeader([]byte("x"), op, n)[1:]
			h, err := ws.ReadHeader(bytes.NewReader(b))
			want := ws.Header{Fin: true, OpCode: op, Length: int64(n)}
			if err != nil || h != want {
				t.Errorf("op %d length %d: %+v, %v in %d bytes", op, n, h, err, len(b))
			}
			if mine, k, err := parseHeader(b); mine != want || k != len(b) || err != nil {
				t.Errorf("op %d length %d: parsed %+v, %d, %v", op, n, mine, k, err)
			}
		}
	}
}

func TestFrameEnd(t *testing.T) {
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	for _, before := range []string{"", answer} {
		b := []byte(before)
		ends := []int{len(b)}
		for _, n := range []int{0, 5, 125, 126, 70000, 1} {
			b = append(appendHeader(b, ws.OpText, n), make([]byte, n)...)
			ends = append(ends, len(b))
		}
		want := 0
		for off := range len(b) + 1 {
			if off > 0 && off > want {
				want, ends = ends[0], ends[1:]
				for off > want {
					want, ends = ends[0], ends[1:]
				}
			}
			if got := frameEnd(b, off); got != want {
				t.Fatalf("offset %d: %d, want %d", off, got, want)
			}
		}
	}
}

func TestCloseStatus(t *testing.T) {
	for code := range 1 << 16 {
		legal := code >= 1000 && code < 1004 || code > 1006 && code < 1015 || code >= 3000 && code < 5000
		got, ok := closeStatus([]byte{byte(code >> 8), byte(code), 'h', 'i'})
		if ok != legal || ok && int(got) != code {
			t.Errorf("%d: %d, %v", code, got, ok)
		}
	}
	for body, legal := range map[string]bool{
		"": true, "\x03": false, "\x03\xe8": true, "\x03\xe8\xff": false, "\x03\xe8ok": true,
		"\x03\xe8\xed\xa0\x80": false, "\x03\xe8\xe2\x82": false,
	} {
		if _, ok := closeStatus([]byte(body)); ok != legal {
			t.Errorf("%q: %v", body, ok)
		}
	}
	if code, _ := closeStatus(nil); code != ws.StatusNoStatusRcvd {
		t.Errorf("no body: %d", code)
	}
}

func TestAppendClose(t *testing.T) {
	if got := appendClose(nil, ws.StatusNoStatusRcvd, ""); string(got) != "\x88\x00" {
		t.Errorf("%q", got)
	}
	if got := appendClose(nil, 4410, "slow"); string(got) != "\x88\x06\x11\x3aslow" {
		t.Errorf("%q", got)
	}
}

// A group's members know their places, whatever joins and leaves.
func TestGroupJoinLeave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g Group
		in := map[*Member]bool{}
		var all []*Member
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			all = append(all, new(Member))
		}
		for range 3 * len(all) {
			m := rapid.SampledFrom(all).Draw(t, "member")
			if in[m] {
				m.Leave()
				delete(in, m)
			} else {
				g.Join(m)
				in[m] = true
			}
			if (m.Group() == &g) != in[m] {
				t.Fatal("Group() is wrong")
			}
		}
		all[0].Leave()
		all[0].Leave() // twice is once
		delete(in, all[0])
		if g.Len() != len(in) {
			t.Fatalf("%d members, want %d", g.Len(), len(in))
		}
		for i, m := range g.members {
			if !in[m] || int(m.at) != i || m.group != &g {
				t.Fatalf("member at %d: in %v, at %d", i, in[m], m.at)
			}
		}
		if cap(g.members) > 64 && cap(g.members) > 8*max(len(in), 16) {
			t.Fatalf("room for %d holds %d", cap(g.members), len(in))
		}
	})
}

func TestBatchCounting(t *testing.T) {
	b := NewBatch()
	b.b = append(b.b, "frames"...)
	b.n = 1
	b.Retain(2)
	b.Release()
	b.Release()
	if string(b.b) != "frames" || b.n != 1 {
		t.Fatal("given back while held")
	}
	b.Release()
	if n := b.refs.Load(); n != 0 {
		t.Fatalf("%d references left", n)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("released once too often, and nothing said so")
			}
		}()
		b.Release()
	}()
	if c := NewBatch(); len(c.b) != 0 || c.n != 0 || c.refs.Load() != 1 {
		t.Fatalf("a new batch holds %q", c.b)
	}
}

func TestBatchFit(t *testing.T) {
	full := exactBatch([]byte("0123456789"), 1)
	if full.Fit() != full {
		t.Error("copied although it was full")
	}
	roomy := NewBatch()
	roomy.b, roomy.n = append(make([]byte, 0, 4096), "0123456789"...), 3
	roomy.Retain(1)
	x := roomy.Fit()
	if x == roomy || string(x.b) != "0123456789" || cap(x.b) > 64 || x.n != 3 || x.refs.Load() != 1 {
		t.Errorf("%q, room %d, %d references", x.b, cap(x.b), x.refs.Load())
	}
	if n := roomy.refs.Load(); n != 1 {
		t.Errorf("%d references on the first", n)
	}
}

// A server holds very many of these.
func TestConnSize(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 96 {
		t.Errorf("a Conn takes %d bytes", n)
	}
}
