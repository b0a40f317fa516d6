//go:build linux

package load

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// Notifyd speaks to a notifyd server.
type Notifyd struct {
	// Token is what every message carries, unless Mint is set.
	Token string
	// Mint, if not nil, makes the token of each publish anew.
	Mint func() (string, error)
	// Spoil is the token of which Forge makes bad ones; "": Token.
	Spoil string
}

// NewNotifyd mints what the messages carry with key: one token for all of them,
// good for each topic and for ttl, or with fresh a new one for each publish.
func NewNotifyd(key authz.Key, claims authz.Claims, ttl time.Duration, fresh bool) (*Notifyd, error) {
	claims.Publish, claims.Subscribe = []string{">"}, []string{">"}
	minted := 0
	mint := func() (string, error) {
		minted++
		claims.IssuedAt = time.Now()
		claims.Expires = claims.IssuedAt.Add(ttl)
		claims.ID = strconv.Itoa(minted)
		return authz.Sign(key, claims)
	}
	token, err := mint()
	n := &Notifyd{Token: token}
	if fresh {
		n.Mint = mint
	}
	return n, err
}

// Dialer offers the subprotocol.
func (*Notifyd) Dialer() ws.Dialer { return ws.Dialer{Protocols: []string{wire.Subprotocol}} }

// Text is true: envelopes are JSON.
func (*Notifyd) Text() bool { return true }

// Packs is false: an event is a message.
func (*Notifyd) Packs() bool { return false }

// Fresh says whether each publish has a token of its own.
func (n *Notifyd) Fresh() bool { return n.Mint != nil }

// Hello is nothing; the server begins with its welcome.
func (*Notifyd) Hello(dst []byte) ([]byte, bool) { return dst, true }

// Subscribe asks for an ack.
func (n *Notifyd) Subscribe(dst []byte, topic string) ([]byte, bool) {
	return wire.AppendSubscribe(dst, "s", topic, n.Token), true
}

// StreamPath asks for all topics with one token.
func (n *Notifyd) StreamPath(socket string, topics []string) (path, authorization string) {
	return strings.TrimSuffix(socket, "ws") + "events?" + url.Values{"topic": topics}.Encode(), "Bearer " + n.Token
}

// Streaming looks for the ack of a topic.
func (n *Notifyd) Streaming(said []byte, _ int) (int, error) {
	name, data, _ := bytes.Cut(said, []byte("\ndata: "))
	if !bytes.HasPrefix(name, []byte("event: ")) {
		return 0, nil
	}
	answer, err := n.Answer(data)
	if answer.Kind != Subscribed {
		return 0, err
	}
	return 1, err
}

// Publish sends no id: only a refusal is answered.
func (n *Notifyd) Publish(dst []byte, topic string, data []byte) ([]byte, error) {
	token, err := n.token()
	return wire.AppendPublish(dst, "", topic, token, data, ""), err
}

// token is that of the next publish.
func (n *Notifyd) token() (string, error) {
	if n.Mint != nil {
		return n.Mint()
	}
	return n.Token, nil
}

// Post is a JSON body, or lines where there are several events. With Mint, each line has a token of its own.
func (n *Notifyd) Post(socket, topic string, events [][]byte) (r Request, err error) {
	token, err := n.token()
	if err != nil {
		return r, err
	}
	r = Request{Path: strings.TrimSuffix(socket, "ws") + "publish", ContentType: "application/json", Header: "Authorization: Bearer " + token}
	if len(events) > 1 {
		r.ContentType = ndjson
	}
	for _, data := range events {
		r.Body = fmt.Appendf(r.Body, `{"topic":"%s","data":%s`, topic, data)
		if n.Mint != nil && len(events) > 1 {
			if token, err = n.Mint(); err != nil {
				return r, err
			}
			r.Body = fmt.Appendf(r.Body, `,"token":"%s"`, token)
		}
		r.Body = append(r.Body, '}')
		if len(events) > 1 {
			r.Body = append(r.Body, '\n')
		}
	}
	return r, nil
}

