package server_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is a member of a key's JWK.
func jwk(t testing.TB, k authz.Key, member string) string {
	t.Helper()
	b, err := k.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	s, _ := m[member].(string)
	return s
}

// forge signs any header and payload with a secret, by HMAC.
func forge(h func() hash.Hash, secret []byte, header, payload string) string {
	signed := base64url([]byte(header)) + "." + base64url([]byte(payload))
	m := hmac.New(h, secret)
	_, _ = m.Write([]byte(signed))
	return signed + "." + base64url(m.Sum(nil))
}

// secret is what a key of the kind oct signs with.
func secret(t testing.TB, k authz.Key) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(jwk(t, k, "k"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// court is a server before which tokens are brought: from a connection that
// remembers a good one, and from one that has brought nothing yet.
type court struct {
	*node
	bystander, knows *peer
	good             string
	marks            int
}

func newCourt(t *testing.T, n *node, good string) *court {
	c := &court{node: n, bystander: n.dial(t), knows: n.dial(t), good: good}
	c.bystander.subscribe(">", good)
	return c
}

// refuses requires that no frame and no handshake with the token counts, that
// nobody is told of what it would have published, and that it is not remembered.
func (c *court) refuses(t *testing.T, token string) {
	t.Helper()
	_, code := c.auth.Verify([]byte(token))
	if !code.Auth() {
		t.Fatalf("verified: %v", code)
	}
	quoted, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	before := c.auth.Stats().Entries
	fresh := c.dial(t)
	for _, p := range []*peer{c.knows, fresh} {
		for _, kind := range []string{"publish", "subscribe", "auth"} {
			p.t = t
			p.send(`{"type":%q,"id":"1","topic":"a","token":%s,"data":1}`, kind, quoted)
			p.wantError(code, "1")
		}
		c.marks++
		p.publish("mark", c.good, fmt.Sprint(c.marks))
		c.bystander.t = t
		c.bystander.wantExactly(fmt.Sprintf(`{"type":"event","topic":"mark","pattern":">","data":%d}`, c.marks))
	}
	if !strings.ContainsAny(token, "\r\n\x00 ,") {
		c.ask(t, head("", "Authorization: Bearer "+token)).wantStatus(401)
	}
	if after := c.auth.Stats().Entries; after != before {
		t.Errorf("%d remembered, then %d", before, after)
	}
	_ = fresh.conn.Close()
}

// Headers that lie about the key or the algorithm, or want something of whoever
// verifies, and claims that a lenient reader takes for others.
func TestForgedTokens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // where jku and x5u point
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan bool)
	go func() {
		defer close(called)
		if conn, err := listener.Accept(); err == nil {
			_ = conn.Close()
			t.Error("somebody has followed a token's URL")
		}
	}()
	defer func() { _ = listener.Close(); <-called }()

	rsa, ec := newKey(t, "RS256"), newKey(t, "ES256")
	n := start(t, setup{alg: "HS256", more: []authz.Key{rsa, ec}, fake: new(memBus), server: server.Options{AuthFailures: 1 << 20}})
	key, kid := secret(t, n.key), n.key.ID()
	court := newCourt(t, n, n.all(t))
	later := time.Now().Add(hour).Unix()
	grants := `"notify":{"publish":[">"],"subscribe":[">"]}`
	claims := fmt.Sprintf(`{"exp":%d,%s}`, later, grants)
	public, err := rsa.Public()
	if err != nil {
		t.Fatal(err)
	}
	own, err := json.Marshal(n.key)
	if err != nil {
		t.Fatal(err)
	}
	byHeader := func(header string) string { return forge(sha256.New, key, header, claims) }
	with := func(member string) string { return byHeader(fmt.Sprintf(`{"alg":"HS256","kid":%q,%s}`, kid, member)) }
	byClaims := func(payload string) string {
		return forge(sha256.New, key, fmt.Sprintf(`{"alg":"HS256","kid":%q}`, kid), payload)
	}
	exp := func(value string) string { return byClaims(`{"exp":` + value + `,` + grants + `}`) }
	zero := base64url(fmt.Appendf(nil, `{"alg":"ES256","kid":%q}`, ec.ID())) + "." + base64url([]byte(claims)) + "."
	if _, code := n.auth.Verify([]byte(byClaims(claims))); code != wire.OK {
		t.Fatal("what is not forged:", code)
	}

	for name, token := range map[string]string{
		"alg number": byHeader(`{"alg":256}`), "alg array": byHeader(`{"alg":["HS256"]}`), "alg in lower case": byHeader(`{"alg":"hs256"}`),
		"ALG": byHeader(`{"ALG":"HS256"}`), "alg none, signed": byHeader(`{"alg":"none"}`), "alg nOnE": byHeader(`{"alg":"nOnE"}`),
		"alg twice":                forge(sha256.New, key, `{"alg":"none","alg":"HS256"}`, claims),
		"HS512 with the secret":    forge(sha512.New, key, `{"alg":"HS512","kid":"`+kid+`"}`, claims),
		"HS384 with the secret":    forge(sha512.New384, key, `{"alg":"HS384"}`, claims),
		"HS256 with a public key":  forge(sha256.New, public, `{"alg":"HS256","kid":"`+rsa.ID()+`"}`, claims),
		"HS256 with a modulus":     forge(sha256.New, []byte(jwk(t, rsa, "n")), `{"alg":"HS256","kid":"`+rsa.ID()+`"}`, claims),
		"HS256 with no secret":     forge(sha256.New, nil, `{"alg":"HS256","kid":"`+kid+`"}`, claims),
		"kid a path":               byHeader(`{"alg":"HS256","kid":"../../../dev/null"}`),
		"kid an absolute path":     byHeader(`{"alg":"HS256","kid":"/dev/null"}`),
		"kid with NUL":             byHeader(`{"alg":"HS256","kid":"` + kid + `\u0000"}`),
		"kid of another key":       byHeader(`{"alg":"HS256","kid":"` + ec.ID() + `"}`),
		"jku":                      forge(sha256.New, []byte("x"), `{"alg":"HS256","jku":"http://`+listener.Addr().String()+`/"}`, claims),
		"x5u":                      forge(sha256.New, []byte("x"), `{"alg":"HS256","x5u":"http://`+listener.Addr().String()+`/"}`, claims),
		"jwk, a stranger's":        forge(sha256.New, []byte("x"), `{"alg":"HS256","jwk":`+string(own)+`}`, claims),
		"x5c":                      forge(sha256.New, []byte("x"), `{"alg":"HS256","x5c":["AA=="]}`, claims),
		"crit":                     with(`"crit":["exp"],"exp":1`),
		"crit empty":               with(`"crit":[]`),
		"b64":                      with(`"b64":false,"crit":["b64"]`),
		"cty JWT":                  with(`"cty":"JWT"`),
		"zip":                      with(`"zip":"DEF"`),
		"typ of another kind":      with(`"typ":"logout+jwt"`),
		"no exp":                   byClaims(`{` + grants + `}`),
		"exp 0":                    exp(`0`),
		"exp a string":             exp(fmt.Sprintf(`"%d"`, later)),
		"exp true":                 exp(`true`),
		"exp null":                 exp(`null`),
		"exp []":                   exp(`[]`),
		"exp {}":                   exp(`{}`),
		"exp NaN":                  exp(`NaN`),
		"exp 1e400":                exp(`1e400`),
		"exp -1":                   exp(`-1`),
		"exp 1e300":                exp(`1e300`),
		"exp 1e19":                 exp(`1e19`),
		"exp of 64 bits":           exp(fmt.Sprint(math.MaxInt64)),
		"exp now":                  exp(fmt.Sprint(time.Now().Unix())),
		"exp a fraction ago":       exp(fmt.Sprintf("%.3f", float64(time.Now().Add(-100*time.Millisecond).UnixMilli())/1000)),
		"exp past, then future":    byClaims(fmt.Sprintf(`{"exp":1,"exp":%d,%s}`, later, grants)),
		"exp future, then past":    byClaims(fmt.Sprintf(`{"exp":%d,"exp":1,%s}`, later, grants)),
		"exp past, under escapes":  byClaims(`{"\u0065xp":1,` + grants + `}`),
		"exp twice, one escaped":   byClaims(fmt.Sprintf(`{"exp":%d,"\u0065xp":1,%s}`, later, grants)),
		"Exp alone":                byClaims(fmt.Sprintf(`{"Exp":%d,%s}`, later, grants)),
		"nbf a string":             byClaims(fmt.Sprintf(`{"exp":%d,"nbf":"0",%s}`, later, grants)),
		"nbf in the future":        byClaims(fmt.Sprintf(`{"exp":%d,"nbf":%d,%s}`, later, later-60, grants)),
		"iat in the future":        byClaims(fmt.Sprintf(`{"exp":%d,"iat":%d,%s}`, later, later-60, grants)),
		"sub a number":             byClaims(fmt.Sprintf(`{"exp":%d,"sub":1,%s}`, later, grants)),
		"notify twice":             byClaims(fmt.Sprintf(`{"exp":%d,%s,%s}`, later, grants, grants)),
		"notify an array":          byClaims(fmt.Sprintf(`{"exp":%d,"notify":[]}`, later)),
		"a pattern that is none":   byClaims(fmt.Sprintf(`{"exp":%d,"notify":{"publish":[">","a..b"]}}`, later)),
		"a digest that is none":    byClaims(fmt.Sprintf(`{"exp":%d,"notify":{"publish":[">"],"digest":"sha-256=x"}}`, later)),
		"once without jti":         byClaims(fmt.Sprintf(`{"exp":%d,"notify":{"publish":[">"],"once":true}}`, later)),
		"payload null":             byClaims(`null`),
		"payload []":               byClaims(`[]`),
		"payload a string":         byClaims(`"x"`),
		"payload empty":            byClaims(``),
		"payload and text":         byClaims(claims + "x"),
		"payload with a BOM":       byClaims("\xef\xbb\xbf" + claims),
		"two payloads":             byClaims(claims + claims),
		"payload in bad UTF-8":     byClaims(fmt.Sprintf("{\"exp\":%d,\"x\":\"\xff\",%s}", later, grants)),
		"header null":              forge(sha256.New, key, `null`, claims),
		"r and s zero":             zero + base64url(make([]byte, 64)),
		"a signature of 65 bytes":  zero + base64url(make([]byte, 65)),
		"no signature":             zero,
		"a signature in DER":       zero + base64url([]byte{0x30, 6, 2, 1, 1, 2, 1, 1}),
		"five segments":            court.good + ".a.b",
		"a dot":                    ".",
		"two dots":                 "..",
		"a line break":             court.good[:40] + "\n" + court.good[40:],
		"standard base64":          strings.Replace(court.good, ".", "+.", 1),
		"another letter for a dot": strings.Replace(court.good, ".", ",", 1),
	} {
		t.Run(name, func(t *testing.T) { court.refuses(t, token) })
	}
}

