package main

import (
	"fmt"
	"iter"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/node"
)

// findings collects problems: each names the key, its value and the remedy.
type findings []string

func (f *findings) add(key string, value any, what string) {
	*f = append(*f, fmt.Sprintf("%s: %v: %s", key, value, what))
}

func (f *findings) address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		f.add(key, strconv.Quote(value), "is not an address; write HOST:PORT, such as 127.0.0.1:8080, or :8080 for every interface")
	}
}

func (f *findings) between(key string, value, low, high int, unit string) {
	if value < low || value > high {
		f.add(key, value, fmt.Sprintf("is out of range; use %d to %d%s", low, high, unit))
	}
}

func (f *findings) atLeast(key string, value, low time.Duration) {
	if value < low {
		f.add(key, value, fmt.Sprintf("is too short; use %v or more", low))
	}
}

// pathPrefix is segments of what a path may hold unescaped (RFC 3986 §3.3).
var pathPrefix = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

// check says everything that is wrong with the configuration, files that it names included. With dev, keys may be
// missing.
func (c *config) check(dev bool) []string {
	var f findings
	f.address("listen", c.Listen)
	if c.Admin.Listen != "" {
		f.address("admin.listen", c.Admin.Listen)
	} else if c.Admin.Pprof {
		f.add("admin.pprof", true, "has nowhere to be served; set admin.listen, or leave it out")
	}
	if c.Console.Enabled && c.Admin.Listen == "" {
		f.add("console.enabled", true, "has nowhere to be served; set admin.listen, or leave it out")
	}
	c.checkPorts(&f)
	switch c.ProxyHeader {
	case "auto", "forwarded", "x-forwarded-for":
	default:
		f.add("proxy_header", strconv.Quote(c.ProxyHeader), "is not a header that is known here; write auto, forwarded or x-forwarded-for")
	}
	if c.ProxyHeader != "auto" && len(c.TrustedProxies) == 0 {
		f.add("proxy_header", c.ProxyHeader, "has no effect without trusted_proxies; set that, or leave this out")
	}
	if p := c.PathPrefix; p != "" && !pathPrefix.MatchString(p) {
		f.add("path_prefix", strconv.Quote(p), "is not a path without a slash at its end; write one such as /push")
	}
	if c.Limits.HeadBytes >= 1<<10 && c.Auth.TokenBytes < c.Limits.MessageBytes && c.Auth.TokenBytes+1<<10 > c.Limits.HeadBytes { // else it is said below
		f.add("limits.head_bytes", c.Limits.HeadBytes, fmt.Sprintf(
			"does not hold a header with a token of auth.token_bytes (%v) beside the others; make it 8 KiB larger than that", c.Auth.TokenBytes))
	}
	c.Auth.check(&f, dev)
	c.Auth.checkConnection(&f)
	c.Limits.check(&f)
	c.checkNATS(&f)
	c.checkDataDir(&f, dev)
	f.between("loops", c.Loops, 0, 1024, "")
	f.atLeast("ping_interval", c.PingInterval, time.Second)
	f.atLeast("drain_delay", c.DrainDelay, 0)
	f.atLeast("drain_window", c.DrainWindow, 0)
	if c.Limits.IdleTimeout <= c.PingInterval {
		f.add("limits.idle_timeout", c.Limits.IdleTimeout, fmt.Sprintf(
			"is not longer than ping_interval (%v), so healthy connections would be closed; make it two or three times as long", c.PingInterval))
	}
	if c.Auth.TokenBytes >= c.Limits.MessageBytes {
		f.add("auth.token_bytes", c.Auth.TokenBytes, fmt.Sprintf(
			"leaves no room for data in a message of limits.message_bytes (%v); lower it, or raise that", c.Limits.MessageBytes))
	}
	return f
}

func (a *authConfig) check(f *findings, dev bool) {
	if len(a.Keys)+len(a.Issuers) == 0 && !dev {
		f.add("auth.keys", "empty", "nobody could publish; name a file with the public keys of those who sign tokens (notifyd keys generate makes one), or the URL of their JWK Set, or try --dev")
	}
	f.keys("auth.keys", a.Keys)
	var flat *string
	if len(a.Keys) > 0 || a.Issuer != "" || dev {
		flat = &a.Issuer
	}
	a.Issuers.check(f, flat)
	if len(a.Issuers) > 0 && a.Issuer != "" && len(a.Keys) == 0 && !dev {
		f.add("auth.issuer", a.Issuer, "has no keys; set auth.keys, or leave it out and list the issuer in auth.issuers alone")
	}
	if slices.Contains(audienceList(a.Audience), "") {
		f.add("auth.audience", `""`, "is empty; remove it, or leave the key out so that 'aud' is not checked")
	}
	f.atLeast("auth.jwks_refresh", a.JWKSRefresh, time.Second)
	f.atLeast("auth.jwks_cooldown", a.JWKSCooldown, time.Second)
	f.atLeast("auth.jwks_timeout", a.JWKSTimeout, 100*time.Millisecond)
	if a.JWKSMaxAge != 0 && a.JWKSMaxAge <= a.JWKSRefresh+a.JWKSTimeout {
		f.add("auth.jwks_max_age", a.JWKSMaxAge, fmt.Sprintf(
			"is not longer than auth.jwks_refresh (%v) and auth.jwks_timeout (%v) together, so keys would be too old before they are fetched again; make it several times as long, or 0 for no bound", a.JWKSRefresh, a.JWKSTimeout))
	}
	const hour = int(time.Hour / time.Second)
	f.between("auth.leeway", int(a.Leeway/time.Second), 0, hour, " seconds")
	f.between("auth.not_before_leeway", int(a.NotBeforeLeeway/time.Second), 0, hour, " seconds")
	f.between("auth.cache_entries", a.CacheEntries, 1, 1<<24, "")
	f.between("auth.token_bytes", int(a.TokenBytes), 256, 1<<20, " bytes")
	f.between("auth.workers", a.Workers, 0, 1024, "")
	f.atLeast("auth.expiry_notice", a.ExpiryNotice, time.Second)
}

