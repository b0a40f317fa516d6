package authz

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/notifyd/notifyd/wire"
)

// docs/identity-providers.md has, for each provider, a configuration and what its tokens look like. Such a token passes under
// that configuration, and permits what its user may have and nothing of others.
func TestIdentityProviders(t *testing.T) {
	text, err := os.ReadFile("../docs/identity-providers.md")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		provider, _, _ := strings.Cut(section, "\n")
		config, claims := block(section, "yaml"), block(section, "json")
		if config == "" {
			continue
		}
		tried++
		t.Run(provider, func(t *testing.T) {
			var file struct {
				Auth struct {
					Issuers []struct {
						Name      string
						Audience  string
						Subscribe []string
					}
				}
			}
			if err := yaml.Unmarshal([]byte(config), &file); err != nil || len(file.Auth.Issuers) != 1 {
				t.Fatal(err)
			}
			var payload map[string]any
			if err := json.Unmarshal([]byte(claims), &payload); err != nil {
				t.Fatal(err)
			}
			c := newClock()
			payload["iat"], payload["exp"] = c.now().Unix(), c.now().Unix()+300
			is := file.Auth.Issuers[0]
			issuer := Issuer{Name: is.Name, Subscribe: is.Subscribe, Trusted: allKeys()}
			if is.Audience != "" {
				issuer.Audience = []string{is.Audience}
			}
			v := newTestVerifier(t, c, Options{Issuers: []Issuer{issuer}})
			alg := "RS256"
			if strings.Contains(section, "sign with ES256") {
				alg = "ES256"
			}
			verify := func() (*Token, wire.Code) {
				p, err := json.Marshal(payload)
				if err != nil {
					t.Fatal(err)
				}
				return v.Verify([]byte(signed(t, alg, string(p))))
			}
			token, code := verify()
			if code != wire.OK {
				t.Fatal(code)
			}
			own := strings.ReplaceAll(payload["sub"].(string), "|", "-")
			for topic, want := range map[string]bool{"rooms.7": true, "users." + own + ".bell": true, "users.another.bell": false, ">": false} {
				if token.MaySubscribe([]byte(topic)) != want {
					t.Errorf("subscribe to %s: not %v", topic, want)
				}
			}
			if token.MayPublish([]byte("rooms.7")) {
				t.Error("may publish")
			}
			// Nothing that is configured is there for nothing.
			for name, change := range map[string]func(){
				"another issuer": func() { payload["iss"] = is.Name + "/" },
				"more than the operator permits": func() {
					payload["iss"], payload["notify"] = is.Name, map[string]any{"subscribe": []string{">"}}
				},
			} {
				change()
				if _, code := verify(); code != wire.TokenInvalid && code != wire.Forbidden {
					t.Errorf("%s: %v", name, code)
				}
			}
			if is.Audience != "" {
				payload["iss"], payload["aud"] = is.Name, "elsewhere"
				delete(payload, "notify")
				if _, code := verify(); code != wire.TokenInvalid {
					t.Errorf("another audience: %v", code)
				}
			}
		})
	}
	if tried < 4 {
		t.Errorf("%d providers have a configuration", tried)
	}
}

// block is the first block of code of that kind, or "".
func block(text, kind string) string {
	_, rest, ok := strings.Cut(text, "\n```"+kind+"\n")
	code, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		return ""
	}
	return code
}