// Where iss and aud are configured, only these will do.
func TestForgedIssuer(t *testing.T) {
	n := start(t, setup{alg: "HS256", fake: new(memBus), auth: authz.Options{Issuer: "https://i.example", Audience: []string{"notifyd"}}, server: server.Options{AuthFailures: 1 << 20}})
	by := func(claims string) string {
		return forge(sha256.New, secret(t, n.key), `{"alg":"HS256"}`, fmt.Sprintf(`{"exp":%d,"notify":{"publish":[">"],"subscribe":[">"]}%s}`, time.Now().Add(hour).Unix(), claims))
	}
	court := newCourt(t, n, by(`,"iss":"https://i.example","aud":["x","notifyd"]`))
	for _, claims := range []string{
		``,
		`,"iss":"https://i.example"`,
		`,"aud":"notifyd"`,
		`,"iss":"https://i.example/","aud":"notifyd"`,
		`,"iss":"https://I.example","aud":"notifyd"`,
		`,"iss":["https://i.example"],"aud":"notifyd"`,
		`,"iss":null,"aud":"notifyd"`,
		`,"ISS":"https://i.example","aud":"notifyd"`,
		`,"iss":"x","iss":"https://i.example","aud":"notifyd"`,
		`,"iss":"https://i.example","aud":"notifyd/"`,
		`,"iss":"https://i.example","aud":"Notifyd"`,
		`,"iss":"https://i.example","aud":[]`,
		`,"iss":"https://i.example","aud":["x"]`,
		`,"iss":"https://i.example","aud":["notifyd",1]`,
		`,"iss":"https://i.example","aud":{"notifyd":1}`,
		`,"iss":"https://i.example","AUD":"notifyd"`,
		`,"iss":"https://i.example","aud":"x","aud":"notifyd"`,
	} {
		t.Run(claims, func(t *testing.T) { court.refuses(t, by(claims)) })
	}
}
