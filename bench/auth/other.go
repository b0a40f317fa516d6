//go:build !linux

package auth

import "errors"

// Main says that the server needs Linux. Reports that were measured there can be read and drawn anywhere.
func Main([]string) error { return errors.New("the server to measure needs Linux") }
