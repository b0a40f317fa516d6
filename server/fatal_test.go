package server_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/server"
)

// A panic in an HTTP handler ends the process, with the stack of the handler. http.ErrAbortHandler ends no more than the
// connection.
func TestPanicsOfHandlersAreFatal(t *testing.T) {
	const child = "NOTIFYD_TEST_PANIC"
	if os.Getenv(child) != "" {
		s := httptest.NewServer(server.FatalPanics(http.HandlerFunc(asABugWould)))
		_, err := http.Get(s.URL + "/abort")
		t.Log("aborted: ", err)
		_, err = http.Get(s.URL)
		t.Fatal("the process lives on: ", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPanicsOfHandlersAreFatal$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err == nil || strings.Contains(text, "the process lives on") || !strings.Contains(text, "panic: as a bug would") || !strings.Contains(text, "asABugWould") {
		t.Errorf("%v\n%s", err, text)
	}
}

func asABugWould(_ http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/abort" {
		panic(http.ErrAbortHandler)
	}
	panic("as a bug would")
}
