package authz

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/wire"
)

// publisher is an issuer's HTTP side. Its answer can be changed at any time.
type publisher struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	hits   atomic.Int64
}

func newPublisher(t testing.TB, keys ...Key) *publisher {
	p := &publisher{}
	p.publish(t, keys...)
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.hits.Add(1)
	(*p.answer.Load())(w, r)
}

func (p *publisher) do(f http.HandlerFunc) { p.answer.Store(&f) }

func (p *publisher) body(text string) {
	p.do(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
}

func (p *publisher) publish(t testing.TB, keys ...Key) {
	t.Helper()
	set := map[string][]jwk{"keys": {}}
	for _, key := range keys {
		set["keys"] = append(set["keys"], key.publicJWK())
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	p.body(string(b))
}

const plainClaims = `{"exp":1800000060}`

// A key that its issuer has just begun to use is accepted at first sight; one
// that it has removed takes its tokens along at once.
func TestRotationByURL(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "EdDSA", "2")
	p := newPublisher(t, first)
	var changes, failures atomic.Int64
	v := newTestVerifier(t, newClock(), Options{
		Keys: []string{p.URL}, OnChange: func() { changes.Add(1) }, OnKeyError: func(error) { failures.Add(1) },
	})
	held, code := v.Verify(tokenBy(t, first, plainClaims))
	if code != wire.OK || p.hits.Load() != 1 {
		t.Fatal(code, p.hits.Load(), "fetches")
	}
	p.publish(t, second)
	raw := tokenBy(t, second, plainClaims)
	if v.Cost(raw) != Slow {
		t.Error("to fetch a key is not slow")
	}
	if _, code := v.Verify(raw); code != wire.OK {
		t.Error("the new key at first sight:", code)
	}
	if code := held.Check(start * 1e9); code != wire.TokenInvalid {
		t.Error("the old key:", code)
	}
	if _, code := v.Verify(tokenBy(t, first, plainClaims)); code != wire.TokenInvalid {
		t.Error("the old key, verified again:", code)
	}
	if p.hits.Load() != 2 || changes.Load() != 1 || failures.Load() != 0 {
		t.Error(p.hits.Load(), "fetches,", changes.Load(), "changes,", failures.Load(), "failures")
	}
	if s := v.Stats(); s.KeyLoads != 1 || s.KeyErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// Many unknown kids cause one fetch a cooldown, whoever sends them.
func TestCooldown(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	c := newClock()
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL}})
	good := tokenBy(t, key, `{"exp":1800009999}`)
	for round := int64(1); round < 4; round++ {
		var wg sync.WaitGroup
		for i := range 20 {
			stranger := key
			stranger.kid = fmt.Sprintf("%d-%d", round, i)
			raw := tokenBy(t, stranger, plainClaims)
			wg.Go(func() {
				// Unavailable: the fetch had begun before this kid came.
				if _, code := v.Verify(raw); code != wire.TokenInvalid && code != wire.Unavailable {
					t.Error(code)
				}
			})
		}
		wg.Wait()
		if n := p.hits.Load(); n != 1+round {
			t.Fatal(n, "fetches in round", round)
		}
		if _, code := v.Verify(good); code != wire.OK {
			t.Error("a good token meanwhile:", code)
		}
		c.advance(DefaultJWKSCooldown - 1)
		// A kid that no fetch has looked for may be that of a key which was published just now.
		late := tokenBy(t, keyNamed(t, "ES256", fmt.Sprint("late", round)), plainClaims)
		if _, code := v.Verify(late); code != wire.Unavailable || p.hits.Load() != 1+round {
			t.Error("the cooldown ended early:", code)
		}
		c.advance(1)
	}
}

