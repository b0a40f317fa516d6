package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysTokenInspect(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"EdDSA", "ES256", "ES384", "RS256", "PS256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			private := invoke(t, nil, "", "keys", "generate", "--alg", alg)
			if private.code != exitOK {
				t.Fatalf("keys generate: %+v", private)
			}
			dir := t.TempDir()
			keyPath, publicPath := filepath.Join(dir, "key.jwk"), filepath.Join(dir, "keys.json")
			write := func(path, text string) {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(keyPath, private.stdout)
			public := invoke(t, nil, private.stdout, "keys", "public")
			if alg == "HS256" {
				if public.code != exitUsage || public.stdout != "" {
					t.Fatalf("a secret has no public part: %+v", public)
				}
				write(publicPath, private.stdout)
			} else {
				if public.code != exitOK || strings.Contains(public.stdout, `"d"`) {
					t.Fatalf("keys public: %+v", public)
				}
				write(publicPath, public.stdout)
			}

			made := invoke(t, nil, "", "token", "--key", keyPath, "--sub", "ann", "--publish", "a,b", "--publish", "c.>",
				"--subscribe", "rooms.*", "--ttl", "10m", "--iss", "me", "--aud", "notifyd", "--jti", "id1")
			if made.code != exitOK {
				t.Fatalf("token: %+v", made)
			}
			token := strings.TrimSpace(made.stdout)
			for name, r := range map[string]result{
				"argument":    invoke(t, nil, "", "inspect", token, "--keys", publicPath, "--issuer", "me", "--audience", "other", "--audience", "notifyd"),
				"stdin":       invoke(t, nil, made.stdout, "inspect", "-", "--keys", publicPath),
				"environment": invoke(t, map[string]string{"NOTIFYD_TOKEN": token}, "", "inspect", "--keys", publicPath),
			} {
				for _, want := range []string{`"ann"`, `"id1"`, "publish   a,b c.>", "subscribe rooms.*", "expires   ", "valid "} {
					if r.code != exitOK || !strings.Contains(r.stdout, want) {
						t.Errorf("inspect by %s: no %q in %+v", name, want, r)
					}
				}
			}
			unverified := invoke(t, nil, "", "inspect", token, "--issuer", "me", "--audience", "notifyd")
			if unverified.code != exitOK || !strings.Contains(unverified.stdout, "signature not checked") {
				t.Errorf("inspect without keys: %+v", unverified)
			}
			for want, r := range map[string]result{
				`token_invalid: iss is "me", configured "you"`:               invoke(t, nil, "", "inspect", token, "--keys", publicPath, "--issuer", "you"),
				`token_invalid: aud is "notifyd", configured "a", "b"`:       invoke(t, nil, "", "inspect", token, "--keys", publicPath, "--audience", "a", "--audience", "b"),
				`token_invalid: iss is "me", wanted "you"`:                   invoke(t, nil, "", "inspect", token, "--issuer", "you"),
				`token_invalid: aud is ["notifyd"], wanted one of ["a" "b"]`: invoke(t, nil, "", "inspect", token, "--audience", "a", "--audience", "b"),
				"not a token": invoke(t, nil, "", "inspect", "abc"),
			} {
				if r.code != exitFailed || !strings.Contains(r.stderr, want) {
					t.Errorf("want exit code 1 and %q: %+v", want, r)
				}
			}
		})
	}
}

func TestTokenRefusesBadGrants(t *testing.T) {
	key := invoke(t, nil, "", "keys", "generate")
	path := filepath.Join(t.TempDir(), "key.jwk")
	if err := os.WriteFile(path, []byte(key.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	r := invoke(t, nil, "", "token", "--key", path, "--publish", "a..b")
	if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "a..b") {
		t.Errorf("%+v", r)
	}
}

// What a token is besides its patterns is shown, and a token that is good for one use has an identifier of its own.
func TestTokenForOneMessage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key.jwk")
	if err := os.WriteFile(path, []byte(invoke(t, nil, "", "keys", "generate").stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	const digest, once, admin = "\ndigest    good for one topic", "\nonce      good for one message", "\nadmin     may revoke"
	for _, c := range []struct {
		args  []string
		want  []string
		never []string
	}{
		{[]string{"--digest-of", "a.b", `{"x": 1}`}, []string{digest, "publish   a.b\n"}, []string{once, admin, `"jti"`}},
		{[]string{"--digest-of=a.b", `1`, "--publish", "a.*", "--once"}, []string{digest, once, "publish   a.*\n", `"jti": "`}, []string{admin}},
		{[]string{"--once", "--jti", "mine", "--publish", "a"}, []string{once, `"jti": "mine"`}, []string{digest, admin}},
		{[]string{"--admin"}, []string{admin, "publish   nothing\n"}, []string{digest, once}},
		{[]string{"--publish", "a"}, []string{"publish   a\n"}, []string{digest, once, admin}},
	} {
		made := invoke(t, nil, "", append([]string{"token", "--key", path}, c.args...)...)
		shown := invoke(t, nil, made.stdout, "inspect", "-", "--keys", path)
		if made.code != exitOK || shown.code != exitOK {
			t.Fatalf("%q: %+v %+v", c.args, made, shown)
		}
		for _, want := range c.want {
			if !strings.Contains(shown.stdout, want) {
				t.Errorf("%q: no %q in %s", c.args, want, shown.stdout)
			}
		}
		for _, never := range c.never {
			if strings.Contains(shown.stdout, never) {
				t.Errorf("%q: %q in %s", c.args, never, shown.stdout)
			}
		}
	}
}

// {sub} in a pattern without a subject would be a token that no server accepts.
func TestTokenForNoSubject(t *testing.T) {
	file := writeFile(t, invoke(t, nil, "", "keys", "generate").stdout)
	for _, flag := range []string{"--publish", "--subscribe"} {
		r := invoke(t, nil, "", "token", "--key", file, flag, "users.{sub}.>")
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "give --sub") {
			t.Errorf("%s: %+v", flag, r)
		}
		if r := invoke(t, nil, "", "token", "--key", file, flag, "users.{sub}.>", "--sub", "ann"); r.code != exitOK {
			t.Errorf("%s with --sub: %+v", flag, r)
		}
	}
}
