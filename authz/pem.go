package authz

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// parsePEM reads the one key of a PEM file: a public key (PKIX or PKCS #1), a
// certificate, of which only the key counts, or a private key (PKCS #8,
// PKCS #1 or SEC 1). More than one is refused: in a certificate chain the
// others belong to authorities, whose keys are not to sign tokens.
func parsePEM(b []byte) (Key, error) {
	var found *pem.Block
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type == "EC PARAMETERS" { // openssl writes it before the key
			continue
		}
		if found != nil {
			return Key{}, errors.New("the PEM file holds more than one key; keep one, or use a JWK Set")
		}
		found = block
	}
	if found == nil || len(bytes.TrimSpace(found.Bytes)) == 0 {
		return Key{}, errors.New("the file is neither a JWK, a JWK Set nor PEM")
	}
	parsed, err := parseBlock(found)
	if err != nil {
		return Key{}, err
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		return newKey("", "", &key.PublicKey, key)
	case *ecdsa.PrivateKey:
		return newKey("", "", &key.PublicKey, key)
	case ed25519.PrivateKey:
		return newKey("", "", key.Public(), key)
	}
	return newKey("", "", parsed, nil)
}

func parseBlock(block *pem.Block) (key any, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the private key is encrypted; give the public key instead: openssl pkey -pubout")
	default:
		return nil, fmt.Errorf("PEM block %q is no key; use PUBLIC KEY, CERTIFICATE or PRIVATE KEY", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("PEM block %q does not hold a usable key; export it again", block.Type)
	}
	return key, nil
}
