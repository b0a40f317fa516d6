package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
)

// answer begins each line that check answered, below its configuration.
const answer = "> "

// check says all that is wrong, one a line, and testdata/broken.txt has it word for word.
func TestBroken(t *testing.T) {
	golden, err := filepath.Abs(filepath.Join("testdata", "broken.txt"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	brokenFiles(t)
	head, cases, ok := strings.Cut(string(text), "\n== ")
	if !ok {
		t.Fatal("no cases")
	}
	var now strings.Builder
	now.WriteString(strings.TrimSpace(head) + "\n")
	all := strings.Split(cases, "\n== ")
	for _, c := range all {
		name, body, _ := strings.Cut(c, "\n")
		var config, want []string
		for line := range strings.SplitSeq(strings.TrimSpace(body), "\n") {
			if said, ok := strings.CutPrefix(line, answer); ok {
				want = append(want, said)
			} else {
				config = append(config, line)
			}
		}
		if err := os.WriteFile("notifyd.yaml", []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := invoke(t, nil, "", "check", "--config", "notifyd.yaml")
		got := strings.Split(strings.TrimSpace(r.stderr), "\n")
		if r.code != exitUsage || r.stdout != "" {
			t.Errorf("%s: %+v", name, r)
		}
		if strings.Contains(r.stderr, "s3cret") {
			t.Errorf("%s: a secret is told: %s", name, r.stderr)
		}
		for i, line := range got {
			got[i] = thumb.ReplaceAllString(line, `key "…"`)
		}
		if !*update && strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		now.WriteString("\n== " + name + "\n" + strings.Join(config, "\n") + "\n" + answer + strings.Join(got, "\n"+answer) + "\n")
	}
	if len(all) < 30 {
		t.Errorf("%d cases", len(all))
	}
	if *update {
		if err := os.WriteFile(golden, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// thumb is a key whose name is another one in each run.
var thumb = regexp.MustCompile(`key "[-_A-Za-z0-9]{43}"`)

// brokenFiles goes to a folder with the files that the configurations name.
func brokenFiles(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	write("private.jwk", private)
	write("keys.json", public)
	write("odd.json", bytes.Replace(public, []byte(`"keys":[`), []byte(`"keys":[{"kty":"EC","crv":"P-256","kid":"short","x":"AQ","y":"AQ"},`), 1))
	write("empty.json", []byte(`{"keys":[]}`))
	write("file", []byte("x\n"))
	cert, certKey := selfSigned(t)
	_, other := selfSigned(t)
	inPEM := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, k := range map[string]any{"key.pem": certKey, "other-key.pem": other, "private.pem": certKey} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		write(name, inPEM("PRIVATE KEY", der))
	}
	write("cert.pem", inPEM("CERTIFICATE", cert))
	write("ca.pem", inPEM("CERTIFICATE", cert))
	if err := os.Mkdir("folder", 0o700); err != nil {
		t.Fatal(err)
	}
}

// selfSigned is a certificate of 127.0.0.1 and its key.
func selfSigned(t *testing.T) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	if der, err = x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	return der, key
}
