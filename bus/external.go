package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

func (b *Bus) openExternal(ctx context.Context, o *Options) error {
	b.node = newNodeName()
	out := &outbox{room: b.sink.Room}
	b.events = remote{b, out}
	for i := range o.Shards {
		b.shards = append(b.shards, &shard{number: i, sink: b.sink, queue: make(chan *nats.Msg, o.Buffer)})
	}
	n, err := b.external(o, out)
	if err != nil {
		return err
	}
	if b.conn, err = connect(ctx, n); err == nil {
		<-b.up
		if got := b.conn.MaxPayload(); got < int64(o.MaxPayload) {
			b.log.Warn("NATS takes smaller messages than this node: raise its max_payload, or lower the node's limit",
				zap.Int64("nats", got), zap.Int("node", o.MaxPayload))
		}
		return nil
	}
	if field := permanent(err); field != "" {
		return optionError(field, redact(o.URL), err, "correct it, or what the NATS server expects")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.log.Warn("NATS does not take us yet, going on trying", zap.String("url", redact(o.URL)), zap.Error(err))
	n.RetryOnFailedConnect = true
	b.conn, err = n.Connect()
	return err
}

// external gives the options of a connection to the NATS of o. What its socket does not take waits in out.
func (b *Bus) external(o *Options, out *outbox) (*nats.Options, error) {
	n := b.connection()
	n.Servers, _ = o.servers()
	n.ReconnectOnFlusherError = true
	n.CustomDialer = dialer{out}
	return n, o.authenticate(n)
}

// Dial logs in to the external NATS of o, once; the connection is the caller's. It is for looking whether that works.
func Dial(ctx context.Context, o Options) (*nats.Conn, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	n := nats.GetDefaultOptions()
	n.Name, n.Timeout, n.AllowReconnect = "notifyd check", dialTimeout, false
	n.Servers, _ = o.servers()
	if err := o.authenticate(&n); err != nil {
		return nil, err
	}
	return connect(ctx, &n)
}

// connect is n.Connect, which takes up to dialTimeout for each address, until ctx ends.
func connect(ctx context.Context, n *nats.Options) (*nats.Conn, error) {
	type result struct {
		conn *nats.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := n.Connect()
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// permanent names the option to change when trying again cannot help, or "". Refused credentials are no such case: an
// account may be made, and a password replaced, after the nodes that use it have started. Nor is a certificate that has
// expired, which somebody is about to renew.
func permanent(err error) string {
	if errors.Is(err, nats.ErrNkeysNotSupported) {
		return "NKey"
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return ""
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) || errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrSecureConnRequired) {
		return "TLSCA"
	}
	return ""
}

// servers gives the URLs of an external NATS. A URL's user info may be a secret in either part (a lone
// user is a token), hence no error quotes it.
func (o *Options) servers() ([]string, error) {
	var list []string
	for s := range strings.SplitSeq(o.URL, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return nil, optionError("URL", redact(o.URL), errors.New("not a URL"), "write nats://host:4222, several separated by commas")
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return nil, optionError("URL", redact(o.URL), errors.New("unknown scheme"), "use nats, tls, ws or wss")
		}
		list = append(list, s)
	}
	return list, nil
}

// redact blots out user info, in text that need not be a well-formed URL: everything up to the last @,
// since a password may itself hold @ or a comma.
func redact(urls string) string {
	at := strings.LastIndexByte(urls, '@')
	if at < 0 {
		return urls
	}
	scheme, _, ok := strings.Cut(urls[:at], "://")
	if !ok {
		return "***" + urls[at:]
	}
	return scheme + "://***" + urls[at:]
}

// authenticate adds credentials and TLS to a connection's options.
func (o *Options) authenticate(n *nats.Options) error {
	if o.User != "" {
		n.User, n.Password = o.User, o.Password
	}
	if o.Creds != "" {
		// nats.go would open the file only when it connects.
		if _, err := os.ReadFile(o.Creds); err != nil {
			return optionError("Creds", o.Creds, err, "name a readable credentials file")
		}
		if err := nats.UserCredentials(o.Creds)(n); err != nil {
			return optionError("Creds", o.Creds, err, "name a credentials file made by nsc")
		}
	}
	if o.NKey != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKey)
		if err == nil {
			err = opt(n)
		}
		if err != nil {
			return optionError("NKey", o.NKey, err, "name a file that holds a user's nkey seed (SU…)")
		}
	}
	if o.TLSCA != "" {
		if err := nats.RootCAs(o.TLSCA)(n); err != nil {
			return optionError("TLSCA", o.TLSCA, err, "name a PEM file of CA certificates")
		}
	}
	if o.TLSCert != "" {
		if err := nats.ClientCert(o.TLSCert, o.TLSKey)(n); err != nil {
			return optionError("TLSCert", o.TLSCert, err, "name a PEM certificate and, in %s, its key", "TLSKey")
		}
	}
	return nil
}
