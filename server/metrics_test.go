package server_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// scrape is what Prometheus would be told.
func (n *node) scrape(t testing.TB) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(n.Collector()); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	return w.Body.String()
}

// metrics scrapes the server: values by name and labels, as they are written.
func (n *node) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for lines := bufio.NewScanner(strings.NewReader(n.scrape(t))); lines.Scan(); {
		if line := lines.Text(); !strings.HasPrefix(line, "#") {
			at := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseFloat(line[at+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			values[line[:at]] = v
		}
	}
	return values
}

// After known traffic the figures are known.
func TestMetrics(t *testing.T) {
	loops(t, func(t *testing.T, with setup) {
		with.alg = "ES256"
		nats := startNATS(t)
		with.bus.URL = nats.ClientURL()
		n := start(t, with)
		token := n.all(t)

		gone, p, q := n.dial(t), n.dial(t), n.dial(t)
		gone.subscribe("b", token)
		for range 10 {
			gone.send("{")
			gone.wantError(wire.BadEnvelope, "")
		}
		gone.wantEnd(wire.CloseBadEnvelopes)
		p.subscribe("a", token)
		p.subscribe("*", token)
		q.subscribe("a", token)
		for range 5 {
			q.publish("a", token, "1")
			q.want(`"event"`)
			p.want(`"event"`)
			p.want(`"event"`)
		}
		q.send(`{"type":"publish","id":"1","topic":"$","token":%q,"data":1}`, token)
		q.wantError(wire.BadTopic, "1")
		q.send(`{"type":"publish","id":"1","topic":"a","data":1}`)
		q.wantError(wire.TokenMissing, "1")
		q.send(`{"type":"subscribe","id":"1","topic":"a","token":"x"}`)
		q.wantError(wire.TokenMalformed, "1")
		newSpy(t, nats).publish("notify.ev.a", []byte("{"))

		for _, url := range []string{"/", wire.Path} {
			r, err := http.Get("http://" + n.addr + url)
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Body.Close()
		}
		if _, _, _, err := ws.Dial(t.Context(), "ws://"+n.addr+"/elsewhere"); err == nil {
			t.Fatal("upgraded")
		}

		want := map[string]float64{
			`notifyd_connections`:                             2,
			`notifyd_subscriptions`:                           3,
			`notifyd_topics`:                                  2,
			`notifyd_pending_bytes`:                           0,
			`notifyd_accept_errors_total`:                     0,
			`notifyd_handshakes_total{result="upgraded"}`:     3,
			`notifyd_handshakes_total{result="refused"}`:      1,
			`notifyd_timeouts_total`:                          0,
			`notifyd_slow_closes_total`:                       0,
			`notifyd_deliveries_total`:                        15,
			`notifyd_publishes_total{result="ok"}`:            5,
			`notifyd_publishes_total{result="bad_topic"}`:     1,
			`notifyd_publishes_total{result="token_missing"}`: 1,
			`notifyd_publishes_total{result="forbidden"}`:     0,
			`notifyd_errors_total{code="bad_envelope"}`:       10,
			`notifyd_errors_total{code="bad_topic"}`:          1,
			`notifyd_errors_total{code="token_missing"}`:      1,
			`notifyd_errors_total{code="token_malformed"}`:    1,
			`notifyd_errors_total{code="forbidden"}`:          0,
			`notifyd_verify_queue`:                            0,
			`notifyd_invalid_events_total`:                    2, // once for a, once for *
			`notifyd_batch_frames_sum`:                        perLoop(with, 10, 15),
			`notifyd_delivery_seconds_count`:                  perLoop(with, 10, 15),
			`notifyd_delivery_seconds_bucket{le="+Inf"}`:      perLoop(with, 10, 15),
			`notifyd_token_memo_hits_total`:                   1 + 5 + 1, // p's second subscribe, q's publishes with a token
			`notifyd_frames_total{direction="in"}`:            1 + 10 + 1 + 2 + 1 + 5 + 3,
		}
		eventually(t, "the message that is not JSON has come", func() bool { return n.metrics(t)["notifyd_invalid_events_total"] == 2 })
		m := n.metrics(t)
		for name, v := range want {
			if got, ok := m[name]; !ok || got != v {
				t.Errorf("%s is %v, want %v", name, got, v)
			}
		}
		for _, name := range []string{
			`notifyd_bytes_total{direction="in"}`, `notifyd_bytes_total{direction="out"}`, `notifyd_frames_total{direction="out"}`,
			`notifyd_writes_total`, `notifyd_loop_turn_seconds_sum`, `notifyd_loop_turn_seconds_count`, `notifyd_loop_turn_max_seconds`,
			`notifyd_delivery_seconds_sum`,
			`notifyd_handshakes_total{result="http"}`, `notifyd_accepted_total`,
		} {
			if m[name] <= 0 {
				t.Errorf("%s is %v", name, m[name])
			}
		}
		if b := m[`notifyd_batch_frames_bucket{le="1"}`]; b != m[`notifyd_batch_frames_sum`] {
			t.Errorf("%v batches of one", b)
		}
		for _, code := range wire.Codes() {
			if _, ok := m[fmt.Sprintf("notifyd_errors_total{code=%q}", code)]; !ok {
				t.Errorf("%v is not among the errors", code)
			}
		}
	})
}

// perLoop is how often an event of TestMetrics is batched: each topic has its
// own on each loop that has subscribers.
func perLoop(with setup, one, two float64) float64 {
	if with.server.Loop.Loops == 1 {
		return one
	}
	return two
}

// Names, units and help texts are as Prometheus wants them.
func TestMetricsLint(t *testing.T) {
	n := one(t, server.Options{})
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(n.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
