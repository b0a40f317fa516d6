package testkit

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Call makes an HTTP request and reads the whole answer. The body of what it returns is closed.
func Call(t testing.TB, method, url string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// Get makes a GET request and reads the whole answer.
func Get(t testing.TB, url string) (status int, body string) {
	t.Helper()
	resp, body := Call(t, http.MethodGet, url, nil, "")
	return resp.StatusCode, body
}

// Post sends body under a bearer token and reads the whole answer.
func Post(t testing.TB, url, token, body string) (status int, answer string) {
	t.Helper()
	resp, answer := Call(t, http.MethodPost, url, map[string]string{"Authorization": "Bearer " + token}, body)
	return resp.StatusCode, answer
}
