//go:build linux

package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long to wait for what must come. Only a test that is about to fail waits so long.
const patience = 3 * time.Minute

// journal is what one party saw, in order: the lines a process wrote, the frames a client received. It is also the
// io.Writer that collects a process's output. Safe for any goroutine.
type journal struct {
	name string

	mu      sync.Mutex
	entries []string
	partial strings.Builder
	ended   bool
	changed chan struct{} // closed at the next change
}

func newJournal(name string) *journal {
	return &journal{name: name, changed: make(chan struct{})}
}

func (j *journal) add(entry string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry)
	j.notify()
}

// end says that nothing more will come.
func (j *journal) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	j.notify()
}

func (j *journal) notify() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// Write adds each whole line.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		j.partial.WriteString(line)
		if strings.HasSuffix(line, "\n") {
			j.entries = append(j.entries, strings.TrimSuffix(j.partial.String(), "\n"))
			j.partial.Reset()
		}
	}
	j.notify()
	return len(p), nil
}

// all returns what came so far. The slice is not changed afterwards.
func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries[:len(j.entries):len(j.entries)]
}

func (j *journal) len() int { return len(j.all()) }

// await returns the first entry at index seen or later that ok accepts, and fails the test if it does not come.
func (j *journal) await(t *testing.T, what string, seen int, ok func(entry string) bool) string {
	t.Helper()
	return j.awaitFor(t, patience, what, seen, ok)
}

// awaitFor is await with another patience.
func (j *journal) awaitFor(t *testing.T, patience time.Duration, what string, seen int, ok func(entry string) bool) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		j.mu.Lock()
		entries, ended, changed := j.entries, j.ended, j.changed
		j.mu.Unlock()
		for ; seen < len(entries); seen++ {
			if ok(entries[seen]) {
				return entries[seen]
			}
		}
		if ended {
			t.Fatalf("%s ended without %s; its last lines:\n%s", j.name, what, j.tail())
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: no %s within %v; its last lines:\n%s", j.name, what, patience, j.tail())
		}
	}
}

func (j *journal) tail() string {
	entries := j.all()
	return "  | " + strings.Join(entries[max(0, len(entries)-40):], "\n  | ")
}

// eventually calls ok until it is true, and fails the test if that does not happen.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
