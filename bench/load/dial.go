//go:build linux

package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

const (
	// openTimeout bounds each step of opening a connection.
	openTimeout = 30 * time.Second
	// portsPerSource is how many connections share a source address; the kernel
	// has some 28,000 ephemeral ports for each.
	portsPerSource = 20000
)

// conn is a connection whose descriptor is this package's alone: the Go
// runtime's poller would be woken by every event, too.
type conn struct {
	fd         int
	id         int
	topics     []string
	in         splitter
	hint       int    // where in a message the last mark stood
	seam       []byte // of a target that packs: the end of the last message
	missed     int    // of a client that comes back: events before it is live
	began      int64  // when that client began to come back
	out        []byte // what the socket would not take yet
	stalled    bool   // is not read
	publishes  bool
	requests   bool  // publishes with HTTP requests
	asked      int64 // when it last published
	unanswered int   // of what it published then
	closed     bool
}

// dialer opens connections to one server.
type dialer struct {
	url     *url.URL
	target  Target
	sources []netip.Addr // in turn, portsPerSource each; none or invalid: the kernel's choice
}

func newDialer(address string, target Target, sources []netip.Addr) (*dialer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "ws" || u.Port() == "" {
		return nil, fmt.Errorf("%s: want ws://HOST:PORT/PATH; the generator counts frames on the socket itself and knows no TLS", address)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && len(sources) == 0 && ip.Is4() && ip.IsLoopback() {
		sources = append(sources, netip.Addr{})
		for last := byte(2); last < 250; last++ {
			sources = append(sources, netip.AddrFrom4([4]byte{127, 0, 0, last}))
		}
	}
	return &dialer{u, target, sources}, nil
}

// open opens the nth connection and subscribes it. It may be called by several
// goroutines.
func (d *dialer) open(n int, topics []string) (*conn, error) {
	nc, early, err := d.dial(context.Background(), n)
	if err != nil {
		return nil, fmt.Errorf("connection %d: %w", n, err)
	}
	if err := d.prepare(nc, io.MultiReader(early, nc), topics); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connection %d: %w", n, err)
	}
	c := &conn{topics: topics}
	c.in.tail = early.Bytes()
	return c, c.take(nc)
}

// plain dials the nth connection, from the address that is its own.
func (d *dialer) plain(n int) (plain net.Dialer) {
	if len(d.sources) > 0 {
		if source := d.sources[n/portsPerSource%len(d.sources)]; source.IsValid() {
			plain.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		}
	}
	return plain
}

// dial shakes hands for the nth connection. early is what came along with the
// answer.
func (d *dialer) dial(ctx context.Context, n int) (nc net.Conn, early *bytes.Buffer, err error) {
	plain := d.plain(n)
	shake := d.target.Dialer()
	shake.NetDial, shake.Timeout = plain.DialContext, openTimeout
	nc, br, _, err := shake.Dial(ctx, d.url.String())
	early = &bytes.Buffer{}
	if br != nil {
		_, _ = io.CopyN(early, br, int64(br.Buffered())) // from memory
		ws.PutReader(br)
	}
	return nc, early, err
}

// prepare greets and subscribes.
func (d *dialer) prepare(nc net.Conn, from io.Reader, topics []string) error {
	payload, awaits := d.target.Hello(nil)
	if _, err := d.ask(nc, from, payload, awaits, Welcome); err != nil {
		return err
	}
	for _, topic := range topics {
		payload, awaits = d.target.Subscribe(nil, topic)
		if _, err := d.ask(nc, from, payload, awaits, Subscribed); err != nil {
			return fmt.Errorf("subscribe %s: %w", topic, err)
		}
	}
	return nil
}

// ask sends a payload, if it is not empty, and reads until the answer comes, if it awaits one.
func (d *dialer) ask(nc net.Conn, from io.Reader, payload []byte, awaits bool, want AnswerKind) (answer []byte, err error) {
	if err := nc.SetDeadline(time.Now().Add(openTimeout)); err != nil {
		return nil, err
	}
	if len(payload) > 0 {
		if _, err := nc.Write(appendFrame(nil, opcode(d.target), payload)); err != nil {
			return nil, err
		}
	}
	for awaits {
		said, err := d.hear(nc, from)
		if err != nil {
			return nil, err
		}
		if findMark(said) >= 0 {
			continue // an event of another subscription
		}
		means, err := d.target.Answer(said)
		if err != nil {
			return nil, err
		}
		if len(means.Reply) > 0 {
			if _, err := nc.Write(appendFrame(nil, opcode(d.target), means.Reply)); err != nil {
				return nil, err
			}
		}
		answer, awaits = said, means.Kind != want
	}
	return answer, nil
}

// hear reads the next message.
func (d *dialer) hear(nc net.Conn, from io.Reader) ([]byte, error) {
	for {
		f, err := readFrame(from)
		if err != nil {
			return nil, err
		}
		switch f.op {
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(f.payload)
			return nil, fmt.Errorf("closed with %d %s", code, reason)
		case ws.OpPing:
			if _, err := nc.Write(appendFrame(nil, ws.OpPong, f.payload)); err != nil {
				return nil, err
			}
		case ws.OpPong:
		default:
			return f.payload, nil
		}
	}
}

// take makes the socket c's own.
func (c *conn) take(nc net.Conn) error {
	defer func() { _ = nc.Close() }() // c has a duplicate
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		c.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	return errors.Join(err, dupErr)
}

// drop ends the connection with an RST, so that its port is free at once.
func (c *conn) drop() {
	if c.closed {
		return
	}
	c.closed = true
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(c.fd)
}
