// Package console holds the built page of the console, which a node serves at /console. Its source is beside it, in
// TypeScript; 'make console' builds it, and CI compares.
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed dist
var built embed.FS

// policy lets the page load, ask and connect to what it came from, and nothing else. Styles and scripts are files, so that
// text which found its way into the page would be text (CWE-79), and no other page may hold it in a frame (CWE-1021).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Handler serves the page at /console/ and its files below; what is not there is a 404.
func Handler() http.Handler {
	files := map[string]file{}
	err := fs.WalkDir(built, "dist", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := built.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		files[strings.TrimSuffix(strings.TrimPrefix(name, "dist/"), "index.html")] = file{
			text, mime.TypeByExtension(path.Ext(name)), `"` + hex.EncodeToString(sum[:8]) + `"`,
		}
		return nil
	})
	if err != nil {
		panic(err) // what is embedded can be read
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, below := strings.CutPrefix(r.URL.Path, "/console/")
		f, found := files[name]
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the console's files are for reading", http.StatusMethodNotAllowed)
		case r.URL.Path == "/console":
			// Not http.Redirect, which would make it absolute: a proxy may have taken a prefix away.
			w.Header().Set("Location", "console/")
			w.WriteHeader(http.StatusPermanentRedirect)
		case !below || !found:
			http.Error(w, "there is no such file of the console", http.StatusNotFound)
		default:
			f.serve(w, r)
		}
	})
}

// file is one file of the page.
type file struct {
	text        []byte
	media, etag string
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.media)
	_, _ = w.Write(f.text)
}
