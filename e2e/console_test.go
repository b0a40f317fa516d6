//go:build linux

package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The examples of docs/console.md lead to the page.
func TestConsoleExamples(t *testing.T) {
	t.Parallel()
	d := readDocument(t, "docs/console.md")
	shows := func(base string) {
		t.Helper()
		resp, err := http.Get(base + "/console/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(body), "<title>notifyd console</title>") {
			t.Errorf("%s/console/: %v: %s %s", base, err, resp.Status, body)
		}
	}
	if line := d.next(t, "sh").text; line != "notifyd serve --dev\n" {
		t.Fatalf("the first example is %q", line)
	}
	node := serve(t, "notifyd", nil, "--dev")
	shows(strings.TrimSuffix(node.call(""), "/v1/"))

	keys := newIssuer(t)
	config := filepath.Join(t.TempDir(), "notifyd.yaml")
	if err := os.WriteFile(config, []byte(exampleFile.ReplaceAllString(d.next(t, "yaml").text, keys.public)), 0o600); err != nil {
		t.Fatal(err)
	}
	shows(serve(t, "notifyd", nil, "--config="+config).admin)
	if d.used != len(d.blocks) {
		t.Errorf("nothing runs %q", d.blocks[d.used].text)
	}
}
