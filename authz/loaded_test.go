package authz

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
)

// What a reload changed is told by kid, for each file and URL; so is that it changed nothing. What is read in the
// background is told only when it changed something.
func TestKeysLoaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	inFile := func(keys ...Key) {
		t.Helper()
		text, err := json.Marshal(map[string][]Key{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b, nameless := keyNamed(t, "HS256", "a"), keyNamed(t, "HS256", "b"), keyNamed(t, "HS256", "")
	inFile(a)
	p := newPublisher(t, keyNamed(t, "ES256", "r1"))
	var mu sync.Mutex
	var told []KeysLoaded
	v := newTestVerifier(t, newClock(), Options{Keys: []string{file, p.URL + "?secret"}, OnKeysLoaded: func(k KeysLoaded) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, k)
	}})
	from := v.issuers[0].remote[0]
	url := from.endpoint.name
	reload := func() {
		t.Helper()
		_ = v.Reload()       // a broken file is told by its error
		<-v.beginFetch(from) // joins the one that Reload began, or is another one that changes nothing
	}
	poll := func() { v.pollFiles(); <-v.beginFetch(from) }
	none := []string(nil)
	for i, step := range []struct {
		change func()
		load   func()
		want   []KeysLoaded
	}{
		{func() {}, reload, []KeysLoaded{{file, none, none}, {url, none, none}}},
		{func() {}, poll, nil},
		{func() { inFile(a, b) }, reload, []KeysLoaded{{file, []string{"b"}, none}, {url, none, none}}},
		{func() { inFile(b, nameless) }, poll, []KeysLoaded{{file, []string{"(no kid)"}, []string{"a"}}}},
		{func() { inFile(keyNamed(t, "HS256", "b"), a) }, reload, []KeysLoaded{{file, []string{"b", "a"}, []string{"b", "(no kid)"}}, {url, none, none}}},
		{func() { p.publish(t, keyNamed(t, "ES256", "r2")) }, poll, []KeysLoaded{{url, []string{"r2"}, []string{"r1"}}}},
		{func() { p.publish(t, keyNamed(t, "ES256", "r3")) }, reload, []KeysLoaded{{file, none, none}, {url, []string{"r3"}, []string{"r2"}}}},
		{func() { inFile() }, poll, nil}, // an empty set is an error
		{func() {}, reload, []KeysLoaded{{url, none, none}}},
		{func() { p.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }) }, reload, nil},
	} {
		mu.Lock()
		told = nil
		mu.Unlock()
		step.change()
		step.load()
		mu.Lock()
		if !reflect.DeepEqual(told, step.want) {
			t.Errorf("step %d: %+v, want %+v", i, told, step.want)
		}
		mu.Unlock()
	}
}

// A node that nobody gave files or URLs has nothing to read again, and says so.
func TestReloadOfKeysInMemory(t *testing.T) {
	var told []KeysLoaded
	v := newTestVerifier(t, newClock(), Options{OnKeysLoaded: func(k KeysLoaded) { told = append(told, k) }})
	if err := v.Reload(); err != nil || !reflect.DeepEqual(told, []KeysLoaded{{Source: "memory"}}) {
		t.Error(told, err)
	}
}

// The context of New ends a start whose key URLs do not answer. All URLs are asked at once.
func TestNewContext(t *testing.T) {
	asked, release := make(chan struct{}, 3), make(chan struct{})
	var urls []string
	for range 3 {
		p := newPublisher(t)
		p.do(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-release })
		urls = append(urls, p.URL)
	}
	defer close(release)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for range urls {
			<-asked
		}
		cancel(gone)
	}()
	_, err := NewContext(ctx, Options{Keys: urls, Trusted: allKeys(), JWKSTimeout: time.Hour, JWKSMaxAge: -1})
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}
