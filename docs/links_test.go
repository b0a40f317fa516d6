// Package docs holds no code: its tests check what the documents of the whole tree say.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const root = ".."

// tree lists the files of the project with one of the endings, relative to its root and with slashes.
func tree(t *testing.T, endings ...string) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "node_modules", "bin", "dist", "testdata"}, entry.Name()):
			return fs.SkipDir
		case !entry.IsDir() && slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(name, e) }):
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no file ends in %q", endings)
	}
	return files
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	link       = regexp.MustCompile(`(?:\[([\w./-]+\.md))?\]\(([^()\s]+)\)`)
	codeSpan   = regexp.MustCompile("`[^`\n]*`")
	linkInText = regexp.MustCompile(`\[([^\]]*)\]\([^()]*\)`)
	inTree     = regexp.MustCompile(`\bdocs/[a-z0-9][\w./-]*\.(?:md|svg)\b`)
)

// Every link of a Markdown file to another file, or to a heading, leads somewhere.
func TestLinksResolve(t *testing.T) {
	checked := 0
	for _, name := range tree(t, ".md") {
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(prose(read(t, name)), ""), -1) {
			text, to := m[1], m[2]
			target, anchor, _ := strings.Cut(to, "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if text != "" && path.Base(text) != path.Base(target) {
				t.Errorf("%s: a link that reads %s leads to %s", name, text, to)
			}
			checked++
			file := name
			if target != "" {
				file = path.Join(path.Dir(name), target)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s links to %s: there is no %s", name, to, file)
			} else if anchor != "" && !slices.Contains(anchors(read(t, file)), anchor) {
				t.Errorf("%s links to %s: no heading of %s makes this anchor", name, to, file)
			}
		}
	}
	if checked == 0 {
		t.Error("no link was found")
	}
}

// A document that code, a command's text, a script or another document names exists.
func TestNamedDocumentsExist(t *testing.T) {
	checked := 0
	for _, name := range append(tree(t, ".go", ".md", ".mjs", ".ts", ".yml", ".yaml", "Makefile", "Dockerfile"), ".ci/run") {
		for _, document := range inTree.FindAllString(read(t, name), -1) {
			checked++
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(document))); err != nil {
				t.Errorf("%s names %s, which does not exist", name, document)
			}
		}
	}
	if checked == 0 {
		t.Error("no document is named anywhere")
	}
}

// prose returns the text without its fenced blocks.
func prose(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			b.WriteString(line)
		}
	}
	return b.String()
}

// anchors returns the anchors of the text's headings, made as GitHub makes them.
func anchors(text string) (all []string) {
	for line := range strings.Lines(prose(text)) {
		heading := strings.TrimLeft(line, "#")
		if len(heading) == len(line) || !strings.HasPrefix(heading, " ") {
			continue
		}
		heading = strings.TrimSpace(linkInText.ReplaceAllString(heading, "$1"))
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, heading)
		all = append(all, anchor)
	}
	return all
}

func TestAnchors(t *testing.T) {
	text := "# One: `two`, three\n\n```sh\n# no heading\n```\n## 7. HTTP\n#no heading\n### A [link](x.md) & more_1\n"
	if got, want := anchors(text), []string{"one-two-three", "7-http", "a-link--more_1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A decision is named by its number.
func TestDecisionNumbers(t *testing.T) {
	files, err := filepath.Glob("adr/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for i, file := range files {
		number, _, _ := strings.Cut(filepath.Base(file), "-")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if number != fmt.Sprintf("%04d", i+1) || !strings.HasPrefix(string(text), fmt.Sprintf("# %d. ", i+1)) {
			t.Errorf("%s is number %d", file, i+1)
		}
	}
}
