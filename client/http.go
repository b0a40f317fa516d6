package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// maxAnswer bounds the body of an HTTP answer, in bytes.
const maxAnswer = 64 << 10

// Revocation says which tokens are to count no more: one by its ID (jti), or those of a Subject (sub).
type Revocation struct {
	ID      string
	Subject string
	Before  time.Time // with Subject: of tokens that were issued earlier; zero: by now
	Issuer  string    // only tokens with this iss; "": of every issuer that the token's holder may revoke for
}

// Revoke has every node refuse tokens from now on: they publish nothing more, and the subscriptions and connections that
// rely on them end. rawURL is that of Dial; token needs notify.admin. When Revoke returns nil the revocation is in force
// on the node that was asked, and on its way to the others. A refusal is a *wire.Error.
func Revoke(ctx context.Context, rawURL, token string, r Revocation) error {
	body := struct {
		ID      string     `json:"jti,omitempty"`
		Subject string     `json:"sub,omitempty"`
		Before  *time.Time `json:"before,omitempty"`
		Issuer  string     `json:"iss,omitempty"`
	}{ID: r.ID, Subject: r.Subject, Issuer: r.Issuer}
	if !r.Before.IsZero() {
		body.Before = &r.Before
	}
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	if err := post(ctx, http.DefaultClient, nil, rawURL, "/v1/revocations", token, text, nil); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

// post makes an HTTP call to the server whose WebSocket endpoint is rawURL. answer, if not nil, takes the JSON of a
// success.
func post(ctx context.Context, hc *http.Client, header http.Header, rawURL, path, token string, body []byte, answer any) error {
	resp, err := send(ctx, hc, header, rawURL, path, token, "application/json", body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return refusal(resp, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// send sends a request, and returns the answer, whose body the caller closes.
func send(ctx context.Context, hc *http.Client, header http.Header, rawURL, path, token, media string, body []byte) (*http.Response, error) {
	target, err := callURL(rawURL, path)
	if err != nil {
		return nil, err
	}
	var secure tlsHandshake
	req, err := http.NewRequestWithContext(secure.watch(ctx), http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL does not parse")
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", media)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, secure.explain(withoutURL(err))
	}
	return resp, nil
}

// refusal reads an answer that is no success.
func refusal(resp *http.Response, body []byte) error {
	err := refusalText(resp, body)
	if header := resp.Header.Get("Retry-After"); header != "" {
		return &laterError{err, retryAfter(header)}
	}
	return err
}

func refusalText(resp *http.Response, body []byte) error {
	var told struct{ Code, Message string }
	if json.Unmarshal(body, &told) == nil {
		if code, known := wire.ParseCode(told.Code); known {
			return &wire.Error{Code: code, Detail: told.Message}
		}
	}
	detail := "the server answered " + resp.Status
	line, _, _ := strings.Cut(string(body), "\n")
	if line = strings.TrimSpace(line); line != "" && len(line) <= 256 && line[0] != '<' { // no page for browsers
		detail += ": " + line
	}
	for _, text := range plainTexts {
		if resp.StatusCode == http.StatusBadRequest && strings.Contains(string(body), text) {
			detail = "this port speaks TLS: the URL begins with wss://"
		}
	}
	if resp.StatusCode == http.StatusUnauthorized {
		code := wire.TokenInvalid
		if resp.Header.Get("Retry-After") != "" {
			code = wire.TokenNotYetValid
		}
		return &wire.Error{Code: code, Detail: detail}
	}
	return errors.New(detail)
}

// maxRetryAfter bounds what a server, or something on the way to it, can make a client wait.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads the header of that name: seconds or a date (RFC 9110 §10.2.3). What is neither is no wait.
func retryAfter(header string) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		wait = time.Until(date)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// callURL is the URL of an HTTP call beside the WebSocket endpoint: ws://host/v1/ws becomes http://host/v1/tickets.
func callURL(rawURL, path string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", errors.New("the URL does not parse")
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return "", fmt.Errorf("%q is not the scheme of a server; use ws, wss, http or https", u.Scheme)
	}
	base := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), wire.Path)
	u.Path, u.RawPath, u.RawQuery, u.Fragment = base+path, "", "", ""
	return u.String(), nil
}

// withoutURL leaves out what net/http's error quotes: a URL may hold a secret.
func withoutURL(err error) error {
	var quoting *url.Error
	if errors.As(err, &quoting) {
		return quoting.Err
	}
	return err
}
