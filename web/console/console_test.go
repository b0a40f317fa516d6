package console

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

func ask(method, path string, headers ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	Handler().ServeHTTP(w, r)
	return w
}

// The page and its files are there, with a policy that leaves no room for anything else; and an unchanged file is not sent again.
func TestFiles(t *testing.T) {
	for path, media := range map[string]string{
		"/console/": "text/html; charset=utf-8", "/console/console.js": "text/javascript; charset=utf-8",
		"/console/console.css": "text/css; charset=utf-8", "/console/icon.svg": "image/svg+xml",
	} {
		w := ask("GET", path)
		h := w.Header()
		if w.Code != http.StatusOK || h.Get("Content-Type") != media || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %s, %d bytes", path, w.Code, h.Get("Content-Type"), w.Body.Len())
		}
		policy := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") || strings.Contains(policy, "*") {
			t.Errorf("%s: the policy is %q", path, policy)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, h)
		}
		if again := ask("GET", path, "If-None-Match", h.Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s again: %d", path, again.Code)
		}
	}
	if w := ask("GET", "/console"); w.Code != http.StatusPermanentRedirect || w.Header().Get("Location") != "console/" {
		t.Errorf("without a slash: %d, %v", w.Code, w.Header())
	}
	for _, path := range []string{"/console/index.html", "/console/nothing", "/console/../console.go", "/console/dist/console.js"} {
		if w := ask("GET", path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := ask("POST", "/console/"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// Nothing in the page is written into the HTML that the policy would not run, and nothing comes from elsewhere.
func TestPageHoldsNoCode(t *testing.T) {
	page := ask("GET", "/console/").Body.String()
	if strings.Count(page, "<script") != 1 || !strings.Contains(page, `src="./console.js"></script>`) || strings.Contains(page, "<style") || strings.Contains(page, "://") {
		t.Errorf("the page is\n%s", page)
	}
}

// The page explains every code that a server sends, every code with which it closes, and every check of a token.
func TestCodesAreExplained(t *testing.T) {
	text, err := os.ReadFile("src/codes.json")
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Code             json.RawMessage
		Meaning, Remedy  string
		Connection       string
		Retry, Reconnect bool
	}
	var table struct {
		Errors, Closes []row
		Checks         map[string]string
	}
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	codes := wire.Codes()
	if len(table.Errors) != len(codes) {
		t.Errorf("%d errors are explained, there are %d", len(table.Errors), len(codes))
	}
	for i, code := range codes[:min(len(codes), len(table.Errors))] {
		r := table.Errors[i]
		if string(r.Code) != strconv.Quote(code.String()) || r.Retry != code.Retry() || r.Meaning == "" || r.Remedy == "" || r.Connection == "" {
			t.Errorf("%v is explained by %s %+v", code, r.Code, r)
		}
	}
	for _, r := range table.Closes {
		n, err := strconv.ParseUint(string(r.Code), 10, 16)
		code := wire.CloseCode(n)
		if err != nil || code.Text() == "" || code.Reconnect() != r.Reconnect || r.Meaning == "" || r.Remedy == "" {
			t.Errorf("the close code %s: %+v", r.Code, r)
		}
	}
	explained := len(table.Closes)
	for code := range wire.CloseCode(5000) {
		if code.Text() != "" {
			explained--
		}
	}
	if explained != 0 {
		t.Errorf("%d close codes are explained that are not there, or one is twice", explained)
	}
	reasons := authz.Reasons()
	if len(table.Checks) != len(reasons) {
		t.Errorf("%d checks are explained, there are %d", len(table.Checks), len(reasons))
	}
	for _, reason := range reasons {
		if table.Checks[reason.String()] == "" {
			t.Errorf("the check %v is not explained", reason)
		}
	}
}
