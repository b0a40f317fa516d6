package bus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

func file(t *testing.T, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// works opens a bus and sends itself an event.
func works(t *testing.T, o bus.Options) {
	t.Helper()
	sink := bustest.NewRecorder()
	b := open(t, o, sink)
	if !b.Connected() {
		t.Fatal("not connected")
	}
	bustest.Subscribe(t, b, 1, "t")
	bustest.Publish(t, b, "t", "x")
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "x"})
	closeBus(t, b) // while its server runs: a server that ends meanwhile is an error
}

// refused asserts that Open fails at once, blames key, and tells no secret in its error or its log.
func refused(t *testing.T, o bus.Options, field string, secrets ...string) {
	t.Helper()
	log, seen := testkit.Log()
	_, err := bus.Open(t.Context(), o, bustest.NewRecorder(), log)
	if err == nil {
		t.Fatal("it was accepted")
	}
	var text strings.Builder
	fmt.Fprintln(&text, err)
	for _, e := range seen.All() {
		fmt.Fprintln(&text, e.Message, e.ContextMap())
	}
	if !strings.HasPrefix(text.String(), field+" ") {
		t.Errorf("want %s: %s", field, text.String())
	}
	for _, s := range secrets {
		if strings.Contains(text.String(), s) {
			t.Errorf("%q is in it: %s", s, text.String())
		}
	}
}

// notAdmitted asserts that a bus whose credentials are refused goes on trying, says why, and tells no secret in its log.
func notAdmitted(t *testing.T, o bus.Options, secrets ...string) {
	t.Helper()
	log, seen := testkit.Log()
	b, err := bus.Open(t.Context(), o, bustest.NewRecorder(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBus(t, b)
	told := func(message string) bool {
		for _, e := range seen.FilterMessageSnippet(message).All() {
			if why := fmt.Sprint(e.ContextMap()["error"]); strings.Contains(why, "uthoriz") || strings.Contains(why, "uthentic") {
				return true
			}
		}
		return false
	}
	testkit.Eventually(t, "the reason, at first and later", func() bool { return told("going on trying") && told("is unreachable") })
	if b.Connected() {
		t.Error("connected")
	}
	for _, e := range seen.All() {
		for _, s := range secrets {
			if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, s) {
				t.Errorf("%q is told: %s", s, text)
			}
		}
	}
}

// A NATS that learns of the user after the node has started is used then.
func TestCredentialsThatComeLater(t *testing.T) {
	users := func(names ...string) *server.Options {
		o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true}
		for _, name := range names {
			o.Users = append(o.Users, &server.User{Username: name, Password: "secret"})
		}
		return o
	}
	s, err := server.NewServer(users("ann"))
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{URL: "nats://" + s.Addr().String(), User: "joe", Password: "secret"}, sink)
	if b.Connected() {
		t.Fatal("admitted without being known")
	}
	now := users("ann", "joe")
	now.Port = s.Addr().(*net.TCPAddr).Port
	if err := s.ReloadOptions(now); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "admitted", b.Connected)
	bustest.Subscribe(t, b, 1, "t")
	bustest.Publish(t, b, "t", "x")
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "t", Data: "x"})
}

