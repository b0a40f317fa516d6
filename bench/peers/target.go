//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/bench/load"
	"github.com/notifyd/notifyd/bench/peers/hub"
)

// peer is what the servers of package hub have in common.
type peer struct{}

func (peer) Dialer() ws.Dialer { return ws.Dialer{} }

func (peer) Text() bool { return true }

func (peer) Fresh() bool { return false }

// hubTarget speaks the protocol of package hub.
type hubTarget struct{ peer }

func (hubTarget) Packs() bool { return false }

func (hubTarget) Hello(dst []byte) ([]byte, bool) { return dst, false }

func (hubTarget) Subscribe(dst []byte, topic string) ([]byte, bool) {
	return append(append(dst, "S "...), topic...), true
}

func (hubTarget) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	return fmt.Appendf(dst, "P %s %s", topic, data), nil
}

func (hubTarget) Answer(payload []byte) (load.Answer, error) {
	return answer(payload, "", "ok")
}

// natsTarget speaks NATS' client protocol. One message may hold several events.
type natsTarget struct{ peer }

func (natsTarget) Packs() bool { return true }

func (natsTarget) Hello(dst []byte) ([]byte, bool) {
	return append(dst, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n"...), true
}

// Subscribe takes the topic's number for the subscription's.
func (natsTarget) Subscribe(dst []byte, topic string) ([]byte, bool) {
	return fmt.Appendf(dst, "SUB %s %s\r\nPING\r\n", topic, topic[strings.LastIndexByte(topic, '.')+1:]), true
}

func (natsTarget) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	return fmt.Appendf(dst, "PUB %s %d\r\n%s\r\n", topic, len(data), data), nil
}

func (natsTarget) Answer(payload []byte) (load.Answer, error) {
	if bytes.HasPrefix(payload, []byte("-ERR")) {
		return load.Answer{}, fmt.Errorf("the server says %q", payload)
	}
	return answer(payload, "INFO ", "PONG\r\n")
}

// centrifugeTarget speaks centrifuge's JSON protocol, in which one message may
// hold several replies.
type centrifugeTarget struct {
	peer
	token string
}

func newCentrifugeTarget() (*centrifugeTarget, error) {
	token, err := hub.Token()
	return &centrifugeTarget{token: token}, err
}

func (*centrifugeTarget) Packs() bool { return true }

func (t *centrifugeTarget) Hello(dst []byte) ([]byte, bool) {
	return fmt.Appendf(dst, `{"id":1,"connect":{"token":"%s"}}`, t.token), true
}

func (*centrifugeTarget) Subscribe(dst []byte, topic string) ([]byte, bool) {
	return fmt.Appendf(dst, `{"id":2,"subscribe":{"channel":"%s"}}`, topic), true
}

// Publish has the topic before the event, in one string.
func (*centrifugeTarget) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	return fmt.Appendf(dst, `{"send":{"data":"%s %s}}`, topic, data[1:]), nil
}

func (*centrifugeTarget) Answer(payload []byte) (load.Answer, error) {
	if bytes.Contains(payload, []byte(`"error":{`)) {
		return load.Answer{}, fmt.Errorf("the server says %q", payload)
	}
	return answer(payload, `"connect":{`, `"subscribe":{`)
}

// Store publishes with an answer, which does not tell the mark.
func (*centrifugeTarget) Store(dst []byte, topic string, data []byte) ([]byte, error) {
	return fmt.Appendf(dst, `{"id":7,"publish":{"channel":"%s","data":%s}}`, topic, data), nil
}

// Stored counts the answers in a message.
func (t *centrifugeTarget) Stored(payload []byte) (int, error) {
	_, err := t.Answer(payload)
	return bytes.Count(payload, []byte(`"publish":{`)), err
}

// Position reads the answer to a subscribe.
func (*centrifugeTarget) Position(payload []byte) (load.Position, error) {
	replies := json.NewDecoder(bytes.NewReader(payload))
	for {
		var reply struct {
			Subscribe *struct {
				Recoverable bool
				Epoch       string
				Offset      uint64
			}
		}
		if err := replies.Decode(&reply); err != nil {
			return load.Position{}, err
		}
		if s := reply.Subscribe; s != nil {
			if !s.Recoverable {
				return load.Position{}, errors.New("the server keeps no history of this topic")
			}
			return load.Position{Seq: s.Offset, Epoch: s.Epoch}, nil
		}
	}
}

