//go:build linux

package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A client that others' tools make from the OpenAPI document publishes, and reads why it was refused.
func TestOpenAPIClient(t *testing.T) {
	t.Parallel()
	needScripts(t)
	keys := newIssuer(t)
	node := serve(t, "notifyd", nil, "--auth.keys="+keys.public)
	token := keys.tokenFor(t, `{"sub":"backend","notify":{"publish":["rooms.*"],"subscribe":["rooms.*"]}}`)
	sub := dialCoder(t, "subscriber", node.url)
	sub.subscribe(t, "rooms.42", token)

	folder, err := os.MkdirTemp("js", "generated-") // where the compiler finds the packages
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.WriteFile(filepath.Join(folder, "package.json"), []byte(`{"type":"module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := nodeScript(t, "openapi.mjs", "http://"+node.address(), token, folder)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openapi.mjs: %v\n%s", err, &stderr)
	}
	var got map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := map[string]string{
		"published": "ok", "wildcard": "bad_topic", "elsewhere": "forbidden", "stranger": "token_missing",
		"ticket": "ok", "revoked": "forbidden",
	}
	if !maps.Equal(got, want) {
		t.Errorf("the client got %v, want %v", got, want)
	}
	sub.got.await(t, "event", 0, func(frame string) bool { return strings.Contains(frame, `"text":"hello"`) })
}