// A kid is unavailable until a fetch has looked for it, invalid from then on, and
// sought again once a cooldown.
func TestKidThatIsSought(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	c := newClock()
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL}})
	first, second := keyNamed(t, "ES256", "first"), keyNamed(t, "ES256", "second")
	for i, step := range []struct {
		key     Key
		later   bool // the cooldown ends before
		want    wire.Code
		fetches int64
	}{
		{first, false, wire.TokenInvalid, 1},
		{first, false, wire.TokenInvalid, 1},
		{second, false, wire.Unavailable, 1},
		{second, false, wire.Unavailable, 1},
		{second, true, wire.TokenInvalid, 2},
		{second, false, wire.TokenInvalid, 2},
		{first, false, wire.TokenInvalid, 2},
		{first, true, wire.TokenInvalid, 3},
		{second, false, wire.TokenInvalid, 3},
	} {
		if step.later {
			c.advance(DefaultJWKSCooldown)
		}
		if _, code := v.Verify(tokenBy(t, step.key, `{"exp":1800009999}`)); code != step.want || p.hits.Load() != 1+step.fetches {
			t.Errorf("step %d: %v, want %v; %d fetches, want %d", i, code, step.want, p.hits.Load()-1, step.fetches)
		}
	}
	p.publish(t, key, second)
	c.advance(DefaultJWKSCooldown)
	if _, code := v.Verify(tokenBy(t, second, `{"exp":1800009999}`)); code != wire.OK {
		t.Error("once it is published:", code)
	}
}

// All that come with a new key while it is being fetched wait for that one
// fetch, and are accepted.
func TestNewKeyForMany(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	p := newPublisher(t, first)
	v := newTestVerifier(t, newClock(), Options{Keys: []string{p.URL}})
	p.publish(t, first, second)
	var wg sync.WaitGroup
	for i := range 50 {
		raw := tokenBy(t, second, fmt.Sprintf(`{"exp":1800000060,"jti":"%d"}`, i))
		wg.Go(func() {
			if _, code := v.Verify(raw); code != wire.OK {
				t.Error(code)
			}
		})
	}
	wg.Wait()
	if n := p.hits.Load(); n != 2 {
		t.Error(n, "fetches")
	}
}

// A fetch that began before the key was published does not decide.
func TestNewKeyDuringFetch(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	p := newPublisher(t, first)
	v := newTestVerifier(t, newClock(), Options{Keys: []string{p.URL}})
	begun, finish := make(chan bool), make(chan bool)
	old := *p.answer.Load()
	p.do(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-finish
		old(w, r)
	})
	if err := v.Reload(); err != nil {
		t.Fatal(err)
	}
	<-begun
	p.publish(t, first, second)
	result := make(chan wire.Code)
	go func() {
		_, code := v.Verify(tokenBy(t, second, plainClaims))
		result <- code
	}()
	finish <- true
	if code := <-result; code != wire.OK {
		t.Error(code)
	}
}

func TestIssuerIsDown(t *testing.T) {
	first, second := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	p := newPublisher(t, first)
	c := newClock()
	var told atomic.Pointer[string]
	v := newTestVerifier(t, c, Options{Keys: []string{p.URL + "/jwks?secret=1"}, OnKeyError: func(err error) {
		text := err.Error()
		told.Store(&text)
	}})
	p.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	if _, code := v.Verify(tokenBy(t, second, plainClaims)); code != wire.Unavailable {
		t.Error("an unknown kid:", code)
	}
	if _, code := v.Verify(tokenBy(t, second, plainClaims)); code != wire.Unavailable || p.hits.Load() != 2 {
		t.Error("an unknown kid in the cooldown:", code, p.hits.Load(), "fetches")
	}
	if _, code := v.Verify(tokenBy(t, first, plainClaims)); code != wire.OK {
		t.Error("a known kid:", code)
	}
	if text := told.Load(); text == nil || !strings.Contains(*text, p.URL+"/jwks: ") || strings.Contains(*text, "secret") {
		t.Error("the error was not told, or quotes too much")
	}
	if s := v.Stats(); s.KeyErrors != 1 || s.KeyLoads != 1 {
		t.Errorf("%+v", s)
	}
	p.publish(t, second)
	c.advance(DefaultJWKSCooldown)
	eventually(t, "the issuer to be back", func() bool {
		_, code := v.Verify(tokenBy(t, second, plainClaims))
		if code != wire.OK && code != wire.Unavailable {
			t.Error("when it is back:", code)
		}
		return code == wire.OK
	})
	third := tokenBy(t, keyNamed(t, "ES256", "3"), plainClaims)
	if _, code := v.Verify(third); code != wire.Unavailable {
		t.Error("an unknown kid when it is back, in the cooldown:", code)
	}
	c.advance(DefaultJWKSCooldown)
	if _, code := v.Verify(third); code != wire.TokenInvalid {
		t.Error("an unknown kid when it is back:", code)
	}
}

