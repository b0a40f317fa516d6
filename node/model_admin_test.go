package node_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// Tokens.

// anyToken draws a token: a new one, or one that was used before and may be worth nothing by now.
func (w *world) anyToken() *modelToken {
	n, old := w.rng.IntN(20), w.rng.IntN(12)
	life := time.Duration(1+w.rng.IntN(3)) * time.Second
	k := &modelToken{
		subject: fmt.Sprint("u", w.rng.IntN(3)), key: 1 + w.rng.IntN(len(w.keys)-1),
		publish: w.anyPatterns(), subscribe: w.anyPatterns(),
	}
	now := time.Now()
	k.issued = time.Unix(now.Unix()-int64(w.rng.IntN(100)), 0)
	k.id = fmt.Sprint(w.rng.Uint64())
	w.mu.Lock()
	defer w.mu.Unlock()
	forged := false
	switch {
	case n < 6 && old < len(w.tokens):
		return w.tokens[len(w.tokens)-1-old]
	case n < 14:
		k.publish, k.subscribe = []string{">"}, []string{">"}
	case n == 14:
		forged = true
	case n == 15:
		k.starts = time.Unix(now.Unix()+1+int64(w.rng.IntN(2)), 0)
	}
	if n%2 == 0 {
		life = time.Hour
	}
	w.sign(k, now.Add(life), forged)
	w.tokens = append(w.tokens, k)
	return k
}

func (w *world) anyPatterns() (patterns []string) {
	for range 1 + w.rng.IntN(3) {
		patterns = append(patterns, modelPatterns[w.rng.IntN(len(modelPatterns))])
	}
	return patterns
}

// sign makes the token, and adds why it is not, or soon will not be, accepted. mu is held.
func (w *world) sign(k *modelToken, expires time.Time, forged bool) {
	var err error
	expires = expires.Truncate(time.Second)
	k.raw, err = authz.Sign(w.keys[k.key], authz.Claims{
		Subject: k.subject, ID: k.id, IssuedAt: k.issued, NotBefore: k.starts, Expires: expires, Publish: k.publish, Subscribe: k.subscribe,
	})
	if err != nil {
		w.wrong("%v", err)
	}
	k.refuse(wire.TokenExpired, expires, expires)
	if forged {
		dot := strings.LastIndexByte(k.raw, '.') + 1
		swapped := byte('A')
		if k.raw[dot] == swapped {
			swapped = 'B'
		}
		k.raw = k.raw[:dot] + string(swapped) + k.raw[dot+1:]
		k.refuse(wire.TokenInvalid, time.Time{}, time.Time{})
	}
	for _, r := range w.revoked {
		r.apply(k)
	}
}

func (r *revokedSubject) apply(k *modelToken) {
	if k.subject == r.subject && k.issued.Unix() < r.before {
		k.causes = append(k.causes, r.cause)
	}
}

// What happens to all.

func (w *world) revoke(body string) (ok bool) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.node.Addr().String()+"/v1/revocations", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.admin)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wrong("revoke %s: %v", body, err)
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked("revoke %s: %d", body, resp.StatusCode)
	switch {
	case resp.StatusCode == http.StatusNoContent && !w.down:
		return true
	case resp.StatusCode == http.StatusServiceUnavailable && w.away:
	default:
		w.wrong("revoke %s: %d %s", body, resp.StatusCode, text)
	}
	return false
}

// until is a cause that may count from now on; done says from when on it surely does.
func until(code wire.Code) *cause { return &cause{code, time.Now(), time.Now().Add(time.Hour)} }

func (w *world) revokeOne(k *modelToken) {
	c := until(wire.TokenRevoked)
	w.mu.Lock()
	k.causes = append(k.causes, c)
	w.mu.Unlock()
	if w.revoke(fmt.Sprintf(`{"jti":%q}`, k.id)) {
		w.done(c)
	}
}

func (w *world) revokeSubject(subject string, before time.Time) {
	r := revokedSubject{subject, before.Add(time.Second - 1).Unix(), until(wire.TokenRevoked)}
	w.mu.Lock()
	w.revoked = append(w.revoked, r)
	for _, k := range w.tokens {
		r.apply(k)
	}
	w.mu.Unlock()
	if w.revoke(fmt.Sprintf(`{"sub":%q,"before":%q}`, subject, before.Format(time.RFC3339Nano))) {
		w.done(r.cause)
	}
}

func (w *world) done(c *cause) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.surely = time.Now()
}

// withdraw replaces a key.
func (w *world) withdraw(key int, by authz.Key) {
	c := until(wire.TokenInvalid)
	w.mu.Lock()
	for _, k := range w.tokens {
		if k.key == key {
			k.causes = append(k.causes, c)
		}
	}
	w.keys[key] = by
	keys := slices.Clone(w.keys)
	w.noteLocked("withdraw key %d", key)
	w.mu.Unlock()
	if err := w.node.Verifier.SetKeys(keys); err != nil {
		w.t.Error(err)
	}
	w.done(c)
}

func (w *world) killNATS() {
	w.mu.Lock()
	w.noteLocked("NATS is killed")
	w.away, w.back = true, time.Now()
	w.outages++
	for _, e := range w.recent {
		e.lossy = true
	}
	w.mu.Unlock()
	w.nats.Kill(w.t)
	testkit.Eventually(w.t, "the node sees that NATS is away", func() bool { return !w.node.Bus.Connected() })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	w.seen["NATS was killed"]++
	w.noteLocked("NATS is down")
}

// awaySince reports whether NATS was away at some time since m, or may have been. mu is held.
func (w *world) awaySince(m moment) bool { return w.away || m.sent.Before(w.back) }

// connected reports whether the node has NATS and its streams.
func (w *world) connected() bool {
	for _, s := range w.node.Bus.Streams() {
		if ready, _ := s.Ready(); !ready {
			return false
		}
	}
	return w.node.Bus.Connected()
}

func (w *world) startNATS() {
	w.mu.Lock()
	w.down = false
	w.noteLocked("NATS starts")
	w.mu.Unlock()
	w.nats.Start(w.t)
	testkit.Eventually(w.t, "the node is connected to NATS again", w.connected)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away, w.back = false, time.Now()
	w.noteLocked("NATS is back")
}
