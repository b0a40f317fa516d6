package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/wire"
)

// serverFlags are shared by the commands that talk to a server.
type serverFlags struct {
	URL   string `help:"The server's WebSocket endpoint." default:"ws://127.0.0.1:8080/v1/ws" name:"url"`
	Token string `help:"Token to use; best given as NOTIFYD_TOKEN, out of the shell's history." placeholder:"JWT"`
}

func (f *serverFlags) check() error {
	if f.Token == "" {
		return usagef("no token: set NOTIFYD_TOKEN, or give --token (notifyd token makes one)")
	}
	return nil
}

// clientFlags are shared by the commands that keep a connection.
type clientFlags struct {
	serverFlags `embed:""`
	Strategy    client.Strategy `help:"How the connection presents the token: ${enum}. message: not at all, each subscribe and publish does." enum:"message,first-message,header,subprotocol,ticket" default:"message"`
}

// maxBackoff is shorter than a client's default. Somebody waits at the terminal: for the server that comes back, and for
// the answer when a token is refused for good, which takes twice as long.
const maxBackoff = 5 * time.Second

func (f *clientFlags) dial(ctx context.Context, opts client.Options) (*client.Client, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	opts.Token, opts.Strategy, opts.MaxBackoff = client.StaticToken(f.Token), f.Strategy, maxBackoff
	return client.Dial(ctx, f.URL, opts)
}

type pubCmd struct {
	clientFlags `embed:""`
	Topic       string `arg:"" help:"Topic, such as rooms.42."`
	Data        string `arg:"" help:"Any JSON value, or - to read one from each line of standard input."`
}

// Help is shown by --help.
func (pubCmd) Help() string {
	return `An event is published when this exits with 0: the server acknowledged it.

    notifyd pub rooms.42 '{"text":"hello"}'
    notifyd pub rooms.42 '"just a string"'
    tail -f log.ndjson | notifyd pub rooms.42 -

Lines are sent one after the other without waiting for each answer; the first failure ends it.`
}

// Run publishes and waits for every ack.
func (c *pubCmd) Run(p *process) error {
	if !wire.ValidTopic(c.Topic) {
		return usagef("%s: %w", c.Topic, &wire.Error{Code: wire.BadTopic})
	}
	if c.Data != "-" && !wire.ValidJSON([]byte(c.Data)) {
		return usagef(`DATA is not JSON. Quote it for the shell: '{"text":"hello"}', and a plain string twice: '"hello"'`)
	}
	conn, err := c.dial(p.ctx, client.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.Data != "-" {
		return conn.Publish(p.ctx, c.Topic, []byte(c.Data))
	}
	return c.stream(p, conn)
}

// sent is a line whose ack is awaited.
type sent struct {
	line int
	ack  *client.Ack
}

// stream publishes the lines of standard input. One goroutine sends, which the client bounds by what is in flight; this
// one takes the answers in order.
func (c *pubCmd) stream(p *process, conn *client.Client) error {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	answers := make(chan sent, 1024)
	var sendErr error
	go func() {
		defer close(answers)
		sendErr = c.send(ctx, p.stdin, conn, answers)
	}()
	for s := range answers {
		if err := s.ack.Wait(ctx); err != nil {
			return fmt.Errorf("line %d: %w", s.line, err)
		}
	}
	return sendErr
}

func (c *pubCmd) send(ctx context.Context, from io.Reader, conn *client.Client, answers chan<- sent) error {
	lines := bufio.NewReader(from)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if !wire.ValidJSON(line) {
				return usagef("line %d is not JSON: write one JSON value a line", n)
			}
			ack, err := conn.PublishAsync(ctx, c.Topic, line)
			if err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			select {
			case answers <- sent{n, ack}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
