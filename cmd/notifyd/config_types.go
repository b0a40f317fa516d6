package main

import (
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

// audiences are the audiences of an issuer: a list in YAML, or one alone.
type audiences []string

// UnmarshalYAML accepts a text, and a list of texts.
func (a *audiences) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		var one string
		err := node.Decode(&one)
		*a = audiences{one}
		return err
	}
	return node.Decode((*[]string)(a))
}

// audienceList is what authz takes. A single empty audience stands for none, so that aud is not checked.
func audienceList(all []string) []string {
	if len(all) == 1 && all[0] == "" {
		return nil
	}
	return all
}

// byteSize is a number of bytes, written 65536, 64KiB or 1MiB.
type byteSize int

// UnmarshalText parses a size; it refuses negative numbers, fractions and what does not fit.
func (s *byteSize) UnmarshalText(text []byte) error {
	number, unit := string(text), 1
	for suffix, n := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(rest), n
			break
		}
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > math.MaxInt32/unit {
		return fmt.Errorf("%q is not a size: write bytes, or a whole number of KiB or MiB up to 2047MiB", text)
	}
	*s = byteSize(n * unit)
	return nil
}

func (s byteSize) String() string {
	switch {
	case s > 0 && s%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", int(s>>20))
	case s > 0 && s%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", int(s>>10))
	}
	return strconv.Itoa(int(s))
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

// revocationOutage is "closed" or "open".
type revocationOutage string

// UnmarshalText accepts closed and open.
func (o *revocationOutage) UnmarshalText(text []byte) error {
	w, err := word(text, "a way to bear an outage", "closed", "open")
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
