package authz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxKeyFileBytes bounds what is read of a key file, so that a wrong path (a
// device, a log) is an error instead of a full memory.
const maxKeyFileBytes = 1 << 20

// ReadKeys reads the keys of a file: a JWK, a JWK Set or PEM. skipped are the entries of a set that are not trusted, each
// with the reason. An error names the file, the kid and the remedy, and never holds key material.
func ReadKeys(name string) (keys []Key, skipped []error, err error) {
	b, err := readKeyFile(name)
	if err != nil {
		return nil, nil, err
	}
	if keys, skipped, err = parseKeys(b); err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w", name, err)
	}
	for i, err := range skipped {
		skipped[i] = fmt.Errorf("key file %s: %w", name, err)
	}
	return keys, skipped, nil
}

func readKeyFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(file, maxKeyFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if len(b) > maxKeyFileBytes {
		return nil, fmt.Errorf("key file %s: over %d bytes; is it the right file?", name, maxKeyFileBytes)
	}
	return b, nil
}

// ParseKeys reads the keys of one JWK, JWK Set or PEM file, given its content;
// at least one, unless there is an error. It refuses weak keys; in a set it leaves
// weak and broken public keys out.
func ParseKeys(file []byte) ([]Key, error) {
	keys, _, err := parseKeys(file)
	return keys, err
}

func parseKeys(file []byte) (keys []Key, skipped []error, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(file), []byte("{")) {
		return parseJSONKeys(file)
	}
	key, err := parsePEM(file)
	if err != nil {
		return nil, nil, err
	}
	return []Key{key}, nil, nil
}

// ParseKey reads the only key of a file, given its content.
func ParseKey(file []byte) (Key, error) {
	keys, err := ParseKeys(file)
	if err != nil {
		return Key{}, err
	}
	if len(keys) != 1 {
		return Key{}, errors.New("the file holds more than one key; give a file with the one to use")
	}
	return keys[0], nil
}
