package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
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
	outputFlags `embed:""`
	Topic       string `arg:"" help:"Topic, such as rooms.42."`
	Data        string `arg:"" help:"Any JSON value, or - to read one from each line of standard input."`
	HTTP        bool   `help:"Publish by HTTP requests, without a WebSocket." name:"http"`

	MsgID string        `help:"Name of the event: a stream stores it once in its duplicate window, so the command can be repeated. With - each line is ID-1, ID-2 and so on." placeholder:"ID" name:"msg-id"`
	TTL   time.Duration `help:"How long a stream keeps the event, where it permits that. 0: as all others." default:"0s" name:"ttl"`

	published int // events that the server has acknowledged
	progress  *fileProgress
}

// Help is shown by --help.
func (pubCmd) Help() string {
	return `An event is published when this exits with 0: the server acknowledged it.

    notifyd pub rooms.42 '{"text":"hello"}'
    notifyd pub rooms.42 '"just a string"'
    tail -f log.ndjson | notifyd pub rooms.42 -
    notifyd pub --http rooms.42 - < log.ndjson

In a terminal a line on standard error says how much of a file is published.

Topics of a stream are durable: an event is acknowledged when it is stored, and a line says where, {"seq":1042} (in a terminal a sentence, which other topics have too). With --json the events of other topics have a line as well, {}. With --msg-id the same command can be given again after a failure; what was stored already is {"seq":1042,"duplicate":true}.

    notifyd pub --msg-id order-7 --ttl 24h orders.7 '{"state":"paid"}'

Lines are sent one after the other without waiting for each answer; the first failure ends it. With --http some lines behind it may have been published.`
}

// Run publishes and waits for every ack.
func (c *pubCmd) Run(p *process) error {
	if !wire.ValidTopic(c.Topic) {
		return usagef("%s: %w", c.Topic, &wire.Error{Code: wire.BadTopic})
	}
	if c.Data != "-" && !wire.ValidJSON([]byte(c.Data)) {
		return usagef(`DATA is not JSON. Quote it for the shell: '{"text":"hello"}', and a plain string twice: '"hello"'`)
	}
	if c.TTL < 0 {
		return usagef("--ttl: %v is negative", c.TTL)
	}
	if c.Data == "-" {
		if c.progress = progressOfInput(p); c.progress != nil {
			p.stdin = c.progress
			defer c.progress.clear()
		}
	}
	if c.HTTP {
		return c.post(p)
	}
	conn, err := c.dial(p.ctx, client.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.Data != "-" {
		stored, err := conn.PublishEvent(p.ctx, c.event([]byte(c.Data), 0))
		if err != nil {
			return err
		}
		return c.tell(p, stored)
	}
	return c.sum(p, c.stream(p, conn))
}

// event is what is to be published with data. line is that of standard input, from 1 on, or 0.
func (c *pubCmd) event(data []byte, line int) client.Publication {
	e := client.Publication{Topic: c.Topic, Data: data, MsgID: c.MsgID, TTL: c.TTL}
	if c.MsgID != "" && line > 0 {
		e.MsgID = fmt.Sprintf("%s-%d", c.MsgID, line)
	}
	return e
}

// tell says what became of an event: where a stream has put it, in the words of the server's ack, or in a sentence to
// people, who are told of other topics too.
func (c *pubCmd) tell(p *process, s client.Stored) error {
	c.published++
	c.progress.draw(c.published)
	line, people, colors := "", c.forPeople(p), c.colors(p)
	switch {
	case people && s.Duplicate:
		line = fmt.Sprintf("stored before, as #%d", s.Seq)
	case people && s.Seq != 0:
		line = fmt.Sprintf("stored as #%d", s.Seq)
	case people && c.Data == "-": // sum tells how many
		return nil
	case people:
		line = "published"
	case s.Duplicate:
		line = fmt.Sprintf(`{"seq":%d,"duplicate":true}`, s.Seq)
	case s.Seq != 0:
		line = fmt.Sprintf(`{"seq":%d}`, s.Seq)
	case c.JSON:
		line = "{}"
	default:
		return nil
	}
	if isTerminal(p.stdout) {
		c.progress.clear()
	}
	if people {
		line = colors.topic + c.Topic + colors.end + "  " + line
	}
	_, err := fmt.Fprintln(p.stdout, line)
	return err
}

// sum tells people how many lines were published, when err has ended that, or nil.
func (c *pubCmd) sum(p *process, err error) error {
	if !c.forPeople(p) {
		return err
	}
	c.progress.clear()
	_, printErr := fmt.Fprintf(p.stdout, "%d events published\n", c.published)
	return cmp.Or(err, printErr)
}

// A request by HTTP has batchLines lines at most, and stops at batchBytes of data.
const (
	batchLines = 1000
	batchBytes = 1 << 20
)

// post publishes by HTTP.
func (c *pubCmd) post(p *process) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Data != "-" {
		data := []byte(c.Data)
		if bytes.ContainsAny(data, "\r\n") { // else it stays as it is: the token may be bound to its bytes
			var line bytes.Buffer
			if err := json.Compact(&line, data); err != nil {
				return err
			}
			data = line.Bytes()
		}
		return c.postLines(p, 0, [][]byte{data})
	}
	return c.sum(p, c.postStream(p))
}

// postStream publishes the lines of standard input by HTTP.
func (c *pubCmd) postStream(p *process) error {
	lines := bufio.NewReader(p.stdin)
	var batch [][]byte
	size, n := 0, 0
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		end := err
		if line = bytes.TrimSpace(line); len(line) > 0 && !wire.ValidJSON(line) {
			end = usagef("line %d is not JSON: write one JSON value a line", n+len(batch)+1)
			line = nil
		}
		batch = append(batch, line)
		size += len(line)
		if len(batch) < batchLines && size < batchBytes && lines.Buffered() > 0 && end == nil {
			continue
		}
		if err := c.postLines(p, n, batch); err != nil {
			return err
		}
		switch {
		case errors.Is(end, io.EOF):
			return nil
		case end != nil:
			return end
		}
		n += len(batch)
		batch, size = batch[:0], 0
	}
}

// postLines publishes lines by one request. before is how many lines there were before them.
func (c *pubCmd) postLines(p *process, before int, lines [][]byte) error {
	var events []client.Publication
	var numbers []int
	for i, line := range lines {
		if len(line) > 0 {
			number := before + i + 1
			if c.Data != "-" {
				number = 0
			}
			events = append(events, c.event(line, number))
			numbers = append(numbers, number)
		}
	}
	all, err := client.PublishBatch(p.ctx, nil, c.URL, c.Token, events)
	var batch *client.BatchError
	if err != nil && !errors.As(err, &batch) {
		return err
	}
	for i := range events {
		switch {
		case err == nil || batch.Errs[i] == nil:
			if err := c.tell(p, all[i]); err != nil {
				return err
			}
		case c.Data != "-":
			return batch.Errs[i]
		default:
			return fmt.Errorf("line %d: %w", numbers[i], batch.Errs[i])
		}
	}
	return nil
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
		stored, err := s.ack.Stored(ctx)
		if err != nil {
			return fmt.Errorf("line %d: %w", s.line, err)
		}
		if err := c.tell(p, stored); err != nil {
			return err
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
			ack, err := conn.PublishEventAsync(ctx, c.event(line, n))
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
