package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/notifyd/notifyd/authz"
)

type keysCmd struct {
	Generate keysGenerateCmd `cmd:"" help:"Print a new key, with which tokens are signed."`
	Public   keysPublicCmd   `cmd:"" help:"Print the public part of a key read from standard input, for the server."`
}

// maxKeyFile bounds a key read from standard input.
const maxKeyFile = 1 << 20

type keysGenerateCmd struct {
	Alg string `help:"EdDSA, ES256, ES384, RS256, PS256, or HS256, whose one secret both signs and verifies." default:"EdDSA" enum:"EdDSA,ES256,ES384,RS256,PS256,HS256"`
}

// Help is shown by --help.
func (keysGenerateCmd) Help() string {
	return `The key is a JWK with its private part: keep it readable by its owner only, and away from the server.

    (umask 077; notifyd keys generate > key.jwk)
    notifyd keys public < key.jwk > keys.json
    notifyd serve --auth.keys keys.json`
}

// Run prints a private JWK.
func (c keysGenerateCmd) Run(p *process) error {
	key, err := authz.GenerateKey(c.Alg)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(key, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n", text)
	return err
}

type keysPublicCmd struct{}

// Help is shown by --help.
func (keysPublicCmd) Help() string {
	return `Reads a JWK or PEM with a private key and prints a JWK Set with its public part. An HS256 key has none.

    notifyd keys public < key.jwk > keys.json`
}

// Run prints a JWK Set.
func (keysPublicCmd) Run(p *process) error {
	text, err := io.ReadAll(io.LimitReader(p.stdin, maxKeyFile))
	if err != nil {
		return err
	}
	key, err := authz.ParseKey(text)
	if err != nil {
		return usagef("key on standard input: %w", err)
	}
	public, err := key.Public()
	if err != nil {
		return usageError{err}
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n", public)
	return err
}
