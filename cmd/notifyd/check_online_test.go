package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"

	"github.com/notifyd/notifyd/internal/testkit"
)

// check --online says what came of each key set and of NATS, and fails when one of them would not do.
func TestCheckOnline(t *testing.T) {
	t.Parallel()
	_, key := keyFile(t)
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			_, _ = w.Write(public)
		case "/odd":
			_, _ = w.Write([]byte(strings.Replace(string(public), `"keys":[`, `"keys":[{"kty":"EC","crv":"P-256","kid":"short","x":"AQ","y":"AQ"},`, 1)))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer idp.Close()
	serve := func(o natsserver.Options) string { return testkit.ServeNATS(t, o) }
	jetStream := natsserver.Options{JetStream: true, StoreDir: t.TempDir(), Username: "joe", Password: "s3cret"}
	nats := serve(jetStream)
	makeStreams(t, strings.Replace(nats, "://", "://joe:s3cret@", 1),
		natsgo.StreamConfig{Name: "theirs", Subjects: []string{"notify.ev.taken.*"}},
		natsgo.StreamConfig{Name: "notify-kept", Subjects: []string{"notify.ev.kept.>"}, Storage: natsgo.MemoryStorage})
	small := jetStream
	small.StoreDir, small.MaxPayload = t.TempDir(), 1<<10
	const login = " --nats.user=joe --nats.password=s3cret"
	for _, c := range []struct {
		args   string
		code   int
		stdout []string
		stderr []string
	}{
		{"--auth.keys=URL/good?k=s3cret", exitOK, []string{"auth.keys: URL/good: " + key.String(), "the configuration is fine"}, nil},
		{"--auth.keys=URL/odd", exitOK, []string{"auth.keys: URL/odd: " + key.String() + `, not trusted: JWK Set URL/odd: key 0 of the set: kid "short"`}, nil},
		{"--auth.keys=URL/gone,URL/good", exitFailed, []string{"URL/good: "}, []string{"auth.keys: URL/gone: JWK Set URL/gone: status 404"}},
		{"--auth.keys=http://127.0.0.1:1/jwks", exitFailed, nil, []string{"auth.keys: http://127.0.0.1:1/jwks: ", "connection refused"}},
		{`--auth.issuers=[{"name":"a","keys":["URL/good"]},{"name":"b","keys":["URL/gone"]}]`, exitFailed, []string{"auth.issuers[0].keys: URL/good: "}, []string{"auth.issuers[1].keys: URL/gone: "}},
		{"--auth.keys=URL/good --nats.url=" + nats + login, exitOK, []string{"nats.url: " + nats + ": ", ", version 2.", "with JetStream"}, nil},
		{"--auth.keys=URL/good --nats.url=" + strings.Replace(nats, "://", "://joe:s3cret@", 1), exitOK, []string{"nats.url: " + nats + ": "}, nil},
		{"--auth.keys=URL/gone --nats.url=" + nats + " --nats.user=joe --nats.password=s3cret.not", exitFailed, nil, []string{"auth.keys: URL/gone: ", "nats.url: " + nats + ": nats: Authorization Violation"}},
		{"--auth.keys=URL/good --nats.url=nats://127.0.0.1:1", exitFailed, nil, []string{"nats.url: nats://127.0.0.1:1: nats: no servers available"}},
		{"--auth.keys=URL/good --nats.url=" + serve(natsserver.Options{}), exitFailed, nil, []string{"JetStream is needed", "enable it"}},
		{"--auth.keys=URL/good --nats.url=" + serve(small) + login, exitFailed, nil, []string{"its max_payload is 1024 bytes; raise it, or lower limits.message_bytes (64KiB)"}},
		{"--auth.keys=URL/good --nats.url=" + testkit.NATSVersion(t, nats, "2.10.7") + login, exitFailed, nil, []string{"version 2.10.7, and 2.11 is the oldest"}},
		{`--auth.keys=URL/good --nats.url=` + nats + login + ` --streams=[{"name":"new","topics":["new.>"],"max_age":"1h"}]`, exitOK, []string{"with JetStream"}, nil},
		{`--auth.keys=URL/good --nats.url=` + nats + login + ` --streams=[{"name":"kept","topics":["kept.>"],"storage":"memory","max_age":"1h"}]`, exitOK, []string{"streams: kept: max_age is 0s, and 1h0m0s here; a node that starts"}, nil},
		{`--auth.keys=URL/good --nats.url=` + nats + login + ` --streams=[{"name":"kept","topics":["kept.>"],"max_age":"1h"},{"name":"b","topics":["taken.1"],"max_age":"1h"}]`, exitFailed, nil, []string{`streams[0].storage: "file": `, `streams[1].topics: "taken.1": `}},
		{"--auth.keys=URL/good --loops=-1", exitUsage, nil, []string{"loops: -1"}}, // nothing is tried
	} {
		r := invoke(t, nil, "", append([]string{"check", "--online"}, strings.Fields(strings.ReplaceAll(c.args, "URL", idp.URL))...)...)
		if r.code != c.code || (r.code == exitOK) != strings.Contains(r.stdout, "the configuration is fine") {
			t.Errorf("%s: %+v", c.args, r)
		}
		for text, list := range map[string][]string{r.stdout: c.stdout, r.stderr: c.stderr} {
			for _, want := range list {
				if want = strings.ReplaceAll(want, "URL", idp.URL); !strings.Contains(text, want) {
					t.Errorf("%s: no %q in:\n%s", c.args, want, text)
				}
			}
		}
		if strings.Contains(r.stdout+r.stderr, "s3cret") {
			t.Errorf("%s: a secret is told: %+v", c.args, r)
		}
	}
}

// makeStreams makes streams as their operator would.
func makeStreams(t *testing.T, url string, streams ...natsgo.StreamConfig) {
	t.Helper()
	c, err := natsgo.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := c.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if _, err := js.AddStream(&s); err != nil {
			t.Fatal(err)
		}
	}
}
