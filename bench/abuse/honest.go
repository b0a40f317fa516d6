//go:build linux

package abuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

const (
	// rate is how many events the pair publishes a second, whatever the server does.
	rate = 200
	// eventBytes is how long the data of each is.
	eventBytes = 128
	// newcomerEvery is how often another honest client comes, with a token that the server has not seen.
	newcomerEvery = 500 * time.Millisecond
	// patience is how long an event, an answer or a newcomer may take until it counts as lost.
	patience = 20 * time.Second
	// honestTopic has many parts, so that very many patterns match it.
	honestTopic = "rooms.honest.a.b.c.d.e.f.g.h.i.j"
	tokenTTL    = time.Hour
)

// Measured is what the honest clients saw.
type Measured struct {
	Published    int     `json:"published"`
	Lost         int     `json:"lost"`    // acknowledged, and never delivered
	Refused      int     `json:"refused"` // answered with an error, or not at all
	Disconnected string  `json:"disconnected,omitempty"`
	P50          float64 `json:"p50_ms"` // from when an event was due until it was read
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
	// Newcomers connect, subscribe, publish, receive and get a ticket, each with a new token.
	Newcomers       int      `json:"newcomers"`
	NewcomersFailed []string `json:"newcomers_failed,omitempty"`
	NewcomerMax     float64  `json:"newcomer_max_ms"`
}

// pair is an honest publisher and an honest subscriber, on connections that stay.
type pair struct {
	addr     string
	key      authz.Key
	proxied  bool
	token    string
	pub, sub *rig.Conn
	unwatch  func() bool

	mu     sync.Mutex
	events []event // guarded by mu; the number of an event is its place
	err    error   // guarded by mu; why a connection ended
}

type event struct {
	due              time.Time
	acked, refused   bool
	delivered        time.Duration // after due
	deliveries, acks int
}

func newPair(ctx context.Context, addr string, key authz.Key, proxied bool) (p *pair, err error) {
	p = &pair{addr: addr, key: key, proxied: proxied}
	if p.token, err = p.mint("honest"); err != nil {
		return nil, err
	}
	if p.pub, err = rig.Dial(addr, "", p.dialer()); err != nil {
		return nil, err
	}
	if p.sub, err = rig.Dial(addr, "", p.dialer()); err != nil {
		p.pub.Drop()
		return nil, err
	}
	if err = p.sub.Ask(wire.AppendSubscribe(nil, "s", honestTopic, p.token)); err != nil {
		p.pub.Drop()
		p.sub.Drop()
		return nil, err
	}
	p.unwatch = context.AfterFunc(ctx, p.drop)
	go p.listen(p.sub)
	go p.listen(p.pub)
	return p, nil
}

func (p *pair) mint(subject string) (string, error) {
	now := time.Now()
	return authz.Sign(p.key, authz.Claims{
		Subject: subject, ID: subject, IssuedAt: now, Expires: now.Add(tokenTTL),
		Publish: []string{"rooms.>"}, Subscribe: []string{"rooms.>"},
	})
}

// dialer connects from 127.0.0.1; an attacker has another address.
func (p *pair) dialer() ws.Dialer {
	return ws.Dialer{Protocols: []string{wire.Subprotocol}, Timeout: patience, NetDial: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return p.dial(ctx, addr)
	}}
}

func (p *pair) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err == nil && p.proxied {
		_, err = c.Write(proxyHeader(honestAddr))
	}
	return c, err
}

func (p *pair) drop() {
	p.pub.Drop()
	p.sub.Drop()
}

func (p *pair) close() {
	p.unwatch()
	p.drop()
}

// listen notes answers and events until the connection ends.
func (p *pair) listen(c *rig.Conn) {
	var m wire.Message
	for {
		err := c.Receive(&m)
		p.mu.Lock()
		switch {
		case err != nil:
			if p.err == nil {
				p.err = err
			}
			p.mu.Unlock()
			return
		case m.Kind == wire.MessageEvent:
			if e := p.event(bytes.TrimLeft(m.Data, `"`)); e != nil {
				e.delivered = time.Since(e.due)
				e.deliveries++
			}
		case m.Kind == wire.MessageAck, m.Kind == wire.MessageError:
			if e := p.event(m.ID); e != nil {
				e.acked, e.refused = m.Kind == wire.MessageAck, m.Kind == wire.MessageError
				e.acks++
			}
		}
		p.mu.Unlock()
	}
}

// event is the one whose number text begins with, or nil.
func (p *pair) event(text []byte) *event {
	digits, _, _ := bytes.Cut(text, []byte(" "))
	n, err := strconv.Atoi(string(bytes.Trim(digits, `"`)))
	if err != nil || n < 0 || n >= len(p.events) {
		return nil
	}
	return &p.events[n]
}

