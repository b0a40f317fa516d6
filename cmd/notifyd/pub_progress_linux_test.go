package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A file that is published has a line of progress on a terminal's standard error, which is gone in the end. Elsewhere, and
// for input that has no end to be seen, there is none.
func TestPubProgress(t *testing.T) {
	t.Parallel()
	r, _, token := serveWithToken(t)
	program, err := exec.LookPath("notifyd")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(path, []byte(strings.Repeat("{}\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(\r\x1b\[K\[#*\.*\] +\d+%  \d+ events)+\r\x1b\[K$`)
	pub := func(stdin func(cmd *exec.Cmd, f *os.File), stderr io.Writer, args ...string) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		cmd := exec.Command(program, append(append([]string{"pub", "--url", r.url}, args...), "a.b", "-")...)
		cmd.Env = append(os.Environ(), "TERM=xterm", "NOTIFYD_TOKEN="+token)
		var stdout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, stderr
		stdin(cmd, f)
		if err := cmd.Run(); err != nil || stdout.Len() > 0 {
			t.Fatalf("%v: %s", err, &stdout)
		}
	}
	file := func(cmd *exec.Cmd, f *os.File) { cmd.Stdin = f }
	pipe := func(cmd *exec.Cmd, f *os.File) { cmd.Stdin = io.MultiReader(f) }
	for _, args := range [][]string{nil, {"--http"}} {
		terminal, shown := openTerminal(t)
		pub(file, terminal, args...)
		eventually(t, "the line was shown, and is gone", func() bool { return line.MatchString(shown.String()) })

		terminal, shown = openTerminal(t)
		pub(pipe, terminal, args...)
		if _, err := io.WriteString(terminal, "end"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the terminal is read", func() bool { return strings.HasSuffix(shown.String(), "end") })
		if shown.String() != "end" {
			t.Errorf("of a pipe: %q", shown)
		}

		var stderr bytes.Buffer
		pub(file, &stderr, args...)
		if stderr.Len() > 0 {
			t.Errorf("without a terminal: %q", &stderr)
		}
	}
}
