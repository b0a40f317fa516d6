package node

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/web/console"
)

// A consolePage answers what is at /console: the page, and what it asks for. It knows more than a client may: why a token is
// refused, and the node's figures. So it is on the listener for operators; with a Mint, which is for trying things out, also
// on the one for clients.
type consolePage struct {
	node    *Node
	options *Options
	figures figuresCache
}

// handler answers everything at /console and below. With public it is on the listener for clients.
func (c *consolePage) handler(public bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/console", console.Handler())
	mux.Handle("/console/", console.Handler())
	for pattern, answer := range map[string]http.HandlerFunc{
		"GET /console/node":     c.nodeHandler(public),
		"GET /console/figures":  c.figuresHandler,
		"POST /console/inspect": c.inspectHandler,
	} {
		mux.Handle(pattern, own(public, answer))
	}
	if public {
		mux.Handle("POST /console/token", own(public, c.tokenHandler))
	}
	return mux
}

// own lets only the console's own page ask. A page of another origin is refused (CWE-352), whatever origins may connect; and
// on the listener for clients, which trusts any page that --dev is opened for, also one whose name was made to lead here (DNS
// rebinding, CWE-350): it has that name, and a console for trying things out is at an address.
func own(public bool, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case site != "" && site != "same-origin" && site != "none", !sameOrigin(r):
			refuse(w, http.StatusForbidden, "this is for the console's own page")
		case public && !isAddress(r.Host):
			refuse(w, http.StatusForbidden, "open the console at an IP address or localhost: a name may be made to lead anywhere")
		default:
			next(w, r)
		}
	})
}

// sameOrigin says whether a request's Origin, if it has one, is where it came to.
func sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	_, host, found := strings.Cut(origins[0], "://")
	return len(origins) == 1 && found && strings.EqualFold(host, r.Host)
}

// isAddress says whether host, with a port or without, is an IP address or localhost.
func isAddress(host string) bool {
	name := hostname(host)
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}

func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.Trim(strings.ToLower(host), "[]")
}

// aboutNode is what the page has to know at its start.
type aboutNode struct {
	Node         string   `json:"node"`
	Version      string   `json:"version"`
	Strategies   []string `json:"strategies"`
	Require      bool     `json:"require"` // a connection needs a credential
	Mint         string   `json:"mint"`    // no, locked: to those that know the secret, or yes: to this one
	MessageBytes int      `json:"message_bytes"`
	Streams      []string `json:"streams"`
}

func (c *consolePage) nodeHandler(public bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o := &c.options.Server
		about := aboutNode{
			Node: o.Node, Version: c.options.Version, Strategies: o.Strategies.Names(), Require: o.RequireConnection,
			Mint: "no", MessageBytes: o.Loop.MessageBytes, Streams: []string{},
		}
		if public {
			about.Mint = "locked"
			if c.mayMint(r) {
				about.Mint = "yes"
			}
		}
		for _, s := range c.node.Bus.Streams() {
			about.Streams = append(about.Streams, s.Name())
		}
		reply(w, about)
	}
}

// mayMint says whether a request comes from a page that was opened by the address that the program has printed. Where a
// request comes from does not say so: whoever reaches a proxy on this machine seems to be on it, too.
func (c *consolePage) mayMint(r *http.Request) bool {
	shown := []byte(r.Header.Get("Authorization"))
	return subtle.ConstantTimeCompare(shown, []byte("Bearer "+c.node.mintSecret)) == 1
}

// maxMinted is how long a token from the console may last.
const maxMinted = 24 * time.Hour

