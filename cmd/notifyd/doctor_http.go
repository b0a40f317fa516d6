package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// httpAnswer is one to an HTTP request. Of the body there is the beginning.
type httpAnswer struct {
	status int
	header http.Header
	body   string
	sent   time.Time // when it was asked for, by this machine's clock
}

// maxDoctorBody bounds what is read of a body, in bytes.
const maxDoctorBody = 4 << 10

// get sends a GET to a path beside the endpoint.
func (x *examination) get(ctx context.Context, path string, header http.Header) (*httpAnswer, error) {
	return x.send(ctx, http.MethodGet, path, header)
}

func (x *examination) send(ctx context.Context, method, path string, header http.Header) (*httpAnswer, error) {
	sent := x.now()
	resp, err := x.do(ctx, method, path, header)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDoctorBody))
	if err != nil && len(body) == 0 {
		return nil, err
	}
	return &httpAnswer{resp.StatusCode, resp.Header, string(body), sent}, nil
}

// do sends a request without a body. Its errors quote no URL.
func (x *examination) do(ctx context.Context, method, target string, header http.Header) (*http.Response, error) {
	u := *x.url
	u.Scheme = x.httpScheme()
	u.Path, u.RawQuery, _ = strings.Cut(target, "?")
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, errors.New("the URL does not parse")
	}
	if header != nil {
		req.Header = header
	}
	resp, err := x.client.Do(req)
	if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
		err = quoting.Err
	}
	return resp, err
}

// call is the path of an HTTP call beside the endpoint.
func (x *examination) call(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(x.url.Path, "/"), wire.Path) + "/v1/" + name
}

// problem reads the body of an error of notifyd's.
func (a *httpAnswer) problem() (code wire.Code, message string, ok bool) {
	var told struct{ Code, Message string }
	if json.Unmarshal([]byte(a.body), &told) != nil {
		return 0, "", false
	}
	code, ok = wire.ParseCode(told.Code)
	return code, told.Message, ok
}

// isEndpoint reports whether a is notifyd's answer to a GET of its endpoint that asks for no upgrade.
func (a *httpAnswer) isEndpoint() bool {
	code, _, ok := a.problem()
	return ok && code == wire.BadEnvelope && a.status == http.StatusUpgradeRequired
}

// wantsTLS reports whether a is what Go, nginx and Apache answer to a plain request on a port with TLS.
func (a *httpAnswer) wantsTLS() bool {
	if a.status != http.StatusBadRequest {
		return false
	}
	for _, text := range []string{"HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port", "SSL-enabled server port"} {
		if strings.Contains(a.body, text) {
			return true
		}
	}
	return false
}

// said is the status, and by what server.
func (a *httpAnswer) said() string {
	text := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
	if _, message, ok := a.problem(); ok {
		return text + ": " + message
	}
	if server := a.server(); server != "" {
		text += " by " + server
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(a.body), "\n"); line != "" && len(line) <= 128 && line[0] != '<' && line[0] != '{' {
		text += ": " + line
	}
	return text
}

// server is what calls itself the server, or what else is on the way.
func (a *httpAnswer) server() string {
	if server := a.header.Get("Server"); server != "" {
		return server
	}
	return a.header.Get("Via")
}

// ask looks what answers HTTP there. Whether that will do is for the handshake to tell.
func (x *examination) ask(ctx context.Context) (string, error) {
	a, err := x.get(ctx, x.url.Path, nil)
	if err != nil {
		return "", x.transportFault(ctx, err)
	}
	x.plain = a
	if a.wantsTLS() {
		return "", x.speaksTLS(a.said())
	}
	x.readDate(a)
	if !a.isEndpoint() {
		return a.said(), nil
	}
	if by := a.server(); by != "" {
		return "notifyd answers, through " + by, nil
	}
	return "notifyd answers", nil
}

// askReady asks the node's admin listener.
func (x *examination) askReady(ctx context.Context) (string, error) {
	if x.Admin == "" {
		return "", skip("without --admin, the URL of the node's admin listener")
	}
	f := &fault{cause: "The admin listener does not answer.", remedy: "Correct --admin: it is the node's admin.listen, which only its own machine may reach."}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(x.Admin, "/")+"/readyz", nil)
	if err != nil {
		f.seen = "--admin is no URL"
		return "", f
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.seen = err.Error()
		return "", f
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDoctorBody))
	text := strings.TrimSpace(string(body))
	switch {
	case err != nil:
		f.seen = err.Error()
		return "", f
	case resp.StatusCode == http.StatusOK:
		return text, nil
	case resp.StatusCode != http.StatusServiceUnavailable:
		f.seen, f.cause = fmt.Sprintf("/readyz: %s", resp.Status), "That is no admin listener of a node."
		return "", f
	}
	return "", &fault{
		seen:   "not ready: " + text,
		cause:  fmt.Sprintf("The node says that it is not ready: %s.", text),
		remedy: "If it drains, wait for its successor. Else docs/operations.md says what /readyz looks at: NATS, streams, keys, revocations.",
	}
}