// keys loads key files and looks at the form of URLs.
func (f *findings) keys(key string, names []string) {
	for _, name := range names {
		if isURL(name) {
			if err := authz.CheckKeyURL(name); err != nil {
				f.add(key, withoutSecrets(name), err.Error())
			}
		} else if _, _, err := authz.ReadKeys(name); err != nil {
			f.add(key, name, err.Error())
		}
	}
}

// fetches reports whether keys come from a URL.
func (a *authConfig) fetches() bool {
	names := slices.Clone(a.Keys)
	for _, is := range a.Issuers {
		names = append(names, is.Keys...)
	}
	return slices.ContainsFunc(names, isURL)
}

func isURL(name string) bool { return strings.Contains(name, "://") }

// checkConnection looks at how tokens are presented, and taken back.
func (a *authConfig) checkConnection(f *findings) {
	if len(a.Strategies) == 0 {
		f.add("auth.strategies", "empty", "nobody could subscribe; leave it out for the default, or name some of message, first-message, header, subprotocol, ticket")
	}
	if a.Require == "connection" && slices.Equal(a.Strategies, []strategy{"message"}) {
		f.add("auth.require", a.Require, "cannot be met with auth.strategies message alone; add first-message, header, subprotocol or ticket")
	}
	f.atLeast("auth.deadline", a.Deadline, time.Second)
	f.atLeast("auth.ticket_ttl", a.TicketTTL, time.Second)
	// News comes every two seconds, and may be three seconds old while all is well.
	f.atLeast("auth.revocation_max_age", a.RevocationMaxAge, 5*time.Second)
}

// withoutSecrets is a URL without user and query.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(not a valid URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func (l *limitsConfig) check(f *findings) {
	f.between("limits.message_bytes", int(l.MessageBytes), 1<<10, 8<<20, " bytes")
	f.between("limits.head_bytes", int(l.HeadBytes), 1<<10, 1<<20, " bytes")
	f.between("limits.subscriptions", l.Subscriptions, 1, 1<<20, "")
	f.between("limits.pending_bytes", int(l.PendingBytes), 1<<12, 1<<30, " bytes")
	f.between("limits.rate", l.Rate, 0, 1<<24, "")
	f.between("limits.burst", l.Burst, 0, 1<<24, "")
	f.between("limits.tickets_per_subject", l.TicketsPerSubject, 0, 1<<20, "")
	f.between("limits.tickets_per_ip", l.TicketsPerIP, 0, 1<<20, "")
	f.between("limits.connections", l.Connections, 0, 1<<30, "")
	f.between("limits.connections_per_ip", l.ConnectionsPerIP, 0, 1<<30, "")
	f.between("limits.bad_envelopes", l.BadEnvelopes, 1, 1<<20, "")
	f.between("limits.auth_failures", l.AuthFailures, 1, 1<<20, "")
	f.atLeast("limits.penalty", l.Penalty, 0)
	f.atLeast("limits.handshake_timeout", l.HandshakeTimeout, time.Second)
	f.atLeast("limits.message_timeout", l.MessageTimeout, time.Second)
	f.atLeast("limits.idle_timeout", l.IdleTimeout, time.Second)
	if l.Burst > 0 && l.Rate == 0 {
		f.add("limits.burst", l.Burst, "has no effect without limits.rate; set that, or leave this out")
	}
	if l.PendingBytes < l.MessageBytes {
		f.add("limits.pending_bytes", l.PendingBytes, fmt.Sprintf(
			"is less than one message of limits.message_bytes (%v); make it several times as large", l.MessageBytes))
	}
}

// busKeys are the keys of what a [node.OptionError] may be about, by its field.
var busKeys = map[string]string{
	"URL":                    "nats.url",
	"Creds":                  "nats.creds",
	"NKey":                   "nats.nkey",
	"User":                   "nats.user",
	"Password":               "nats.password",
	"TLSCA":                  "nats.tls_ca",
	"TLSCert":                "nats.tls_cert",
	"TLSKey":                 "nats.tls_key",
	"Prefix":                 "nats.prefix",
	"DataDir":                "data_dir",
	"MaxPayload":             "limits.message_bytes",
	"Linger":                 "nats.linger",
	"Embedded.Listen":        "nats.listen",
	"Embedded.ClusterName":   "nats.cluster_name",
	"Embedded.ClusterListen": "nats.cluster_listen",
	"Embedded.Routes":        "nats.routes",
	"Embedded.SyncInterval":  "nats.sync_interval",
	"Streams":                "streams",
}

