package wire

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// rows returns the cells of the rows of docs/protocol.md's table whose first
// heading is that.
func rows(t *testing.T, heading string) (all [][]string) {
	doc, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "\n| "+heading+" |")
	if !ok {
		t.Fatalf("no table %q", heading)
	}
	for _, line := range strings.Split(table, "\n")[2:] {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		all = append(all, strings.Split(strings.Trim(line, "| "), " | "))
	}
	return all
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func TestCodesAreAsDocumented(t *testing.T) {
	var doc, code []string
	for _, row := range rows(t, "code") {
		doc = append(doc, row[0]+" "+row[3])
	}
	for _, c := range Codes() {
		code = append(code, "`"+c.String()+"` "+yes(c.Retry()))
	}
	if got, want := strings.Join(doc, "\n"), strings.Join(code, "\n"); got != want {
		t.Errorf("documented:\n%s\nin the table:\n%s", got, want)
	}
}

func TestCloseCodesAreAsDocumented(t *testing.T) {
	var doc, code []string
	for _, row := range rows(t, "close code") {
		doc = append(doc, row[0]+" "+row[2])
	}
	for _, c := range closeCodes {
		code = append(code, fmt.Sprint(uint16(c.code), " ", yes(c.code.Reconnect())))
		if n := len(c.code.Text()); n == 0 || n > 123 {
			t.Errorf("%d: a text of %d bytes", c.code, n)
		}
	}
	if got, want := strings.Join(doc, "\n"), strings.Join(code, "\n"); got != want {
		t.Errorf("documented:\n%s\nin the table:\n%s", got, want)
	}
}

// What a connection ended with outside the table.
func TestForeignCloseCodes(t *testing.T) {
	for code, want := range map[CloseCode]bool{1005: true, 1006: true, 1011: true, 3999: true, 4000: false, 4999: false} {
		if code.Reconnect() != want || code.Text() != "" {
			t.Errorf("%d: %q, reconnect not %v", code, code.Text(), want)
		}
	}
}

func TestCodes(t *testing.T) {
	auth := 0
	for _, c := range Codes() {
		if got, ok := ParseCode(c.String()); !ok || got != c {
			t.Errorf("%v is read as %v", c, got)
		}
		if c.Text() == "" || c.Error() != c.String() {
			t.Errorf("%v: text %q, error %q", c, c.Text(), c.Error())
		}
		if c.Auth() != (strings.HasPrefix(c.String(), "token_") || c == DigestMismatch) {
			t.Errorf("%v: auth %v", c, c.Auth())
		}
		if c.Auth() {
			auth++
		}
	}
	if auth != 8 {
		t.Errorf("%d codes count as failures of authentication", auth)
	}
	for _, name := range []string{"", "ok", "unknown", "BAD_ENVELOPE", "bad_envelope "} {
		if c, ok := ParseCode(name); ok || c != UnknownCode {
			t.Errorf("%q is %v, %v", name, c, ok)
		}
	}
	for _, c := range []Code{UnknownCode, UnknownCode + 1, 200} {
		if c.String() != "unknown" {
			t.Errorf("code %d is called %s", c, c)
		}
	}
}
