//go:build linux

package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

const (
	// forgedFrames is how many bad publishes are made, all different, to be sent
	// again and again.
	forgedFrames = 4096
	// forgedTogether is how many of them one write has. Two writes are ahead of what
	// the server has refused.
	forgedTogether = 16
	// redialPause is how long a flooder waits that may not connect.
	redialPause = 10 * time.Millisecond
)

// flooder is one client that sends bad publishes as fast as the server refuses
// them, and connects again at once when it is closed for that. It has an ordinary
// blocking connection and a goroutine of its own, beside the engine.
//
// It keeps the server supplied and no more: what it writes beyond that the server
// throws away unread when it closes, so that most of the time would go to copying
// between sockets, fewer tokens would be refused, and the others would be late
// because of the generator.
type flooder struct {
	target Forger
	dialer *dialer
	nth    int      // its connection's number
	writes [][]byte // each is forgedTogether frames
	next   int      // of writes

	sent, refused, connects atomic.Uint64
}

func newFlooder(r *run) (*flooder, error) {
	target, ok := r.Target.(Forger)
	if !ok {
		return nil, fmt.Errorf("%s: needs a server that checks publishes, whose target is a Forger", r.Plan.Name)
	}
	f := &flooder{target: target, dialer: r.dialer, nth: r.Plan.Connections + r.Plan.Publishers}
	data := newData(MinSize, 0) // with a mark: should the server let one pass, it counts
	for range forgedFrames / forgedTogether {
		var batch []byte
		for range forgedTogether {
			payload, err := target.Forge(nil, r.names[0], data)
			if err != nil {
				return nil, err
			}
			batch = appendFrame(batch, opcode(r.Target), payload)
		}
		f.writes = append(f.writes, batch)
	}
	return f, nil
}

// start floods until stop is called.
func (f *flooder) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if f.visit(ctx) != nil {
				_ = sleep(ctx, redialPause) // ctx is asked right after
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// visit is one connection. An error means that there was none.
func (f *flooder) visit(ctx context.Context) error {
	nc, early, err := f.dialer.dial(ctx, f.nth)
	if err != nil {
		return err
	}
	f.connects.Add(1)
	unwatch := context.AfterFunc(ctx, func() { reset(nc) })
	defer unwatch()
	defer reset(nc)
	from := bufio.NewReader(io.MultiReader(early, nc))
	for ok := f.write(nc); ok; {
		ok = f.write(nc) && f.hear(from)
	}
	return nil
}

// write sends the next few, and says whether the socket took them.
func (f *flooder) write(to io.Writer) bool {
	if _, err := to.Write(f.writes[f.next]); err != nil {
		return false
	}
	f.next = (f.next + 1) % len(f.writes)
	f.sent.Add(forgedTogether)
	return true
}

// hear counts the refusals of one write, and says whether the server goes on.
func (f *flooder) hear(from io.Reader) bool {
	for heard := 0; heard < forgedTogether; {
		said, err := readFrame(from)
		if err != nil || said.op == ws.OpClose {
			return false
		}
		if f.target.Refused(said.payload) {
			f.refused.Add(1)
			heard++
		}
	}
	return true
}

func (f *flooder) count() Flooded {
	return Flooded{Sent: f.sent.Load(), Refused: f.refused.Load(), Connects: f.connects.Load()}
}

// since is what was added.
func (f Flooded) since(from Flooded) *Flooded {
	return &Flooded{f.Sent - from.Sent, f.Refused - from.Refused, f.Connects - from.Connects}
}

// reset ends a connection with an RST, so that its port is free at once.
func reset(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = nc.Close()
}
