package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var (
	pinned     = regexp.MustCompile(`(?m)^ *(?:- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	anyUses    = regexp.MustCompile(`(?m)^ *(?:- )?uses: .*$`)
	makes      = regexp.MustCompile(`\bmake ([a-z][\w-]*)`)
	ciScript   = regexp.MustCompile(`(?:^|[\s"])(\.ci/[\w-]+)`)
	goVersion  = regexp.MustCompile(`go-version: (\S+)`)
	documented = regexp.MustCompile(`(?m)^([a-z][\w-]*):.*## \S`)
)

type workflow struct {
	On          yaml.Node         `yaml:"on"`
	Permissions map[string]string `yaml:"permissions"`
	Jobs        map[string]struct {
		Uses    string `yaml:"uses"`
		RunsOn  string `yaml:"runs-on"`
		Minutes int    `yaml:"timeout-minutes"`
		Steps   []struct {
			Uses string            `yaml:"uses"`
			Run  string            `yaml:"run"`
			With map[string]string `yaml:"with"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

// Workflows run on a service that the tests cannot reach. What can be checked here: that each parses and is bounded,
// that it takes no action that can change under its name, and that what it calls exists.
func TestWorkflows(t *testing.T) {
	targets := submatches(makeTarget, read(t, "Makefile"))
	names, err := filepath.Glob(filepath.Join(root, ".github/workflows/*"))
	if err != nil || len(names) == 0 {
		t.Fatal("no workflow", err)
	}
	for _, file := range names {
		name := ".github/workflows/" + filepath.Base(file)
		text := read(t, name)
		var w workflow
		if err := yaml.Unmarshal([]byte(text), &w); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if w.On.IsZero() || len(w.Jobs) == 0 || len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
			t.Errorf("%s: no event, no job, or more permissions than to read: %v", name, w.Permissions)
		}
		for job, j := range w.Jobs {
			if j.Uses != "" { // a workflow of ours
				if _, err := os.Stat(filepath.Join(root, j.Uses)); err != nil || !strings.HasPrefix(j.Uses, "./") {
					t.Errorf("%s: %s uses %s", name, job, j.Uses)
				}
				continue
			}
			if j.RunsOn == "" || strings.HasSuffix(j.RunsOn, "-latest") || j.Minutes == 0 || len(j.Steps) == 0 {
				t.Errorf("%s: %s runs on %q for %d minutes", name, job, j.RunsOn, j.Minutes)
			}
			for _, s := range j.Steps {
				if (s.Uses == "") == (s.Run == "") {
					t.Errorf("%s: %s has a step that uses %q and runs %q", name, job, s.Uses, s.Run)
				}
				for _, target := range submatches(makes, s.Run) {
					if !slices.Contains(targets, target) {
						t.Errorf("%s: there is no make target %s", name, target)
					}
				}
				for _, script := range submatches(ciScript, s.Run) {
					if info, err := os.Stat(filepath.Join(root, script)); err != nil || info.Mode()&0o111 == 0 {
						t.Errorf("%s: %s is no program", name, script)
					}
				}
			}
		}
		for _, line := range anyUses.FindAllString(text, -1) {
			if !pinned.MatchString(line) && !strings.Contains(line, "uses: ./") {
				t.Errorf("%s: not pinned by a commit, with its version behind: %s", name, line)
			}
		}
		for _, version := range submatches(goVersion, text) {
			if !strings.Contains(read(t, "Dockerfile"), "golang:"+version+" ") {
				t.Errorf("%s builds with Go %s, the Dockerfile with another", name, version)
			}
		}
	}
}

// Each folder that dependabot watches has the file that it reads.
func TestDependabot(t *testing.T) {
	var d struct {
		Updates []struct {
			Ecosystem   string   `yaml:"package-ecosystem"`
			Directory   string   `yaml:"directory"`
			Directories []string `yaml:"directories"`
		} `yaml:"updates"`
	}
	if err := yaml.Unmarshal([]byte(read(t, ".github/dependabot.yml")), &d); err != nil {
		t.Fatal(err)
	}
	reads := map[string]string{"gomod": "go.mod", "npm": "package-lock.json", "github-actions": ".github/workflows/ci.yml", "docker": "Dockerfile"}
	watched := []string{}
	for _, u := range d.Updates {
		for _, folder := range append(u.Directories, u.Directory) {
			if folder == "" {
				continue
			}
			watched = append(watched, strings.TrimPrefix(folder+"/"+reads[u.Ecosystem], "/"))
			if _, err := os.Stat(filepath.Join(root, folder, reads[u.Ecosystem])); err != nil {
				t.Errorf("%s: %v", u.Ecosystem, err)
			}
		}
	}
	for name := range reads {
		if !slices.ContainsFunc(watched, func(file string) bool { return strings.HasSuffix(file, reads[name]) }) {
			t.Errorf("nothing watches %s", name)
		}
	}
}

// "make help" shows every target.
func TestMakeTargetsAreDocumented(t *testing.T) {
	text := read(t, "Makefile")
	with := submatches(documented, text)
	for _, target := range submatches(makeTarget, text) {
		if !slices.Contains(with, target) {
			t.Errorf("the target %s has no ## comment", target)
		}
	}
}
