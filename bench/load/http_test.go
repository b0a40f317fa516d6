//go:build linux

package load

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
)

// TestHTTP publishes by HTTP and by WebSocket to a real server.
func TestHTTP(t *testing.T) {
	bin, err := rig.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	url, key, process, stop, err := Serve(bin, "EdDSA", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, c := range []struct {
		name  string
		plan  Plan
		loads []Load
		fresh bool
	}{
		{"one subscriber", HTTP(1, 10), []Load{{Window: 1}, {Window: 4}}, false},
		{"three streams", events(HTTP(3, 10)), []Load{{Window: 4}}, false},
		{"nobody", HTTP(0, 7), []Load{{Window: 4}}, false},
		{"a token each", HTTP(1, 3), []Load{{Window: 4}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, err := NewNotifyd(key, authz.Claims{Subject: "bench"}, time.Hour, c.fresh)
			if err != nil {
				t.Fatal(err)
			}
			results, err := Run(t.Context(), Options{
				Plan: c.plan, Loads: c.loads, Target: target, Server: "notifyd", URL: url, Process: process,
				Size: 128, Warmup: 50 * time.Millisecond, Duration: 300 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			var labels []string
			for i, r := range results {
				labels = append(labels, r.Load)
				if r.Published == 0 || r.Lost != 0 || r.Latency.Count == 0 || *r.CPUPerPublish <= 0 || (len(r.Compared) == 1) != (i%2 == 0) {
					t.Errorf("%+v", r)
				}
				subscribers := uint64(c.plan.Connections)
				if (r.Received != nil) != (subscribers > 0) {
					t.Fatalf("received: %+v", r)
				}
				if subscribers == 0 {
					continue
				}
				// Nothing is lost, so all that was sent in the measured time has come.
				if r.Received.Count != r.Latency.Count*int64(subscribers) || r.Delivered == 0 || r.Received.P50 <= 0 || r.Received.P50 >= 1e6 {
					t.Errorf("%d received by %d, %d answered: %+v", r.Received.Count, subscribers, r.Latency.Count, r)
				}
			}
			var want []string
			for _, l := range c.loads {
				n, many := l.Window, c.plan.Batch
				want = append(want, fmt.Sprintf("POST, %d connections", n), fmt.Sprintf("WebSocket, %d connections, 1 in flight", n),
					fmt.Sprintf("NDJSON, %d connections, %d lines each", n, many), fmt.Sprintf("WebSocket, %d connections, %d in flight", n, many))
			}
			if !slices.Equal(labels, want) {
				t.Errorf("%q", labels)
			}
		})
	}
	t.Run("no rate", func(t *testing.T) {
		if _, err := Run(t.Context(), Options{Plan: HTTP(1, 2), Loads: []Load{{Rate: 1}}, Target: &Notifyd{}, URL: url, Size: 128}); err == nil {
			t.Error("a rate was accepted")
		}
	})
	t.Run("no Poster", func(t *testing.T) {
		if _, err := Run(t.Context(), Options{Plan: Post(1, 1, 0), Loads: []Load{{Window: 1}}, Target: hubTarget{}, URL: url, Size: 128}); err == nil {
			t.Error("a target without requests was accepted")
		}
	})
}

// Answers that do not say that each event was published end the run; no answer at all counts as lost.
func TestHTTPAnswers(t *testing.T) {
	lines := func(w http.ResponseWriter) { w.Header().Set("Content-Type", ndjson) }
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // "": no error
	}{
		{"lines", func(w http.ResponseWriter, _ *http.Request) {
			lines(w)
			for range 3 {
				_, _ = io.WriteString(w, "{\"ok\":true}\n")
				_ = http.NewResponseController(w).Flush()
			}
		}, ""},
		{"lines at once", func(w http.ResponseWriter, _ *http.Request) {
			lines(w)
			_, _ = io.WriteString(w, strings.Repeat("{\"ok\":true}\n", 3))
		}, ""},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "go away", http.StatusForbidden) }, "403"},
		{"a line is refused", func(w http.ResponseWriter, _ *http.Request) {
			lines(w)
			_, _ = io.WriteString(w, "{\"ok\":true}\n{\"ok\":false,\"code\":\"forbidden\"}\n{\"ok\":true}\n")
		}, "forbidden"},
		{"a line is missing", func(w http.ResponseWriter, _ *http.Request) {
			lines(w)
			_, _ = io.WriteString(w, "{\"ok\":true}\n{\"ok\":true}\n")
		}, "has 2 results"},
		{"a line too many", func(w http.ResponseWriter, _ *http.Request) {
			lines(w)
			_, _ = io.WriteString(w, strings.Repeat("{\"ok\":true}\n", 4))
		}, "has 4 results"},
		{"the end", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "ended it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(c.answer)
			defer server.Close()
			results, err := Run(t.Context(), Options{
				Plan: Post(2, 3, 0), Loads: []Load{{Window: 3}}, Target: &Notifyd{Token: "x"}, URL: "ws" + strings.TrimPrefix(server.URL, "http") + "/v1/ws",
				Size: 128, Duration: 200 * time.Millisecond,
			})
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v; want %q", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case results[0].Published == 0 || results[0].Lost != 0 || results[0].Latency.Count == 0:
				t.Errorf("%+v", results[0])
			}
		})
	}
}

// TestResponses cuts answers at each byte.
func TestResponses(t *testing.T) {
	const (
		plain    = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
		empty    = "HTTP/1.1 204 No Content\r\n\r\n"
		none     = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		chunks   = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0A;x=y\r\n\r\n23456789\r\n0\r\nTrailer: x\r\n\r\n"
		lines    = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n4\r\nb\ncc\r\n3\r\nc\nd\r\n0\r\n\r\n"
		counted  = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 4\r\n\r\na\nb\n"
		notFound = "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n"
	)
	for _, c := range []struct {
		text string
		want []string
		err  string
	}{
		{plain, []string{"end {}"}, ""},
		{empty, []string{"end "}, ""},
		{none, []string{"end "}, ""},
		{chunks, []string{"end abc\r\n23456789"}, ""},
		{lines, []string{"a\n", "b\n", "ccc\n", "end d"}, ""},
		{counted, []string{"a\n", "end b\n"}, ""},
		{plain + chunks + lines + empty + plain, []string{"end {}", "end abc\r\n23456789", "a\n", "b\n", "ccc\n", "end d", "end ", "end {}"}, ""},
		{plain + notFound, []string{"end {}"}, "404"},
		{"HTTP/1.1 200 OK\r\n\r\n", nil, errHead.Error()},
		{"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", nil, errHead.Error()},
		{"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", nil, errHead.Error()},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", nil, errHead.Error()},
	} {
		for cut := range len(c.text) {
			a := &responses{}
			s := splitter{next: a.next}
			var got []string
			visit := func(f frame) error {
				switch f.op {
				case opLine:
					got = append(got, string(f.payload))
				case opEnd:
					got = append(got, "end "+string(f.payload))
				}
				return nil
			}
			_, err := s.split([]byte(c.text[:cut]), visit)
			if err == nil {
				_, err = s.split(append(slices.Clone(s.tail), c.text[cut:]...), visit)
			}
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) || !slices.Equal(got, c.want) {
				t.Fatalf("%q cut at %d: %q, %v", c.text, cut, got, err)
			}
		}
	}
}
