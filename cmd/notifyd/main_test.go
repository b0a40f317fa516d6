package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/configuration.md")

type result struct {
	code           int
	stdout, stderr string
}

// invoke runs the command in this process.
func invoke(t *testing.T, env map[string]string, stdin string, args ...string) result {
	t.Helper()
	return invokeCtx(t.Context(), env, stdin, args...)
}

func invokeCtx(ctx context.Context, env map[string]string, stdin string, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(&process{ctx, env, strings.NewReader(stdin), &stdout, &stderr}, args)
	return result{code, stdout.String(), stderr.String()}
}

// golden compares got with a file, or rewrites the file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it should be; 'go test ./cmd/notifyd -update' rewrites it. Now:\n%s", path, got)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, command := range []string{"", "serve", "pub", "sub", "token", "revoke", "keys", "keys generate", "keys public", "inspect", "doctor", "streams", "check", "version", "completion"} {
		r := invoke(t, nil, "", append(strings.Fields(command), "--help")...)
		if r.code != exitOK || r.stderr != "" {
			t.Errorf("%s --help: %+v", command, r)
		}
		golden(t, filepath.Join("testdata", "help", strings.ReplaceAll("notifyd "+command, " ", "-")+".txt"), r.stdout)
	}
}

// Every example that --help prints can be parsed: its words are those of a command.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "help", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range example.FindAllStringSubmatch(string(text), -1) {
			examples++
			line := strings.TrimSpace(m[1])
			p := &process{t.Context(), map[string]string{"NOTIFYD_TOKEN": "x"}, strings.NewReader(""), io.Discard, io.Discard}
			s := &settings{env: p.env, file: map[string]any{}}
			words := shellWords(line)
			if i := slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, ".yaml") }); i >= 0 {
				words[i] = writeFile(t, "") // --config reads it while parsing
			}
			if _, err := newParser(p, s, &cli{}).Parse(words); err != nil {
				t.Errorf("%s: notifyd %s: %v", file, line, err)
			}
		}
	}
	if examples < 30 {
		t.Errorf("only %d examples were found", examples)
	}
}

// example is a call of notifyd in the text of --help, up to a pipe, a redirection or a bracket.
var example = regexp.MustCompile(`(?m)^ {2,}(?:[^\n]*[|(;] ?)?notifyd ((?:'[^']*'|"[^"]*"|[^|<>);\n'"])+)`)

// shellWords splits a line as a shell does, as far as the examples need it.
func shellWords(line string) (words []string) {
	for _, word := range shellWord.FindAllString(line, -1) {
		words = append(words, quoted.ReplaceAllString(word, "$1$2"))
	}
	return words
}

var quoted = regexp.MustCompile(`'([^']*)'|"([^"]*)"`)

var shellWord = regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`)

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
	for _, c := range []struct {
		args, want string
	}{
		{"", "expected one of"},
		{"frobnicate", "frobnicate"},
		{"serve --no-such-flag", "--no-such-flag"},
		{"serve --loops=many", "--loops"},
		{"pub", "<topic> <data>"},
		{"pub a 1", "NOTIFYD_TOKEN"},
		{"pub a.* 1 --token x", "bad_topic"},
		{"pub a hello --token x", "Quote it for the shell"},
		{"sub a", "NOTIFYD_TOKEN"},
		{"sub a..b --token x", "bad_topic"},
		{"sub a --count -1 --token x", "--count"},
		{"token --publish a", "--key"},
		{"token --key nowhere --publish a", "nowhere"},
		{"token --key nowhere", "permits nothing"},
		{"token --key nowhere --publish a --ttl 0s", "--ttl"},
		{"token --key nowhere --digest-of a.b", "DATA"},
		{"token --key nowhere --digest-of a..b 1", "bad_topic"},
		{"token --key nowhere --digest-of a {", "byte for byte"},
		{"revoke --token x", "--jti or --sub"},
		{"revoke --jti a", "NOTIFYD_TOKEN"},
		{"revoke --jti a --sub b --token x", "--jti and --sub can't be used together"},
		{"revoke --jti a --before 2026-01-31T12:00:00Z --token x", "--before goes with --sub"},
		{"revoke --sub a --before yesterday --token x", "--before"},
		{"sub a --strategy cookie --token x", "--strategy"},
		{"keys generate --alg none", "EdDSA"},
		{"keys public", "standard input"},
		{"inspect", "NOTIFYD_TOKEN"},
		{"inspect --keys nowhere " + token, "nowhere"},
		{"doctor push.example.com", "begin with ws:// or wss:// and a host"},
		{"doctor ftp://push.example.com", "begin with ws:// or wss:// and a host"},
		{"doctor ws://push.example.com/%" + token, "does not parse"},
		{"doctor --topic a..b ws://h", "--topic: bad_topic"},
		{"doctor --timeout 0s ws://h", "--timeout"},
		{"doctor --strategy cookie ws://h", "--strategy"},
		{"doctor --keys nowhere ws://h", "nowhere"},
		{"doctor --token-file nowhere ws://h", "--token-file: open nowhere"},
		{"doctor --token-file - ws://h", "no token is in it"},
		{"version " + token, "unexpected argument [token]"},
		{"serve --limits.rate=" + token, "[token]"},
		{"sub --tokn=" + token, `did you mean "--token"`},
	} {
		r := invoke(t, nil, "", strings.Fields(c.args)...)
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: want exit code 2 and %q, got %+v", c.args, c.want, r)
		}
		if strings.Contains(r.stderr, token[:12]) {
			t.Errorf("%s: part of a token is quoted: %s", c.args, r.stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	defer func(v, r string) { version, revision = v, r }(version, revision)
	version, revision = "v9.8.7", "0123456789abcdef"
	if r := invoke(t, nil, "", "version"); r.code != exitOK || !strings.HasPrefix(r.stdout, "notifyd v9.8.7 0123456789ab go") {
		t.Errorf("%+v", r)
	}
}
