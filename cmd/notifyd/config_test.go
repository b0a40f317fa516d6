package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
)

// keys has a value other than the default for every key, and where it is to be seen.
var keys = []struct {
	flag, text string
	got        func(*config) any
	want       any
}{
	{"listen", ":1", func(c *config) any { return c.Listen }, ":1"},
	{"data-dir", "d", func(c *config) any { return c.DataDir }, "d"},
	{"ping-interval", "7s", func(c *config) any { return c.PingInterval }, 7 * time.Second},
	{"drain-delay", "7s", func(c *config) any { return c.DrainDelay }, 7 * time.Second},
	{"drain-window", "8s", func(c *config) any { return c.DrainWindow }, 8 * time.Second},
	{"loops", "9", func(c *config) any { return c.Loops }, 9},
	{"origins", "https://a.example", func(c *config) any { return c.Origins }, []origin{"https://a.example"}},
	{"trusted-proxies", "10.1.2.3/8", func(c *config) any { return c.TrustedProxies }, []network{network(netip.MustParsePrefix("10.0.0.0/8"))}},
	{"proxy-protocol", "true", func(c *config) any { return c.ProxyProtocol }, true},
	{"streams", `[{"name": "a", "topics": "b", "max_bytes": "1GiB"}]`, func(c *config) any { return c.Streams }, streamList{{Name: "a", Topics: texts{"b"}, MaxBytes: 1 << 30}}},
	{"admin.listen", "", func(c *config) any { return c.Admin.Listen }, ""},
	{"admin.pprof", "true", func(c *config) any { return c.Admin.Pprof }, true},
	{"console.enabled", "true", func(c *config) any { return c.Console.Enabled }, true},
	{"auth.keys", "k.json", func(c *config) any { return c.Auth.Keys }, []string{"k.json"}},
	{"auth.issuer", "https://id", func(c *config) any { return c.Auth.Issuer }, "https://id"},
	{"auth.audience", "notifyd", func(c *config) any { return c.Auth.Audience }, []string{"notifyd"}},
	{"auth.leeway", "1s", func(c *config) any { return c.Auth.Leeway }, time.Second},
	{"auth.not-before-leeway", "2s", func(c *config) any { return c.Auth.NotBeforeLeeway }, 2 * time.Second},
	{"auth.cache-entries", "3", func(c *config) any { return c.Auth.CacheEntries }, 3},
	{"auth.token-bytes", "4KiB", func(c *config) any { return c.Auth.TokenBytes }, byteSize(4096)},
	{"auth.workers", "5", func(c *config) any { return c.Auth.Workers }, 5},
	{"auth.expiry-notice", "6s", func(c *config) any { return c.Auth.ExpiryNotice }, 6 * time.Second},
	{"auth.issuers", `[{"name": "a", "max_lifetime": "1h"}]`, func(c *config) any { return c.Auth.Issuers }, issuerList{{Name: "a", MaxLifetime: time.Hour}}},
	{"auth.jwks-refresh", "7m", func(c *config) any { return c.Auth.JWKSRefresh }, 7 * time.Minute},
	{"auth.jwks-cooldown", "8s", func(c *config) any { return c.Auth.JWKSCooldown }, 8 * time.Second},
	{"auth.jwks-timeout", "9s", func(c *config) any { return c.Auth.JWKSTimeout }, 9 * time.Second},
	{"auth.jwks-max-age", "25h", func(c *config) any { return c.Auth.JWKSMaxAge }, 25 * time.Hour},
	{"auth.strategies", "query", func(c *config) any { return c.Auth.Strategies }, []strategy{"query"}},
	{"auth.require", "connection", func(c *config) any { return c.Auth.Require }, authRequired("connection")},
	{"auth.deadline", "11s", func(c *config) any { return c.Auth.Deadline }, 11 * time.Second},
	{"auth.ticket-ttl", "12s", func(c *config) any { return c.Auth.TicketTTL }, 12 * time.Second},
	{"auth.revocation-max-age", "13s", func(c *config) any { return c.Auth.RevocationMaxAge }, 13 * time.Second},
	{"auth.revocation-outage", "open", func(c *config) any { return c.Auth.RevocationOutage }, revocationOutage("open")},
	{"nats.url", "nats://h", func(c *config) any { return c.NATS.URL }, "nats://h"},
	{"nats.creds", "c", func(c *config) any { return c.NATS.Creds }, "c"},
	{"nats.nkey", "n", func(c *config) any { return c.NATS.NKey }, "n"},
	{"nats.user", "u", func(c *config) any { return c.NATS.User }, "u"},
	{"nats.password", "p", func(c *config) any { return c.NATS.Password }, "p"},
	{"nats.tls-ca", "ca", func(c *config) any { return c.NATS.TLSCA }, "ca"},
	{"nats.tls-cert", "cert", func(c *config) any { return c.NATS.TLSCert }, "cert"},
	{"nats.tls-key", "key", func(c *config) any { return c.NATS.TLSKey }, "key"},
	{"nats.prefix", "x", func(c *config) any { return c.NATS.Prefix }, "x"},
	{"nats.listen", ":2", func(c *config) any { return c.NATS.Listen }, ":2"},
	{"nats.cluster-name", "cn", func(c *config) any { return c.NATS.ClusterName }, "cn"},
	{"nats.cluster-listen", ":3", func(c *config) any { return c.NATS.ClusterListen }, ":3"},
	{"nats.routes", "nats://r", func(c *config) any { return c.NATS.Routes }, []string{"nats://r"}},
	{"nats.sync-interval", "5s", func(c *config) any { return c.NATS.SyncInterval }, 5 * time.Second},
	{"nats.replicas", "3", func(c *config) any { return c.NATS.Replicas }, 3},
	{"nats.linger", "0s", func(c *config) any { return c.NATS.Linger }, time.Duration(0)},
	{"limits.message-bytes", "1MiB", func(c *config) any { return c.Limits.MessageBytes }, byteSize(1 << 20)},
	{"limits.head-bytes", "20000", func(c *config) any { return c.Limits.HeadBytes }, byteSize(20000)},
	{"proxy-header", "forwarded", func(c *config) any { return c.ProxyHeader }, "forwarded"},
	{"path-prefix", "/a/b", func(c *config) any { return c.PathPrefix }, "/a/b"},
	{"limits.subscriptions", "1", func(c *config) any { return c.Limits.Subscriptions }, 1},
	{"limits.pending-bytes", "2MiB", func(c *config) any { return c.Limits.PendingBytes }, byteSize(2 << 20)},
	{"limits.tickets-per-subject", "7", func(c *config) any { return c.Limits.TicketsPerSubject }, 7},
	{"limits.tickets-per-ip", "8", func(c *config) any { return c.Limits.TicketsPerIP }, 8},
	{"limits.penalty", "2s", func(c *config) any { return c.Limits.Penalty }, 2 * time.Second},
	{"limits.rate", "3", func(c *config) any { return c.Limits.Rate }, 3},
	{"limits.burst", "4", func(c *config) any { return c.Limits.Burst }, 4},
	{"limits.connections", "5", func(c *config) any { return c.Limits.Connections }, 5},
	{"limits.connections-per-ip", "6", func(c *config) any { return c.Limits.ConnectionsPerIP }, 6},
	{"limits.bad-envelopes", "7", func(c *config) any { return c.Limits.BadEnvelopes }, 7},
	{"limits.auth-failures", "8", func(c *config) any { return c.Limits.AuthFailures }, 8},
	{"limits.handshake-timeout", "9s", func(c *config) any { return c.Limits.HandshakeTimeout }, 9 * time.Second},
	{"limits.message-timeout", "11s", func(c *config) any { return c.Limits.MessageTimeout }, 11 * time.Second},
	{"limits.idle-timeout", "2m", func(c *config) any { return c.Limits.IdleTimeout }, 2 * time.Minute},
	{"events.from", "true", func(c *config) any { return c.Events.From }, true},
	{"log.level", "debug", func(c *config) any { return c.Log.Level }, logLevel(zapcore.DebugLevel)},
	{"log.format", "json", func(c *config) any { return c.Log.Format }, logFormat("json")},
}

