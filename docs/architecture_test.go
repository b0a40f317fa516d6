package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// packages are those whose names architecture.md uses, by the name that it uses for them.
var packages = map[string]string{
	"wire": "wire", "authz": "authz", "bus": "bus", "store": "store", "node": "node", "server": "server", "loop": "server/loop", "client": "client",
}

var (
	goFile       = regexp.MustCompile("[`(]([a-z][\\w./-]*\\.(?:go|yml))[`)]")
	folder       = regexp.MustCompile("`([a-z][\\w./-]*/)`")
	goName       = regexp.MustCompile("`([a-z]+)\\.([A-Z]\\w*(?:\\.[A-Z]\\w*)?)`")
	lock         = regexp.MustCompile(`(?m)^\s+\w+\s+sync\.(?:RW)?Mutex\b`)
	rowOfPackage = regexp.MustCompile("(?m)^\\| (`[^|]*/`) \\|[^|]*\\| ([^|]*) \\|$")
	stageRow     = regexp.MustCompile("(?m)^\\| `(for[A-Z]\\w*)` \\|")
)

// What docs/architecture.md names is there: files, folders, Go names, and the stages of what waits, all of them.
func TestArchitectureNamesWhatExists(t *testing.T) {
	const name = "docs/architecture.md"
	text := read(t, name)
	paths := append(goFile.FindAllStringSubmatch(text, -1), folder.FindAllStringSubmatch(text, -1)...)
	names := goName.FindAllStringSubmatch(text, -1)
	if len(paths) == 0 || len(names) == 0 {
		t.Fatalf("%d paths and %d Go names were found", len(paths), len(names))
	}
	for _, m := range paths {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(m[1]))); err != nil {
			t.Errorf("%s names %s, which does not exist", name, m[1])
		}
	}
	for _, m := range names {
		folder, known := packages[m[1]]
		if !known {
			t.Errorf("%s names %s.%s: there is no package %s", name, m[1], m[2], m[1])
		} else if !declared(t, folder)[m[2]] {
			t.Errorf("%s names %s.%s, which %s does not declare", name, m[1], m[2], folder)
		}
	}

	var listed, stages []string
	for _, m := range stageRow.FindAllStringSubmatch(text, -1) {
		listed = append(listed, m[1])
	}
	for name := range declared(t, "server") {
		if stage, ok := strings.CutPrefix(name, "waitStage "); ok {
			stages = append(stages, stage)
		}
	}
	slices.Sort(listed)
	slices.Sort(stages)
	if len(stages) == 0 || !slices.Equal(listed, stages) {
		t.Errorf("%s lists the stages %q, the server has %q", name, listed, stages)
	}
}

// Packages import what the table of docs/architecture.md permits, and no more; and it permits nothing that none needs.
func TestImports(t *testing.T) {
	const module = "github.com/notifyd/notifyd/"
	permitted := map[string][]string{"internal/testkit": {"wire"}, "tools": nil}
	for _, m := range rowOfPackage.FindAllStringSubmatch(read(t, "docs/architecture.md"), -1) {
		for _, row := range submatches(span, m[1]) {
			permitted[strings.TrimSuffix(row, "/")] = submatches(span, m[2])
		}
	}
	// rowOf is the row that a package of the module belongs to: the longest one that its path begins with.
	rowOf := func(path string) (row string) {
		for name := range permitted {
			if (path == name || strings.HasPrefix(path, name+"/")) && len(name) > len(row) {
				row = name
			}
		}
		return row
	}
	others := []struct {
		prefix string
		users  []string
	}{
		{"github.com/golang-jwt/", []string{"authz"}},
		{"github.com/nats-io/", []string{"bus", "store", "internal/testkit", "bench"}},
	}
	used := map[string]bool{}
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		imports := strings.Fields(line)
		path := strings.TrimPrefix(imports[0], module)
		row := rowOf(path)
		for _, imported := range imports[1:] {
			for _, other := range others {
				if strings.HasPrefix(imported, other.prefix) && !slices.Contains(other.users, row) {
					t.Errorf("%s imports %s, which only %q may", path, imported, other.users)
				}
			}
			ours, ok := strings.CutPrefix(imported, module)
			if !ok || rowOf(ours) == row {
				continue
			}
			used[row+" "+rowOf(ours)] = true
			if !slices.Contains(permitted[row], rowOf(ours)) {
				t.Errorf("%s imports %s, which docs/architecture.md does not permit", path, ours)
			}
		}
	}
	for row, list := range permitted {
		for _, imported := range list {
			if row != "web" && !used[row+" "+imported] {
				t.Errorf("docs/architecture.md permits %s to import %s, which it does not", row, imported)
			}
		}
	}
}

// docs/architecture.md names each file that declares a lock, so that none is missing from the order of locks.
func TestArchitectureNamesEveryLock(t *testing.T) {
	text := read(t, "docs/architecture.md")
	found := 0
	for _, name := range tree(t, ".go") {
		folder, _, _ := strings.Cut(name, "/")
		if !slices.Contains([]string{"authz", "bus", "node", "server", "store"}, folder) || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "bus/bustest/") {
			continue
		}
		if !lock.MatchString(read(t, name)) {
			continue
		}
		found++
		if !strings.Contains(text, name) {
			t.Errorf("%s has a lock that docs/architecture.md does not name", name)
		}
	}
	if found == 0 {
		t.Error("no lock was found")
	}
}

// declared returns what a package declares, on any system: functions and types as Name, methods as Name and as
// Type.Name, and the constants of a block whose first one has a type as "type name".
func declared(t *testing.T, folder string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[d.Name.Name] = true
				if d.Recv != nil {
					names[receiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				kind := ""
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						names[spec.Name.Name] = true
					case *ast.ValueSpec:
						if id, ok := spec.Type.(*ast.Ident); ok {
							kind = id.Name
						}
						for _, id := range spec.Names {
							names[id.Name], names[kind+" "+id.Name] = true, true
						}
					}
				}
			}
		}
	}
	return names
}

func receiver(x ast.Expr) string {
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
