//go:build linux

package main

import (
	"fmt"
	"strings"

	"github.com/notifyd/notifyd/bench/peers/hub"
)

// dialect is how clients speak to a server. Answers are recognised by a part of
// them.
type dialect struct {
	path      string
	hello, ok string // sent after the handshake, and its answer; "" for none
	subscribe func(topic string) (message, answer string)
	publish   func(topic string) (message string)
}

// mark stands once in every event and nowhere else.
const mark = "#ev#"

// payload is an event's data as JSON or bare, in both cases of payloadBytes bytes.
var (
	bare   = mark + strings.Repeat("x", payloadBytes-len(mark))
	quoted = `"` + mark + strings.Repeat("x", payloadBytes-len(mark)-2) + `"`
)

// hubDialect is the protocol of package hub.
func hubDialect() *dialect {
	return &dialect{
		path:      "/",
		subscribe: func(topic string) (string, string) { return "S " + topic, "ok" },
		publish:   func(topic string) string { return "P " + topic + " " + bare },
	}
}

// natsDialect is NATS' client protocol.
func natsDialect() *dialect {
	return &dialect{
		path:      "/",
		hello:     "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n",
		ok:        "PONG\r\n",
		subscribe: func(topic string) (string, string) { return "SUB " + topic + " 1\r\nPING\r\n", "PONG\r\n" },
		publish:   func(topic string) string { return fmt.Sprintf("PUB %s %d\r\n%s\r\n", topic, len(bare), bare) },
	}
}

// centrifugeDialect is centrifuge's JSON protocol.
func centrifugeDialect() (*dialect, error) {
	token, err := hub.Token()
	if err != nil {
		return nil, err
	}
	return &dialect{
		path:  "/",
		hello: `{"id":1,"connect":{"token":"` + token + `"}}`,
		ok:    `"connect":{`,
		subscribe: func(topic string) (string, string) {
			return `{"id":2,"subscribe":{"channel":"` + topic + `"}}`, `"subscribe":{`
		},
		publish: func(topic string) string {
			return `{"send":{"data":"` + topic + " " + quoted[1:] + `}}`
		},
	}, nil
}

// notifydDialect carries the token in every message.
func notifydDialect(token string) *dialect {
	return &dialect{
		path: "/v1/ws",
		subscribe: func(topic string) (string, string) {
			return `{"type":"subscribe","id":"1","topic":"` + topic + `","token":"` + token + `"}`, `"type":"ack"`
		},
		publish: func(topic string) string {
			return `{"type":"publish","topic":"` + topic + `","token":"` + token + `","data":` + quoted + `}`
		},
	}
}