// busKey is the key of an option of the bus. Those of streams are Streams[0].MaxAge and the like.
func busKey(field string) string {
	if stream, member, ok := strings.Cut(field, "]."); ok {
		return strings.ToLower(stream) + "]." + streamMember(member)
	}
	return busKeys[field]
}

// addOption adds what is wrong with NATS.
func (f *findings) addOption(e *node.OptionError) {
	f.add(busKey(e.Field), strconv.Quote(e.Value), fmt.Sprintf("%v; %s", e.Err, e.RemedyWith(busKey)))
}

func (c *config) checkNATS(f *findings) {
	f.atLeast("nats.linger", c.NATS.Linger, 0)
	f.between("nats.replicas", c.NATS.Replicas, 1, 5, "")
	if c.NATS.Replicas > 1 && c.NATS.URL == "" && c.NATS.ClusterListen == "" {
		f.add("nats.replicas", c.NATS.Replicas, "cannot be kept by one embedded server; set nats.url or nats.cluster_listen, or leave it out")
	}
	if c.NATS.Prefix == "" {
		f.add("nats.prefix", `""`, "is empty; use a name such as notify")
	}
	var o node.Options
	c.setBusOptions(&o)
	for _, option := range o.Bus.Problems() {
		if option.Field != "MaxPayload" { // already said
			f.addOption(option)
		}
	}
}

func (c *config) checkDataDir(f *findings, dev bool) {
	switch {
	case c.NATS.URL != "" && c.DataDir != "":
		f.add("data_dir", c.DataDir, "is for the embedded NATS server; leave it out when nats.url is set")
	case c.DataDir != "":
		if err := writable(c.DataDir); err != nil {
			f.add("data_dir", strconv.Quote(c.DataDir), fmt.Sprintf("%v; name a folder that this process may write to", err))
		}
	case c.NATS.URL == "" && c.NATS.ClusterListen == "" && !dev: // a member of a cluster needs it in any case, and is told so
		if s := c.Streams.onDisk(); s != nil {
			f.add("data_dir", `""`, fmt.Sprintf("the events of the stream %s would be in a temporary folder, and gone after a restart; set it, or set storage: memory for streams that may be lost", s.Name))
		}
	}
}

// temporaryStorage says that streams are kept where many systems clean up at their start. It is a mistake to check, and a
// warning to serve.
func (c *config) temporaryStorage() []string {
	var f findings
	s := c.Streams.onDisk()
	if s == nil || c.DataDir == "" {
		return nil
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return nil // checkDataDir has told
	}
	if inside, err := filepath.Rel(os.TempDir(), dir); err == nil && filepath.IsLocal(inside) {
		f.add("data_dir", strconv.Quote(c.DataDir), fmt.Sprintf("is in the folder for temporary files, which many systems empty when they start, with the events of the stream %s; name a folder that lasts", s.Name))
	}
	return f
}

// privateKeys are keys that a node can live with, and should not have. They are mistakes to check, and warnings to serve.
func (c *config) privateKeys() []string {
	var f findings
	for key, file := range c.keyFiles() {
		keys, _, _ := authz.ReadKeys(file) // check reports what is wrong with the file
		for _, k := range keys {
			if k.CanSign() && k.Algorithm() != "HS256" { // a secret that is shared has no public part
				f.add(key, file, fmt.Sprintf("holds the private %v, and with that anybody who gets into this server can make tokens; give it the public part: notifyd keys public < PRIVATE > PUBLIC", k))
			}
		}
	}
	return f
}

// distrusted are entries of key files that a node leaves out, with a warning.
func (c *config) distrusted() []string {
	var f findings
	for key, file := range c.keyFiles() {
		_, skipped, _ := authz.ReadKeys(file)
		for _, err := range skipped { // which names the file
			f = append(f, fmt.Sprintf("%s: %v; mend it, or take it out", key, err))
		}
	}
	return f
}

// keyFiles are all files with keys, each after the key that names it.
func (c *config) keyFiles() iter.Seq2[string, string] {
	return func(yield func(key, file string) bool) {
		for key, name := range c.keySources() {
			if !isURL(name) && !yield(key, name) {
				return
			}
		}
	}
}

// keySources are all files and URLs with keys, each after the key that names it.
func (c *config) keySources() iter.Seq2[string, string] {
	return func(yield func(key, name string) bool) {
		for _, name := range c.Auth.Keys {
			if !yield("auth.keys", name) {
				return
			}
		}
		for i, is := range c.Auth.Issuers {
			for _, name := range is.Keys {
				if !yield(fmt.Sprintf("auth.issuers[%d].keys", i), name) {
					return
				}
			}
		}
	}
}
