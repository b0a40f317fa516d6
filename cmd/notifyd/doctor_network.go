package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

func (x *examination) host() string { return x.url.Hostname() }

func (x *examination) port() string {
	return cmp.Or(x.url.Port(), map[string]string{"ws": "80", "wss": "443"}[x.url.Scheme])
}

// resolve finds the addresses of the host.
func (x *examination) resolve(ctx context.Context) (string, error) {
	if addr, err := netip.ParseAddr(x.host()); err == nil {
		x.addresses = []string{addr.String()}
		return "", skip("because " + addr.String() + " is an address")
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", x.host())
	if err != nil {
		f := &fault{
			seen:   x.host() + " has no address: " + err.Error(),
			cause:  fmt.Sprintf("The name %s does not resolve on this machine.", x.host()),
			remedy: "Correct the name in the URL, or its DNS record; or this machine's resolver.",
		}
		if e := (*net.DNSError)(nil); errors.As(err, &e) && !e.IsNotFound {
			f.cause, f.remedy = "This machine's DNS resolver does not answer.", "Look at the network and the resolver of this machine (/etc/resolv.conf)."
		}
		return "", f
	}
	for _, addr := range all {
		x.addresses = append(x.addresses, addr.Unmap().String())
	}
	return x.host() + " is " + strings.Join(x.addresses, ", "), nil
}

// connect finds an address that takes connections. The steps that follow use that one.
func (x *examination) connect(ctx context.Context) (string, error) {
	var deaf []string
	var last error
	for i, addr := range x.addresses {
		one, cancel := context.WithTimeout(ctx, x.Timeout/time.Duration(len(x.addresses)-i+1))
		conn, err := (&net.Dialer{}).DialContext(one, "tcp", net.JoinHostPort(addr, x.port()))
		cancel()
		if err != nil {
			deaf, last = append(deaf, addr), err
			continue
		}
		_ = conn.Close()
		x.address = net.JoinHostPort(addr, x.port())
		x.client = x.newClient()
		detail := x.address + " takes connections"
		if len(deaf) > 0 {
			detail += ", and " + strings.Join(deaf, ", ") + " does not: some clients try that first"
		}
		if via := x.forwardProxy(); via != "" {
			detail += "; pub and sub go through " + via + " of the environment, and this does not"
		}
		return detail, nil
	}
	f := &fault{
		seen:   fmt.Sprintf("no connection to %s port %s: %v", strings.Join(deaf, ", "), x.port(), reason(last)),
		cause:  fmt.Sprintf("Nothing on the way answers on %s port %s: a firewall drops it, or no such machine is there.", x.host(), x.port()),
		remedy: "Look at firewalls and security groups between here and there, and at the address.",
	}
	if errors.Is(last, syscall.ECONNREFUSED) {
		f.cause = fmt.Sprintf("Nothing listens on %s port %s.", x.host(), x.port())
		f.remedy = "Start notifyd, or the proxy in front; correct the port of the URL; in a container, listen on 0.0.0.0 (NOTIFYD_LISTEN=0.0.0.0:8080). A node that restarts is back in some seconds."
	}
	return "", f
}

// forwardProxy is the proxy that the environment names for clients in Go, "" where there is none.
func (x *examination) forwardProxy() string {
	u := *x.url
	u.Scheme = x.httpScheme()
	via, err := http.ProxyFromEnvironment(&http.Request{URL: &u})
	if err != nil || via == nil {
		return ""
	}
	return via.Scheme + "://" + via.Host
}

// reason is an error of the network without the addresses, which are told already.
func reason(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

func (x *examination) httpScheme() string {
	return map[string]string{"ws": "http", "wss": "https"}[x.url.Scheme]
}

// newClient is an HTTP client that goes to the address that was found, on a connection of its own for each request, and
// follows no redirect: a token must not go elsewhere.
func (x *examination) newClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", x.address)
			},
			TLSClientConfig:   x.configTLS(&tls.Config{}),
			DisableKeepAlives: true,
		},
	}
}

