package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/notifyd/notifyd/wire"
)

// reply is the answer to a request that a test has written byte for byte. Its
// peer is of use when the status is 101.
type reply struct {
	*peer
	status int
	header http.Header
	body   string
	// The server has asked for the body.
	continued bool
}

// head is an upgrade request. query, if any, has its question mark.
func head(query string, headers ...string) string {
	return "GET " + wire.Path + query + " HTTP/1.1\r\nHost: notifyd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + lines(headers) + "\r\n"
}

// request is one that is no upgrade.
func request(method, path, body string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: notifyd\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s", method, path, len(body), lines(headers), body)
}

func lines(headers []string) string {
	if len(headers) == 0 {
		return ""
	}
	return strings.Join(headers, "\r\n") + "\r\n"
}

// dialFrom opens a socket from a loopback address.
func (n *node) dialFrom(t testing.TB, from string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a request and reads the answer.
func (n *node) ask(t testing.TB, text string) reply {
	t.Helper()
	return n.askFrom(t, "127.0.0.1", text)
}

func (n *node) askFrom(t testing.TB, from, text string) reply {
	t.Helper()
	c := n.dialFrom(t, from)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	r := readReply(t, c)
	openAPI().check(t, text, r)
	return r
}

// readReply reads the answer to a request that was written to c.
func readReply(t testing.TB, c net.Conn) reply {
	t.Helper()
	p := &peer{t: t, conn: c, r: bufio.NewReader(c)}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	r, err := http.ReadResponse(p.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{peer: p, status: r.StatusCode, header: r.Header}
	if r.StatusCode != http.StatusSwitchingProtocols {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		got.body = string(b)
	}
	return got
}

// wantStatus requires that the request was answered so, and returns r.
func (r reply) wantStatus(status int) reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %v %s", r.status, status, r.header, r.body)
	}
	return r
}

// opened requires that the upgrade succeeded, and returns its peer.
func (r reply) opened() *peer {
	r.t.Helper()
	r.wantStatus(http.StatusSwitchingProtocols)
	r.want(`"type":"welcome"`)
	return r.peer
}

// secrets are what may stand in no log, answer or header.
type secrets struct{ all []string }

// newSecrets returns them with a log that is looked through at the test's end.
func newSecrets(t testing.TB) (*secrets, *zap.Logger) {
	core, logs := observer.New(zap.DebugLevel)
	s := new(secrets)
	t.Cleanup(func() {
		if logs.Len() == 0 {
			t.Error("nothing is logged at all")
		}
		for _, e := range logs.All() {
			s.unseen(t, fmt.Sprint(e.Message, e.ContextMap()))
		}
	})
	return s, zap.New(core)
}

// keep notes a token or ticket, and returns it. Of a token it is the signature
// that must not be seen.
func (s *secrets) keep(secret string) string {
	s.all = append(s.all, secret[strings.LastIndexByte(secret, '.')+1:])
	return secret
}

func (s *secrets) unseen(t testing.TB, text string) {
	t.Helper()
	for _, x := range s.all {
		if x != "" && strings.Contains(text, x) {
			t.Errorf("a secret is told: %.500s", text)
		}
	}
}