// parse gives what 'serve args...' would run with.
func parse(t *testing.T, env map[string]string, args ...string) *config {
	t.Helper()
	p, s, grammar := &process{}, &settings{env: env, file: map[string]any{}}, &cli{}
	_, err := newParser(p, s, grammar).Parse(append([]string{"serve"}, args...))
	if err != nil || len(s.problems) > 0 {
		t.Fatal(err, s.problems)
	}
	return &grammar.Serve.config
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notifyd.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEveryKeyByFlagEnvironmentAndFile(t *testing.T) {
	t.Parallel()
	byDefault := parse(t, nil)
	env, file := map[string]string{}, map[string]any{}
	for _, k := range keys {
		env[envName(k.flag)] = k.text
		section, name, nested := strings.Cut(yamlKey(k.flag), ".")
		if !nested {
			file[section] = k.text
			continue
		}
		if file[section] == nil {
			file[section] = map[string]string{}
		}
		file[section].(map[string]string)[name] = k.text
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	byEnvironment, byFile := parse(t, env), parse(t, nil, "--config", writeFile(t, string(text)))
	for _, k := range keys {
		t.Run(k.flag, func(t *testing.T) {
			t.Parallel()
			if got := k.got(byDefault); reflect.DeepEqual(got, k.want) {
				t.Fatalf("%v is the default: this proves nothing", got)
			}
			for from, c := range map[string]*config{
				"flag":        parse(t, nil, "--"+k.flag+"="+k.text),
				"environment": byEnvironment,
				"file":        byFile,
			} {
				if got := k.got(c); !reflect.DeepEqual(got, k.want) {
					t.Errorf("by %s: %v, want %v", from, got, k.want)
				}
			}
		})
	}
	covered := map[string]bool{}
	for _, k := range keys {
		covered[k.flag] = true
		// What Kubernetes sets in every pod beside a service that is called notifyd.
		if e := envName(k.flag); strings.HasPrefix(e, "NOTIFYD_PORT") || strings.HasPrefix(e, "NOTIFYD_SERVICE_") {
			t.Errorf("%s collides with a variable of Kubernetes", e)
		}
	}
	for _, flag := range serveFlags(t) {
		if !covered[flag.Name] {
			t.Errorf("--%s is not in the table", flag.Name)
		}
	}
}

// serveFlags are the flags of serve that are configuration.
func serveFlags(t *testing.T) (flags []*kong.Flag) {
	t.Helper()
	model := newParser(&process{}, &settings{}, &cli{}).Model
	for _, node := range model.Children {
		if node.Name != "serve" {
			continue
		}
		for _, flag := range node.Flags {
			if !outsideFile[flag.Name] {
				flags = append(flags, flag)
			}
		}
	}
	if len(flags) < 40 {
		t.Fatalf("only %d flags found", len(flags))
	}
	return flags
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "loops: 1\nauth:\n  keys: [a, b]\n  issuer:\nlimits:\n")
	env := map[string]string{"NOTIFYD_CONFIG": file}
	if c := parse(t, env); c.Loops != 1 || !reflect.DeepEqual(c.Auth.Keys, []string{"a", "b"}) {
		t.Errorf("file: %d %v", c.Loops, c.Auth.Keys)
	}
	env["NOTIFYD_LOOPS"], env["NOTIFYD_AUTH_KEYS"] = "2", "c,d"
	if c := parse(t, env); c.Loops != 2 || !reflect.DeepEqual(c.Auth.Keys, []string{"c", "d"}) {
		t.Errorf("environment: %d %v", c.Loops, c.Auth.Keys)
	}
	if c := parse(t, env, "--loops", "3", "--auth.keys=e", "--auth.keys=f"); c.Loops != 3 || !reflect.DeepEqual(c.Auth.Keys, []string{"e", "f"}) {
		t.Errorf("flag: %d %v", c.Loops, c.Auth.Keys)
	}
	env["NOTIFYD_LOOPS"] = "" // as a compose file passes on what is unset
	if c := parse(t, env); c.Loops != 1 {
		t.Errorf("empty variable: %d", c.Loops)
	}
	if c := parse(t, map[string]string{"NOTIFYD_ADMIN_LISTEN": ""}); c.Admin.Listen != "" {
		t.Errorf("empty variable: %q", c.Admin.Listen)
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"unknown section":     {"limit: {rate: 1}", []string{":1: limit: unknown key; did you mean limits?"}},
		"unknown key":         {"limits:\n  message_byte: 1", []string{":2: limits.message_byte: unknown key; did you mean limits.message_bytes?"}},
		"flag spelling":       {"limits: {message-bytes: 1}", []string{"limits.message-bytes: unknown key; did you mean limits.message_bytes?"}},
		"far off":             {"colour: red", []string{"colour: unknown key; docs/configuration.md lists the keys"}},
		"outside the file":    {"dev: true", []string{"dev: unknown key"}},
		"two problems":        {"limits: {rate: fast, burst: 1.5}", []string{"limits.rate: ", `"fast"`, "limits.burst: ", `"1.5"`}},
		"duration":            {"drain_window: 5", []string{"drain_window: ", "missing unit"}},
		"size":                {"limits: {message_bytes: 64k}", []string{`"64k" is not a size`, "KiB"}},
		"huge size":           {"limits: {message_bytes: 2048MiB}", []string{"is not a size"}},
		"negative size":       {"limits: {message_bytes: -1}", []string{"is not a size"}},
		"level":               {"log: {level: loud}", []string{`"loud" is not a level: write debug, info, warn or error`}},
		"format":              {"log: {format: xml}", []string{`"xml" is not a format: write console or json`}},
		"strategy":            {"auth: {strategies: [header, cookie]}", []string{"yaml:1: auth.strategies: \"cookie\" is not a strategy: write message, "}},
		"requirement":         {"auth: {require: all}", []string{`"all" is not a requirement: write none or connection`}},
		"outage":              {"auth: {revocation_outage: maybe}", []string{`"maybe" is not a way to bear an outage: write closed, strict or open`}},
		"origin with path":    {"origins: ['https://a.example/']", []string{`origins: "https://a.example/" is not an origin: write https://app.example.com`}},
		"origin of no page":   {"origins: ['a.example', 'ftp://a']", []string{`:1: origins: "ftp://a" is not an origin`}},
		"network":             {"trusted_proxies: [10.0.0.0/33]", []string{`"10.0.0.0/33" is not a network: write an address and the bits`}},
		"issuer's member":     {"auth:\n  issuers:\n    - {name: a, key: b}", []string{":3: auth.issuers[0].key: unknown member; did you mean keys?"}},
		"issuer's admin":      {"auth: {issuers: [{name: a, admin: some}]}", []string{`auth.issuers[0].admin: "some" is none of true (it revokes its own tokens), all (everybody's) and false`}},
		"issuer's admins":     {"auth: {issuers: [{name: a, admin: [all]}]}", []string{`auth.issuers[0].admin: "" is none of true`}},
		"issuer's audience":   {"auth: {issuers: [{name: a, audience: {b: c}}]}", []string{"auth.issuers[0].audience: a list or a mapping is not a list of texts"}},
		"issuer's lifetime":   {"auth: {issuers: [{name: a, max_lifetime: long}]}", []string{`auth.issuers[0].max_lifetime: "long" is not a time; write one such as 72h`}},
		"issuer, no mapping":  {"auth: {issuers: [a]}", []string{"auth.issuers[0]: cannot unmarshal !!str `a`; write name, keys, "}},
		"issuer's name twice": {"auth: {issuers: [{name: a, name: b}]}", []string{`auth.issuers[0]: mapping key "name" already defined; write name, keys`}},
		"streams, all wrong": {"streams:\n- {name: [a], topics: {b: c}, max_age: long, max_per_topic: 1.5, max_bytes: 1GB, storage: 7, replicas: many, duplicate_window: 2, ttl: perhaps, max_size: 1}\n- 5", []string{
			"yaml:2: streams[0].name: a list or a mapping is not a text", "streams[0].topics: a list or a mapping is not a list of texts", `streams[0].max_age: "long" is not a time`,
			`streams[0].max_per_topic: "1.5" is not a whole number`, `streams[0].max_bytes: "1GB" is not a size: write bytes, or a whole number of KiB, MiB, GiB or TiB`,
			`streams[0].replicas: "many" is not a whole number`, `streams[0].duplicate_window: "2" is not a time`, `streams[0].ttl: "perhaps" is neither true nor false`,
			"streams[0].max_size: unknown member; docs/configuration.md lists the keys", "streams[1]: cannot unmarshal !!int `5`; write name, topics, ",
		}},
		"streams, no list": {"streams: {name: a}", []string{"streams: expected a plain value"}},
		"issuer, no list":  {"auth: {issuers: {name: a}}", []string{"auth.issuers: expected a plain value"}},
		"bool":             {"admin: {pprof: perhaps}", []string{"admin.pprof: ", "perhaps"}},
		"list for one":     {"listen: [a, b]", []string{"listen: expected a plain value"}},
		"map for one":      {"listen: {a: b}", []string{"listen: expected a plain value"}},
		"nested list":      {"auth: {keys: [[a]]}", []string{"auth.keys: expected a list of plain values"}},
		"value, no map":    {"limits: 3", []string{"expected keys and values"}},
		"list":             {"- a", []string{"expected keys and values"}},
		"twice":            {"listen: ':1'\nlisten: ':2'", []string{":2: listen: given twice"}},
		"no YAML":          {"a: [", []string{"notifyd.yaml: yaml:"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, c.file)
			for _, command := range []string{"check", "serve"} {
				r := invoke(t, nil, "", command, "--config", file)
				if r.code != exitUsage || r.stdout != "" {
					t.Errorf("%s: exit code %d, output %q", command, r.code, r.stdout)
				}
				for _, want := range c.want {
					if strings.Count(r.stderr, want) != 1 {
						t.Errorf("%s wrote, without %q or more than once:\n%s", command, want, r.stderr)
					}
				}
			}
		})
	}
	if r := invoke(t, nil, "", "check", "--config", "/nowhere.yaml"); r.code != exitUsage || !strings.Contains(r.stderr, "/nowhere.yaml") {
		t.Errorf("missing file: %d %s", r.code, r.stderr)
	}
	if r := invoke(t, map[string]string{"NOTIFYD_LIMITS_RATE": "x"}, "", "check"); r.code != exitUsage || !strings.Contains(r.stderr, "NOTIFYD_LIMITS_RATE: ") {
		t.Errorf("bad variable: %d %s", r.code, r.stderr)
	}
}

