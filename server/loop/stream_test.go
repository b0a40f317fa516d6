package loop

import (
	"net"
	"testing"
)

func TestAppendEvent(t *testing.T) {
	for _, x := range []struct{ name, data, want string }{
		{"", "", "data: \n\n"},
		{"", `{"a":1}`, "data: {\"a\":1}\n\n"},
		{"close", "x", "event: close\ndata: x\n\n"},
		{"", "a\nb", "data: a\ndata: b\n\n"},
		{"", "a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n"},
		{"", "\n\n", "data: \ndata: \ndata: \n\n"},
		{"", "\r\r\n", "data: \ndata: \ndata: \n\n"},
		{"", "event: x", "data: event: x\n\n"},
	} {
		if got := string(appendEvent([]byte("before"), []byte(x.name), nil, []byte(x.data))); got != "before"+x.want {
			t.Errorf("%q as %q: %q, want %q", x.data, x.name, got, x.want)
		}
	}
}

// An event may have an ID, which the receiver sends back when it resumes.
func TestAppendEventWithID(t *testing.T) {
	b := new(Batch)
	b.AppendEvent([]byte("gap"), []byte("e.7"), []byte("{}"))
	b.AppendEvent(nil, nil, []byte("1"))
	if got := string(b.b); got != "id: e.7\nevent: gap\ndata: {}\n\ndata: 1\n\n" || b.n != 2 {
		t.Errorf("%d: %q", b.n, got)
	}
}

// Wherever a write of a stream ended, the rest of the event is found.
func TestEventEnd(t *testing.T) {
	c := &Conn{stream: true}
	var b []byte
	ends := []int{0}
	for _, data := range []string{"", "a", "a\nb\n", "ä"} {
		b = appendEvent(b, []byte("name"), []byte("e.7"), []byte(data))
		ends = append(ends, len(b))
	}
	for off := range len(b) + 1 {
		for ends[0] < off {
			ends = ends[1:]
		}
		if got := c.messageEnd(b, off); got != ends[0] {
			t.Errorf("offset %d: %d, want %d", off, got, ends[0])
		}
	}
	if got := c.messageEnd([]byte("HTTP/1.1 200 OK\r\n\r\n"), 5); got != 19 {
		t.Errorf("a head that nothing follows ends at %d", got)
	}
}

// Only a connection that net/http had from this engine can become a stream.
func TestAdoptStreamOfAnotherServer(t *testing.T) {
	s := start(t, Options{}, &hooks{})
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	if err := s.AdoptStream(a, nil); err == nil {
		t.Error("no error")
	}
	if _, err := a.Write(nil); err == nil {
		t.Error("the connection is open still")
	}
}
