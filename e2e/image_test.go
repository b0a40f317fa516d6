//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// image is what the last stage of the Dockerfile makes, in a folder: there is no container engine where these tests run,
// but chroot(8) is, as another user and with nothing else in sight.
type image struct {
	root, user              string
	entrypoint, cmd, health []string
}

// unpack makes the image, with env as what --build-arg gives. The test is left out without root, which chroot needs.
func unpack(t *testing.T, env ...string) *image {
	t.Helper()
	if os.Getuid() != 0 {
		leftOut(t, "only root may chroot")
	}
	if _, err := exec.LookPath("chroot"); err != nil {
		leftOut(t, "there is no chroot(8) here")
	}
	im := &image{root: t.TempDir()}
	if err := os.Chmod(im.root, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	build, last, ok := strings.Cut(string(text), "\nFROM scratch\n")
	if !ok {
		t.Fatal("the Dockerfile ends with another image than scratch")
	}
	copies := 0
	for lines := bufio.NewScanner(strings.NewReader(strings.ReplaceAll(last, "\\\n", ""))); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "COPY":
			im.copy(t, build, strings.Fields(rest), env)
			copies++
		case "USER":
			im.user = rest
		case "ENTRYPOINT":
			im.entrypoint = list(t, rest)
		case "CMD":
			im.cmd = list(t, rest)
		case "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, "CMD ")
			im.health = list(t, command)
		}
	}
	if copies < 4 || im.user != "65532:65532" || len(im.entrypoint) != 1 || len(im.cmd) == 0 || len(im.health) == 0 {
		t.Fatalf("the Dockerfile was not understood: %+v", im)
	}
	return im
}

func list(t *testing.T, text string) (words []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &words); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return words
}