// A variable that begins like ours and that nothing reads is an error, unless somebody else makes it; its value is not
// shown.
func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"NOTIFYD_AUTH_ISSUR":            "unknown variable; did you mean NOTIFYD_AUTH_ISSUER?",
		"NOTIFYD_NATS_PASWORD":          "unknown variable; did you mean NOTIFYD_NATS_PASSWORD?",
		"NOTIFYD_LIMITS.RATE":           "unknown variable; did you mean NOTIFYD_LIMITS_RATE?",
		"NOTIFYD_":                      "unknown variable",
		"NOTIFYD_FLAVOUR":               "unknown variable; docs/configuration.md lists the keys",
		"NOTIFYD_TOKEN":                 "", // of another command
		"NOTIFYD_E2E":                   "",
		"NOTIFYD_SERVICE_HOST":          "", // Kubernetes
		"NOTIFYD_SERVICE_PORT_WS":       "",
		"NOTIFYD_PORT":                  "",
		"NOTIFYD_PORT_80_TCP_ADDR":      "",
		"NOTIFYD_PUSH_PORT_80_TCP":      "",
		"NOTIFYD_PUSH_SERVICE_PORT":     "",
		"NOTIFY_AUTH_ISSUR":             "",
		"NOTIFYD_REPORT":                "unknown variable",
		"NOTIFYD_PORT_80_TCP_ADDR_EVEN": "unknown variable",
	} {
		file, _ := keyFile(t)
		env := map[string]string{name: "the value", "NOTIFYD_AUTH_KEYS": file}
		r := invoke(t, env, "", "check")
		if want == "" {
			if r.code != exitOK {
				t.Errorf("%s: %+v", name, r)
			}
			continue
		}
		if r.code != exitUsage || !strings.Contains(r.stderr, name+": "+want) || strings.Contains(r.stderr, "the value") {
			t.Errorf("%s: %+v", name, r)
		}
		if name == "NOTIFYD_AUTH_ISSUR" {
			if s := invoke(t, env, "", "serve"); s.code != exitUsage || !strings.Contains(s.stderr, name+": "+want) {
				t.Errorf("serve: %+v", s)
			}
			if s := invoke(t, env, "", "version"); s.code != exitOK {
				t.Errorf("version: %+v", s)
			}
		}
	}
}

