package node_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/node"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
)

// call sends a request; headers are names and values in turn, and Host is one of them.
func call(t *testing.T, method, url, body string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// jsonBody is the header of a request with JSON.
var jsonBody = []string{"Content-Type", "application/json"}

// consoles starts a node with the console on both listeners, and gives their addresses.
func consoles(t *testing.T, o node.Options) (key authz.Key, public, admin string) {
	t.Helper()
	key, n := nodeWithConsoles(t, o)
	return key, "http://" + n.Addr().String() + o.Server.PathPrefix, "http://" + n.AdminAddr()
}

func nodeWithConsoles(t *testing.T, o node.Options) (key authz.Key, n *node.Node) {
	t.Helper()
	key, o.Auth = trusted(t)
	o.AdminListen, o.Console = "127.0.0.1:0", true
	o.Mint = func(claims authz.Claims) (string, error) { return authz.Sign(key, claims) }
	return key, start(t, o)
}

// secretOf is the header with which a page that was opened by the printed address asks.
func secretOf(n *node.Node) []string { return []string{"Authorization", "Bearer " + n.MintSecret()} }

// The console is where the options say, and nowhere else; above all, nobody gets a token where there is no Mint.
func TestConsoleIsOnlyWhereItIsEnabled(t *testing.T) {
	key, auth := trusted(t)
	mint := func(claims authz.Claims) (string, error) { return authz.Sign(key, claims) }
	for name, c := range map[string]struct {
		o             node.Options
		public, admin int
		minted        int // of the listener for clients
	}{
		"off":            {node.Options{}, http.StatusNotFound, http.StatusNotFound, http.StatusNotFound},
		"for operators":  {node.Options{Console: true}, http.StatusNotFound, http.StatusOK, http.StatusNotFound},
		"for trying out": {node.Options{Mint: mint}, http.StatusOK, http.StatusNotFound, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Auth, c.o.AdminListen = auth, "127.0.0.1:0"
			n := start(t, c.o)
			public, admin := "http://"+n.Addr().String(), "http://"+n.AdminAddr()
			for _, path := range []string{"/console/", "/console/node", "/console/figures"} {
				if status, body, _ := call(t, "GET", public+path, ""); status != c.public {
					t.Errorf("%s for clients: %d %s", path, status, body)
				}
				if status, body, _ := call(t, "GET", admin+path, ""); status != c.admin {
					t.Errorf("%s for operators: %d %s", path, status, body)
				}
			}
			const wanted = `{"sub":"ann","subscribe":[">"],"seconds":60}`
			asks := append(secretOf(n), jsonBody...)
			if status, body, _ := call(t, "POST", public+"/console/token", wanted, asks...); status != c.minted {
				t.Errorf("a token for clients: %d %s", status, body)
			}
			if status, body, _ := call(t, "POST", admin+"/console/token", wanted, asks...); status == http.StatusOK {
				t.Errorf("a token for operators: %d %s", status, body)
			}
			if status, _, _ := call(t, "GET", admin+"/v1/history?topic=a", ""); (status == http.StatusUnauthorized) != (c.admin == http.StatusOK) {
				t.Errorf("calls of the protocol for operators: %d", status)
			}
		})
	}
}

