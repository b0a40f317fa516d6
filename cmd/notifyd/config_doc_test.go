package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const docIntro = `# Configuration

<!-- Written by 'go test ./cmd/notifyd -update' from the struct in cmd/notifyd/config.go; a test compares. -->

Every key of ` + "`notifyd serve`" + ` can be set in three ways, here for ` + "`limits.message_bytes`" + `:

| way | spelling |
|---|---|
| flag | ` + "`--limits.message-bytes=128KiB`" + ` |
| environment | ` + "`NOTIFYD_LIMITS_MESSAGE_BYTES=128KiB`" + ` |
| file, named by ` + "`--config`" + ` or ` + "`NOTIFYD_CONFIG`" + ` | ` + "`limits: {message_bytes: 128KiB}`" + ` |

A flag overrides the environment, the environment overrides the file, the file overrides the default. Times are written ` + "`10s`" + ` or ` + "`1m30s`" + `, sizes in bytes or as ` + "`64KiB`, `1MiB`, `2GiB`" + `. A key that takes several values is a list in the file, separated by commas in the environment, and repeated as a flag. Relative paths start at the working directory.

` + "`notifyd check --config FILE`" + ` lists what is wrong with a configuration, unknown keys included. It starts nothing.

` + "```yaml" + `
listen: 0.0.0.0:8080
auth:
  keys: [/etc/notifyd/keys.json]
  issuer: https://id.example.com
  audience: notifyd
nats:
  url: nats://nats:4222
log: {format: json}
` + "```" + `

## Issuers

` + "`auth.keys`, `auth.issuer` and `auth.audience`" + ` describe one issuer, which may grant everything. ` + "`auth.issuers`" + ` lists issuers that may grant no more than the operator permits. A token that grants more is refused as a whole. You can use both together if ` + "`auth.issuer`" + ` names the first one. Keep the list in the file; ` + "`--auth.issuers`" + ` and ` + "`NOTIFYD_AUTH_ISSUERS`" + ` take the same list as YAML or JSON.

` + "```yaml" + `
auth:
  issuers:
    - name: https://id.example.com      # the 'iss' of its tokens
      keys: [https://id.example.com/jwks] # files, and URLs of JWK Sets
      audience: [notifyd, events]       # a token needs one of these in its 'aud'; left out: not checked
      subscribe: ["users.*", "rooms.>"] # every subscribe grant of a token must lie inside one of these; left out: none
      publish: ["rooms.>"]              # likewise
      max_lifetime: 1h                  # longest exp - iat, and iat is required; left out: no bound
      history: 24h                      # how far back its tokens read what streams keep, or none; left out: no bound
      type: at+jwt                      # required 'typ'; left out: at+jwt, JWT or none
    - name: operations
      keys: [/etc/notifyd/operations.json]
      admin: all                        # its tokens may revoke everybody's; true: those of this issuer; left out: none
` + "```" + `

A revocation is kept until the tokens that it is about have expired. If an issuer has no ` + "`max_lifetime`" + `, nobody knows when that is, and the revocation is kept for ever.

Use http only for URLs of this machine (127.0.0.1, ::1, localhost): anybody who can change the answer on its way can make tokens.

## Streams

` + "`streams`" + ` declares topics whose events are kept, so that clients can read them later. [streams.md](streams.md) tells what that promises. Keep the list in the file; ` + "`--streams` and `NOTIFYD_STREAMS`" + ` take the same list as YAML or JSON.

` + "```yaml" + `
auth:
  keys: [/etc/notifyd/keys.json]
nats:
  url: nats://nats:4222
streams:
  - name: orders                          # up to 32 of a-z, A-Z, 0-9, - and _
    topics: ["orders.>", "invoices.*"]    # no two streams may have a topic in common
    max_age: 72h                          # at least one of these three bounds; the oldest events go first
    max_per_topic: 1000                   # 1: the last value of each topic
    max_bytes: 1GiB
    storage: file                         # or memory, which a restart of NATS empties; cannot be changed later
    replicas: 3                           # copies in a NATS cluster, 1 to 5; left out: 1
    duplicate_window: 2m                  # how long a msg_id is remembered; left out: 2m, or max_age if that is shorter
    ttl: true                             # a publish may say how long its event lives; cannot be switched off later
    epoch: "2"                            # another one after the store was put back to an older copy: streams.md says why
` + "```" + `
`

// sections are the headings of the table, in the order of the struct.
var sections = map[string]string{
	"": "The server", "admin": "Admin listener", "console": "Console", "auth": "Tokens", "nats": "NATS", "limits": "Limits", "events": "Events", "log": "Log",
}

func TestConfigurationDocIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString(docIntro)
	last := "none"
	for _, flag := range serveFlags(t) {
		section, _, nested := strings.Cut(flag.Name, ".")
		if !nested {
			section = ""
		}
		if section != last {
			title, ok := sections[section]
			if !ok {
				t.Fatalf("no heading for %s", section)
			}
			fmt.Fprintf(&b, "\n## %s\n\n| key | environment | default | meaning |\n|---|---|---|---|\n", title)
			last = section
		}
		value := ""
		if flag.Default != "" {
			value = "`" + flag.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", yamlKey(flag.Name), envName(flag.Name), value, flag.Help)
	}
	golden(t, filepath.Join("..", "..", "docs", "configuration.md"), b.String())
}

// The examples in the document are configurations that work, but for the key files.
func TestConfigurationDocExample(t *testing.T) {
	_, rest, _ := strings.Cut(docIntro, "```yaml\n")
	for _, missing := range []string{"auth.keys: /etc/notifyd/keys.json", "auth.issuers[1].keys: /etc/notifyd/operations.json", "auth.keys: /etc/notifyd/keys.json"} {
		var example string
		example, rest, _ = strings.Cut(rest, "```")
		r := invoke(t, nil, "", "check", "--config", writeFile(t, example))
		if n := strings.Count(r.stderr, "\n"); n != 1 || !strings.Contains(r.stderr, missing) {
			t.Errorf("%+v", r)
		}
		_, rest, _ = strings.Cut(rest, "```yaml\n")
	}
}
