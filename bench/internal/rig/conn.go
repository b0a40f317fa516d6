//go:build linux

package rig

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/notifyd/notifyd/wire"
)

const timeout = 30 * time.Second

// Conn is a connection to a server. One goroutine may send while another
// receives.
type Conn struct {
	net  net.Conn
	from struct {
		io.Reader
		io.Writer // for the pongs
	}
}

// Dial opens a connection and reads the welcome. query, such as "?ticket=…", is
// appended to the path; d brings headers and subprotocols.
func Dial(addr, query string, d ws.Dialer) (*Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, br, _, err := d.Dial(ctx, "ws://"+addr+wire.Path+query)
	if err != nil {
		return nil, err
	}
	c := &Conn{net: conn}
	c.from.Reader, c.from.Writer = conn, conn
	if br != nil { // the welcome came along with the handshake
		c.from.Reader = io.MultiReader(br, conn)
	}
	var welcome wire.Message
	if err := c.Receive(&welcome); err != nil {
		c.Drop()
		return nil, err
	}
	if welcome.Kind != wire.MessageWelcome {
		c.Drop()
		return nil, fmt.Errorf("no welcome but %s", welcome.Detail)
	}
	return c, nil
}

// Send sends an envelope as one frame.
func (c *Conn) Send(envelope []byte) error {
	return wsutil.WriteClientText(c.net, envelope)
}

// Receive reads the next envelope. m lives on its own.
func (c *Conn) Receive(m *wire.Message) error {
	if err := c.net.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	frame, err := wsutil.ReadServerText(c.from)
	if err != nil {
		return err
	}
	if err := wire.ParseMessage(frame, m); err != nil {
		return err
	}
	return nil
}

// Ask sends an envelope that has an id, and reads its ack, which comes next.
func (c *Conn) Ask(envelope []byte) error {
	if err := c.Send(envelope); err != nil {
		return err
	}
	var m wire.Message
	if err := c.Receive(&m); err != nil {
		return err
	}
	if m.Kind != wire.MessageAck {
		return fmt.Errorf("%w: %s", m.Code, m.Detail)
	}
	return nil
}

// Drop ends the connection with an RST, so that its port is free at once.
func (c *Conn) Drop() {
	if tcp, ok := c.net.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.net.Close()
}

// Each calls do for 0 to n−1, with the given number of goroutines, and returns
// the first error.
func Each(n, goroutines int, do func(i int) error) error {
	work, errs := make(chan int), make(chan error, goroutines)
	for range goroutines {
		go func() {
			var first error
			for i := range work {
				if first == nil {
					first = do(i)
				}
			}
			errs <- first
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	var first error
	for range goroutines {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}