// handshakeFault says why an answer to a handshake is no 101. The handshake had no credential and no Origin.
func (x *examination) handshakeFault(ctx context.Context, a *httpAnswer) *fault {
	f := &fault{seen: a.said(), cause: fmt.Sprintf("The handshake is answered with %s.", a.said()), remedy: "Look at the log of what answers, and at docs/proxies.md."}
	_, message, ours := a.problem()
	retry := a.header.Get("Retry-After") != ""
	through := a.server()
	switch {
	case a.wantsTLS():
		return x.speaksTLS(f.seen)
	case a.status == http.StatusUpgradeRequired, a.status == http.StatusHTTPVersionNotSupported, strings.Contains(a.body, "handshake error"):
		f.cause = "The upgrade does not reach notifyd: the proxy in front does not pass the headers Upgrade and Connection on, or speaks HTTP/1.0 to it."
		f.remedy = "In nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade. docs/proxies.md has whole samples."
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed, a.status >= 200 && a.status < 300:
		x.otherPlace(ctx, a, f)
	case a.status >= 300 && a.status < 400:
		to := x.redirect(a)
		f.seen, f.cause = a.said()+" to "+to, fmt.Sprintf("The server sends clients elsewhere, to %s, and WebSocket clients do not follow.", to)
		f.remedy = "Use that address: " + strings.Replace(to, "http", "ws", 1) + "."
	case a.status == http.StatusTooManyRequests:
		f.cause = "notifyd has as many connections of this address as limits.connections_per_ip permits (or a proxy bounds them). Behind a proxy all clients are one address until trusted_proxies names it."
		f.remedy = "Close some, raise limits.connections_per_ip, or set trusted_proxies and proxy_header."
	case a.status == http.StatusServiceUnavailable && retry && through == "":
		f.cause = "The node takes no more connections: it is restarting (it drains), or has as many as limits.connections permits."
		f.remedy = "Wait some seconds and try again. /readyz says 'draining' if it is that (--admin); else raise limits.connections, or add a node."
	case a.status == http.StatusBadGateway, a.status == http.StatusServiceUnavailable, a.status == http.StatusGatewayTimeout:
		f.cause = "The proxy does not reach notifyd: nothing listens where it looks, or the two do not speak the same protocol (notifyd wants HTTP/1.1 without TLS)."
		f.remedy = "Compare the proxy's upstream with notifyd's listen; towards notifyd it has to speak HTTP/1.1, not HTTP/2 and not TLS."
	case a.status == http.StatusUnauthorized, a.status == http.StatusProxyAuthRequired:
		f.cause = "Something in front of notifyd wants a password of its own (" + a.header.Get("WWW-Authenticate") + a.header.Get("Proxy-Authenticate") + ")."
		f.remedy = "Take that demand away for this path."
	case a.status == http.StatusForbidden && !ours:
		f.cause = "Something refuses the handshake, a firewall for web applications or a proxy's rule: notifyd itself refuses only pages in this way."
		f.remedy = "Permit WebSocket upgrades of this path there."
	case a.status == http.StatusRequestHeaderFieldsTooLarge:
		f.cause, f.remedy = "The request's headers are too large for the server.", "Raise limits.head_bytes, or the proxy's own limit."
	case a.status == http.StatusBadRequest && message == "":
		f.cause = "The request arrives malformed: proxy_protocol is on and no proxy writes its header, or the other way round; or something changes the request on its way."
		f.remedy = "Set proxy_protocol if and only if the proxy sends the PROXY protocol; notifyd's metric notifyd_handshakes_refused_total has the reason."
	}
	return f
}

// redirect is where an answer sends its client, without a query.
func (x *examination) redirect(a *httpAnswer) string {
	base := *x.url
	base.Scheme = x.httpScheme()
	to, err := base.Parse(a.header.Get("Location"))
	if err != nil {
		return "nowhere"
	}
	to.User, to.RawQuery, to.Fragment = nil, "", ""
	return to.String()
}