// No page but the console's own may ask: not one of another origin, though all may connect, and on the listener for clients not
// one whose name leads here.
func TestConsoleAnswersItsOwnPageAlone(t *testing.T) {
	_, public, admin := consoles(t, node.Options{Server: server.Options{Origins: []string{"*"}}})
	for _, base := range []string{public, admin} {
		host := strings.TrimPrefix(base, "http://")
		_, port, _ := strings.Cut(host, ":")
		for _, c := range []struct {
			name    string
			headers []string
			want    int
		}{
			{"the page itself", []string{"Origin", base, "Sec-Fetch-Site", "same-origin"}, http.StatusOK},
			{"no browser", nil, http.StatusOK},
			{"another origin", []string{"Origin", "http://evil.example"}, http.StatusForbidden},
			{"another port", []string{"Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
			{"a page without an origin", []string{"Origin", "null"}, http.StatusForbidden},
			{"no Origin, but of another site", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
			{"no Origin, but of another port", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
			{"localhost", []string{"Host", "localhost:" + port}, http.StatusOK},
		} {
			for _, path := range []string{"/console/node", "/console/figures"} {
				status, body, h := call(t, "GET", base+path, "", c.headers...)
				if status != c.want {
					t.Errorf("%s%s from %s: %d %s", base, path, c.name, status, body)
				}
				if h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s%s from %s: pages of other origins may read it", base, path, c.name)
				}
			}
		}
	}
	name := []string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin", "Content-Type", "application/json"}
	for path, body := range map[string]string{"/console/token": `{"seconds":60}`, "/console/inspect": `{"token":"a"}`} {
		if status, answer, _ := call(t, "POST", public+path, body, name...); status != http.StatusForbidden {
			t.Errorf("%s by a name that leads here: %d %s", path, status, answer)
		}
	}
}

// A token is made for pages that have the secret, lasts as long as was asked for, and is good here.
func TestConsoleMints(t *testing.T) {
	_, n := nodeWithConsoles(t, node.Options{Server: server.Options{PathPrefix: "/push"}})
	public := "http://" + n.Addr().String() + "/push"
	mint := func(body string, headers ...string) (int, string) {
		t.Helper()
		headers = slices.Concat(secretOf(n), jsonBody, headers)
		status, text, h := call(t, "POST", public+"/console/token", body, headers...)
		if h.Get("Cache-Control") != "no-store" {
			t.Errorf("a token may be kept by caches: %v", h)
		}
		var answer struct{ Token, Message string }
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return status, answer.Token + answer.Message
	}
	status, token := mint(`{"sub":"ann","publish":["a"],"subscribe":["b.>"],"seconds":60,"history":"1h"}`)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, token)
	}
	seen, err := authz.Inspect(token)
	if err != nil || time.Until(seen.Expires) > time.Minute || time.Until(seen.Expires) < 50*time.Second ||
		strings.Join(seen.Publish, " ") != "a" || strings.Join(seen.Subscribe, " ") != "b.>" {
		t.Errorf("%v: %+v", err, seen)
	}
	if status, body, _ := call(t, "POST", public+"/v1/publish", `{"topic":"a","data":1}`, "Content-Type", "application/json", "Authorization", "Bearer "+token); status != http.StatusOK {
		t.Errorf("the token is not good: %d %s", status, body)
	}
	_, long := mint(`{"seconds":1000000}`)
	if seen, err := authz.Inspect(long); err != nil || time.Until(seen.Expires) > 24*time.Hour {
		t.Errorf("%v: it lasts until %v", err, seen.Expires)
	}
	for body, want := range map[string]int{
		`{"seconds":0}`: http.StatusBadRequest, `{"seconds":-5}`: http.StatusBadRequest, `{"seconds":5,"publish":["a..b"]}`: http.StatusBadRequest, `{`: http.StatusBadRequest,
	} {
		if status, text := mint(body); status != want {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if status, text := mint(`{"seconds":5}`, "Content-Type", "text/plain"); status != http.StatusBadRequest {
		t.Errorf("what a form could send: %d %s", status, text)
	}
}

// Without the secret nobody gets a token, also not on this machine, where a proxy may stand that says nothing of whom it is
// for; nor with that of another node. The page is told which of these it is.
func TestConsoleMintsForItsSecretAlone(t *testing.T) {
	_, n := nodeWithConsoles(t, node.Options{})
	_, other := nodeWithConsoles(t, node.Options{})
	public := "http://" + n.Addr().String()
	for name, c := range map[string]struct {
		headers []string
		want    int
	}{
		"the secret":             {secretOf(n), http.StatusOK},
		"through a proxy":        {append(secretOf(n), "X-Forwarded-For", "198.51.100.7", "Host", "10.0.0.1:8080"), http.StatusOK},
		"none":                   {nil, http.StatusForbidden},
		"an empty one":           {[]string{"Authorization", "Bearer "}, http.StatusForbidden},
		"that of another node":   {secretOf(other), http.StatusForbidden},
		"its beginning":          {[]string{"Authorization", "Bearer " + n.MintSecret()[:25]}, http.StatusForbidden},
		"with more behind":       {[]string{"Authorization", "Bearer " + n.MintSecret() + "A"}, http.StatusForbidden},
		"in other letters":       {[]string{"Authorization", "Bearer " + strings.ToLower(n.MintSecret())}, http.StatusForbidden},
		"without its scheme":     {[]string{"Authorization", n.MintSecret()}, http.StatusForbidden},
		"the secret, other page": {append(secretOf(n), "Origin", "http://evil.example"), http.StatusForbidden},
	} {
		status, text, _ := call(t, "POST", public+"/console/token", `{"seconds":5}`, append(c.headers, jsonBody...)...)
		if status != c.want || strings.Contains(text, n.MintSecret()) {
			t.Errorf("%s: %d %s", name, status, text)
		}
		if name == "the secret, other page" {
			continue
		}
		want := map[int]string{http.StatusOK: `"mint":"yes"`, http.StatusForbidden: `"mint":"locked"`}[c.want]
		if _, text, _ := call(t, "GET", public+"/console/node", "", c.headers...); !strings.Contains(text, want) || strings.Contains(text, n.MintSecret()) {
			t.Errorf("%s: the page is told %s, want %s", name, text, want)
		}
	}
	if _, text, _ := call(t, "GET", "http://"+n.AdminAddr()+"/console/node", "", secretOf(n)...); !strings.Contains(text, `"mint":"no"`) {
		t.Errorf("the page for operators is told %s", text)
	}
	if len(n.MintSecret()) < 26 || n.MintSecret() == other.MintSecret() {
		t.Errorf("the secrets are %q and %q", n.MintSecret(), other.MintSecret())
	}
}

// A token may be made for one message: it is good for that, once, and for nothing else.
func TestConsoleMintsForOneMessage(t *testing.T) {
	_, n := nodeWithConsoles(t, node.Options{})
	public := "http://" + n.Addr().String()
	status, text, _ := call(t, "POST", public+"/console/token",
		`{"sub":"ann","publish":["a"],"seconds":60,"once":true,"message":{"topic":"a","data":"{\"n\": 1}"}}`, append(secretOf(n), jsonBody...)...)
	var answer struct{ Token string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%v: %d %s", err, status, text)
	}
	for _, step := range []struct{ body, want string }{
		{`{"topic":"a","data":{"n":1}}`, "digest_mismatch"}, // other bytes
		{`{"topic":"b","data":{"n": 1}}`, "forbidden"},
		{`{"topic":"a","data":{"n": 1}}`, ""},
		{`{"topic":"a","data":{"n": 1}}`, "token_replayed"},
	} {
		status, text, _ := call(t, "POST", public+"/v1/publish", step.body, append([]string{"Authorization", "Bearer " + answer.Token}, jsonBody...)...)
		if (step.want == "") != (status == http.StatusOK) || !strings.Contains(text, step.want) {
			t.Errorf("%s: %d %s, want %q", step.body, status, text, step.want)
		}
	}
}

// The console says which check a token fails. Clients are told no more than before.
func TestConsoleInspects(t *testing.T) {
	key, public, admin := consoles(t, node.Options{})
	other, err := authz.GenerateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key authz.Key, lasts time.Duration) string {
		t.Helper()
		token, err := authz.Sign(key, authz.Claims{Subject: "ann", Expires: time.Now().Add(lasts), Publish: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for name, c := range map[string]struct{ token, code, failed, detail string }{
		"good":        {sign(key, time.Hour), "", "", ""},
		"another key": {sign(other, time.Hour), "token_invalid", "key", "kid "},
		"expired":     {sign(key, -time.Hour), "token_expired", "expired", "which is past"},
		"no token":    {"abc", "token_malformed", "malformed", "not three segments"},
		"empty":       {"", "token_missing", "missing", "there is no token"},
	} {
		for _, base := range []string{public, admin} {
			body, err := json.Marshal(map[string]string{"token": c.token})
			if err != nil {
				t.Fatal(err)
			}
			status, text, _ := call(t, "POST", base+"/console/inspect", string(body), jsonBody...)
			var got struct {
				Valid  bool
				Code   string
				Checks []struct{ Name, Result, Detail string }
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil || status != http.StatusOK {
				t.Fatalf("%s: %v: %d %s", name, err, status, text)
			}
			if got.Valid != (c.failed == "") || got.Code != c.code || len(got.Checks) != len(authz.Reasons()) {
				t.Errorf("%s: %s", name, text)
			}
			result := "passed"
			for _, made := range got.Checks {
				want, detail := result, ""
				if made.Name == c.failed {
					want, detail, result = "failed", c.detail, "open"
				}
				if made.Result != want || !strings.Contains(made.Detail, detail) || (detail == "") != (made.Detail == "") {
					t.Errorf("%s: %+v, want %s %q", name, made, want, detail)
				}
			}
			if parts := strings.Split(c.token, "."); len(parts) == 3 && strings.Contains(text, parts[2]) {
				t.Errorf("%s: the answer has the signature: %s", name, text)
			}
		}
		if c.failed == "" {
			continue
		}
		status, text, _ := call(t, "POST", public+"/v1/publish", `{"topic":"a","data":1}`, "Content-Type", "application/json", "Authorization", "Bearer "+c.token)
		if status != http.StatusUnauthorized || c.detail != "there is no token" && strings.Contains(text, c.detail) {
			t.Errorf("%s: a client is told %d %s", name, status, text)
		}
	}
}

// The figures count what happens, and asking for them takes the longest turn from no metric.
func TestConsoleFigures(t *testing.T) {
	key, public, admin := consoles(t, node.Options{})
	token, err := authz.Sign(key, authz.Claims{Expires: time.Now().Add(time.Hour), Publish: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	publish := func() {
		t.Helper()
		if status, body, _ := call(t, "POST", public+"/v1/publish", `{"topic":"a","data":1}`, "Content-Type", "application/json", "Authorization", "Bearer "+token); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	publish()
	var got struct {
		At     float64
		Node   string
		Server server.Figures
		NATS   struct{ Connected bool }
	}
	status, text, _ := call(t, "GET", admin+"/console/figures", "")
	if err := json.Unmarshal([]byte(text), &got); err != nil || status != http.StatusOK {
		t.Fatalf("%v: %d %s", err, status, text)
	}
	if got.At == 0 || got.Node == "" || got.Server.Published != 1 || got.Server.TurnMax <= 0 || !got.NATS.Connected {
		t.Errorf("%s", text)
	}
	_, metrics, _ := call(t, "GET", admin+"/metrics", "")
	if strings.Contains(metrics, "notifyd_loop_turn_max_seconds 0\n") {
		t.Error("the console has taken the longest turn")
	}
	// The listeners share one answer, for about a second.
	publish()
	if _, again, _ := call(t, "GET", public+"/console/figures", ""); again != text && !strings.Contains(again, `"published":2`) {
		t.Errorf("%s", again)
	}
}

// A page from the listener for operators connects there: its calls are passed on, with its token and without its origin, which
// no list of origins has; calls of other pages are not. Also where clients come behind a proxy that speaks the PROXY protocol.
func TestConsoleConnectsWhereItIs(t *testing.T) {
	for name, o := range map[string]server.Options{
		"plain":          {Origins: []string{"https://app.example.com"}},
		"prefix":         {Origins: []string{"https://app.example.com"}, PathPrefix: "/push"},
		"PROXY protocol": {Loop: loop.Options{ProxyProtocol: true}},
	} {
		t.Run(name, func(t *testing.T) {
			key, _, admin := consoles(t, node.Options{Server: o})
			token, err := authz.Sign(key, authz.Claims{Expires: time.Now().Add(time.Hour), Subscribe: []string{"a"}})
			if err != nil {
				t.Fatal(err)
			}
			url := "ws" + strings.TrimPrefix(admin, "http") + "/v1/ws"
			c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
				HTTPHeader: http.Header{"Origin": {admin}}, Subprotocols: []string{"notifyd.v1", "bearer." + token},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.CloseNow() }()
			if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"subscribe","id":"1","topic":"a"}`)); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{`"type":"welcome"`, `"type":"ack"`} {
				if _, text, err := c.Read(t.Context()); err != nil || !strings.Contains(string(text), want) {
					t.Fatalf("%v: %s, want %s", err, text, want)
				}
			}
			_, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://app.example.com"}}})
			if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
				t.Errorf("a page of another origin: %v", err)
			}
		})
	}
}

// Two Origins are no origin of the console's, whichever stands first, and a body has a bound.
func TestConsoleRefusesWhatItsPageNeverSends(t *testing.T) {
	_, public, admin := consoles(t, node.Options{})
	for _, base := range []string{public, admin} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/console/node", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Origin"] = []string{base, "http://evil.example"}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("two origins: %d", resp.StatusCode)
		}
		large := `{"token":"` + strings.Repeat("a", 1<<20) + `"}`
		if status, body, _ := call(t, "POST", base+"/console/inspect", large, jsonBody...); status != http.StatusBadRequest {
			t.Errorf("a large body: %d %s", status, body)
		}
	}
}