// secure makes a TLS handshake and looks at the certificate.
func (x *examination) secure(ctx context.Context) (string, error) {
	if x.url.Scheme == "ws" {
		return "", skip("because ws:// has none" + x.inTheClear())
	}
	state, err := x.handshakeTLS(ctx, &tls.Config{NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return "", x.tlsFault(ctx, err)
	}
	detail := fmt.Sprintf("%s, %s", tls.VersionName(state.Version), certificate(state.PeerCertificates[0], x.now()))
	if state.NegotiatedProtocol == "h2" {
		detail += "; HTTP/2 for browsers that want it"
		if _, err := x.handshakeTLS(ctx, &tls.Config{NextProtos: []string{"http/1.1"}}); err != nil {
			return "", onlyHTTP2(detail + ", and no TLS for HTTP/1.1: " + reason(err).Error())
		}
	}
	return detail, nil
}

func (x *examination) inTheClear() string {
	if addr, err := netip.ParseAddrPort(x.address); err == nil && !addr.Addr().IsLoopback() {
		return ": tokens go through the network in the clear"
	}
	return ""
}

func (x *examination) handshakeTLS(ctx context.Context, config *tls.Config) (tls.ConnectionState, error) {
	config.ServerName = x.host()
	conn, err := (&tls.Dialer{Config: x.configTLS(config)}).DialContext(ctx, "tcp", x.address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// configTLS has the server's wish for a client's certificate noted. Without one the server ends the connection, with an
// alert that a reset may overtake (RFC 8446 §4.4.2.4), so that the error alone does not tell.
func (x *examination) configTLS(config *tls.Config) *tls.Config {
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		x.wantsCertificate.Store(true)
		return &tls.Certificate{}, nil
	}
	return config
}

func mutualTLS(seen string) *fault {
	return &fault{
		seen:   seen,
		cause:  "The proxy wants a certificate of the client.",
		remedy: "Take that demand (mutual TLS) away for this path, or connect from inside.",
	}
}

// certificate says whose it is, by whom, and for how long.
func certificate(c *x509.Certificate, now time.Time) string {
	left := c.NotAfter.Sub(now)
	text := fmt.Sprintf("certificate by %s, for %d more days", authority(c), int(left.Hours()/24))
	if left < 7*24*time.Hour {
		text += " only"
	}
	return text
}

func authority(c *x509.Certificate) string {
	return cmp.Or(c.Issuer.CommonName, strings.Join(c.Issuer.Organization, " "), "an authority without a name")
}

// tlsFault says why there is no TLS connection.
func (x *examination) tlsFault(ctx context.Context, err error) *fault {
	f := &fault{seen: "no TLS: " + reason(err).Error()}
	if bad := (*tls.CertificateVerificationError)(nil); errors.As(err, &bad) {
		f.cause, f.remedy = x.badCertificate(bad)
		return f
	}
	if x.wantsCertificate.Load() {
		return mutualTLS(f.seen)
	}
	if x.speaksPlain(ctx) {
		f.cause = fmt.Sprintf("Port %s does not speak TLS, and the URL begins with wss://.", x.port())
		f.remedy = "Begin the URL with ws://, or take the port of the proxy that ends TLS."
		return f
	}
	if state, oldErr := x.handshakeTLS(ctx, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); oldErr == nil {
		f.cause = fmt.Sprintf("The server speaks no TLS newer than %s, which clients of today refuse.", tls.VersionName(state.Version))
		f.remedy = "Enable TLS 1.2 and 1.3 in the proxy."
		return f
	}
	f.cause = fmt.Sprintf("What listens on port %s does not finish a TLS handshake for %s.", x.port(), x.host())
	f.remedy = "Look at the proxy's certificate and log: does it have a certificate for this name? Is this its TLS port?"
	return f
}

func (x *examination) badCertificate(bad *tls.CertificateVerificationError) (cause, remedy string) {
	first := bad.UnverifiedCertificates[0]
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(bad.Err, &name):
		names := first.DNSNames
		for _, ip := range first.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("The certificate is of another name: it is for %s, and the URL says %s.", cmp.Or(strings.Join(names, ", "), "no name"), x.host()),
			"Connect to a name that is in the certificate, or get a certificate for this one."
	case errors.As(bad.Err, &invalid) && invalid.Reason == x509.Expired && x.now().Before(first.NotBefore):
		return fmt.Sprintf("The certificate is valid from %s on, and this machine's clock says %s.", first.NotBefore.Format(time.RFC3339), x.now().UTC().Format(time.RFC3339)),
			"Set this machine's clock (NTP), or wait."
	case errors.As(bad.Err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("The certificate has expired at %s; this machine's clock says %s.", first.NotAfter.Format(time.RFC3339), x.now().UTC().Format(time.RFC3339)),
			"Renew the certificate, and reload the proxy."
	case first.CheckSignatureFrom(first) == nil || first.Issuer.String() == first.Subject.String():
		return "The certificate is self-signed: no authority vouches for it.",
			"Get a certificate from an authority; for a trial, name the certificate's file in SSL_CERT_FILE."
	}
	return fmt.Sprintf("The certificate is by %s, which this machine does not trust; or the proxy does not send the certificates between.", authority(first)),
		"Have the proxy send the whole chain; an authority of your own is named in SSL_CERT_FILE, or installed."
}

// speaksPlain reports whether the port answers a plain HTTP request as no port with TLS does.
func (x *examination) speaksPlain(ctx context.Context) bool {
	plain := *x
	u := *x.url
	plain.url, u.Scheme = &u, "ws"
	a, err := plain.get(ctx, x.url.Path, nil)
	return err == nil && !a.wantsTLS()
}

func onlyHTTP2(seen string) *fault {
	return &fault{
		seen:   seen,
		cause:  "The proxy speaks HTTP/2 alone, and a WebSocket handshake is HTTP/1.1.",
		remedy: "Let the proxy speak HTTP/1.1 too on this port: alpn h2,http/1.1 in HAProxy, no 'proto h2'.",
	}
}

// speaksHTTP2 reports whether the port answers the beginning of HTTP/2 (RFC 9113 §3.4) with a frame of SETTINGS.
func (x *examination) speaksHTTP2(ctx context.Context) bool {
	dial := (&net.Dialer{}).DialContext
	if x.url.Scheme == "wss" {
		dial = (&tls.Dialer{Config: &tls.Config{ServerName: x.host(), NextProtos: []string{"h2"}}}).DialContext
	}
	conn, err := dial(ctx, "tcp", x.address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if end, ok := ctx.Deadline(); ok && conn.SetDeadline(end) != nil {
		return false
	}
	const settings = 4 // the type of a frame, its fourth byte
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return false
	}
	var head [9]byte
	_, err = io.ReadFull(conn, head[:])
	return err == nil && head[0] == 0 && head[3] == settings
}

// transportFault says why a request has no answer.
func (x *examination) transportFault(ctx context.Context, err error) *fault {
	text := err.Error()
	f := &fault{seen: "no HTTP answer: " + reason(err).Error()}
	hungUp := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(text, "EOF") ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(text, "server closed idle connection") // before it was asked
	switch {
	case x.wantsCertificate.Load() && (hungUp || strings.Contains(text, "remote error: tls:")):
		return mutualTLS(f.seen)
	case strings.Contains(text, `malformed HTTP response "\x15\x03`): // a TLS alert, RFC 8446 §5.1
		return x.speaksTLS(f.seen)
	case strings.Contains(text, `malformed HTTP response "\x00\x00`), x.speaksHTTP2(ctx): // a frame of HTTP/2
		return onlyHTTP2(f.seen)
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "readLoopPeekFailLocked: %!w(<nil>)"): // it spoke before it was asked
		f.cause = fmt.Sprintf("What listens on port %s is no HTTP server.", x.port())
		f.remedy = "Correct the port of the URL."
	case timedOut(ctx, err):
		return x.noAnswer("no answer to an HTTP request")
	case hungUp:
		f.cause = fmt.Sprintf("What listens on %s closes connections without an answer.", x.url.Host)
		f.remedy = "A proxy does that when it has nobody to send to, a node when it ends. Look at the log of what listens there."
	default:
		f.cause, f.remedy = text+".", "Look at the log of what listens there."
	}
	return f
}

func (x *examination) speaksTLS(seen string) *fault {
	return &fault{
		seen:   seen,
		cause:  fmt.Sprintf("Port %s speaks TLS, and the URL begins with ws://.", x.port()),
		remedy: "Begin the URL with wss://.",
	}
}