// A start that nobody wants any more ends, though no address answers.
func TestOpenEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	go func() {
		conn, err := silent.Accept()
		if err == nil {
			defer func() { _ = conn.Close() }()
		}
		cancel(gone)
	}()
	url := strings.TrimSuffix(strings.Repeat("nats://"+silent.Addr().String()+",", 100), ",")
	log, _ := testkit.Log()
	if _, err := bus.Open(ctx, bus.Options{URL: url}, bustest.NewRecorder(), log); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestUserAndPassword(t *testing.T) {
	url := testkit.ServeNATS(t, server.Options{Username: "joe", Password: "secret"})
	addr := strings.TrimPrefix(url, "nats://")
	works(t, bus.Options{URL: url, User: "joe", Password: "secret"})
	works(t, bus.Options{URL: "joe:secret@" + addr})
	works(t, bus.Options{URL: "nats://127.0.0.1:1, nats://joe:secret@" + addr}) // the first one is down
	notAdmitted(t, bus.Options{URL: url, User: "joe", Password: "wr0ng"}, "wr0ng")
	notAdmitted(t, bus.Options{URL: "nats://joe:wr0ng@" + addr}, "wr0ng", "joe")
	notAdmitted(t, bus.Options{URL: "nats://t0ken@" + addr}, "t0ken")
	refused(t, bus.Options{URL: "nats://joe:%zzpw@" + addr}, "URL", "zzpw")
	refused(t, bus.Options{URL: "ftp://joe:pass,w0rd@" + addr}, "URL", "w0rd", "joe")
	refused(t, bus.Options{URL: url, User: "joe"}, "User")
	refused(t, bus.Options{Password: "secret"}, "Password", "secret")
}

// The log of a server that is down must not tell the credentials that are tried again and again.
func TestUnreachableLogsNoSecret(t *testing.T) {
	c := testkit.NewNATS(t)
	log, seen := testkit.Log()
	b, err := bus.Open(t.Context(), bus.Options{URL: fmt.Sprintf("nats://joe:secret@127.0.0.1:%d", c.Port)}, bustest.NewRecorder(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	testkit.Eventually(t, "lines", func() bool {
		return seen.FilterMessageSnippet("going on trying").Len() == 1 && seen.FilterMessageSnippet("is unreachable").Len() > 0
	})
	for _, e := range seen.All() {
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "secret") || strings.Contains(text, "joe") {
			t.Errorf("logged: %s", text)
		}
	}
}

func TestNKey(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := user.PublicKey()
	seed, _ := user.Seed()
	url := testkit.ServeNATS(t, server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}})
	works(t, bus.Options{URL: url, NKey: file(t, "user.nk", seed)})

	other, _ := nkeys.CreateUser()
	seed, _ = other.Seed()
	notAdmitted(t, bus.Options{URL: url, NKey: file(t, "user.nk", seed)}, string(seed))
	account, _ := nkeys.CreateAccount()
	seed, _ = account.Seed()
	refused(t, bus.Options{URL: url, NKey: file(t, "account.nk", seed)}, "NKey", string(seed))
	refused(t, bus.Options{URL: url, NKey: "/nowhere"}, "NKey")
}

func TestCreds(t *testing.T) {
	operator, _ := nkeys.CreateOperator()
	account, _ := nkeys.CreateAccount()
	user, _ := nkeys.CreateUser()
	operatorID, _ := operator.PublicKey()
	accountID, _ := account.PublicKey()
	userID, _ := user.PublicKey()
	accountJWT, err := jwt.NewAccountClaims(accountID).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(accountID, accountJWT); err != nil {
		t.Fatal(err)
	}
	url := testkit.ServeNATS(t, server.Options{TrustedKeys: []string{operatorID}, AccountResolver: resolver})
	creds := func(signer nkeys.KeyPair) string {
		userJWT, err := jwt.NewUserClaims(userID).Encode(signer)
		if err != nil {
			t.Fatal(err)
		}
		seed, _ := user.Seed()
		text, err := jwt.FormatUserConfig(userJWT, seed)
		if err != nil {
			t.Fatal(err)
		}
		return file(t, "user.creds", text)
	}
	works(t, bus.Options{URL: url, Creds: creds(account)})
	stranger, _ := nkeys.CreateAccount()
	notAdmitted(t, bus.Options{URL: url, Creds: creds(stranger)})
	refused(t, bus.Options{URL: url, Creds: "/nowhere"}, "Creds")
	refused(t, bus.Options{URL: url, Creds: creds(account), User: "u", Password: "p"}, "Creds")
}

// certificate makes a key pair signed by parent, or by itself.
func certificate(t *testing.T, parent *tls.Certificate, change ...func(*x509.Certificate)) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for _, f := range change {
		f(c)
	}
	issuer, signer := c, any(key)
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return pair, file(t, "cert.pem", certPEM), file(t, "key.pem", keyPEM)
}