// Posted reads the result of one event.
func (*Notifyd) Posted(answer []byte) (int, error) {
	if bytes.Equal(bytes.TrimSpace(answer), []byte("{}")) || bytes.HasPrefix(answer, []byte(`{"ok":true`)) {
		return 1, nil
	}
	return 0, fmt.Errorf("the server answers %.300q", answer)
}

// Store publishes with the mark of data as id, which the ack has, too.
func (n *Notifyd) Store(dst []byte, topic string, data []byte) ([]byte, error) {
	token, err := n.token()
	return wire.AppendPublish(dst, string(data[1:1+markBytes]), topic, token, data, ""), err
}

// Stored looks for the seq of an ack.
func (*Notifyd) Stored(answer []byte) (int, error) {
	if bytes.HasPrefix(answer, []byte(`{"type":"ack"`)) && bytes.Contains(answer, []byte(`"seq":`)) {
		return 1, nil
	}
	var m wire.Message
	if err := wire.ParseMessage(answer, &m); err != nil {
		return 0, err
	}
	switch m.Kind {
	case wire.MessageError:
		return 0, &wire.Error{Code: m.Code, Detail: string(m.Detail)}
	case wire.MessageAck:
		return 0, errNotKept
	}
	return 0, nil
}

var errNotKept = errors.New("the event was published and not stored: the server has no stream for 'bench." + keptWord + ".>'")

// Position reads the ack of a subscribe.
func (*Notifyd) Position(answer []byte) (Position, error) {
	var m wire.Message
	if err := wire.ParseMessage(answer, &m); err != nil {
		return Position{}, err
	}
	if len(m.Stream) == 0 {
		return Position{}, errNotKept
	}
	return Position{Seq: m.Seq, Epoch: string(m.Epoch)}, nil
}

// Resume subscribes from a position on.
func (n *Notifyd) Resume(dst []byte, topic string, from Position) []byte {
	return wire.AppendSubscribeSince(dst, "s", topic, n.Token, wire.Since{Kind: wire.SinceSeq, N: from.Seq, Epoch: []byte(from.Epoch)})
}

// Forge publishes with a bad token: that to spoil, with other bytes in its
// signature. They leave it in the range of what each algorithm accepts, so that
// the server has to do all the arithmetic.
func (n *Notifyd) Forge(dst []byte, topic string, data []byte) ([]byte, error) {
	good := cmp.Or(n.Spoil, n.Token)
	at := strings.LastIndexByte(good, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(good[at:])
	if err != nil || len(signature) < 32 {
		return dst, errors.New("the token has no signature to spoil")
	}
	_, _ = rand.Read(signature[8:24]) // does not fail
	token := good[:at] + base64.RawURLEncoding.EncodeToString(signature)
	return wire.AppendPublish(dst, "", topic, token, data, ""), nil
}

// Refused looks for the code that a bad signature has.
func (*Notifyd) Refused(payload []byte) bool {
	return bytes.Contains(payload, []byte(wire.TokenInvalid.String()))
}

// Answer reads a welcome, an ack, or a refusal.
func (*Notifyd) Answer(payload []byte) (Answer, error) {
	var m wire.Message
	if err := wire.ParseMessage(payload, &m); err != nil {
		return Answer{}, err
	}
	switch m.Kind {
	case wire.MessageWelcome:
		return Answer{Kind: Welcome}, nil
	case wire.MessageAck:
		return Answer{Kind: Subscribed}, nil
	case wire.MessageError:
		return Answer{}, &wire.Error{Code: m.Code, Detail: string(m.Detail)}
	case wire.MessageExpired:
		return Answer{}, &wire.Error{Code: wire.TokenExpired, Detail: "the token expired during the run; make one with a longer --ttl"}
	}
	return Answer{}, nil
}
