package bus

import (
	"context"
	"crypto/tls"
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
	n := b.connection()
	n.Servers, _ = o.servers()
	n.ReconnectOnFlusherError = true
	n.CustomDialer = dialer{out}
	if err := o.authenticate(n); err != nil {
		return err
	}
	var err error
	if b.conn, err = n.Connect(); err == nil {
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
	b.log.Warn("NATS is not reachable yet, going on trying", zap.String("url", redact(o.URL)), zap.Error(err))
	if err := ctx.Err(); err != nil {
		return err
	}
	n.RetryOnFailedConnect = true
	b.conn, err = n.Connect()
	return err
}

// permanent names the option to change when trying again cannot help, or "".
func permanent(err error) string {
	for _, e := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
		nats.ErrNkeysNotSupported,
	} {
		if errors.Is(err, e) {
			return "URL"
		}
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
