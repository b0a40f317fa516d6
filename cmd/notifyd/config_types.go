package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.uber.org/zap/zapcore"
)

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
	switch logFormat(text) {
	case "console", "json":
		*f = logFormat(text)
		return nil
	}
	return fmt.Errorf("%q is not a format: write console or json", text)
}