func TestTLS(t *testing.T) {
	ca, caFile, _ := certificate(t, nil)
	_, otherCA, _ := certificate(t, nil)
	srv, _, _ := certificate(t, &ca)
	_, cert, key := certificate(t, &ca)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	config := &tls.Config{Certificates: []tls.Certificate{srv}, MinVersion: tls.VersionTLS12}

	url := testkit.ServeNATS(t, server.Options{TLSConfig: config.Clone(), TLSTimeout: 20})
	works(t, bus.Options{URL: url, TLSCA: caFile})
	refused(t, bus.Options{URL: url}, "TLSCA")
	refused(t, bus.Options{URL: url, TLSCA: otherCA}, "TLSCA")
	refused(t, bus.Options{URL: url, TLSCA: key}, "TLSCA")
	refused(t, bus.Options{URL: url, TLSCA: caFile, TLSCert: cert}, "TLSCert")
	refused(t, bus.Options{URL: url, TLSCA: caFile, TLSCert: cert, TLSKey: cert}, "TLSCert")
	refused(t, bus.Options{URL: testkit.ServeNATS(t, server.Options{}), TLSCA: caFile}, "TLSCA") // would be in the clear

	// A server whose certificate has expired is about to get another one.
	expired, _, _ := certificate(t, &ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	late := testkit.ServeNATS(t, server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{expired}, MinVersion: tls.VersionTLS12}, TLSTimeout: 20})
	log, seen := testkit.Log()
	b, err := bus.Open(t.Context(), bus.Options{URL: late, TLSCA: caFile}, bustest.NewRecorder(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBus(t, b)
	if all := seen.FilterMessageSnippet("going on trying").All(); len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()["error"]), "expired") {
		t.Errorf("logged: %v", seen.All())
	}

	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	url = testkit.ServeNATS(t, server.Options{TLSConfig: config, TLSTimeout: 20, TLSVerify: true})
	works(t, bus.Options{URL: url, TLSCA: caFile, TLSCert: cert, TLSKey: key})
}

func TestPermissions(t *testing.T) {
	url := testkit.ServeNATS(t, server.Options{Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: []string{"notify.ev.secret.>"}},
		Publish:   &server.SubjectPermission{Deny: []string{"notify.ev.readonly"}},
	}}}})
	log, seen := testkit.Log()
	sink := bustest.NewRecorder()
	b, err := bus.Open(t.Context(), bus.Options{URL: url, User: "u", Password: "p"}, sink, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	for i := range uint32(20) {
		if c := bustest.TrySubscribe(t, b, 100+i, fmt.Sprintf("secret.%d", i)); c != wire.Unavailable {
			t.Errorf("forbidden subject: %v", c)
		}
		bustest.Subscribe(t, b, i, fmt.Sprintf("open.%d", i))
	}
	if st := b.Stats(); st.Subscriptions != 20 || st.Errors != 20 {
		t.Errorf("%+v", st)
	}
	if n := seen.FilterMessageSnippet("permissions forbid").FilterFieldKey("subject").Len(); n == 0 {
		t.Error("not logged")
	}
	bustest.Publish(t, b, "readonly", "x") // NATS tells us only later
	testkit.Eventually(t, "counted", func() bool { return b.Stats().Errors == 21 })
}

