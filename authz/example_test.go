package authz_test

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// A token service signs a token, and a node verifies it.
func Example() {
	key, err := authz.GenerateKey("EdDSA")
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := authz.Sign(key, authz.Claims{
		Subject: "ann", IssuedAt: time.Now(), Expires: time.Now().Add(15 * time.Minute),
		Publish: []string{"rooms.42"}, Subscribe: []string{"rooms.*"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	verifier, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		fmt.Println(err)
		return
	}
	t, code := verifier.Verify([]byte(token))
	if code != wire.OK {
		fmt.Println(code)
		return
	}
	fmt.Println(t.Subject(), t.MayPublish([]byte("rooms.42")), t.MayPublish([]byte("rooms.43")), t.MaySubscribe([]byte("rooms.*")))
	// Output: ann true false true
}

// A token counts until it expires, and Check is to be asked for every message. A
// revocation ends it before.
func ExampleVerifier_Revoke() {
	key, err := authz.GenerateKey("HS256")
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := authz.Sign(key, authz.Claims{ID: "7f3c", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		fmt.Println(err)
		return
	}
	t, code := verifier.Verify([]byte(token))
	fmt.Println(code)

	err = verifier.Revoke(authz.Revocation{JTI: "7f3c"})
	fmt.Println(t.Check(time.Now().UnixNano()), err)
	// Output:
	// ok
	// token_revoked <nil>
}

// The public part of a key goes to the nodes, in a file or at a URL.
func ExampleKey_Public() {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	private, err := authz.GenerateKey("ES256")
	if err != nil {
		fmt.Println(err)
		return
	}
	public, err := private.Public()
	if err != nil {
		fmt.Println(err)
		return
	}
	file := filepath.Join(dir, "keys.json")
	if err := os.WriteFile(file, public, 0o600); err != nil {
		fmt.Println(err)
		return
	}

	keys, _, err := authz.ReadKeys(file)
	fmt.Println(len(keys), keys[0].Algorithm(), keys[0].CanSign(), keys[0].ID() == private.ID(), err)
	// Output: 1 ES256 false true <nil>
}

// A policy bounds what an issuer may grant. A token that says more is refused as a whole.
func ExampleIssuer() {
	key, err := authz.GenerateKey("HS256")
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := authz.New(authz.Options{Issuers: []authz.Issuer{{
		Name: "billing", Trusted: []authz.Key{key}, Publish: []string{"invoices.>"}, MaxLifetime: time.Hour,
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, topic := range []string{"invoices.991", "rooms.42"} {
		token, err := authz.Sign(key, authz.Claims{
			Issuer: "billing", IssuedAt: time.Now(), Expires: time.Now().Add(time.Minute), Publish: []string{topic},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		_, code := verifier.Verify([]byte(token))
		fmt.Println(topic, code)
	}
	// Output:
	// invoices.991 ok
	// rooms.42 token_invalid
}

// A token can be made for one message: this topic and these bytes, once.
func ExampleDigestOf() {
	key, err := authz.GenerateKey("HS256")
	if err != nil {
		fmt.Println(err)
		return
	}
	topic, data := "invoices.991", []byte(`{"paid":true}`)
	token, err := authz.Sign(key, authz.Claims{
		ID: "payment-991", Expires: time.Now().Add(time.Minute), Publish: []string{topic},
		Digest: authz.DigestOf(topic, data), Once: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		fmt.Println(err)
		return
	}
	t, _ := verifier.Verify([]byte(token))
	jti, _, once := t.Once()
	fmt.Println(t.Digest([]byte(topic), data), t.Digest([]byte(topic), []byte(`{"paid":false}`)), jti, once)
	// Output: ok digest_mismatch payment-991 true
}