func TestStorageSize(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "1023": "1023", "2048MiB": "2GiB", "64 GiB": "64GiB", "1536GiB": "1536GiB", "3TiB": "3TiB"} {
		var s storageSize
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "-1GiB", "1.5GiB", "1GB", "1 G", "9223372036854775808", "8388608TiB"} {
		var s storageSize
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %v", text, s)
		}
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "1": "1", "1024": "1KiB", "64 KiB": "64KiB", "1536KiB": "1536KiB", "3MiB": "3MiB", "2047MiB": "2047MiB"} {
		var s byteSize
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, s, err, want)
		}
	}
}

// One audience may stand alone; several are a list.
func TestAudiences(t *testing.T) {
	t.Parallel()
	const issuer = "auth: {issuers: [{name: a, keys: [k], audience: %s}]}"
	for _, row := range []struct {
		of   *config
		want []string
	}{
		{parse(t, nil), nil},
		{parse(t, nil, "--auth.audience="), nil},
		{parse(t, nil, "--auth.audience=a"), []string{"a"}},
		{parse(t, nil, "--auth.audience=a", "--auth.audience=b"), []string{"a", "b"}},
		{parse(t, map[string]string{"NOTIFYD_AUTH_AUDIENCE": ""}), nil},
		{parse(t, map[string]string{"NOTIFYD_AUTH_AUDIENCE": "a,b"}), []string{"a", "b"}},
		{parse(t, nil, "--config", writeFile(t, "auth: {audience: 'https://a.example/?b,c'}")), []string{"https://a.example/?b,c"}},
		{parse(t, nil, "--config", writeFile(t, "auth: {audience: [a, b]}")), []string{"a", "b"}},
		{parse(t, nil, "--config", writeFile(t, "auth: {audience: ''}")), nil},
		{parse(t, nil, "--config", writeFile(t, "auth:\n  audience:\n")), nil},
		{parse(t, nil, "--config", writeFile(t, fmt.Sprintf(issuer, "a"))), []string{"a"}},
		{parse(t, nil, "--config", writeFile(t, fmt.Sprintf(issuer, "7"))), []string{"7"}},
		{parse(t, nil, "--config", writeFile(t, fmt.Sprintf(issuer, "''"))), nil},
		{parse(t, nil, "--config", writeFile(t, fmt.Sprintf(issuer, "[]"))), nil},
		{parse(t, nil, "--config", writeFile(t, fmt.Sprintf(issuer, "[a, b]"))), []string{"a", "b"}},
		{parse(t, nil, `--auth.issuers=[{"name":"a","keys":["k"],"audience":["a","b"]}]`), []string{"a", "b"}},
	} {
		o := row.of.authOptions()
		got := o.Audience
		for _, is := range o.Issuers {
			got = append(got, is.Audience...)
		}
		if fmt.Sprint(got) != fmt.Sprint(row.want) || len(got) != len(row.want) {
			t.Errorf("%q became %q, want %q", row.of.Auth.Audience, got, row.want)
		}
	}
}