// A subscription that NATS confirmed, and then took away with a permission, is not given to the next subscriber as if it
// still stood.
func TestPermissionsThatAreTakenAway(t *testing.T) {
	options := func(denied ...string) *server.Options {
		return &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, Users: []*server.User{
			{Username: "u", Password: "p", Permissions: &server.Permissions{
				Subscribe: &server.SubjectPermission{Allow: []string{">"}, Deny: denied},
			}},
		}}
	}
	s, err := server.NewServer(options())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	b := open(t, bus.Options{URL: "nats://" + s.Addr().String(), User: "u", Password: "p", Linger: time.Hour}, bustest.NewRecorder())
	testkit.Eventually(t, "connected", b.Connected)
	for i, pattern := range []string{"secret", "secret.*", "open"} {
		bustest.Subscribe(t, b, uint32(i), pattern)
	}
	b.Unsubscribe(0) // it lingers
	now := options("notify.ev.secret", "notify.ev.secret.*")
	now.Port = s.Addr().(*net.TCPAddr).Port
	if err := s.ReloadOptions(now); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "denied", func() bool { return b.Stats().Errors == 2 })
	for i, pattern := range []string{"secret", "secret.*"} {
		if c := bustest.TrySubscribe(t, b, uint32(10+i), pattern); c != wire.Unavailable {
			t.Errorf("%s: %v", pattern, c)
		}
	}
	bustest.Subscribe(t, b, 12, "open")
}

