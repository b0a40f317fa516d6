// Command test runs every test of the project and says plainly what was left out. Plain "go test ./..." hides skipped
// tests, and its -race needs a C compiler, which a machine with only Go does not have:
//
//	go run ./tools/test [flags of go test]
//
// With NOTIFYD_E2E=required, as in CI, leaving anything out is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	var left []string
	var err error
	if cgo() {
		// sync.Pool forgets at random under the race detector, so some tests that count allocations are built
		// without it.
		left, err = run("-race", "./...")
		more, failed := run("-run=Alloc", "./server/...")
		left, err = append(left, more...), errors.Join(err, failed)
	} else {
		left, err = run("./...")
		left = append(left, "the race detector: it needs cgo and a C compiler")
	}
	if err != nil {
		fmt.Println("FAIL:", err)
	}
	if len(left) == 0 {
		fmt.Println("Nothing was left out.")
	} else {
		fmt.Printf("Left out (%d):\n  %s\n", len(left), strings.Join(left, "\n  "))
	}
	if err != nil || len(left) > 0 && os.Getenv("NOTIFYD_E2E") == "required" {
		os.Exit(1)
	}
}

// run is one "go test" with the flags of this command and more. It returns the tests that were skipped.
func run(more ...string) (skipped []string, err error) {
	// The end-to-end tests take ten minutes, which is all that go test grants by itself, and longer on a busy machine.
	args := append([]string{"test", "-json", "-timeout=30m"}, os.Args[1:]...)
	cmd := exec.Command("go", append(args, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	skipped, err = report(out, func(s string) { fmt.Print(s) })
	return skipped, errors.Join(err, cmd.Wait())
}

// cgo reports whether -race can work: the go command turns cgo off by itself where it finds no C compiler.
func cgo() bool {
	out, err := exec.Command("go", "env", "CGO_ENABLED").Output()
	return err == nil && strings.TrimSpace(string(out)) == "1"
}

// event is one line of "go test -json" (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// report gives show a line for each package and the whole output of each test that failed. It returns the tests that
// were skipped, with their reasons.
func report(in io.Reader, show func(string)) (skipped []string, err error) {
	output := map[string]*strings.Builder{} // by package and test
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			show(lines.Text() + "\n")
			continue
		}
		key := e.Package + " " + e.Test
		switch {
		case e.Action == "build-output":
			show(e.Output)
		case e.Action == "output":
			if output[key] == nil {
				output[key] = new(strings.Builder)
			}
			output[key].WriteString(e.Output)
		case e.Action == "skip" && e.Test != "":
			skipped = append(skipped, e.Test+": "+reason(output[key]))
		case e.Action == "fail":
			show(text(output[key]))
		case e.Action == "pass" && e.Test == "":
			show(fmt.Sprintf("ok  \t%s\t%.1fs\n", e.Package, e.Elapsed))
		}
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			delete(output, key)
		}
	}
	return skipped, lines.Err()
}

func text(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	return b.String()
}

// reason takes what the test said before it was skipped: "    file.go:12: no /usr/bin/node".
func reason(b *strings.Builder) string {
	why := "no reason given"
	for line := range strings.Lines(text(b)) {
		if rest, ok := strings.CutPrefix(line, "    "); ok {
			if _, said, ok := strings.Cut(rest, ": "); ok {
				why = strings.TrimSpace(said)
			}
		}
	}
	return why
}
