package authz

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// Inspection is what a token says of itself, for a person to read. Nothing of
// it is verified.
type Inspection struct {
	Header, Claims json.RawMessage // indented
	// The dates, in local time; zero where absent or not a NumericDate.
	IssuedAt, NotBefore, Expires time.Time
	Issuer                       string   // iss, or empty
	Audience                     []string // aud, or nil
	// Publish and Subscribe are the granted patterns, with the subject where they
	// had {sub}. GrantsValid is false when a grant is malformed, so that every
	// Verifier refuses the token.
	Publish, Subscribe []string
	GrantsValid        bool
	GrantFault         string // what is malformed, or empty
	// TooLong names those of iss, sub and jti that have more than 1,024 bytes, so that
	// nobody could revoke the token. Every Verifier refuses it.
	TooLong []string
}

// Inspect decodes a token without verifying it. Whether it is valid is for a
// Verifier to tell.
func Inspect(token string) (Inspection, error) {
	parts := bytes.Split([]byte(token), []byte{'.'})
	if len(parts) != 3 {
		return Inspection{}, errors.New("not a JWT: three segments with dots between them are needed")
	}
	header, err := inspectSegment(parts[0])
	if err != nil {
		return Inspection{}, err
	}
	payload, err := inspectSegment(parts[1])
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{Header: header, Claims: payload, GrantsValid: true}
	var g grants
	var subject, id string
	name := func(d *document, claim string) string {
		text, isString := d.string()
		if isString && len(text) > maxNameBytes {
			in.TooLong = append(in.TooLong, claim)
		}
		return text
	}
	err = readObject(payload, func(d *document, claim []byte) {
		switch string(claim) {
		case "iss":
			in.Issuer = name(d, "iss")
		case "sub":
			subject = name(d, "sub")
		case "jti":
			id = name(d, "jti")
		case "aud":
			in.Audience, _ = d.stringOrStrings()
		case "iat":
			in.IssuedAt = inspectDate(d)
		case "nbf":
			in.NotBefore = inspectDate(d)
		case "exp":
			in.Expires = inspectDate(d)
		case "notify":
			in.GrantsValid = g.addNotify(d) && in.GrantsValid
		case "authorization_details":
			in.GrantsValid = g.addDetails(d) && in.GrantsValid
		}
	})
	if err != nil {
		return Inspection{}, err
	}
	if fault := g.settle(subject, id, len(token)); fault != "" {
		in.GrantsValid = false
		g.blame(fault)
	}
	in.GrantFault = g.fault
	in.Publish, in.Subscribe = g.publish, g.subscribe
	return in, nil
}

func inspectSegment(segment []byte) (json.RawMessage, error) {
	decoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, segment)
	if err != nil {
		return nil, errors.New("not a JWT: header and payload must be base64url without padding")
	}
	var out bytes.Buffer
	if err := json.Indent(&out, decoded, "", "  "); err != nil {
		return nil, errors.New("not a JWT: header and payload must be JSON objects")
	}
	return out.Bytes(), nil
}

func inspectDate(d *document) time.Time {
	s, ok := d.date()
	if !ok {
		return time.Time{}
	}
	return time.Unix(int64(s), 0)
}