// tokenHandler makes a token.
func (c *consolePage) tokenHandler(w http.ResponseWriter, r *http.Request) {
	if !c.mayMint(r) {
		refuse(w, http.StatusForbidden, "tokens are made for a page that was opened by the address which the server has printed at its start, with #mint= at its end")
		return
	}
	var wanted struct {
		Subject            string `json:"sub"`
		ID                 string `json:"jti"`
		Publish, Subscribe []string
		Seconds            int
		History            string
		Admin, Once        bool
		Message            *struct{ Topic, Data string } // the one that the token is for; Data is its JSON text
	}
	if err := readJSON(w, r, &wanted); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	lasts := time.Duration(min(max(wanted.Seconds, 0), int(maxMinted/time.Second))) * time.Second
	if lasts == 0 {
		refuse(w, http.StatusBadRequest, "seconds: say how long the token lasts")
		return
	}
	now := time.Now()
	claims := authz.Claims{
		Subject: wanted.Subject, ID: wanted.ID, IssuedAt: now, Expires: now.Add(lasts), Publish: wanted.Publish, Subscribe: wanted.Subscribe,
		History: wanted.History, Admin: wanted.Admin, Once: wanted.Once,
	}
	if claims.Once && claims.ID == "" {
		claims.ID = rand.Text()
	}
	if m := wanted.Message; m != nil {
		claims.Digest = authz.DigestOf(m.Topic, []byte(m.Data))
	}
	token, err := c.options.Mint(claims)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	reply(w, map[string]string{"token": token})
}

// A check is one of those that a token has to pass, and what came of it.
type check struct {
	Name   string `json:"name"`
	Result string `json:"result"` // passed, failed, or open: not looked at
	Detail string `json:"detail,omitempty"`
}

// inspection is what the page shows of a token.
type inspection struct {
	Header     json.RawMessage `json:"header"`
	Claims     json.RawMessage `json:"claims"`
	Publish    []string        `json:"publish"`
	Subscribe  []string        `json:"subscribe"`
	GrantFault string          `json:"grant_fault,omitempty"`
	Valid      bool            `json:"valid"`
	Code       string          `json:"code,omitempty"` // what a client gets
	Checks     []check         `json:"checks"`
	Now        time.Time       `json:"now"` // the node's clock
}

// inspectHandler says what a token holds, and which check it fails here: what 'notifyd inspect' says.
func (c *consolePage) inspectHandler(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Token string }
	if err := readJSON(w, r, &asked); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	refusal := c.node.Verifier.Explain([]byte(asked.Token))
	answer := inspection{Valid: refusal == nil, Checks: checks(refusal), Now: time.Now()}
	if refusal != nil {
		answer.Code = refusal.Reason.Code().String()
	}
	if seen, err := authz.Inspect(asked.Token); err == nil {
		answer.Header, answer.Claims, answer.Publish, answer.Subscribe = seen.Header, seen.Claims, seen.Publish, seen.Subscribe
		answer.GrantFault = seen.GrantFault
	}
	reply(w, answer)
}

// checks are those that a token has to pass, in the order in which they are made.
func checks(refusal *authz.Refusal) (all []check) {
	result := "passed"
	for _, reason := range authz.Reasons() {
		made := check{Name: reason.String(), Result: result}
		if refusal != nil && refusal.Reason == reason {
			made.Result, made.Detail, result = "failed", refusal.Error(), "open"
		}
		all = append(all, made)
	}
	return all
}

// maxAsked bounds what the page sends.
const maxAsked = 1 << 20

func readJSON(w http.ResponseWriter, r *http.Request, to any) error {
	if r.Header.Get("Content-Type") != "application/json" { // which no form of another page can send
		return errors.New("send application/json")
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsked))
	if err != nil {
		return fmt.Errorf("the body is over %d bytes, or was cut off", maxAsked)
	}
	if json.Unmarshal(text, to) != nil {
		return errors.New("the body is not the JSON that is wanted here")
	}
	return nil
}

func reply(w http.ResponseWriter, v any) { replyWith(w, http.StatusOK, v) }

func refuse(w http.ResponseWriter, status int, message string) {
	replyWith(w, status, map[string]string{"message": message})
}

func replyWith(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the page is gone
}

// calls passes what the page asks of the protocol on to the listener for clients, so that a page from the listener for
// operators has both at its own origin.
func (c *consolePage) calls() http.Handler {
	to := &url.URL{Scheme: "http", Host: c.node.Reachable()}
	var dialer net.Dialer
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil && c.options.Server.Loop.ProxyProtocol {
			_, err = io.WriteString(conn, "PROXY UNKNOWN\r\n")
		}
		return conn, err
	}}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.URL.Path, r.Out.URL.RawPath = c.options.Server.PathPrefix+r.In.URL.Path, ""
			r.Out.Header.Del("Origin") // it is that of this listener, as own has seen
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			refuse(w, http.StatusBadGateway, "the listener for clients does not answer")
		},
	}
	return own(false, proxy.ServeHTTP)
}
