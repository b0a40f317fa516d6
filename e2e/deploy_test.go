//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// indented are the lines of a comment that stand further in than its text: what a reader is to type, or to write.
func indented(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if said, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "#   "); ok {
			lines = append(lines, said)
		}
	}
	return lines
}

// The commands in the compose files make keys that the server takes, and the passwords that the file asks for. There is no
// Docker here for the last of them; TestImage, TestDeployments and TestComposeCluster do what it would.
func TestComposeCommands(t *testing.T) {
	t.Parallel()
	for file, commands := range map[string]int{"compose.yaml": 3, "compose-cluster.yaml": 4} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			composeCommands(t, file, commands)
		})
	}
}

var (
	variable  = regexp.MustCompile(`\$\{([A-Z_]+):\?`)
	variables = regexp.MustCompile(`(?m)^([A-Z_]+)=\w{32}$`)
)

func composeCommands(t *testing.T, file string, commands int) {
	dir := t.TempDir()
	ran := 0
	for _, line := range indented(t, file) {
		if strings.HasPrefix(line, "docker compose ") {
			continue
		}
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(line, "go run ../cmd/notifyd", "'"+binary(t)+"'"))
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		ran++
	}
	if ran != commands {
		t.Errorf("%d commands", ran)
	}
	run(t, "", "check", "--auth.keys", filepath.Join(dir, "keys/keys.json"))
	if _, err := try(t, "", "check", "--auth.keys", filepath.Join(dir, "key.jwk")); err == nil {
		t.Error("key.jwk has no private key")
	}
	text, err := os.ReadFile("../deploy/" + file)
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(dir, ".env"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	names := func(re *regexp.Regexp, text []byte) (list []string) {
		for _, m := range re.FindAllSubmatch(text, -1) {
			list = append(list, string(m[1]))
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	if asked, made := names(variable, text), names(variables, env); !slices.Equal(asked, made) {
		t.Errorf("%q are asked for, %q made", asked, made)
	}
}

// The least configuration that the unit asks for is one, and it is the one that the unit starts with.
func TestUnitConfiguration(t *testing.T) {
	t.Parallel()
	lines := indented(t, "notifyd.service")
	if len(lines) < 4 || lines[0] != "systemctl enable --now notifyd" {
		t.Fatalf("%q", lines)
	}
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys.json")
	if err := os.WriteFile(keys, []byte(run(t, run(t, "", "keys", "generate"), "keys", "public")), 0o600); err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("/etc/notifyd/keys.json", keys, "/var/lib/notifyd", filepath.Join(dir, "state")).Replace(strings.Join(lines[1:], "\n"))
	if !strings.Contains(config, dir+"/state") || !strings.Contains(config, keys) {
		t.Errorf("no data_dir or no keys in:\n%s", config)
	}
	file := filepath.Join(dir, "notifyd.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "check", "--config", file)
	unit, err := os.ReadFile("../deploy/notifyd.service")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(unit), "\nExecStart=/usr/local/bin/notifyd serve --config /etc/notifyd/notifyd.yaml\n") {
		t.Error("the unit starts something else")
	}
}

var (
	secretRef  = regexp.MustCompile(`secretKeyRef: \{name: ([\w-]+), key: ([\w-]+)\}`)
	secretName = regexp.MustCompile(`secret: \{secretName: ([\w-]+)\}`)
)

// The secrets that the comments make are those that the manifests use, and no others.
func TestKubernetesSecrets(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"kubernetes/all-in-one.yaml", "kubernetes/cluster.yaml"} {
		text, err := os.ReadFile("../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var made, used []string
		for _, line := range indented(t, file) {
			words := strings.Fields(line)
			if len(words) < 6 || !slices.Equal(words[:4], []string{"kubectl", "create", "secret", "generic"}) {
				t.Errorf("%s: %s", file, line)
				continue
			}
			for _, from := range words[5:] {
				from = strings.TrimPrefix(strings.TrimPrefix(from, "--from-file="), "--from-literal=")
				key, _, _ := strings.Cut(from, "=")
				made = append(made, words[4]+" "+key)
			}
		}
		for _, m := range secretRef.FindAllStringSubmatch(string(text), -1) {
			used = append(used, m[1]+" "+m[2])
		}
		for _, m := range secretName.FindAllStringSubmatch(string(text), -1) {
			used = append(used, m[1]+" keys.json") // the file that the image's configuration names
		}
		slices.Sort(made)
		slices.Sort(used)
		if len(used) == 0 || !slices.Equal(made, used) {
			t.Errorf("%s: made %q, used %q", file, made, used)
		}
	}
}
