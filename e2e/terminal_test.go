//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// terminal is a shell into which a test types what a document says.
type terminal struct {
	*process
	typed int // commands
}

// openTerminal opens a terminal in a folder. It has none of the test's own NOTIFYD_ variables, finds notifyd once that
// is installed, and the programs of npm packages.
func openTerminal(t *testing.T, name, folder string, env ...string) *terminal {
	t.Helper()
	bin := filepath.Join(scratch, "bin", t.Name())
	npm, err := filepath.Abs("js/node_modules/.bin")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh")
	cmd.Dir = folder
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "NOTIFYD_") {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, "GOBIN="+bin, "PATH="+bin+":"+os.Getenv("PATH")+":"+npm)
	cmd.Env = append(cmd.Env, env...)
	return &terminal{process: start(t, name, cmd)}
}

// try types a command, waits for its end, and returns what the terminal showed meanwhile.
func (x *terminal) try(t *testing.T, command string) (shown []string, code int) {
	t.Helper()
	x.typed++
	mark := fmt.Sprintf("command %d ended with ", x.typed)
	seen := x.output.len()
	x.write(t, command+"\nprintf '\\n"+mark+"%d\\n' $?\n")
	end := x.output.await(t, "end of "+command, seen, func(line string) bool { return strings.HasPrefix(line, mark) })
	code, err := strconv.Atoi(strings.TrimPrefix(end, mark))
	if err != nil {
		t.Fatalf("%s: %q", command, end)
	}
	for _, line := range x.output.all()[seen:] {
		if line != "" && line != end {
			shown = append(shown, line)
		}
	}
	return shown, code
}

// do types commands that have to succeed, and returns what the terminal showed meanwhile.
func (x *terminal) do(t *testing.T, commands ...string) (shown []string) {
	t.Helper()
	for _, command := range commands {
		out, code := x.try(t, command)
		if code != 0 {
			t.Fatalf("%s: exit code %d:\n%s", command, code, strings.Join(out, "\n"))
		}
		shown = append(shown, out...)
	}
	return shown
}

// leave types a command that goes on by itself. What it prints comes to the terminal, and its input stays open.
func (x *terminal) leave(t *testing.T, command string) {
	t.Helper()
	x.write(t, "tail -f /dev/null | { "+command+"\n} &\n")
}

func (x *terminal) write(t *testing.T, text string) {
	t.Helper()
	if _, err := fmt.Fprint(x.stdin, text); err != nil {
		t.Fatalf("%s: %v", x.output.name, err)
	}
}

// awaitText waits until the terminal shows a line that holds text.
func (x *terminal) awaitText(t *testing.T, text string) {
	t.Helper()
	x.output.await(t, "line with "+text, 0, func(line string) bool { return strings.Contains(line, text) })
}

// needProgram leaves the test out where a program is missing.
func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		leftOut(t, "no "+name+" here")
	}
}

// needScripts leaves the test out where npm packages of e2e/js are missing.
func needScripts(t *testing.T) {
	t.Helper()
	_ = nodeScript(t, "")
	if _, err := os.Stat("js/node_modules/express"); err != nil {
		leftOut(t, "npm packages are out of date: (cd e2e/js && npm ci --ignore-scripts)")
	}
}
