package loop

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// A panic in what a connection's message calls ends the process: nothing catches it, and no other connection goes on with
// what it left half done.
func TestPanicsOfCallbacksAreFatal(t *testing.T) {
	const child = "NOTIFYD_TEST_PANIC"
	if os.Getenv(child) != "" {
		h := &hooks{message: func(*Conn, ws.OpCode, []byte) { panic("as a bug would") }}
		c := start(t, Options{}, h).dial()
		c.send(text("x"))
		_, err := c.br.ReadByte()
		t.Fatal("the process lives on: ", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPanicsOfCallbacksAreFatal$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if text := string(out); err == nil || strings.Contains(text, "the process lives on") || !strings.Contains(text, "panic: as a bug would") {
		t.Errorf("%v\n%s", err, text)
	}
}