// otherPlace looks for notifyd at other paths of the same server.
func (x *examination) otherPlace(ctx context.Context, a *httpAnswer, f *fault) {
	for _, path := range candidates(x.url.Path) {
		if b, err := x.get(ctx, path, nil); err == nil && b.isEndpoint() {
			u := *x.url
			u.Path = path
			f.cause = fmt.Sprintf("The path of the URL is wrong: nothing is at %s, and notifyd is at %s.", x.url.Path, path)
			f.remedy = "Use " + u.String() + ", or set path_prefix in notifyd if the proxy leaves a part in front."
			return
		}
	}
	if _, _, ours := a.problem(); ours {
		f.cause = fmt.Sprintf("notifyd answers, but its endpoint is not at %s.", x.url.Path)
		f.remedy = "A proxy adds a part to the path, or takes one away: path_prefix in notifyd names what stands before " + wire.Path + "."
		return
	}
	what := "something else"
	if by := a.server(); by != "" {
		what = by
	}
	if kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); kind == "text/html" {
		what += ", with a web page,"
	}
	f.cause = fmt.Sprintf("It is not notifyd that answers at %s, but %s.", x.shown(), what)
	f.remedy = "Correct host, port or path of the URL; or have the proxy pass " + x.url.Path + " on to notifyd."
}

// candidates are paths at which notifyd may be instead: below each part of the path.
func candidates(path string) (list []string) {
	const most = 4
	prefix := ""
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if candidate := prefix + wire.Path; candidate != path && len(list) < most {
			list = append(list, candidate)
		}
		prefix += "/" + part
	}
	if candidate := prefix + wire.Path; !strings.HasSuffix(path, wire.Path) && len(list) < most {
		list = append(list, candidate)
	}
	return list
}

// clockBound is how far two clocks may be apart: a server's auth.not_before_leeway, by default.
const clockBound = 5 * time.Second

// readDate takes the server's clock from the Date of an answer that came just now.
func (x *examination) readDate(a *httpAnswer) {
	if date, err := http.ParseTime(a.header.Get("Date")); err == nil {
		x.readClock(a.sent, date, time.Second)
	}
}

// readClock learns how far the server's clock is from this machine's, at least, from a time that the server wrote after
// sent and before now. The time is rounded down to precision. However long it took, that says nothing wrong.
func (x *examination) readClock(sent, at time.Time, precision time.Duration) {
	x.skewKnown, x.skew = true, 0
	if late := at.Add(precision).Sub(sent); late < 0 {
		x.skew = late
	} else if early := at.Sub(x.now()); early > 0 {
		x.skew = early
	}
}

// serverNow is the server's clock.
func (x *examination) serverNow() time.Time { return x.now().Add(x.skew) }

func (x *examination) compareClocks(context.Context) (string, error) {
	if !x.skewKnown {
		return "", skip("because no answer had a date")
	}
	ahead := -x.skew
	direction := "ahead of"
	if ahead < 0 {
		ahead, direction = -ahead, "behind"
	}
	if ahead < time.Second {
		return "this machine's agrees with the server's", nil
	}
	seen := fmt.Sprintf("this machine's is %v %s the server's", ahead.Round(time.Second), direction)
	if ahead <= clockBound {
		return seen, nil
	}
	return "", &fault{
		seen:   seen,
		cause:  fmt.Sprintf("This machine's clock is %v %s the server's; tokens that are made here are not valid yet there, or expire too early.", ahead.Round(time.Second), direction),
		remedy: "Set the clock that is wrong (NTP). The server's is " + x.serverNow().UTC().Format(time.RFC3339) + ".",
	}
}

// bearer is the header with the token.
func (x *examination) bearer() http.Header {
	return http.Header{"Authorization": {"Bearer " + x.token}}
}

// stream opens Server-Sent Events, which clients use where no WebSocket comes through.
func (x *examination) stream(ctx context.Context) (string, error) {
	topic := x.topic
	if x.token == "" || topic == "" {
		return "", skip("because there is no subscription to compare with")
	}
	header := x.bearer()
	header.Set("Accept", "text/event-stream")
	resp, err := x.do(ctx, http.MethodGet, x.call("events")+"?"+url.Values{"topic": {topic}}.Encode(), header)
	if err != nil {
		if timedOut(ctx, err) {
			return "", held()
		}
		return "", x.transportFault(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxDoctorBody)) // what came will do
		a := &httpAnswer{status: resp.StatusCode, header: resp.Header, body: string(body)}
		if code, message, ok := a.problem(); ok {
			return "", x.refused(code, message)
		}
		return "", &fault{
			seen:   a.said(),
			cause:  fmt.Sprintf("Server-Sent Events, the way out for clients without WebSockets, do not come through: %s.", a.said()),
			remedy: "Have the proxy pass " + x.call("") + " on to notifyd, and not " + wire.Path + " alone.",
		}
	}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20))
	for lines.Scan() {
		if lines.Text() == "event: ack" {
			return "Server-Sent Events come through", nil
		}
	}
	return "", held()
}

func held() *fault {
	return &fault{
		seen:   "the stream of events brings nothing",
		cause:  "Something on the way holds Server-Sent Events back (it buffers answers).",
		remedy: "Switch buffering of answers off for /v1/events: proxy_buffering off in nginx.",
	}
}
