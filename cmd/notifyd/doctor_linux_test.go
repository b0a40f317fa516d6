package main

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
)

// serveWithToken is a node, the file with its keys, and a token for topics of it.
func serveWithToken(t *testing.T) (r *running, keys, token string) {
	t.Helper()
	keys, key := keyFile(t)
	token, err := authz.Sign(key, authz.Claims{Subject: "ann", Expires: time.Now().Add(time.Hour), Publish: []string{"a.*"}, Subscribe: []string{"a.*"}})
	if err != nil {
		t.Fatal(err)
	}
	return serveHere(t, "--auth.keys="+keys), keys, token
}

// A machine whose clock is wrong is told so, whether its tokens are refused for that or not; what has nothing to do with
// time is told first.
func TestDoctorOfAWrongClock(t *testing.T) {
	t.Parallel()
	r, _, token := serveWithToken(t)
	for _, c := range []struct {
		ahead  time.Duration
		origin string
		ok     bool
		cause  string
		remark string // of the step "clock", when it is ok
	}{
		{0, "", true, "", "agrees"},
		{4 * time.Second, "", true, "", `[234]s ahead of`},
		{-4 * time.Second, "", true, "", `[234]s behind`},
		{time.Hour, "", false, `This machine's clock is (1h0m0|59m\d+)s ahead of the server's`, ""},
		{-time.Hour, "", false, `This machine's clock is (1h0m0|59m\d+)s behind the server's`, ""},
		{time.Hour, "https://elsewhere.example", false, "no page of the origin", ""},
	} {
		cmd := &doctorCmd{URL: r.url, Token: token, Strategy: []string{"message"}, Timeout: 10 * time.Second, Origin: c.origin}
		x, err := cmd.prepare(&process{ctx: t.Context(), stdin: strings.NewReader("")})
		if err != nil {
			t.Fatal(err)
		}
		x.now = func() time.Time { return time.Now().Add(c.ahead) }
		d := x.examine(func(*finding) {})
		x.end()
		if d.OK != c.ok || !regexp.MustCompile(c.cause).MatchString(d.Cause) || c.ok && d.Cause != "" {
			t.Errorf("%v ahead: %v %q", c.ahead, d.OK, d.Cause)
		}
		for _, f := range d.Steps {
			if f.Step == "clock" && !regexp.MustCompile(c.remark).MatchString(f.Detail) {
				t.Errorf("%v ahead: %q", c.ahead, f.Detail)
			}
		}
	}
}

// The token may come from a file, and from standard input.
func TestDoctorReadsTheToken(t *testing.T) {
	t.Parallel()
	r, _, token := serveWithToken(t)
	file := writeFile(t, token+"\n")
	for _, got := range []result{
		invoke(t, nil, "", "doctor", "--token-file", file, r.url),
		invoke(t, map[string]string{"NOTIFYD_TOKEN": "another"}, "", "doctor", "--token-file", file, r.url),
		invoke(t, nil, token, "doctor", "--token-file", "-", r.url),
		invoke(t, map[string]string{"NOTIFYD_TOKEN": token, "NOTIFYD_URL": r.url}, "", "doctor"),
		invoke(t, nil, "", "doctor", "--token", token, r.url+"?access_token=x"),
	} {
		if got.code != exitOK || got.stderr != "" || !strings.Contains(got.stdout, "ok       delivery") {
			t.Errorf("%+v", got)
		}
	}
	if got := invoke(t, nil, "", "doctor", r.url); got.code != exitOK || !strings.Contains(got.stdout, "skipped  subscribe  without a token") {
		t.Errorf("%+v", got)
	}
}

// What says something before it is asked, or hangs up before, is told like what does so a moment later: which of them it is for
// net/http depends on which goroutine comes first.
func TestDoctorOfWhatDoesNotWait(t *testing.T) {
	for text, want := range map[string]string{
		"http: server closed idle connection": "closes connections without an answer",
		"EOF":                                 "closes connections without an answer",
		"readLoopPeekFailLocked: %!w(<nil>)":  "no HTTP server",
		`malformed HTTP response "SSH-2.0"`:   "no HTTP server",
	} {
		x := &examination{url: &url.URL{Scheme: "ws", Host: "127.0.0.1:1"}, address: "127.0.0.1:1", wantsCertificate: new(atomic.Bool)}
		if f := x.transportFault(t.Context(), errors.New(text)); !strings.Contains(f.cause, want) {
			t.Errorf("%s: %q", text, f.cause)
		}
	}
}
