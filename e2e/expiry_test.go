//go:build linux

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// expiry reads exp from a token.
func expiry(t *testing.T, token string) time.Time {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var claims struct{ Exp int64 }
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil || claims.Exp == 0 {
		t.Fatalf("the token has no exp: %v: %s", err, payload)
	}
	return time.Unix(claims.Exp, 0)
}

// TestExpiryInbound publishes with one token until it is refused, and compares each answer with the clock: what was
// sent at or after exp must be refused, what was answered before exp must be acked. In between lies the one frame that
// was under way at that moment.
func TestExpiryInbound(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--limits.auth-failures=1000")
	streaming := dialCoder(t, "streaming publisher", node.url)
	idle := dialCoder(t, "publisher that used the token once", node.url)
	fresh := dialCoder(t, "publisher that never used the token", node.url)

	token := keys.publisher(t, 8*time.Second, "expiry.>")
	exp := expiry(t, token)
	if m := idle.publish(t, "expiry.in", token, "0"); m.Type != "ack" {
		t.Fatalf("before exp: %+v", m)
	}
	var acks, refusals int
	for refusals < 50 {
		sent := time.Now()
		m := streaming.publish(t, "expiry.in", token, fmt.Sprint(acks))
		answered := time.Now()
		switch {
		case m.Type == "ack" && sent.Before(exp):
			acks++
		case m.Type == "error" && m.Code == "token_expired" && !answered.Before(exp):
			refusals++
		default:
			t.Fatalf("sent %v, answered %v after exp, following %d acks: %s %s", sent.Sub(exp), answered.Sub(exp), acks, m.Type, m.Code)
		}
	}
	if acks < 10 {
		t.Errorf("only %d acks before exp: the token was not remembered and used again", acks)
	}
	for _, p := range []*peer{idle, fresh} {
		if m := p.publish(t, "expiry.in", token, "0"); m.Code != "token_expired" {
			t.Errorf("%s: %s %q, want token_expired", p.name, m.Type, m.Code)
		}
	}
}

// TestExpiryOutbound lets a subscriber's token expire while events flow. Each event carries the time when it was sent:
// none that was sent at or after exp may arrive, and none at all behind "expired".
func TestExpiryOutbound(t *testing.T) {
	t.Parallel()
	const topic = "expiry.out"
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public, "--auth.expiry-notice=4s")
	publisher := dialCoder(t, "publisher", node.url)
	brief := dialCoder(t, "subscriber with a brief token", node.url)
	lasting := dialCoder(t, "subscriber with a lasting token", node.url)
	publishToken := keys.publisher(t, time.Hour, topic)
	lasting.subscribe(t, topic, keys.subscriber(t, time.Hour, topic))
	token := keys.subscriber(t, 8*time.Second, topic)
	exp := expiry(t, token)
	brief.subscribe(t, topic, token)

	published := 0
	publish := func() {
		if m := publisher.publish(t, topic, publishToken, fmt.Sprint(time.Now().UnixNano())); m.Type != "ack" {
			t.Fatalf("publish: %+v", m)
		}
		published++
	}
	expired := func() bool {
		frames := brief.got.all()
		for _, frame := range frames {
			if decode(t, frame).Type == "expired" {
				return true
			}
		}
		return false
	}
	eventually(t, "the subscriber is told that its token expired", func() bool {
		publish()
		return expired()
	})
	for range 50 {
		publish()
	}
	lasting.awaitEvents(t, published)
	brief.ping(t)

	var kinds []string
	for _, frame := range brief.got.all() {
		m := decode(t, frame)
		switch m.Type {
		case "event":
			var sent int64
			if err := json.Unmarshal(m.Data, &sent); err != nil {
				t.Fatal(err)
			}
			if late := time.Unix(0, sent).Sub(exp); late >= 0 {
				t.Errorf("an event arrived that was sent %v after exp", late)
			}
		case "expiring", "expired":
			if m.Topic != topic {
				t.Errorf("%s for topic %q, want %q", m.Type, m.Topic, topic)
			}
			if m.Type == "expiring" && m.Exp != exp.Unix() {
				t.Errorf("expiring says exp %d, want %d", m.Exp, exp.Unix())
			}
		default:
			continue
		}
		if len(kinds) == 0 || kinds[len(kinds)-1] != m.Type {
			kinds = append(kinds, m.Type)
		}
	}
	if got := strings.Join(kinds, " "); got != "event expiring event expired" {
		t.Errorf("the subscriber saw: %s; want: event expiring event expired", got)
	}

	// The connection itself goes on, with a new token.
	brief.subscribe(t, topic, keys.subscriber(t, time.Hour, topic))
	seen := brief.got.len()
	publish()
	brief.got.await(t, "event with the new token", seen, func(frame string) bool { return decode(t, frame).Type == "event" })
}
