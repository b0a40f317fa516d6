//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pasteLine is one of the lines that "serve --dev" prints for the user to paste.
var pasteLine = regexp.MustCompile(`^\s*(?:\$ )?((?:NOTIFYD_TOKEN=\S+ )?go run \./cmd/notifyd (pub|sub) .*)$`)

// TestReadme does what a new user does: a copy of the tree without anything that git does not know, the README's first
// command in it, and then the lines that it prints.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := firstCommands(string(readme))
	if want := []string{"go run ./cmd/notifyd serve --dev", "go run ./tools/test"}; !slices.Equal(commands, want) {
		t.Fatalf("README.md opens with %q, want %q", commands, want)
	}

	tree := cleanCopy(t)
	shell := func(name, line string) *process {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "NOTIFYD_LISTEN=127.0.0.1:0", "NOTIFYD_ADMIN_LISTEN=127.0.0.1:0")
		return start(t, name, cmd)
	}
	server := shell("the README's first command", commands[0])
	paste := map[string]string{}
	for _, verb := range []string{"sub", "pub"} {
		line := server.output.await(t, "line to paste: go run ./cmd/notifyd "+verb+" …", 0, func(line string) bool {
			m := pasteLine.FindStringSubmatch(line)
			return m != nil && m[2] == verb
		})
		paste[verb] = pasteLine.FindStringSubmatch(line)[1]
	}

	subscriber := shell(paste["sub"], paste["sub"]+" --count 2")
	eventually(t, "the subscriber has its two events", func() bool {
		publisher := shell(paste["pub"], paste["pub"])
		<-publisher.gone
		if code := publisher.cmd.ProcessState.ExitCode(); code != 0 {
			t.Fatalf("%s: exit code %d", paste["pub"], code)
		}
		select {
		case <-subscriber.gone:
			return true
		default:
			return false
		}
	})
	if code := subscriber.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("%s: exit code %d", paste["sub"], code)
	}
	events := 0
	for _, line := range subscriber.output.all() {
		var e message
		if json.Unmarshal([]byte(line), &e) == nil && len(e.Data) > 0 && strings.Contains(paste["pub"], " "+e.Topic+" ") {
			events++
		}
	}
	if events != 2 {
		t.Errorf("the subscriber printed %d events of the published topic, want 2:\n%s", events, subscriber.output.tail())
	}
}

// firstCommands returns the commands of the first fenced block, without prompts and comments.
func firstCommands(text string) (commands []string) {
	_, block, _ := strings.Cut(text, "\n```")
	_, block, _ = strings.Cut(block, "\n")
	block, _, _ = strings.Cut(block, "\n```")
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(strings.TrimPrefix(line, "$ ")); line != "" {
			commands = append(commands, line)
		}
	}
	return commands
}

// cleanCopy copies the files that git knows, as they are now, to a folder of their own.
func cleanCopy(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		leftOut(t, "this is not a git checkout, so nothing says which files belong to it: "+err.Error())
	}
	tree := t.TempDir()
	for name := range bytes.SplitSeq(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
		text, err := os.ReadFile(filepath.Join("..", string(name)))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(tree, string(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// TestContainer checks what only a container would otherwise show: that its configuration is accepted, and that its
// health check tells a living server from a dead one.
func TestContainer(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	config, err := os.ReadFile("../deploy/notifyd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/etc/notifyd/keys/keys.json", keys.public, "data_dir: /data", "data_dir: "+t.TempDir())
	path := keyFile(t, "notifyd.yaml", here.Replace(string(config)))
	run(t, "", "check", "--config="+path)
	node := serve(t, "notifyd with the container's configuration", nil, "--config="+path)

	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(dockerfile), "HEALTHCHECK")
	_, rest, _ = strings.Cut(rest, "CMD ")
	var health []string
	if err := json.NewDecoder(strings.NewReader(rest)).Decode(&health); err != nil || health[0] != "/notifyd" {
		t.Fatalf("the Dockerfile's health check is not /notifyd: %q, %v", health, err)
	}
	for i, arg := range health {
		health[i] = strings.Replace(arg, "http://127.0.0.1:9090", node.admin, 1)
	}
	run(t, "", health[1:]...)
	node.kill()
	if out, err := try(t, "", health[1:]...); err == nil {
		t.Errorf("%q says that a dead server is healthy: %s", health, out)
	}
}
