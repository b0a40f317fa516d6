package main

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"
)

// texts is a list of texts in YAML, or one alone.
type texts []string

// UnmarshalYAML accepts a text, and a list of texts.
func (l *texts) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		var one string
		err := node.Decode(&one)
		*l = texts{one}
		return err
	}
	return node.Decode((*[]string)(l))
}

// audienceList is what authz takes. A single empty audience stands for none, so that aud is not checked.
func audienceList(all []string) []string {
	if len(all) == 1 && all[0] == "" {
		return nil
	}
	return all
}

// byteSize is a number of bytes in memory, written 65536, 64KiB or 1MiB.
type byteSize int

// UnmarshalText parses a size; it refuses negative numbers, fractions and what does not fit.
func (s *byteSize) UnmarshalText(text []byte) error {
	n, err := parseSize(string(text))
	if err != nil || n > math.MaxInt32 {
		return fmt.Errorf("%q is not a size: write bytes, or a whole number of KiB or MiB up to 2047MiB", text)
	}
	*s = byteSize(n)
	return nil
}

func (s byteSize) String() string { return formatSize(int64(s)) }

// storageSize is a number of bytes on a disk, written 1048576, 500MiB, 20GiB or 1TiB.
type storageSize int64

// UnmarshalText parses a size; it refuses negative numbers, fractions and what does not fit.
func (s *storageSize) UnmarshalText(text []byte) error {
	n, err := parseSize(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a size: write bytes, or a whole number of KiB, MiB, GiB or TiB", text)
	}
	*s = storageSize(n)
	return nil
}

func (s storageSize) String() string { return formatSize(int64(s)) }

// units of sizes, the largest first.
var units = []struct {
	suffix string
	bytes  int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

var errNoSize = errors.New("not a size")

func parseSize(text string) (int64, error) {
	unit := int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			text, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, errNoSize
	}
	return n * unit, nil
}

// formatSize writes a size in the largest unit of which it is a whole number.
func formatSize(n int64) string {
	for _, u := range units {
		if n > 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

// logLevel is one of zap's levels that an operator can want; panic and fatal are not.
type logLevel zapcore.Level

// UnmarshalText accepts debug, info, warn and error.
func (l *logLevel) UnmarshalText(text []byte) error {
	for _, level := range []zapcore.Level{zapcore.DebugLevel, zapcore.InfoLevel, zapcore.WarnLevel, zapcore.ErrorLevel} {
		if string(text) == level.String() {
			*l = logLevel(level)
			return nil
		}
	}
	return fmt.Errorf("%q is not a level: write debug, info, warn or error", text)
}

// logFormat is "console" or "json".
type logFormat string

// UnmarshalText accepts console and json.
func (f *logFormat) UnmarshalText(text []byte) error {
	w, err := word(text, "a format", "console", "json")
	*f = logFormat(w)
	return err
}

// word is a value that is one of a few words.
func word(text []byte, what string, words ...string) (string, error) {
	if !slices.Contains(words, string(text)) {
		last := len(words) - 1
		return "", fmt.Errorf("%q is not %s: write %s or %s", text, what, strings.Join(words[:last], ", "), words[last])
	}
	return string(text), nil
}

// strategy is a way to present a token, as server.ParseStrategies knows it.
type strategy string

// UnmarshalText accepts the six names.
func (s *strategy) UnmarshalText(text []byte) error {
	w, err := word(text, "a strategy", "message", "first-message", "header", "subprotocol", "ticket", "query")
	*s = strategy(w)
	return err
}

// authRequired is "none" or "connection".
type authRequired string

// UnmarshalText accepts none and connection.
func (r *authRequired) UnmarshalText(text []byte) error {
	w, err := word(text, "a requirement", "none", "connection")
	*r = authRequired(w)
	return err
}

// revocationOutage is "closed", "strict" or "open".
type revocationOutage string

// UnmarshalText accepts closed and open.
func (o *revocationOutage) UnmarshalText(text []byte) error {
	w, err := word(text, "a way to bear an outage", "closed", "strict", "open")
	*o = revocationOutage(w)
	return err
}

// origin is a scheme and host, or a host for any scheme, whose first label may be *.
type origin string

var originForm = regexp.MustCompile(`^((https?|capacitor|ionic|tauri|app|chrome-extension|moz-extension)://)?(\*\.)?([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// UnmarshalText refuses what no browser sends: a path, a slash at the end. Apps in a web view have schemes of their own,
// such as capacitor.
func (o *origin) UnmarshalText(text []byte) error {
	if string(text) != "*" && !originForm.Match(text) {
		return fmt.Errorf("%q is not an origin: write https://app.example.com, app.example.com or *.example.com, without a path, or * for all", text)
	}
	*o = origin(text)
	return nil
}

// network is a range of IP addresses.
type network netip.Prefix

// UnmarshalText accepts 10.0.0.0/8, and an address alone.
func (n *network) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if addr, alone := netip.ParseAddr(string(text)); alone == nil {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return fmt.Errorf("%q is not a network: write an address and the bits that count, such as 10.0.0.0/8", text)
	}
	*n = network(prefix.Masked())
	return nil
}