// What is configured reaches the packages that act on it.
func TestOptions(t *testing.T) {
	c := parse(t, nil,
		"--auth.jwks-refresh=7m", "--auth.jwks-cooldown=8s", "--auth.jwks-timeout=9s", "--auth.jwks-max-age=1h", "--auth.revocation-max-age=11s",
		`--auth.issuers=[{"name":"a","keys":["k"],"audience":"b","publish":["p"],"subscribe":["s"],"admin":true,"max_lifetime":"1h","type":"at+jwt"}]`,
	)
	o := c.authOptions()
	if o.JWKSRefresh != 7*time.Minute || o.JWKSCooldown != 8*time.Second || o.JWKSTimeout != 9*time.Second || o.JWKSMaxAge != time.Hour || o.RevocationMaxAge != 11*time.Second {
		t.Errorf("%+v", o)
	}
	want := []authz.Issuer{{
		Name: "a", Keys: []string{"k"}, Audience: []string{"b"}, Publish: []string{"p"}, Subscribe: []string{"s"},
		Admin: true, MaxLifetime: time.Hour, Type: "at+jwt",
	}}
	if !reflect.DeepEqual(o.Issuers, want) {
		t.Errorf("%+v", o.Issuers)
	}
	if age := parse(t, nil, "--auth.jwks-max-age=0").authOptions().JWKSMaxAge; age >= 0 {
		t.Errorf("no bound became %v", age)
	}
	for text, want := range map[string][2]bool{"true": {true, false}, "all": {true, true}, "false": {}, "~": {}} {
		is := parse(t, nil, "--config", writeFile(t, "auth: {issuers: [{name: a, keys: [k], admin: "+text+"}]}")).authOptions().Issuers[0]
		if got := [2]bool{is.Admin, is.AdminOfAll}; got != want {
			t.Errorf("admin: %s became %v", text, got)
		}
	}
	if n, err := parse(t, nil, "--events.from", "--nats.sync-interval=0s").nodeOptions(); err != nil || !n.Server.EventsFrom || n.Bus.Embedded.SyncInterval >= 0 {
		t.Errorf("%v: %v, %v", err, n.Server.EventsFrom, n.Bus.Embedded.SyncInterval)
	}
	if age := parse(t, nil, "--auth.revocation-outage=open").authOptions().RevocationMaxAge; age != 0 {
		t.Errorf("open, and yet %v", age)
	}
	for outage, want := range map[string]bool{"closed": false, "strict": true} {
		if o := parse(t, nil, "--auth.revocation-outage", outage).authOptions(); o.RevocationMaxAge == 0 || o.RevocationStrict != want {
			t.Errorf("%s: %v, strict %v", outage, o.RevocationMaxAge, o.RevocationStrict)
		}
	}
}

