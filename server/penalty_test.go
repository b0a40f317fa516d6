package server

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

func TestPause(t *testing.T) {
	var p penalties
	p.seed = maphash.MakeSeed()
	addr := netip.MustParseAddr("192.0.2.1")
	for n := 1; n <= 100; n++ {
		want := min(10*time.Millisecond<<min(max(n-2, 0), 20), time.Second)
		if n == 1 {
			want = 0
		}
		if got := p.pause(addr, 1, time.Second); got != want {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
	if got := p.pause(addr, 1, 0); got != 0 {
		t.Errorf("no penalty is set, and it is %v", got)
	}
}

// An answer to a bad signature over HTTP is held back as long as a connection would be paused, and the sender's
// other requests are not; one for a token that is no JWT, whose check costs nothing, is not held back.
func TestBadSignaturesOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := testKey(t)
		auth, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{opts: Options{Penalty: time.Second}.WithDefaults(), log: zap.NewNop(), auth: auth, store: noStore{}}
		s.penalties.seed = maphash.MakeSeed()
		s.answers = newAnswers()
		s.ticketsOfSubject, s.ticketsOfAddress = newQuota(0, time.Second), newQuota(0, time.Second)
		s.verify.start(1)
		defer s.verify.stop()
		ask := func(token string) (status int, took time.Duration) {
			r := httptest.NewRequest("POST", "/v1/tickets", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			before := time.Now()
			s.ticketsHandler(w, r)
			return w.Code, time.Since(before)
		}
		claims := authz.Claims{Expires: time.Now().Add(time.Hour), Publish: []string{">"}}
		good, err := authz.Sign(key, claims)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 12 {
			claims.ID = fmt.Sprint(n)
			forged, err := authz.Sign(key, claims)
			if err != nil {
				t.Fatal(err)
			}
			forged = tampered(forged)
			want := time.Duration(0)
			if n > 0 {
				want = min(10*time.Millisecond<<(n-1), time.Second)
			}
			if status, took := ask(forged); status != 401 || took != want {
				t.Errorf("forgery %d: %d after %v, want 401 after %v", n+1, status, took, want)
			}
			if status, took := ask("x.y.z"); status != 401 || took != 0 {
				t.Errorf("no JWT: %d after %v", status, took)
			}
			if status, took := ask(good); status != 503 || took != 0 { // there is no store
				t.Errorf("a good one: %d after %v", status, took)
			}
		}
	})
}

// tampered is a token with another signature.
func tampered(token string) string {
	at := strings.LastIndexByte(token, '.') + 10
	x := "A"
	if token[at] == 'A' {
		x = "B"
	}
	return token[:at] + x + token[at+1:]
}

