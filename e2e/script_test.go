//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// script is a program in e2e/js that is told what to do, and says what came of it, as lines of JSON.
type script struct {
	*process
	says *journal // its standard output
}

func startScript(t *testing.T, name string, args ...string) script {
	t.Helper()
	cmd := nodeScript(t, name, args...)
	s := script{says: newJournal("what " + name + " says")}
	cmd.Stdout = s.says
	s.process = start(t, name, cmd)
	go func() {
		<-s.gone
		s.says.end()
	}()
	return s
}

// tell sends one line.
func (s script) tell(t *testing.T, order any) {
	t.Helper()
	line, err := json.Marshal(order)
	if err == nil {
		_, err = fmt.Fprintf(s.stdin, "%s\n", line)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hear reads the next line from index seen on into to.
func (s script) hear(t *testing.T, seen int, to any) {
	t.Helper()
	s.hearFor(t, patience, seen, to)
}

// hearFor is hear with another patience.
func (s script) hearFor(t *testing.T, patience time.Duration, seen int, to any) {
	t.Helper()
	line := s.says.awaitFor(t, patience, "answer", seen, func(string) bool { return true })
	if err := json.Unmarshal([]byte(line), to); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
}