// An issuer that accepts connections and does not answer holds a verification
// for a bounded time.
func TestIssuerHangs(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	v := newTestVerifier(t, newClock(), Options{Keys: []string{p.URL}, JWKSTimeout: 50 * time.Millisecond})
	p.do(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for range 3 {
		if _, code := v.Verify(tokenBy(t, keyNamed(t, "ES256", "2"), plainClaims)); code != wire.Unavailable {
			t.Error(code)
		}
		eventually(t, "the failure to be known", func() bool {
			failed, _ := v.issuers[0].remote[0].endpoint.state()
			return failed
		})
	}
	if _, code := v.Verify(tokenBy(t, key, plainClaims)); code != wire.OK {
		t.Error(code)
	}
}

// What only looks like an unknown kid causes no fetch.
func TestNoFetch(t *testing.T) {
	key, secret := keyNamed(t, "ES256", "1"), keyNamed(t, "HS256", "s")
	a, b := newPublisher(t, key), newPublisher(t, key)
	v := newTestVerifier(t, newClock(), Options{Issuers: []Issuer{
		{Name: "a", Keys: []string{a.URL}, Type: "at+jwt"}, {Name: "b", Keys: []string{b.URL}}, {Name: "c", Trusted: []Key{secret}},
	}})
	token := func(header, iss string) string {
		return forge(t, "ES256", key.sign, header, `{"exp":1800000060,"iss":"`+iss+`"}`)
	}
	for name, raw := range map[string]string{
		"alg none":                  token(`{"alg":"none","kid":"x"}`, "b"),
		"unknown alg":               token(`{"alg":"ES512","kid":"x"}`, "b"),
		"HS256":                     forge(t, "HS256", secret.sign, `{"alg":"HS256","kid":"x"}`, `{"exp":1800000060,"iss":"b"}`),
		"another alg for the kid":   token(`{"alg":"EdDSA","kid":"1"}`, "b"),
		"no kid":                    token(`{"alg":"EdDSA"}`, "b"),
		"jku":                       token(`{"alg":"ES256","kid":"1","jku":"`+b.URL+`"}`, "c"),
		"kid a URL":                 token(`{"alg":"ES256","kid":"`+b.URL+`"}`, "c"),
		"crit":                      token(`{"alg":"ES256","kid":"x","crit":["x"]}`, "b"),
		"typ that the issuer lacks": token(`{"alg":"ES256","kid":"x","typ":"JWT"}`, "a"),
		"issuer without URL":        token(`{"alg":"ES256","kid":"x"}`, "c"),
		"issuer of nobody":          token(`{"alg":"ES256","kid":"x"}`, "d"),
		"payload no object":         forge(t, "ES256", key.sign, `{"alg":"ES256","kid":"x"}`, `[]`),
	} {
		if _, code := v.Verify([]byte(raw)); code == wire.OK || code == wire.Unavailable {
			t.Error(name, code)
		}
		if a.hits.Load() != 1 || b.hits.Load() != 1 {
			t.Fatal(name, "caused a fetch")
		}
	}
	// And one that is unknown asks its own issuer alone.
	if _, code := v.Verify([]byte(token(`{"alg":"ES256","kid":"x"}`, "b"))); code != wire.TokenInvalid || a.hits.Load() != 1 || b.hits.Load() != 2 {
		t.Error(code, a.hits.Load(), b.hits.Load())
	}
	if v.Cost([]byte(forge(t, "HS256", secret.sign, `{"alg":"HS256","kid":"s"}`, `{}`))) != Cheap {
		t.Error("a known secret is not cheap")
	}
}

// What an issuer publishes is held to the same rules as a file, and to some
// more. At the start it is an error; later the keys stay as they were.
func TestAbuseOfJWKS(t *testing.T) {
	good, next := keyNamed(t, "ES256", "1"), keyNamed(t, "ES256", "2")
	jwkOf := func(key Key) string {
		b, err := json.Marshal(key.publicJWK())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	private, err := json.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := json.Marshal(keyNamed(t, "HS256", "2"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := newPublisher(t, next)
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	rsa512 := `{"kty":"RSA","kid":"2","e":"AQAB","n":"` + strings.Repeat("v", 86) + `"}`
	for name, answer := range map[string]http.HandlerFunc{
		"a weak key":                 text(`{"keys":[` + rsa512 + `]}`),
		"a private key":              text(`{"keys":[` + string(private) + `]}`),
		"a secret":                   text(`{"keys":[` + jwkOf(next) + `,` + string(secret) + `]}`),
		"a private key in bad order": text(`{"keys":[` + jwkOf(next) + `,{"kty":"EC","crv":"P-256","x":1,"d":"AQ"}]}`),
		"keys twice":                 text(`{"keys":[` + jwkOf(next) + `],"keys":[]}`),
		"no key":                     text(`{"keys":[]}`),
		"keys null":                  text(`{"keys":null}`),
		"empty":                      text(``),
		"null":                       text(`null`),
		"an array":                   text(`[` + jwkOf(next) + `]`),
		"HTML":                       text(`<html>`),
		"PEM":                        text("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"),
		"trailing text":              text(`{"keys":[` + jwkOf(next) + `]}x`),
		"cut":                        text(`{"keys":[` + jwkOf(next) + `]`),
		"too long":                   text(`{"keys":[` + jwkOf(next) + `],"x":"` + strings.Repeat("x", maxKeyFileBytes) + `"}`),
		"status 404":                 func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"status 203": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(203)
			text(`{"keys":[`+jwkOf(next)+`]}`)(w, r)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"redirect to a file": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		},
		"a header of 1 MB":    func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) },
		"connection cut":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"gzip bomb":           gzipBomb,
		"never the last byte": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "9"); text("{")(w, r) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublisher(t, good)
			c := newClock()
			v := newTestVerifier(t, c, Options{Keys: []string{p.URL}})
			held, code := v.Verify(tokenBy(t, good, plainClaims))
			if code != wire.OK {
				t.Fatal(code)
			}
			p.do(answer)
			if _, code := v.Verify(tokenBy(t, next, plainClaims)); code != wire.Unavailable {
				t.Error("a key of that answer:", code)
			}
			if held.Check(start*1e9) != wire.OK {
				t.Error("the keys before it are gone")
			}
			// On a busy machine the fetch may still be at it.
			testkit.Eventually(t, "the fetch has failed", func() bool { return v.Stats().KeyErrors == 1 })
			if _, err := New(Options{Keys: []string{p.URL}}); err == nil {
				t.Error("taken at the start")
			} else if !strings.Contains(err.Error(), strings.TrimPrefix(p.URL, "http://")) {
				t.Error("the error does not name the URL:", err)
			}
		})
	}
	if n := elsewhere.hits.Load(); n != 0 {
		t.Error("a redirect was followed")
	}
}

