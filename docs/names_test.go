package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	span       = regexp.MustCompile("`([^`\n]+)`")
	makeTarget = regexp.MustCompile(`(?m)^([a-z][\w-]*):`)
	configRow  = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `(NOTIFYD_[A-Z_]+)` \\|")
	configKey  = regexp.MustCompile(`^(?:admin|auth|nats|limits|events|log)\.[a-z_]+$`)
	flagName   = regexp.MustCompile(`(?:^|[^\w-])--([a-z][\w.-]*\w)`)
	metricRow  = regexp.MustCompile("(?m)^\\| `(notifyd_[a-z_]+)`")
	metric     = regexp.MustCompile(`^notifyd_[a-z_]+`)
	sourceFile = regexp.MustCompile(`^[a-z][\w.-]*/[\w./-]+\.(?:go|yml|yaml|mjs|ts)$`)
	runsFolder = regexp.MustCompile(`go run (\./[\w./-]+)`)
)

// Commands, flags, configuration keys, metrics, make targets and files that the documents name exist.
func TestNamesOfTheProgramExist(t *testing.T) {
	targets := submatches(makeTarget, read(t, "Makefile"))
	keys := submatches(configRow, read(t, "docs/configuration.md"))
	metrics := submatches(metricRow, read(t, "docs/operations.md"))
	help := helpTexts(t)
	checked := map[string]int{}
	for _, name := range tree(t, ".md") {
		folder := path.Dir(name)
		if name == "CHANGELOG.md" || folder != "." && folder != "docs" && folder != "docs/adr" && folder != "docs/backends" && folder != "bench" {
			continue // the changelog and the diary tell of what was
		}
		missing := func(kind, what string) { t.Errorf("%s names the %s %s, which does not exist", name, kind, what) }
		text := read(t, name)
		for _, command := range append(submatches(span, prose(text)), shellLines(text)...) {
			words := strings.Fields(command)
			switch {
			case words[0] == "make" && len(words) > 1:
				checked["target"]++
				if !slices.Contains(targets, words[1]) {
					missing("make target", words[1])
				}
			case strings.HasPrefix(command, "notifyd "):
				checked["command"]++
				text, ok := help.of(words)
				if !ok {
					missing("command", command)
				}
				for _, flag := range submatches(flagName, command) {
					if !slices.Contains(submatches(flagName, text), flag) {
						missing("flag", "--"+flag+" of "+command)
					}
				}
			case strings.HasPrefix(command, "--"):
				checked["flag"]++
				flag, _, _ := strings.Cut(strings.TrimPrefix(words[0], "--"), "=")
				if !slices.ContainsFunc(help.all(), func(text string) bool { return slices.Contains(submatches(flagName, text), flag) }) && name != "CONTRIBUTING.md" && folder != "bench" {
					missing("flag", words[0])
				}
			case configKey.MatchString(command):
				checked["key"]++
				if !slices.Contains(keys, command) {
					missing("key", command)
				}
			case sourceFile.MatchString(command) && !strings.HasPrefix(command, "tutorial/"):
				checked["file"]++
				if _, err := os.Stat(filepath.Join(root, command)); err != nil {
					missing("file", command)
				}
			case metric.MatchString(command):
				checked["metric"]++
				if m := metric.FindString(command); !slices.Contains(metrics, m) {
					missing("metric", m)
				}
			}
			for _, folder := range submatches(runsFolder, command) {
				checked["folder"]++
				if _, err := os.Stat(filepath.Join(root, folder)); err != nil && folder != "./tutorial" {
					missing("folder", folder)
				}
			}
		}
	}
	for _, kind := range []string{"target", "command", "flag", "key", "metric", "file", "folder"} {
		if checked[kind] == 0 {
			t.Errorf("no %s was found", kind)
		}
	}
}

// submatches returns the first group of each match.
func submatches(re *regexp.Regexp, text string) (all []string) {
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// shellLines returns the commands of the shell blocks, without what stands before the name of the program.
func shellLines(text string) (lines []string) {
	shell := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			shell = line == "```sh"
		case shell && line != "" && !strings.HasPrefix(line, "#"):
			line, _, _ = strings.Cut(line, " # ")
			if at := strings.LastIndex(line, "notifyd "); at > 0 && !strings.HasPrefix(line, "go ") {
				line = strings.TrimSuffix(line[at:], ")")
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// helps are the help texts of the program by command, which a test of cmd/notifyd keeps current.
type helps map[string]string

func helpTexts(t *testing.T) helps {
	t.Helper()
	h := helps{}
	for _, name := range treeOf(t, "cmd/notifyd/testdata/help") {
		h[strings.TrimSuffix(path.Base(name), ".txt")] = read(t, name)
	}
	if len(h) == 0 {
		t.Fatal("there are no help texts")
	}
	return h
}

// of returns the help of the longest command that words begin with.
func (h helps) of(words []string) (text string, ok bool) {
	name := words[0]
	for _, word := range words[1:] {
		if _, known := h[name+"-"+word]; !known {
			break
		}
		name += "-" + word
	}
	return h[name], name != words[0] || len(words) > 1 && strings.HasPrefix(words[1], "-")
}

func (h helps) all() (texts []string) {
	for _, text := range h {
		texts = append(texts, text)
	}
	return texts
}

func treeOf(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(folder)))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, path.Join(folder, entry.Name()))
	}
	return names
}
