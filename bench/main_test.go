package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestEveryCommand is in the README, and is found.
func TestEveryCommand(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if found, err := find([]string{c.name}); err != nil || found.name != c.name {
			t.Errorf("%s: %v, %v", c.name, found, err)
		}
		if !strings.Contains(string(readme), "\n| `"+c.name) {
			t.Errorf("README.md does not name %s", c.name)
		}
	}
	for _, args := range [][]string{nil, {"nonsense"}, {"--help"}} {
		if _, err := find(args); err == nil || !strings.Contains(err.Error(), "stations") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestProgram builds one of the commands that are programs of their own, and gives it the flags and its exit code on.
func TestProgram(t *testing.T) {
	c, err := find([]string{"stations"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.run([]string{"--help"}); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := c.run([]string{"--nonsense"}); err == nil {
		t.Error("a flag that does not exist is no error")
	} else if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("%v", err)
	}
}
