package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/notifyd/notifyd/authz"
)

// serve starts with a private key, and says that it should not have one; check has it as a mistake (testdata/broken.txt).
func TestServeWarnsOfPrivateKey(t *testing.T) {
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	r := serveHere(t, "--auth.keys", writeFile(t, string(text)))
	if log := r.log.String(); !strings.Contains(log, `"level":"warn"`) || !strings.Contains(log, "holds the private EdDSA key") {
		t.Error(log)
	}
}

// A folder that another user owns cannot be written to, nor can one be made in it.
func TestWritable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may become somebody else")
	}
	dir := t.TempDir()
	open, shut := dir+"/open", dir+"/shut"
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, open: 0o777, shut: 0o755} {
		if err := os.Mkdir(path, mode); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	answers := make(chan string, 4)
	go func() {
		runtime.LockOSThread()                       // and ends with the goroutine, since it is another user now
		const nobody, unchanged = 65534, ^uintptr(0) // access(2) asks for the real user
		if _, _, err := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, unchanged, unchanged); err != 0 {
			answers <- err.Error()
		}
		for _, path := range []string{open, open + "/a/b", shut, shut + "/a/b"} {
			answers <- fmt.Sprint(writable(path))
		}
	}()
	for _, want := range []string{
		"<nil>", "<nil>", "write " + shut + ": permission denied", "mkdir " + shut + "/a/b: write " + shut + ": permission denied",
	} {
		if got := <-answers; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
