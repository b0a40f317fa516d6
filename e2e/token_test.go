//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer makes tokens with the program's own subcommands.
type issuer struct {
	private, public string // key files
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	private := run(t, "", "keys", "generate", "--alg=EdDSA")
	public := run(t, private, "keys", "public")
	return issuer{private: keyFile(t, "key.jwk", private), public: keyFile(t, "keys.json", public)}
}

func keyFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (i issuer) publisher(t *testing.T, ttl time.Duration, pattern string) string {
	t.Helper()
	return i.mint(t, "publisher", ttl, "--publish="+pattern)
}

func (i issuer) subscriber(t *testing.T, ttl time.Duration, pattern string) string {
	t.Helper()
	return i.mint(t, "subscriber", ttl, "--subscribe="+pattern)
}

func (i issuer) mint(t *testing.T, sub string, ttl time.Duration, grant string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "", "token", "--key="+i.private, "--sub="+sub, "--ttl="+ttl.String(), grant))
}

// window is the shortest part of a token that counts as one: 96 bits of a signature.
const window = 16

// searchForTokens fails the test where any part of any token stands in texts.
func searchForTokens(t *testing.T, tokens []string, where string, texts []string) {
	t.Helper()
	for _, found := range findTokens(tokens, texts) {
		t.Errorf("%s: %s", where, found)
	}
}

func findTokens(tokens, texts []string) (found []string) {
	parts := map[string]string{}
	for n, token := range tokens {
		for m, segment := range strings.Split(token, ".") {
			for i := 0; i+window <= len(segment); i++ {
				parts[segment[i:i+window]] = fmt.Sprintf("segment %d of token %d", m, n)
			}
		}
	}
	for _, text := range texts {
		for i := 0; i+window <= len(text); i++ {
			if part, ok := parts[text[i:i+window]]; ok {
				found = append(found, fmt.Sprintf("%s stands in %q", part, text))
				break
			}
		}
	}
	return found
}

func TestFindTokens(t *testing.T) {
	t.Parallel()
	token := "aaaabbbbccccddddeeee.0123456789abcdefghi.ZYXWVUTSRQPONMLKJIHG"
	for text, want := range map[string]int{
		`{"error":"bad token ZYXWVUTSRQPONMLK"}`: 1,
		"56789abcdefghi is too short":            0,
		"x3456789abcdefghix":                     1,
		"...bbbccccddddeeee.":                    0,
		"...bbbbccccddddeeee.":                   1,
		"":                                       0,
	} {
		if found := findTokens([]string{token}, []string{text}); len(found) != want {
			t.Errorf("%q: found %q, want %d", text, found, want)
		}
	}
}
