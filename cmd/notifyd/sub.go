package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/notifyd/notifyd/client"
	"github.com/notifyd/notifyd/wire"
)

type subCmd struct {
	clientFlags `embed:""`
	outputFlags `embed:""`
	Patterns    []string `arg:"" help:"Topics or patterns: rooms.42, rooms.*, rooms.>" name:"pattern"`
	Count       int      `help:"Exit after so many events. 0: never." default:"0" placeholder:"N"`
	Since       since    `help:"Of durable topics also what was stored before: all after a seq (1042, or EPOCH.SEQ as Server-Sent Events have it), since a time (2026-01-31T12:00:00Z), of the last while (90s, 72h), or 0: everything." placeholder:"WHEN" xor:"since"`
	Last        uint64   `help:"Of a durable topic also the last N events; of a pattern only 1, the last of each topic." placeholder:"N" xor:"since"`
}

// Help is shown by --help.
func (subCmd) Help() string {
	return `Each event is one line, written at once: JSON in a pipe, a file, or with --json; in a terminal the time, the topic, the seq of a stream and the data. Standard error has what happens to the connection. A lost connection is made again for ever; what is published meanwhile is missed, unless the topics are durable: those of a stream have a seq, and go on where they were. A line with "type":"gap", in a terminal a sentence, says that a stream had to discard events before they could be read. Ctrl-C ends it. So does a token that the server refuses at least three times in a row, over at least ten seconds: a shorter refusal, such as while a node still has an issuer's old keys, ends nothing.

    notifyd sub rooms.42
    notifyd sub 'rooms.*' 'alerts.>' | jq .data
    notifyd sub --count 1 rooms.42
    notifyd sub --since 1h 'orders.>'
    notifyd sub --last 10 orders.7

A pattern has to be quoted, or the shell will take it.`
}

// Run prints events until it is interrupted, has printed enough, or the server will have no more of it.
func (c *subCmd) Run(p *process) error {
	if c.Count < 0 {
		return usagef("--count: %d is negative", c.Count)
	}
	for _, pattern := range c.Patterns {
		if !wire.ValidPattern(pattern) {
			return usagef("%s: %w", pattern, &wire.Error{Code: wire.BadTopic})
		}
	}
	link := &linkStory{p: p}
	conn, err := c.dial(p.ctx, client.Options{OnState: link.state, OnError: p.complain})
	if err != nil {
		return err
	}
	defer conn.Close()
	out := &printer{p: p, left: c.Count, done: make(chan error, 1)}
	if c.forPeople(p) {
		out.sheet = &sheet{palette: c.colors(p)}
	}
	ended := make(chan error, len(c.Patterns))
	for _, pattern := range c.Patterns {
		sub, err := conn.SubscribeWith(p.ctx, pattern, client.SubscribeOptions{Since: c.from(), OnGap: out.gap}, out.event)
		if p.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", pattern, err)
		}
		go func() {
			<-sub.Done()
			ended <- fmt.Errorf("subscription to %s ended: %w", pattern, sub.Err())
		}()
	}
	if isTerminal(p.stdout) {
		p.complain(fmt.Errorf("subscribed to %s; Ctrl-C ends it", strings.Join(c.Patterns, " ")))
	}
	select {
	case err := <-out.done:
		return err
	case err := <-ended:
		return err
	case <-p.ctx.Done():
		return nil
	}
}

// linkStory tells what happens to the connection. The client calls it from one goroutine.
type linkStory struct {
	p    *process
	lost time.Time // zero while there is a connection
}

func (l *linkStory) state(s client.State, err error) {
	switch {
	case s == client.StateReconnecting:
		if l.lost.IsZero() {
			l.lost = time.Now()
		}
		l.p.complain(fmt.Errorf("%s: %w", s, err))
	case s == client.StateConnected && !l.lost.IsZero():
		away := time.Since(l.lost).Round(100 * time.Millisecond)
		l.lost = time.Time{}
		l.p.complain(fmt.Errorf("connected again after %v; what was published meanwhile is missed, but for topics of streams", away))
	}
}

// printer writes events as lines; the handlers of several subscriptions share it.
type printer struct {
	p    *process
	done chan error // capacity 1: enough was written, or writing failed

	mu    sync.Mutex
	sheet *sheet // for people; nil: JSON
	left  int    // events still to write; 0 from the start: no end
	ended bool
	line  []byte
}

func (o *printer) event(e client.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	data := e.Data
	if bytes.ContainsAny(data, "\n\r") { // white space between tokens: the event is to be one line
		var compact bytes.Buffer
		if json.Compact(&compact, data) == nil {
			data = compact.Bytes()
		}
	}
	switch {
	case o.sheet != nil:
		o.line = o.sheet.append(o.line[:0], e, data, time.Now())
	case e.Seq == 0:
		o.line = append(wire.AppendEvent(o.line[:0], e.Topic, e.Pattern, data), '\n')
	default:
		o.line = append(wire.AppendStoredEvent(o.line[:0], e.Pattern, &wire.StoredEvent{
			Topic: e.Topic, Data: data, Seq: e.Seq, Prev: e.Prev, Time: e.Time.UnixNano(), From: e.From,
		}), '\n')
	}
	o.left--
	o.write(o.left == 0)
}

func (o *printer) gap(g client.Gap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.p.complain(&g)
	if o.sheet == nil {
		o.line = append(wire.AppendGap(o.line[:0], g.Pattern, g.Epoch, g.After, g.First), '\n')
		o.write(false)
	}
}

// write writes the line; o.mu is held.
func (o *printer) write(last bool) {
	_, err := o.p.stdout.Write(o.line)
	if err != nil || last {
		o.ended = true
		o.done <- err
	}
}