// gzipBomb is 32 MiB in 32 KiB.
func gzipBomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write([]byte(`{"keys":[],"x":"`))
	for range 32 {
		_, _ = z.Write([]byte(strings.Repeat("x", 1<<20)))
	}
	_ = z.Close()
}

func TestCheckKeyURL(t *testing.T) {
	for _, good := range []string{
		"https://id.example/.well-known/jwks.json", "https://id.example:8443/keys?p=policy", "https://127.0.0.1/",
		"http://127.0.0.1:8080/jwks", "http://127.9.9.9", "http://localhost:1/", "http://[::1]:80/jwks", "HTTPS://id.example",
	} {
		if err := CheckKeyURL(good); err != nil {
			t.Error(good, err)
		}
	}
	for _, bad := range []string{
		"http://id.example/jwks", "http://10.0.0.1/", "http://localhost.example/", "http://127.0.0.1.example/", "http://2130706433/",
		"http://[::ffff:10.0.0.1]/", "http://0.0.0.0/", "ftp://127.0.0.1/", "file:///etc/keys", "unix://x", "https://", "https:///jwks",
		"https://ann:secret@id.example/", "https://secret@id.example/", "https://id.example/#secret", "://secret", "https://id.example/\x00secret", "https://[secret/",
	} {
		err := CheckKeyURL(bad)
		if err == nil {
			t.Error(bad, "is fine")
		} else if strings.Contains(err.Error(), "secret") {
			t.Error("quoted:", err)
		}
		if _, err := New(Options{Keys: []string{bad}}); err == nil {
			t.Error(bad, "was taken")
		}
	}
	// A name that resolves to another machine is stopped at the connection.
	for address, want := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "10.0.0.1:80": false, "[fe80::1]:80": false, "0.0.0.0:80": false} {
		if err := onlyLoopback("tcp", address, nil); (err == nil) != want {
			t.Error(address, err)
		}
	}
	for _, o := range []Options{{JWKSRefresh: -1}, {JWKSCooldown: -1}, {JWKSTimeout: -1}} {
		o.Trusted = allKeys()
		if _, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// https needs a certificate that this machine trusts.
func TestHTTPS(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	p := newPublisher(t, key)
	secure := httptest.NewUnstartedServer(p)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // a handshake is to fail
	secure.StartTLS()
	t.Cleanup(secure.Close)
	if _, err := New(Options{Keys: []string{secure.URL}}); err == nil {
		t.Error("a certificate of nobody was trusted")
	}
	o := Options{Now: newClock().now, JWKSTimeout: time.Minute}
	e, err := newEndpoint(secure.URL, &o)
	if err != nil {
		t.Fatal(err)
	}
	e.client.Transport.(*http.Transport).TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
	r, err := e.get(context.Background())
	if err != nil || len(r.keys) != 1 || r.keys[0].kid != "1" {
		t.Error(r.keys, err)
	}
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 2000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("waited in vain for:", what)
}

// Run notices what issuers and files change, and goes on after errors.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	fileA, fileB := filepath.Join(dir, "a.jwk"), filepath.Join(dir, "b.jwk")
	remote, inA, inB := keyNamed(t, "ES256", "r1"), keyNamed(t, "HS256", "a1"), keyNamed(t, "HS256", "b1")
	writeKey(t, fileA, inA)
	writeKey(t, fileB, inB)
	p := newPublisher(t, remote)
	var failures, changes atomic.Int64
	v, err := New(Options{
		Keys: []string{fileA, fileB, p.URL}, Now: time.Now, JWKSRefresh: 20 * time.Millisecond, JWKSCooldown: 10 * time.Millisecond,
		OnKeyError: func(error) { failures.Add(1) }, OnChange: func() { changes.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	v.filePoll = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { v.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })

	claims := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())
	valid := func(key Key) bool {
		_, code := v.Verify(tokenBy(t, key, claims))
		return code == wire.OK
	}
	hold := func(key Key) func() bool {
		token, code := v.Verify(tokenBy(t, key, claims))
		if code != wire.OK {
			t.Fatal(key, code)
		}
		return func() bool { return token.Check(time.Now().UnixNano()) == wire.TokenInvalid }
	}

	fell := hold(remote)
	p.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	eventually(t, "two errors of the URL", func() bool { return failures.Load() >= 2 })
	if fell() {
		t.Error("an outage took the keys away")
	}
	p.publish(t, keyNamed(t, "ES256", "r2"))
	eventually(t, "the URL's key to fall", fell)

	fell = hold(inA)
	nextA := keyNamed(t, "HS256", "a2")
	writeKey(t, fileA, nextA)
	eventually(t, "the file's key to fall", fell)
	if !valid(nextA) {
		t.Error("the file's new key is not there")
	}

	// One file broken for a while, told once; the other changes nevertheless.
	count := failures.Load()
	fell = hold(nextA)
	replaceFile(t, fileA, []byte(`{"kty":`))
	eventually(t, "the broken file to be told", func() bool { return failures.Load() > count })
	fellB := hold(inB)
	writeKey(t, fileB, keyNamed(t, "HS256", "b2"))
	eventually(t, "the other file's key to fall", fellB)
	if fell() {
		t.Error("a broken file took its keys away")
	}
	if n := failures.Load() - count; n > 2 {
		t.Error("the broken file was told", n, "times")
	}
	writeKey(t, fileA, inA)
	eventually(t, "the mended file's key", func() bool { return valid(inA) })
	eventually(t, "the key before it to fall", fell)

	// A file that goes away leaves its keys; one that is replaced whole, as
	// Kubernetes does with links, is read.
	if err := os.Remove(fileA); err != nil {
		t.Fatal(err)
	}
	last := keyNamed(t, "HS256", "a3")
	writeKey(t, filepath.Join(dir, "new"), last)
	if !valid(inA) {
		t.Error("a missing file took its keys away")
	}
	if err := os.Symlink(filepath.Join(dir, "new"), fileA); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key behind the link", func() bool { return valid(last) })
	if changes.Load() == 0 {
		t.Error("OnChange was never called")
	}
}

func TestSetKeysKeepsURLs(t *testing.T) {
	remote, old, next := keyNamed(t, "ES256", "r"), keyNamed(t, "HS256", "1"), keyNamed(t, "HS256", "2")
	p := newPublisher(t, remote)
	v := newTestVerifier(t, newClock(), Options{Keys: []string{p.URL}, Trusted: []Key{old}})
	if err := v.SetKeys([]Key{next}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		key  Key
		want wire.Code
	}{{remote, wire.OK}, {next, wire.OK}, {old, wire.TokenInvalid}} {
		if _, code := v.Verify(tokenBy(t, row.key, plainClaims)); code != row.want {
			t.Error(row.key, code)
		}
	}
	if err := v.SetKeys([]Key{remote}); err != nil {
		t.Error("one key from two places:", err)
	}
	if _, code := v.Verify(tokenBy(t, remote, plainClaims)); code != wire.OK {
		t.Error("a key from two places:", code)
	}
}

// Files that did not change are not read again, a file that cannot be used is told once,
// and what another file brings meanwhile counts.
func TestPollingFiles(t *testing.T) {
	dir := t.TempDir()
	fileA, fileB := filepath.Join(dir, "a.jwk"), filepath.Join(dir, "b.json")
	a, b := keyNamed(t, "HS256", "a"), keyNamed(t, "HS256", "b")
	writeKey(t, fileA, a)
	writeKey(t, fileB, b)
	told := 0
	v := newTestVerifier(t, newClock(), Options{Keys: []string{fileA, fileB}, OnKeyError: func(error) { told++ }})
	both, err := json.Marshal(map[string][]Key{"keys": {b, keyNamed(t, "HS256", "b2")}})
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		change      func()
		loads, told int
	}{
		{func() {}, 0, 0},
		{func() { write(fileB, string(both)) }, 1, 0}, // nothing falls
		{func() {}, 1, 0},
		{func() { write(fileA, "{") }, 2, 1},
		{func() {}, 2, 1},
		{func() { write(fileB, string(both)+" ") }, 2, 1}, // the same error, and nothing fell
		{func() { writeKey(t, fileB, b) }, 3, 2},          // the same error, and b2 fell
		{func() { write(fileA, "[") }, 4, 3},              // another error
		{func() { write(fileA, `{"kty":"oct","k":"AQ"}`) }, 5, 4},
		{func() { writeKey(t, fileA, a) }, 6, 4},
		{func() {}, 6, 4},
	} {
		step.change()
		v.pollFiles()
		if s := v.Stats(); int(s.KeyLoads) != step.loads || told != step.told {
			t.Errorf("step %d: %d loads, told %d times", i, s.KeyLoads, told)
		}
	}
}

// A file and an answer may be as long as they are allowed to be.
func TestLongestKeySet(t *testing.T) {
	key := keyNamed(t, "ES256", "1")
	set := strings.TrimSuffix(string(mustPublic(t, key)), "}")
	for n, want := range map[int]bool{maxKeyFileBytes: true, maxKeyFileBytes + 1: false} {
		text := set + strings.Repeat(" ", n-len(set)-1) + "}"
		file := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newPublisher(t)
		p.body(text)
		for _, from := range []string{file, p.URL} {
			if _, err := New(Options{Keys: []string{from}}); (err == nil) != want {
				t.Errorf("%d bytes from %s: %v", n, from, err)
			}
		}
	}
	if maxKeyFileBytes != 1<<20 {
		t.Error("docs/authentication.md says 1 MiB")
	}
}
