package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Each event gets its own result: an ack, a refusal, or what kept its answer away.
func TestPublishBatch(t *testing.T) {
	const long = `{"ok":true}` + "\n"
	good := Publication{Topic: "a", Data: []byte("1")}
	for _, x := range []struct {
		name   string
		events []Publication
		answer func(w http.ResponseWriter)
		want   []string // part of the error of each event; "": none
		body   string
	}{
		{"none", nil, nil, nil, ""},
		{
			"all are taken",
			[]Publication{good, {Topic: "b\"", Data: []byte(`{"n": 1}`), Token: "x"}},
			func(w http.ResponseWriter) { _, _ = io.WriteString(w, long+`{"ok":true,"id":"new"}`+"\n") },
			[]string{"", ""},
			`{"topic":"a","data":1}` + "\n" + `{"topic":"b\"","token":"x","data":{"n": 1}}` + "\n",
		},
		{
			"one is refused",
			[]Publication{good, good, good},
			func(w http.ResponseWriter) {
				_, _ = io.WriteString(w, long+`{"ok":false,"code":"forbidden","message":"no"}`+"\n"+long)
			},
			[]string{"", "forbidden: no", ""},
			"",
		},
		{
			"what cannot be a line is not sent",
			[]Publication{{Topic: "a", Data: []byte("x")}, good, {Topic: "a", Data: []byte("[1,\n2]")}, {Topic: "a"}},
			func(w http.ResponseWriter) { _, _ = io.WriteString(w, long) },
			[]string{"not JSON", "", "line breaks", "not JSON"},
			`{"topic":"a","data":1}` + "\n",
		},
		{
			"nothing can be a line",
			[]Publication{{Topic: "a", Data: []byte("x")}},
			func(http.ResponseWriter) { t.Error("a request came") },
			[]string{"not JSON"},
			"",
		},
		{
			"the request is refused",
			[]Publication{good, good},
			func(w http.ResponseWriter) {
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(503)
				_, _ = io.WriteString(w, `{"title":"x","status":503,"code":"unavailable","message":"not now"}`)
			},
			[]string{"unavailable: not now", "unavailable: not now"},
			"",
		},
		{
			"the answer ends early",
			[]Publication{good, good, good},
			func(w http.ResponseWriter) { _, _ = io.WriteString(w, long) },
			[]string{"", "ended early", "ended early"},
			"",
		},
		{
			"the answer is no result",
			[]Publication{good, good},
			func(w http.ResponseWriter) { _, _ = io.WriteString(w, long+"<html>\n") },
			[]string{"", "the server's result"},
			"",
		},
		{
			"a code of a newer server",
			[]Publication{good},
			func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"ok":false,"code":"new","message":"x"}`+"\n") },
			[]string{"unknown"},
			"",
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || x.body != "" && string(body) != x.body {
					t.Errorf("body %q, %v; want %q", body, err, x.body)
				}
				if r.Method != http.MethodPost || r.URL.Path != "/push/v1/publish" || r.Header.Get("Authorization") != "Bearer t" || r.Header.Get("Content-Type") != "application/x-ndjson" {
					t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
				}
				x.answer(w)
			}))
			defer s.Close()
			url := "ws" + strings.TrimPrefix(s.URL, "http") + "/push" + wire.Path
			_, err := PublishBatch(t.Context(), nil, url, "t", x.events)
			var batch *BatchError
			if !errors.As(err, &batch) {
				batch = &BatchError{Errs: make([]error, len(x.want))}
				if err != nil || strings.Join(x.want, "") != "" {
					t.Fatalf("error %v, want %q", err, x.want)
				}
			}
			for i, want := range x.want {
				if got := batch.Errs[i]; (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
					t.Errorf("event %d: %v, want %q", i, got, want)
				}
			}
		})
	}
}

// Lines say what a stream is to do with an event, and results where it has put it.
func TestPublishBatchToStreams(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if want := `{"topic":"a","msg_id":"m","ttl":2,"data":1}` + "\n" + `{"topic":"b","data":2}` + "\n" + `{"topic":"c","data":3}` + "\n"; string(body) != want {
			t.Errorf("%s, want %s", body, want)
		}
		lines := wire.AppendStoredResult(nil, nil, 7, true)
		lines = wire.AppendResult(lines, nil, wire.Unavailable, "")
		_, _ = w.Write(wire.AppendStoredResult(lines, nil, 8, false))
	}))
	defer s.Close()
	stored, err := PublishBatch(t.Context(), nil, s.URL+wire.Path, "t", []Publication{
		{Topic: "a", Data: []byte("1"), MsgID: "m", TTL: 1500 * time.Millisecond},
		{Topic: "b", Data: []byte("2")},
		{Topic: "c", Data: []byte("3")},
		{Topic: "d", Data: []byte("4"), TTL: -1},
	})
	var batch *BatchError
	if !errors.As(err, &batch) || batch.Errs[0] != nil || !errors.Is(batch.Errs[1], wire.Unavailable) || batch.Errs[2] != nil || !errors.Is(batch.Errs[3], wire.BadEnvelope) {
		t.Error(err)
	}
	if want := []Stored{{7, true}, {}, {8, false}, {}}; !slices.Equal(stored, want) {
		t.Errorf("%v, want %v", stored, want)
	}
}

func TestPublishBatchFails(t *testing.T) {
	event := []Publication{{Topic: "a", Data: []byte("1")}}
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Close() // nobody listens there now
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, x := range map[string]struct {
		ctx context.Context
		hc  *http.Client
		url string
	}{
		"nobody listens": {t.Context(), nil, "ws" + strings.TrimPrefix(s.URL, "http") + wire.Path},
		"no URL":         {t.Context(), nil, "ws://%"},
		"another scheme": {t.Context(), nil, "ftp://x" + wire.Path},
		"ctx has ended":  {ended, http.DefaultClient, s.URL + wire.Path},
	} {
		var batch *BatchError
		if _, err := PublishBatch(x.ctx, x.hc, x.url, "secret", event); !errors.As(err, &batch) || len(batch.Errs) != 1 || batch.Errs[0] == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := PublishBatch(ended, nil, "ws://127.0.0.1:1"+wire.Path, "", event); !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not unwrap to why", err)
	}
}
