package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// pkg is a package with its syntax and types.
type pkg struct {
	ImportPath, Dir, Name string
	GoFiles               []string

	fset  *token.FileSet
	files []*source
	info  *types.Info
	types *types.Package
}

// source is one file without tests.
type source struct {
	name string // without the folder
	text []byte
	ast  *ast.File
}

// load finds one package and checks its types. What it imports comes from the build cache.
func load(ctx context.Context, pattern string) (*pkg, error) {
	found, err := goList(ctx, "-find", pattern)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s are %d packages: name each", pattern, len(found))
	}
	p := &found[0].pkg
	deps, err := goList(ctx, "-deps", "-export", p.ImportPath)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, d := range deps {
		exports[d.ImportPath] = d.Export
	}
	p.fset = token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		text, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(p.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, &source{name, text, f})
		files = append(files, f)
	}
	p.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	open := func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("%s was not compiled", path)
		}
		return os.Open(exports[path])
	}
	config := types.Config{Importer: importer.ForCompiler(p.fset, "gc", open)}
	p.types, err = config.Check(p.ImportPath, p.fset, files, p.info)
	return p, err
}

// listed is what "go list" says of a package.
type listed struct {
	pkg
	Export string
}

func goList(ctx context.Context, args ...string) (packages []listed, err error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,Name,GoFiles,Export"}, args...)...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, complaints.Bytes())
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
}