// copy does one COPY --from=build.
func (im *image) copy(t *testing.T, build string, words, env []string) {
	t.Helper()
	uid := 0
	for ; strings.HasPrefix(words[0], "--"); words = words[1:] {
		if words[0] == "--chown=65532:65532" {
			uid = 65532
		}
	}
	from, to := words[0], filepath.Join(im.root, words[1])
	if strings.HasSuffix(words[1], "/") {
		to = filepath.Join(to, path.Base(from))
	}
	err := os.MkdirAll(filepath.Dir(to), 0o755)
	switch {
	case err != nil:
	case from == "/src/bin/notifyd":
		_, line, ok := strings.Cut(build, "\nRUN CGO_ENABLED=0 go build ")
		if !ok {
			t.Fatal("no line that builds the program")
		}
		line, _, _ = strings.Cut(line, "\n")
		cmd := exec.Command("sh", "-c", "CGO_ENABLED=0 go build "+strings.Replace(line, "-o bin/notifyd", "-o '"+to+"'", 1))
		cmd.Dir, cmd.Env = "..", append(os.Environ(), env...)
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	case strings.HasPrefix(from, "/src/"):
		err = copyFile(to, "../"+strings.TrimPrefix(from, "/src/"))
	case from == "/etc/ssl/certs/ca-certificates.crt":
		if err = copyFile(to, from); errors.Is(err, os.ErrNotExist) {
			err = os.WriteFile(to, nil, 0o644) // not needed here
		}
	case strings.Contains(build, "RUN mkdir /data /empty && chmod 1777 /empty"):
		if err = os.Mkdir(to, 0o755); err == nil && from == "/empty" {
			err = os.Chmod(to, 0o777|os.ModeSticky)
		}
	default:
		t.Fatalf("do not know what %s is", from)
	}
	if err == nil {
		err = os.Chown(to, uid, uid)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// command is args of the program in the image, as its user, with these variables alone.
func (im *image) command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command("chroot", append([]string{"--userspec=" + im.user, im.root, im.entrypoint[0]}, args...)...)
	cmd.Env = env
	return cmd
}

// mount puts a public key where the configuration of the image wants it, in a folder, as a mount would.
func (im *image) mount(t *testing.T) {
	t.Helper()
	dir := filepath.Join(im.root, "etc/notifyd/keys")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	public := run(t, run(t, "", "keys", "generate"), "keys", "public")
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), []byte(public), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The image runs as it is meant to be run, and as the message on other systems says; its health check says yes.
func TestImage(t *testing.T) {
	t.Parallel()
	im := unpack(t)
	if out, err := im.command(nil, im.cmd...).CombinedOutput(); err == nil || !strings.Contains(string(out), "/etc/notifyd/keys/keys.json") {
		t.Errorf("without keys: %v %s", err, out)
	}
	im.mount(t)
	for name, args := range map[string][]string{
		"as it is":       im.cmd,
		"a trial run":    {"serve", "--dev"},
		"no data folder": {"serve", "--data-dir", "", "--auth.keys", "/etc/notifyd/keys/keys.json"},
	} {
		t.Run(name, func(t *testing.T) {
			admin := freeAddress(t)
			env := []string{"NOTIFYD_LISTEN=127.0.0.1:0", "NOTIFYD_ADMIN_LISTEN=" + admin, "NOTIFYD_LOG_FORMAT=json"}
			p := start(t, "notifyd", im.command(env, args...))
			p.output.await(t, "log line", 0, func(line string) bool { return strings.Contains(line, `"msg":"listening"`) })
			check := append([]string{}, im.health[1:]...)
			check[len(check)-1] = strings.Replace(check[len(check)-1], "127.0.0.1:9090", admin, 1)
			if out, err := im.command(nil, check...).CombinedOutput(); err != nil {
				t.Errorf("%v: %v %s", check, err, out)
			}
		})
	}
}

// The image says what it was built from, in its program and in its labels.
func TestImageVersion(t *testing.T) {
	t.Parallel()
	im := unpack(t, "VERSION=v9.8.7", "REVISION=0123456789abcdef")
	if out, err := im.command(nil, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "notifyd v9.8.7 0123456789ab ") {
		t.Errorf("%v %s", err, out)
	}
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, last, _ := strings.Cut(string(text), "\nFROM scratch\n")
	for _, want := range []string{"ARG VERSION= REVISION=\n", " org.opencontainers.image.version=$VERSION", " org.opencontainers.image.revision=$REVISION"} {
		if !strings.Contains(last, want) {
			t.Errorf("no %q in the image", want)
		}
	}
}

// manifest is what these tests look at of Kubernetes and compose files.
type manifest struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Env []struct {
						Name, Value string
						ValueFrom   any `yaml:"valueFrom"`
					}
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
						SubPath   string `yaml:"subPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []map[string]any
			}
		}
		VolumeClaimTemplates []any `yaml:"volumeClaimTemplates"`
	}
	Services map[string]struct{ Volumes []string }
}

// With the variables and mounts of each file in deploy/ the configuration is one that works, keys are mounted so that a
// rotation arrives, and what the node stores outlives the pod.
func TestDeployments(t *testing.T) {
	t.Parallel()
	im := unpack(t)
	im.mount(t)
	pods := 0
	for _, name := range []string{"kubernetes/all-in-one.yaml", "kubernetes/cluster.yaml", "compose.yaml"} {
		f, err := os.Open("../deploy/" + name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		for docs := yaml.NewDecoder(f); ; {
			var m manifest
			if err := docs.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, s := range m.Services {
				pods++
				im.holds(t, name, nil, s.Volumes[0], s.Volumes[1] == "data:/data")
			}
			for _, c := range m.Spec.Template.Spec.Containers {
				pods++
				var env []string
				for _, e := range c.Env {
					if e.ValueFrom != nil {
						e.Value = "from-a-secret"
					}
					env = append(env, e.Name+"="+e.Value)
				}
				keys, keeps := "", false
				for _, v := range c.VolumeMounts {
					if v.SubPath != "" {
						t.Errorf("%s: with subPath a new %s does not arrive", name, v.Name)
					}
					if v.Name == "keys" {
						keys = v.MountPath
					}
					keeps = keeps || v.MountPath == "/data" && len(m.Spec.VolumeClaimTemplates) == 1 && m.Kind == "StatefulSet"
				}
				im.holds(t, name, env, ":"+keys, keeps)
			}
		}
	}
	if pods != 3 {
		t.Errorf("%d pods", pods)
	}
}

// holds checks one deployment: its environment, where keys are mounted ("from:to"), and whether /data is kept.
func (im *image) holds(t *testing.T, name string, env []string, keys string, keeps bool) {
	t.Helper()
	if out, err := im.command(env, append([]string{"check"}, im.cmd[1:]...)...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
	if to := strings.Split(keys, ":")[1]; to != "/etc/notifyd/keys" {
		t.Errorf("%s: keys are mounted at %q", name, to)
	}
	stores := true
	for _, e := range env {
		stores = stores && e != "NOTIFYD_DATA_DIR="
	}
	if stores != keeps {
		t.Errorf("%s: stores: %v, and what it stores is kept: %v", name, stores, keeps)
	}
}
