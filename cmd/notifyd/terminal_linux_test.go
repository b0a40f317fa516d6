package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal opens a pseudoterminal (pty(7)). What is written to it comes to shown.
func openTerminal(t *testing.T) (terminal *os.File, shown *buffer) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	shown = &buffer{}
	go func() { _, _ = io.Copy(shown, master) }() // ends with the terminal
	return terminal, shown
}

// inTerminal starts a command of this program in a terminal.
func inTerminal(t *testing.T, env []string, args ...string) (cmd *exec.Cmd, shown *buffer) {
	t.Helper()
	terminal, shown := openTerminal(t)
	path, err := exec.LookPath("notifyd")
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(path, args...)
	cmd.Env = append(os.Environ(), append([]string{"TERM=xterm", "NO_COLOR="}, env...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, shown
}

// In a terminal sub prints columns in colour, and says what happens to the connection; pub says what became of the event.
func TestInATerminal(t *testing.T) {
	t.Parallel()
	r, keys, token := serveWithToken(t)
	token = "NOTIFYD_TOKEN=" + token
	address := strings.TrimSuffix(strings.TrimPrefix(r.url, "ws://"), "/v1/ws")
	const clock = `\d\d:\d\d:\d\d\.\d{3}`
	cases := []struct {
		env, args string
		line      string
		plain     bool // no colours
	}{
		{"", "", "\x1b\\[2m" + clock + "\x1b\\[0m  \x1b\\[36ma.b\x1b\\[0m  {\"text\":\"hello\"}", false},
		{"NO_COLOR=1", "", clock + `  a\.b  {"text":"hello"}`, true},
		{"TERM=dumb", "", clock + `  a\.b  {"text":"hello"}`, true},
		{"", "--color=never", clock + `  a\.b  {"text":"hello"}`, true},
		{"NO_COLOR=1", "--color=always", "\x1b\\[36ma.b\x1b\\[0m  {\"text\":\"hello\"}", false},
		{"", "--json", `{"type":"event","topic":"a\.b","pattern":"a\.\*","data":{"text":"hello"}}`, true},
		{"", "--json --color=always", `{"type":"event","topic":"a\.b","pattern":"a\.\*","data":{"text":"hello"}}`, true},
	}
	screens := make([]*buffer, len(cases))
	for i, c := range cases {
		_, screens[i] = inTerminal(t, []string{token, c.env}, append(strings.Fields("sub --url "+r.url+" "+c.args), "a.*")...)
		eventually(t, "sub says that it is subscribed", func() bool {
			return strings.Contains(screens[i].String(), "notifyd: subscribed to a.*; Ctrl-C ends it\r\n")
		})
	}
	for _, c := range []struct {
		args, data, want string
	}{
		{"", `{"text":"hello"}`, "\x1b[36ma.b\x1b[0m  published\r\n"},
		{"--color=never --http", `2`, "a.b  published\r\n"},
		{"--json", `3`, "{}\r\n"},
	} {
		cmd, shown := inTerminal(t, []string{token}, append(strings.Fields("pub --url "+r.url+" "+c.args), "a.b", c.data)...)
		if err := cmd.Wait(); err != nil {
			t.Fatal(err, shown)
		}
		eventually(t, "pub says what became of the event", func() bool { return shown.String() == c.want })
	}
	for i, c := range cases {
		line := regexp.MustCompile(c.line + "\r\n")
		eventually(t, "sub prints the event", func() bool { return line.MatchString(screens[i].String()) })
		if c.plain && strings.Contains(screens[i].String(), "\x1b") {
			t.Errorf("%s %s: %q", c.env, c.args, screens[i])
		}
	}
	r.stop()
	for _, screen := range screens {
		eventually(t, "sub says that it connects again", func() bool { return strings.Contains(screen.String(), "notifyd: reconnecting: server closed") })
	}
	serveHere(t, "--auth.keys="+keys, "--listen="+address)
	for _, screen := range screens {
		eventually(t, "sub says that it has connected again", func() bool {
			return strings.Contains(screen.String(), "notifyd: connected again after ") && strings.Contains(screen.String(), "what was published meanwhile is missed")
		})
	}
}
