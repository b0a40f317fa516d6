package server

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notifyd/notifyd/server/loop"
)

// HTTP requests that do nothing for a good token are answered so many times a second for each address, however many
// connections they come on; what does something is not held back, and no other address is.
func TestFruitlessRequestsAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{opts: Options{Loop: loop.Options{MessageTimeout: 30 * time.Second}}, fruitless: newQuota(fruitlessAtOnce, time.Second)}
		h := s.pace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/ok" {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = w.Write([]byte("text"))
		}))
		ask := func(method, path, from string) (took time.Duration) {
			r, w := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
			r.RemoteAddr = from + ":1"
			began := time.Now()
			h.ServeHTTP(w, r)
			took = time.Since(began)
			if closes := w.Header().Get("Connection") == "close"; closes != (took > 0) {
				t.Errorf("after %v the connection closes: %v", took, closes)
			}
			return took
		}
		const here, there = "192.0.2.1", "192.0.2.2"
		for i := range fruitlessAtOnce {
			if took := ask("GET", "/nothing", here); took != 0 {
				t.Fatalf("request %d took %v", i, took)
			}
		}
		var all sync.WaitGroup
		began := time.Now()
		for range 10 * fruitlessAtOnce {
			all.Go(func() { ask("GET", "/nothing", here) })
		}
		synctest.Wait()
		if took := ask("POST", "/ok", here); took != 0 {
			t.Errorf("one that did something took %v", took)
		}
		if took := ask("GET", "/nothing", there); took != 0 {
			t.Errorf("one from elsewhere took %v", took)
		}
		all.Wait()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("ten times as many took %v", took)
		}
		time.Sleep(time.Minute)
		if took := ask("GET", "/nothing", here); took != 0 {
			t.Errorf("a minute later one took %v", took)
		}
	})
}

// However many there are, none is held back for longer than a client waits.
func TestFruitlessRequestsWaitNoLonger(t *testing.T) {
	q := newQuota(1, time.Second)
	for i, want := range []time.Duration{0, 1, 2, 3, 3, 3} {
		if wait := q.reserve(1, 3*time.Second, "x"); wait != want*time.Second {
			t.Errorf("%d: %v", i, wait)
		}
	}
	// What is due to one that may not wait is not changed by that.
	if wait := q.take(1, "y"); wait != 0 {
		t.Error(wait)
	}
	if wait := q.take(1, "y"); wait != time.Second {
		t.Error(wait)
	}
}

func TestFruitfulRequests(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		want   bool
	}{
		{"POST", 200, true},
		{"POST", 201, true},
		{"POST", 204, true},
		{"POST", 401, false},
		{"POST", 429, false},
		{"POST", 503, true},
		{"GET", 200, false},
		{"GET", 404, false},
		{"GET", 426, false},
		{"OPTIONS", 204, false},
	} {
		if got := isFruitful(httptest.NewRequest(c.method, "/x", nil), c.status); got != c.want {
			t.Errorf("%s, %d: %v", c.method, c.status, got)
		}
	}
}