// measure publishes until over is closed, and waits until all of it has come.
func (p *pair) measure(over <-chan struct{}) (m Measured) {
	p.mu.Lock()
	first := len(p.events)
	p.mu.Unlock()
	newcomers := make(chan Measured, 1)
	go func() { newcomers <- p.newcomers(over) }()
	m = p.publish(over, first)
	n := <-newcomers
	m.Newcomers, m.NewcomersFailed, m.NewcomerMax = n.Newcomers, n.NewcomersFailed, n.NewcomerMax
	return m
}

func (p *pair) publish(over <-chan struct{}, first int) (m Measured) {
	pad := strings.Repeat("x", eventBytes)
	// The thread sleeps by itself: Go's own timers are late by up to a millisecond, which would hide what is measured.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for due := time.Now(); !isOver(over); due = due.Add(time.Second / rate) {
		if wait := time.Until(due); wait > 0 {
			t := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&t, nil) // a signal ends it early, and the event comes early
		}
		p.mu.Lock()
		n, err := len(p.events), p.err
		p.events = append(p.events, event{due: due})
		p.mu.Unlock()
		if err == nil {
			number := strconv.Itoa(n)
			data := `"` + (number + " " + pad)[:eventBytes] + `"`
			// An error is the end of the connection, which listen notes.
			_ = p.pub.Send(wire.AppendPublish(nil, number, honestTopic, p.token, []byte(data), ""))
		}
	}
	for end := time.Now().Add(patience); time.Now().Before(end) && !p.settled(first); {
		time.Sleep(10 * time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		m.Disconnected = p.err.Error()
	}
	var late []time.Duration
	for _, e := range p.events[first:] {
		m.Published++
		switch {
		case e.acked && e.deliveries == 0:
			m.Lost++
		case !e.acked:
			m.Refused++
		}
		if e.deliveries > 0 {
			late = append(late, e.delivered)
		}
	}
	slices.Sort(late)
	m.P50, m.P99, m.Max = percentile(late, 50), percentile(late, 99), percentile(late, 100)
	return m
}

func isOver(over <-chan struct{}) bool {
	select {
	case <-over:
		return true
	default:
		return false
	}
}

// settled says whether nothing more has to come for the events from first on.
func (p *pair) settled(first int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return true
	}
	for _, e := range p.events[first:] {
		if e.acks == 0 || e.acked && e.deliveries == 0 {
			return false
		}
	}
	return true
}

// percentile is in milliseconds, of sorted durations.
func percentile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return milliseconds(sorted[(len(sorted)*percent+99)/100-1])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// newcomers come one after another until over is closed. The last is waited for.
func (p *pair) newcomers(over <-chan struct{}) (m Measured) {
	for !isOver(over) {
		p.mu.Lock()
		gone := p.err
		p.mu.Unlock()
		if gone != nil {
			return m // the pair itself has been cut off
		}
		began := time.Now()
		m.Newcomers++
		if err := p.newcomer(strings.ReplaceAll(began.Format("150405.000000"), ".", "")); err != nil {
			m.NewcomersFailed = append(m.NewcomersFailed, err.Error())
		}
		took := time.Since(began)
		m.NewcomerMax = max(m.NewcomerMax, milliseconds(took))
		select {
		case <-over:
		case <-time.After(newcomerEvery - took):
		}
	}
	return m
}

// newcomer does once what an honest client does: with a new token it connects, subscribes, publishes and receives that,
// and asks for a ticket.
func (p *pair) newcomer(name string) error {
	token, err := p.mint("newcomer-" + name)
	if err != nil {
		return err
	}
	c, err := rig.Dial(p.addr, "", p.dialer())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Drop()
	topic := "rooms.newcomer." + name
	if err := c.Ask(wire.AppendSubscribe(nil, "s", topic, token)); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := c.Send(wire.AppendPublish(nil, "p", topic, token, []byte("1"), "")); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for range 2 { // the ack and the event, in either order
		var m wire.Message
		if err := c.Receive(&m); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if m.Kind == wire.MessageError {
			return fmt.Errorf("publish: %w", m.Code)
		}
	}
	return p.ticket(token)
}

func (p *pair) ticket(token string) error {
	h := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return p.dial(ctx, addr) },
	}}
	q, err := http.NewRequest(http.MethodPost, "http://"+p.addr+"/v1/tickets", nil)
	if err != nil {
		return err
	}
	q.Header.Set("Authorization", "Bearer "+token)
	answer, err := h.Do(q)
	if err != nil {
		return fmt.Errorf("ticket: %w", errors.Unwrap(err)) // without the URL
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("ticket: %s", answer.Status)
	}
	return nil
}