// Every option of the bus that an error can be about has a key here, and every such key exists.
func TestBusKeys(t *testing.T) {
	noKey := map[string]bool{"Shards": true, "Buffer": true, "OnState": true} // not in the configuration
	known := map[string]bool{}
	for _, k := range keys {
		known[yamlKey(k.flag)] = true
	}
	fields := map[string]bool{}
	var walk func(prefix string, options reflect.Type)
	walk = func(prefix string, options reflect.Type) {
		for field := range options.Fields() {
			if field.Type.Kind() == reflect.Struct {
				walk(prefix+field.Name+".", field.Type)
				continue
			}
			name := prefix + field.Name
			fields[name] = true
			if key := busKeys[name]; !noKey[name] && !known[key] {
				t.Errorf("%s is %q, which is no key of the configuration", name, key)
			}
		}
	}
	walk("", reflect.TypeFor[bus.Options]())
	for name := range busKeys {
		if !fields[name] {
			t.Errorf("bus.Options has no %s", name)
		}
	}
}

// What the program does by default is what the package does.
func TestBusDefaults(t *testing.T) {
	c := parse(t, nil)
	if c.NATS.Prefix != bus.DefaultPrefix || c.NATS.Linger != bus.DefaultLinger || c.Limits.MessageBytes != bus.DefaultMaxPayload {
		t.Errorf("prefix %s, linger %v, message %v", c.NATS.Prefix, c.NATS.Linger, c.Limits.MessageBytes)
	}
}