// Resume asks for all that came behind a position.
func (*centrifugeTarget) Resume(dst []byte, topic string, from load.Position) []byte {
	return fmt.Appendf(dst, `{"id":2,"subscribe":{"channel":"%s","recover":true,"epoch":"%s","offset":%d}}`, topic, from.Epoch, from.Seq)
}

// mercureTarget speaks to Mercure, which has no WebSocket.
type mercureTarget struct {
	hubTarget
	token string
}

func (t mercureTarget) StreamPath(_ string, topics []string) (path, authorization string) {
	return hub.MercurePath + "?" + url.Values{"topic": topics}.Encode(), "Bearer " + t.token
}

// Streaming knows that the stream brings all topics from the head of the answer on.
func (mercureTarget) Streaming(said []byte, topics int) (int, error) {
	if !bytes.HasPrefix(said, []byte("HTTP/1.1 200")) {
		return 0, nil
	}
	return topics, nil
}

// Post is a form. Nothing in it but the quotes of the data needs an escape.
func (t mercureTarget) Post(_, topic string, events [][]byte) (load.Request, error) {
	if len(events) != 1 {
		return load.Request{}, errors.New("a request to Mercure has one event")
	}
	data := bytes.ReplaceAll(events[0], []byte{'"'}, []byte("%22"))
	return load.Request{
		Path: hub.MercurePath, ContentType: "application/x-www-form-urlencoded", Header: "Authorization: Bearer " + t.token,
		Body: fmt.Appendf(nil, "topic=%s&data=%s", topic, data),
	}, nil
}

// Posted looks for the event's id.
func (mercureTarget) Posted(answer []byte) (int, error) {
	if !bytes.HasPrefix(answer, []byte("urn:uuid:")) {
		return 0, fmt.Errorf("the server says %.300q", answer)
	}
	return 1, nil
}

// centrifugoTarget speaks to Centrifugo's program, where each publish is answered.
type centrifugoTarget struct{ *centrifugeTarget }

func (t centrifugoTarget) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	return t.Store(dst, topic, data)
}

// Post is a call of Centrifugo's API, or a batch of calls.
func (centrifugoTarget) Post(_, topic string, events [][]byte) (load.Request, error) {
	r := load.Request{Path: "/api/publish", ContentType: "application/json", Header: "X-API-Key: " + apiKey}
	if len(events) == 1 {
		r.Body = fmt.Appendf(nil, `{"channel":"%s","data":%s}`, topic, events[0])
		return r, nil
	}
	r.Path = "/api/batch"
	for i, data := range events {
		before := ","
		if i == 0 {
			before = `{"commands":[`
		}
		r.Body = fmt.Appendf(r.Body, `%s{"publish":{"channel":"%s","data":%s}}`, before, topic, data)
	}
	r.Body = append(r.Body, "]}"...)
	return r, nil
}

// apiKey guards Centrifugo's API.
const apiKey = "benchmark"

// Posted counts the replies of a batch, or knows a single one.
func (t centrifugoTarget) Posted(answer []byte) (int, error) {
	if bytes.Contains(answer, []byte(`"error":{`)) {
		return 0, fmt.Errorf("the server says %.300q", answer)
	}
	if bytes.HasPrefix(answer, []byte(`{"result":`)) {
		return 1, nil
	}
	return bytes.Count(answer, []byte(`"publish":{`)), nil
}

// answer tells what a message is by a part of it. A server without a greeting has
// an empty one.
func answer(payload []byte, welcome, subscribed string) (load.Answer, error) {
	switch {
	case bytes.Contains(payload, []byte(subscribed)):
		return load.Answer{Kind: load.Subscribed}, nil
	case welcome != "" && bytes.Contains(payload, []byte(welcome)):
		return load.Answer{Kind: load.Welcome}, nil
	}
	return load.Answer{}, nil
}
