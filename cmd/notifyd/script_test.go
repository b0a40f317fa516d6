package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/notifyd/notifyd/internal/testkit"
)

// This test binary is notifyd when it is called by that name.
func TestMain(m *testing.M) {
	if err := testkit.EndAtOnce(); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"notifyd": main,
		"notifyd-panics": func() {
			abortOnPanic()
			go panic("as a bug would")
			select {}
		},
	})
}

// The scripts in testdata/script are the command line as people use it: real processes, files, pipes and exit codes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"dev":   dev,
			"token": mintInto,
		},
	})
}

// exits CODE PROGRAM ARGS… runs a program and looks at its exit code; stdout and stderr are for what follows.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// mintInto VARIABLE ARGS… puts a token into a variable.
func mintInto(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: token VARIABLE ARGS…")
	}
	ts.Check(ts.Exec("notifyd", append([]string{"token"}, args[1:]...)...))
	token := ts.ReadFile("stdout")
	ts.Setenv(args[0], token[:len(token)-1])
}

// devLine is a line that serve --dev prints for people to paste.
var devLine = regexp.MustCompile(`(?m)^  \S.* (sub|pub) --url (\S+) --token (\S+) (.*)$`)

// dev ARGS… runs 'notifyd serve --dev' until the script ends. It sets URL, SUBSCRIBER and PUBLISHER to what the server
// prints for people to paste.
func dev(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: dev ARGS…")
	}
	path, err := exec.LookPath("notifyd")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"serve", "--dev", "--listen=127.0.0.1:0", "--admin.listen=", "--drain-window=0s", "--log.level=error"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	names := map[string]string{"sub": "SUBSCRIBER", "pub": "PUBLISHER"}
	for lines := bufio.NewScanner(out); lines.Scan() && len(names) > 0; {
		if m := devLine.FindStringSubmatch(lines.Text()); m != nil {
			ts.Setenv("URL", m[2])
			ts.Setenv(names[m[1]], m[3])
			delete(names, m[1])
		}
	}
	if len(names) > 0 {
		ts.Fatalf("the server printed no lines to paste")
	}
}
