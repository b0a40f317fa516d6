//go:build linux

package server_test

import (
	"bufio"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