func TestServerTakesLess(t *testing.T) {
	url := testkit.ServeNATS(t, server.Options{MaxPayload: 1000})
	log, seen := testkit.Log()
	b, err := bus.Open(t.Context(), bus.Options{URL: url}, bustest.NewRecorder(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	if seen.FilterMessageSnippet("max_payload").Len() != 1 {
		t.Error("not logged")
	}
	if c := b.Publish([]byte("t"), make([]byte, 1001)); c != wire.TooLarge {
		t.Errorf("1,001 bytes: %v", c)
	}
}

// Without a password, which only loopback may do, a client of the embedded server has events and nothing else: it
// cannot undo a revocation, nor listen to the answers that hold tickets.
func TestListenWithoutPassword(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port)
	sink := bustest.NewRecorder()
	b := open(t, bus.Options{Embedded: bus.Embedded{Listen: addr}, Streams: []bus.StreamOptions{kept()}}, sink)
	js, err := jetstream.New(b.Conn())
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "notify_x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "key", "value"); err != nil {
		t.Fatal(err)
	}
	denied := make(chan error, 100)
	nc, err := nats.Connect(addr, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{"notify.ev.kept.a", "notify.ev.also.b", "notify.st.kept.notify.ev.kept.a", "$KV.notify_x.key", "$JS.API.STREAM.PURGE.KV_notify_x", "$JS.API.STREAM.DELETE.KV_notify_x", "$SYS.REQ.SERVER.PING", "notify.x", "else"} {
		// JetStream would answer into the bucket.
		if err := nc.PublishRequest(subject, "$KV.notify_x.key", nil); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for _, subject := range []string{">", "_INBOX.>", "$KV.>", "$JS.>", "notify.>", "notify.st.>", "*.ev.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	bustest.Subscribe(t, b, 1, "a.b")
	if err := nc.Publish("notify.ev.a.b", []byte("1")); err != nil {
		t.Fatal(err)
	}
	sink.WaitFor(t, bustest.Event{Handle: 1, Topic: "a.b", Data: "1"})
	if e, err := kv.Get(t.Context(), "key"); err != nil || string(e.Value()) != "value" {
		t.Errorf("%v %v", e, err)
	}
}

// With nats.tls.* the ports of the embedded server speak TLS alone, and with a CA they ask for a certificate.
func TestEmbeddedTLS(t *testing.T) {
	ca, caFile, _ := certificate(t, nil)
	_, otherCA, _ := certificate(t, nil)
	_, cert, key := certificate(t, &ca)
	for _, mutual := range []bool{false, true} {
		addr := fmt.Sprintf("127.0.0.1:%d", testkit.NewNATS(t).Port)
		o := bus.Options{TLSCert: cert, TLSKey: key, Embedded: bus.Embedded{Listen: "u:pw@" + addr}}
		if mutual {
			o.TLSCA = caFile
		}

		b := open(t, o, bustest.NewRecorder())
		testkit.Eventually(t, "connected", b.Connected)
		url := "nats://u:pw@" + addr
		refused(t, bus.Options{URL: url, TLSCA: otherCA}, "TLSCA")
		if mutual {
			works(t, bus.Options{URL: url, TLSCA: caFile, TLSCert: cert, TLSKey: key})
		} else {
			works(t, bus.Options{URL: url, TLSCA: caFile})
		}
		closeBus(t, b)
	}
	for _, o := range []bus.Options{
		{TLSCert: cert, TLSKey: cert},
		{TLSCert: cert},
		{TLSCA: caFile},
		{TLSKey: key},
	} {
		o.Embedded.Listen = "127.0.0.1:1"
		if err := o.Check(); err == nil || !strings.HasPrefix(err.Error(), "TLSCert ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestCheck(t *testing.T) {
	if err := (bus.Options{URL: "nats://h", TLSCA: "/nowhere"}).Check(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	cluster := bus.Embedded{ClusterName: "c", ClusterListen: "127.0.0.1:1", Routes: []string{"127.0.0.1:2"}}
	if err := (bus.Options{DataDir: "d", Embedded: cluster}).Check(); err != nil {
		t.Error(err)
	}
	for field, options := range map[string][]bus.Options{
		"Prefix": {
			{Prefix: "a..b"},
			{Prefix: ".a"},
			{Prefix: "a."},
			{Prefix: "a b"},
			{Prefix: "a.*"},
			{Prefix: ">"},
			{Prefix: "$JS"},
			{Prefix: "_INBOX"},
			{Prefix: "ä"},
			{Prefix: strings.Repeat("x", 65)},
		},
		"MaxPayload": {{MaxPayload: -1}, {MaxPayload: 8<<20 + 1}},
		"Shards":     {{Shards: -1}, {Shards: 65}},
		"Buffer":     {{Buffer: -1}},
		"URL": {
			{URL: "ftp://h"},
			{URL: "nats://"},
			{URL: "nats://a,"},
			{URL: "nats://h:x"},
			{URL: "nats://h", Embedded: cluster},
			{URL: "nats://h", Embedded: bus.Embedded{Listen: "h:1"}},
		},
		"Password":               {{Password: "x"}},
		"Creds":                  {{Creds: "x"}},
		"NKey":                   {{NKey: "x"}},
		"User":                   {{User: "x"}},
		"TLSCA":                  {{TLSCA: "x"}, {TLSCA: "x", Embedded: bus.Embedded{}}},
		"TLSCert":                {{TLSCert: "x"}},
		"TLSKey":                 {{TLSKey: "x"}},
		"Embedded.Listen":        {{Embedded: bus.Embedded{Listen: "4222"}}, {Embedded: bus.Embedded{Listen: "h:0"}}, {Embedded: bus.Embedded{Listen: "h:70000"}}, {Embedded: bus.Embedded{Listen: "h:1"}}, {Embedded: bus.Embedded{Listen: ":1"}}, {Embedded: bus.Embedded{Listen: "0.0.0.0:1"}}, {Embedded: bus.Embedded{Listen: "u@127.0.0.1:1"}}, {Embedded: bus.Embedded{Listen: ":p@127.0.0.1:1"}}},
		"Embedded.ClusterListen": {{Embedded: bus.Embedded{ClusterName: "c"}}, {Embedded: bus.Embedded{ClusterName: "c", ClusterListen: "h", Routes: []string{"h:1"}}}, {Embedded: bus.Embedded{ClusterName: "c", ClusterListen: "h:1", Routes: []string{"h:1"}}, DataDir: "d"}},
		"Embedded.ClusterName":   {{Embedded: bus.Embedded{ClusterListen: "h:1", Routes: []string{"h:1"}}}},
		"Embedded.Routes":        {{Embedded: bus.Embedded{ClusterName: "c", ClusterListen: "[::1]:1"}, DataDir: "d"}, {Embedded: bus.Embedded{ClusterName: "c", ClusterListen: "localhost:1", Routes: []string{"h"}}, DataDir: "d"}},
		"DataDir":                {{Embedded: cluster}},
	} {
		for _, o := range options {
			err := o.Check()
			if err == nil || !strings.HasPrefix(err.Error(), field+" ") || strings.Contains(err.Error(), "%") {
				t.Errorf("%s: %+v: %v", field, o, err)
			}
		}
	}
}