func testKey(t *testing.T) authz.Key {
	t.Helper()
	key, err := authz.GenerateKey("ES384")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Bad signatures count by address, for a while.
func TestPenaltiesCount(t *testing.T) {
	p := new(penalties)
	p.seed = newStage(t, Options{}).penalties.seed
	now := time.Now().UnixNano()
	for i, row := range []struct {
		addr  string
		after time.Duration
		want  int
	}{
		{"192.0.2.1", 0, 1},
		{"192.0.2.1", 0, 2},
		{"::ffff:192.0.2.1", 0, 3},
		{"192.0.2.2", 0, 1},
		{"2001:db8::1", 0, 1},
		{"2001:db8::ffff:0:0:1", 0, 2}, // of the same /64
		{"2001:db8:0:1::1", 0, 1},
		{"192.0.2.1", forgetAfter, 4},
		{"192.0.2.1", forgetAfter + 1, 1},
	} {
		now += int64(row.after)
		if got := p.add(netip.MustParseAddr(row.addr), now); got != row.want {
			t.Errorf("row %d: %s is at %d, want %d", i, row.addr, got, row.want)
		}
	}
	for range 1000 {
		p.add(netip.MustParseAddr("192.0.2.3"), now)
	}
	if n := p.add(netip.MustParseAddr("192.0.2.3"), now); n < 10 {
		t.Error("the count has wrapped around to", n)
	}
}

// A client that sends a bad signature again is not read for a while, on a new connection
// either; a connection from the same address with good tokens is.
func TestPenalty(t *testing.T) {
	for _, row := range []struct {
		name    string
		longest time.Duration
		earlier int // bad signatures from that address
		read    bool
	}{
		{"the first", time.Hour, 0, true},
		{"one of many", time.Hour, 50, false},
		{"one of many, until it is over", time.Millisecond, 50, true},
		{"none is set", 0, 50, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			x := newStage(t, Options{Penalty: row.longest})
			for range row.earlier {
				x.penalties.add(netip.MustParseAddr("127.0.0.1"), time.Now().UnixNano())
			}
			publish := func(token string) []byte {
				return wire.AppendPublish(nil, "", "rooms.1", token, []byte("1"), "")
			}
			bad := x.tokens[0][:len(x.tokens[0])-20] + strings.Repeat("A", 20)
			var turn bytes.Buffer
			_ = wsutil.WriteClientText(&turn, publish(bad))
			_ = wsutil.WriteClientText(&turn, publish(x.tokens[0]))
			if _, err := x.conn.Write(turn.Bytes()); err != nil {
				t.Fatal(err)
			}
			x.until(t, "the bad one is refused", func(st *loopState) bool { return st.counts.refused[wire.TokenInvalid] == 1 })
			want := uint64(1)
			if row.read {
				want++
			}
			// Another connection of the same loop, behind which the first one's would be.
			other, _, _, err := ws.Dial(t.Context(), "ws://"+x.conn.RemoteAddr().String()+wire.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = other.Close() }()
			if err := wsutil.WriteClientText(other, publish(x.tokens[1])); err != nil {
				t.Fatal(err)
			}
			x.until(t, "the good ones are published", func(st *loopState) bool { return st.counts.published[wire.OK] >= want })
			x.with(func(c *loop.Conn) {
				if got := stateOf(c.Loop()).counts.published[wire.OK]; got != want {
					t.Errorf("%d were published, want %d", got, want)
				}
			})
		})
	}
}

// Behind a proxy bad signatures count at the client's address: another client of the same proxy, and the proxy itself,
// are not held back for them.
func TestPenaltyBehindAProxy(t *testing.T) {
	for _, row := range []struct {
		name, offender string
		read           bool
	}{
		{"the client", "192.0.2.1", false},
		{"another client", "192.0.2.2", true},
		{"the proxy", "127.0.0.1", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			x := newStage(t, Options{Penalty: time.Hour, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
			for range 50 {
				x.penalties.add(netip.MustParseAddr(row.offender), time.Now().UnixNano())
			}
			bad := x.tokens[0][:len(x.tokens[0])-20] + strings.Repeat("A", 20)
			send := func(client string, tokens ...string) {
				t.Helper()
				d := ws.Dialer{Header: ws.HandshakeHeaderString("X-Forwarded-For: " + client + "\r\n")}
				conn, _, _, err := d.Dial(t.Context(), x.url)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				var turn bytes.Buffer
				for _, token := range tokens {
					_ = wsutil.WriteClientText(&turn, wire.AppendPublish(nil, "", "rooms.1", token, []byte("1"), ""))
				}
				if _, err := conn.Write(turn.Bytes()); err != nil {
					t.Fatal(err)
				}
			}
			send("192.0.2.1", bad, x.tokens[0])
			x.until(t, "the bad one is refused", func(st *loopState) bool { return st.counts.refused[wire.TokenInvalid] == 1 })
			want := uint64(1)
			if row.read {
				want++
			}
			send("192.0.2.3", x.tokens[1]) // behind which the first one's would be
			x.until(t, "the good ones are published", func(st *loopState) bool { return st.counts.published[wire.OK] >= want })
			x.with(func(c *loop.Conn) {
				if got := stateOf(c.Loop()).counts.published[wire.OK]; got != want {
					t.Errorf("%d were published, want %d", got, want)
				}
			})
		})
	}
}

func (x *stage) until(t *testing.T, what string, ok func(*loopState) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		done := false
		x.with(func(c *loop.Conn) { done = ok(stateOf(c.Loop())) })
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
