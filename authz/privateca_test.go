package authz

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// An issuer whose certificate is by a private authority is trusted when SSL_CERT_FILE
// names that authority, as docs/authentication.md says. A process reads its roots once,
// so that another one has to fetch the keys.
func TestPrivateCA(t *testing.T) {
	const urlVariable = "NOTIFYD_TEST_JWKS_URL"
	if url := os.Getenv(urlVariable); url != "" {
		if _, err := New(Options{Keys: []string{url}}); err != nil {
			t.Fatal(err)
		}
		return
	}
	secure := httptest.NewUnstartedServer(newPublisher(t, keyNamed(t, "ES256", "1")))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // a handshake is to fail
	secure.StartTLS()
	defer secure.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(authority, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		file string
		want bool
	}{"with the authority": {authority, true}, "without it": {"", false}} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPrivateCA$")
		c.Env = append(os.Environ(), urlVariable+"="+secure.URL, "SSL_CERT_FILE="+row.file)
		if out, err := c.CombinedOutput(); (err == nil) != row.want {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
