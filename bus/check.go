package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// problems collects what is wrong with [Options].
type problems []*OptionError

func (p *problems) add(field, value string, err error, remedy string, others ...string) {
	*p = append(*p, optionError(field, value, err, remedy, others...))
}

// addError adds an error that is an [*OptionError], or nil.
func (p *problems) addError(err error) {
	var option *OptionError
	if errors.As(err, &option) {
		*p = append(*p, option)
	}
}

// Check gives the first of Problems, or nil.
func (o Options) Check() error {
	if all := o.Problems(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Problems says all that is wrong with o, without connecting or writing anything. It reads the files that o names.
func (o Options) Problems() []*OptionError {
	o.setDefaults()
	var p problems
	if err := checkPrefix(o.Prefix); err != nil {
		p.add("Prefix", o.Prefix, err, "use a name such as notify")
	}
	for _, b := range []struct {
		field    string
		v, limit int
	}{{"MaxPayload", o.MaxPayload, maxPayloadBytes}, {"Shards", o.Shards, 64}, {"Buffer", o.Buffer, 1 << 24}} {
		if b.v < 1 || b.v > b.limit {
			p.add(b.field, strconv.Itoa(b.v), errors.New("out of range"), fmt.Sprintf("use 1 to %d", b.limit))
		}
	}
	o.checkStreams(&p)
	if o.URL == "" {
		o.checkEmbedded(&p)
	} else {
		o.checkExternal(&p)
	}
	return p
}

func checkPrefix(p string) error {
	if len(p) > MaxPrefixBytes {
		return fmt.Errorf("longer than %d bytes", MaxPrefixBytes)
	}
	if p[0] == '$' || p[0] == '_' {
		return errors.New("begins with $ or _, which NATS keeps for itself")
	}
	for token := range strings.SplitSeq(p, ".") {
		if token == "" {
			return errors.New("has an empty token")
		}
	}
	for i := range len(p) {
		if c := p[i]; c <= ' ' || c >= 0x7f || c == '*' || c == '>' {
			return errors.New("holds a wildcard, white space or another character that is not plain ASCII")
		}
	}
	return nil
}

// minSyncInterval is the shortest SyncInterval; what is shorter costs more than a sync before each ack.
const minSyncInterval = 100 * time.Millisecond

func (o *Options) checkEmbedded(p *problems) {
	const remedy = "set %s, or leave this out"
	password := o.Password
	if password != "" {
		password = "***"
	}
	for _, s := range []struct{ field, v string }{{"Creds", o.Creds}, {"NKey", o.NKey}, {"User", o.User}, {"Password", password}} {
		if s.v != "" {
			p.add(s.field, s.v, errors.New("is for an external NATS only"), remedy, "URL")
		}
	}
	o.checkServerTLS(p)
	e := &o.Embedded
	if e.Listen != "" {
		p.addError(checkGuarded("Embedded.Listen", e.Listen, "publish events, revoke, and undo revocations"))
	}
	if e.SyncInterval > 0 && e.SyncInterval < minSyncInterval {
		p.add("Embedded.SyncInterval", e.SyncInterval.String(), errors.New("too short"), fmt.Sprintf("use %v or more, or 0 to sync before each ack", minSyncInterval))
	}
	for _, r := range e.Routes {
		_, err := parseAddress("Embedded.Routes", r)
		p.addError(err)
	}
	if e.ClusterListen == "" {
		if e.ClusterName != "" || len(e.Routes) > 0 {
			p.add("Embedded.ClusterListen", "", errors.New("a cluster needs an address for the other members"), "set it, for example to 0.0.0.0:6222")
		}
		return
	}
	if e.ClusterName == "" || strings.ContainsAny(e.ClusterName, " \t\r\n") {
		p.add("Embedded.ClusterName", e.ClusterName, errors.New("a cluster needs a name without spaces"), "give every member the same name")
	}
	p.addError(checkGuarded("Embedded.ClusterListen", e.ClusterListen, "join the cluster"))
	if o.DataDir == "" {
		p.add("DataDir", "", errors.New("a member of a cluster that forgets what it stored ends tickets and revocations for all"), "set it")
	}
	if len(e.Routes) == 0 {
		p.add("Embedded.Routes", "", errors.New("a cluster needs the address of another member"), "list the addresses that the members have in %s", "Embedded.ClusterListen")
	}
}

// checkServerTLS looks at the files for the ports of the embedded server.
func (o *Options) checkServerTLS(p *problems) {
	if o.Embedded.Listen == "" && o.Embedded.ClusterListen == "" {
		for _, s := range []struct{ field, v string }{{"TLSCA", o.TLSCA}, {"TLSCert", o.TLSCert}, {"TLSKey", o.TLSKey}} {
			if s.v != "" {
				p.add(s.field, s.v, errors.New("is for an external NATS, or a port of the embedded one"), "set %s, or leave this out", "URL")
			}
		}
		return
	}
	if o.TLSCert != "" && o.TLSCA == "" && o.Embedded.ClusterListen != "" {
		p.add("TLSCA", "", errors.New("the members of a cluster check each other's certificates"), "set it")
	}
	if o.TLSCA != "" {
		_, err := o.authorities()
		p.addError(err)
	}
	switch {
	case (o.TLSCert == "") != (o.TLSKey == "") || o.TLSCert == "" && o.TLSCA != "":
		p.add("TLSCert", o.TLSCert, errors.New("certificate and key belong together"), "set both this and %s", "TLSKey")
	case o.TLSCert != "":
		_, err := o.certificate()
		p.addError(err)
	}
}

// certificate reads the certificate and its key.
func (o *Options) certificate() (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	if err != nil {
		return cert, optionError("TLSCert", o.TLSCert, err, "name a PEM certificate and, in %s, its key", "TLSKey")
	}
	return cert, nil
}

// authorities reads the file of CA certificates.
func (o *Options) authorities() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(o.TLSCA)
	if err == nil && !pool.AppendCertsFromPEM(pem) {
		err = errors.New("holds no certificate")
	}
	if err != nil {
		return nil, optionError("TLSCA", o.TLSCA, err, "name a PEM file of CA certificates")
	}
	return pool, nil
}

// checkGuarded requires a password of an address that others than this machine may reach.
func checkGuarded(field, address, may string) error {
	u, err := parseAddress(field, address)
	if err != nil {
		return err
	}
	if u.User != nil {
		if password, _ := u.User.Password(); password == "" || u.User.Username() == "" {
			return optionError(field, redact(address), errors.New("user and password belong together"), "write USER:PASSWORD@HOST:PORT")
		}
		return nil
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() || u.Hostname() == "localhost" {
		return nil
	}
	return optionError(field, redact(address), fmt.Errorf("a client that reaches it may %s", may), "write USER:PASSWORD@HOST:PORT, or listen on loopback")
}

// parseAddress reads "[user:password@]host:port", with or without "nats://" before it.
func parseAddress(field, s string) (*url.URL, error) {
	u, err := url.Parse("nats://" + strings.TrimPrefix(s, "nats://"))
	if err == nil {
		var port string
		if _, port, err = net.SplitHostPort(u.Host); err == nil {
			var n uint64
			if n, err = strconv.ParseUint(port, 10, 16); n == 0 && err == nil {
				err = errors.New("port 0")
			}
		}
	}
	if err != nil {
		// The parser's own message quotes its input, which may hold a password.
		return nil, optionError(field, redact(s), errors.New("not an address"), "write host:port, for example 127.0.0.1:4222")
	}
	return u, nil
}

func (o *Options) checkExternal(p *problems) {
	_, err := o.servers()
	p.addError(err)
	if e := o.Embedded; e.Listen != "" || e.ClusterName != "" || e.ClusterListen != "" || len(e.Routes) > 0 {
		p.add("URL", redact(o.URL), errors.New("an external NATS has its own ports and cluster"), "leave out %s, %s, %s and %s, or this", "Embedded.Listen", "Embedded.ClusterName", "Embedded.ClusterListen", "Embedded.Routes")
	}
	if i := o.Embedded.SyncInterval; i != 0 {
		p.add("Embedded.SyncInterval", max(i, 0).String(), errors.New("an external NATS has its own"), "set sync_interval in the configuration of the NATS server, and leave this out")
	}
	if (o.User == "") != (o.Password == "") {
		p.add("User", o.User, errors.New("user and password belong together"), "set both this and %s", "Password")
	}
	logins := []struct{ field, v string }{{"Creds", o.Creds}, {"NKey", o.NKey}, {"User", o.User}}
	logins = slices.DeleteFunc(logins, func(s struct{ field, v string }) bool { return s.v == "" })
	if len(logins) > 1 {
		p.add(logins[0].field, logins[0].v, errors.New("more than one way to log in"), "keep this or %s", logins[1].field)
	}
	certificate := Options{TLSCert: o.TLSCert, TLSKey: o.TLSKey}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		p.add("TLSCert", o.TLSCert, errors.New("certificate and key belong together"), "set both this and %s", "TLSKey")
		certificate = Options{}
	}
	for _, part := range []Options{{Creds: o.Creds}, {NKey: o.NKey}, {TLSCA: o.TLSCA}, certificate} {
		var probe nats.Options
		p.addError(part.authenticate(&probe))
	}
}
