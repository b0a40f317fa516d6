package validate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const unit = "../notifyd.service"

// directives are those that systemd knows, "[Section]Name=".
func directives(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("testdata/systemd.txt")
	if err != nil {
		t.Fatal(err)
	}
	known, section := map[string]bool{}, ""
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "[") {
			section = line
		}
		known[section+line] = true
	}
	return known
}

// unknown is the first line of a unit that is neither a section nor a directive of one.
func unknown(text string, known map[string]bool) error {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "["):
			section = line
			if known[section+line] {
				continue
			}
		default:
			if name, _, ok := strings.Cut(line, "="); ok && known[section+name+"="] {
				continue
			}
		}
		return fmt.Errorf("%s: unknown in %s", line, section)
	}
	return nil
}

func TestSystemdDirectives(t *testing.T) {
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	known := directives(t)
	if err := unknown(string(text), known); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ old, new string }{
		{"ProtectHome=", "ProtecHome="}, {"[Install]", "[Instal]"}, {"Restart=on-failure", "Restart on-failure"}, {"[Service]", ""},
	} {
		if unknown(strings.Replace(string(text), c.old, c.new, 1), known) == nil {
			t.Errorf("with %q it passes", c.new)
		}
	}
}

// systemd itself reads the unit without a word, where it is installed.
func TestSystemdVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("NOTIFYD_E2E") == "required" {
			t.Fatal("must not be left out: there is no systemd-analyze here")
		}
		t.Skip("left out: there is no systemd-analyze here; the directives are checked against a list")
	}
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	const program = "/usr/local/bin/notifyd"
	verify := func(text string) string {
		t.Helper()
		self, err := os.Executable() // any program will do
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, program) {
			t.Fatalf("the unit does not start %s", program)
		}
		file := filepath.Join(t.TempDir(), "notifyd.service")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, program, self)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	if said := verify(string(text)); said != "" {
		t.Error(said)
	}
	for _, c := range []struct{ old, new string }{
		{"ProtectHome=yes", "ProtecHome=yes"}, {"TimeoutStopSec=", "TimeoutStopSec=soon "}, {"SystemCallFilter=@system-service", "SystemCallFilter=@systemservice"},
	} {
		if broken := strings.Replace(string(text), c.old, c.new, 1); broken == string(text) || verify(broken) == "" {
			t.Errorf("with %q it passes", c.new)
		}
	}
}
