package bus

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Options says which NATS to use and how. Its zero value is a private embedded server. The name in
// parentheses is the configuration key that errors mention.
type Options struct {
	// URL (nats.url) is an external NATS: one URL, or several of one cluster separated by commas.
	// Empty: a server embedded in this process.
	URL string
	// Creds (nats.creds) is a file with a user JWT and its seed.
	Creds string
	// NKey (nats.nkey) is a file with an nkey seed.
	NKey string
	// User and Password (nats.user, nats.password) override what stands in URL.
	User, Password string
	// TLSCA, TLSCert, TLSKey (nats.tls.ca, nats.tls.cert, nats.tls.key) are PEM files. A CA, or a
	// certificate with its key, makes TLS compulsory. With an embedded server they are for its ports: the
	// certificate is what it shows to clients and to other members; with a CA all of them must show one of it.
	TLSCA, TLSCert, TLSKey string

	// Prefix (nats.prefix) is put before every subject, so that an event on topic rooms.42 is the NATS
	// message notify.ev.rooms.42. One or more tokens, at most MaxPrefixBytes. Default "notify".
	Prefix string

	// DataDir (data-dir) holds what the embedded server stores. It belongs to one process at a time.
	// Empty: a private temporary directory, removed by Close; nothing outlives the process.
	DataDir string
	// Embedded concerns the embedded server alone.
	Embedded Embedded
	// MaxPayload (limits.message_bytes) is the largest payload in bytes that Publish takes, 1 to 8 MiB. The
	// embedded server takes as much from other NATS clients, and at least 65,536; an external server has a
	// limit of its own, and a smaller one is logged as a warning. Default 65,536.
	MaxPayload int
	// Linger is how long interest stays after Unsubscribe, so that a pattern whose subscribers come and
	// go does not hammer NATS. Default 2 s; negative: no time at all.
	Linger time.Duration
	// Shards is how many goroutines hand over events from an external NATS, 1 to 64; the embedded one has
	// one. Default 1.
	Shards int
	// Buffer is how many messages of an external NATS wait in front of each shard before messages are
	// dropped (and counted and logged). They can hold Buffer × MaxPayload bytes at worst. Default 65,536.
	// The embedded server's wait in the server; HasRoom holds publishers back before it is full.
	Buffer int

	// OnState, if set, is called from a goroutine of the bus at every change of Connected, in order, and
	// perhaps before Open returns. It must not block.
	OnState func(connected bool)
}

// Embedded configures the embedded server beyond its default, which opens no port. The addresses are
// "host:port" or "user:password@host:port".
type Embedded struct {
	// Listen (nats.listen) opens a port for NATS clients. A client with the password may do everything, as other
	// nodes must. On loopback it may be left out; clients may publish and receive events then, and nothing
	// else.
	Listen string
	// ClusterName, ClusterListen, Routes (nats.cluster.name, .listen, .routes) join several processes
	// into one NATS cluster. Routes are the ClusterListen addresses of the others (its own among them
	// does no harm). All members have the same name and the same user and password.
	ClusterName   string
	ClusterListen string
	Routes        []string
}

// MaxPrefixBytes bounds Options.Prefix: a subject of prefix and topic stays far below the 4,096 bytes
// after which a NATS server closes the connection.
const MaxPrefixBytes = 64

const (
	defaultMaxPayload = 64 << 10
	maxPayloadBytes   = 8 << 20 // nats-server calls more than this unwise and logs a warning
)

// An OptionError is a configuration that cannot work. Value holds no secret.
type OptionError struct {
	Key, Value string
	Err        error
	Remedy     string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("%s %q: %v; %s", e.Key, e.Value, e.Err, e.Remedy)
}

func (e *OptionError) Unwrap() error { return e.Err }

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (o *Options) setDefaults() {
	o.Prefix = orDefault(o.Prefix, "notify")
	o.MaxPayload = orDefault(o.MaxPayload, defaultMaxPayload)
	o.Linger = max(orDefault(o.Linger, 2*time.Second), 0)
	o.Shards = orDefault(o.Shards, 1)
	o.Buffer = orDefault(o.Buffer, 64<<10)
}

// Check says what is wrong with o, as an *OptionError, without connecting or writing anything. It reads
// the files that o names.
func (o Options) Check() error {
	o.setDefaults()
	if err := checkPrefix(o.Prefix); err != nil {
		return &OptionError{"nats.prefix", o.Prefix, err, "use a name such as notify"}
	}
	for _, b := range []struct {
		key      string
		v, limit int
	}{{"limits.message_bytes", o.MaxPayload, maxPayloadBytes}, {"nats.shards", o.Shards, 64}, {"nats.buffer", o.Buffer, 1 << 24}} {
		if b.v < 1 || b.v > b.limit {
			return &OptionError{b.key, strconv.Itoa(b.v), errors.New("out of range"), fmt.Sprintf("use 1 to %d", b.limit)}
		}
	}
	if o.URL == "" {
		return o.checkEmbedded()
	}
	return o.checkExternal()
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

func (o *Options) checkEmbedded() error {
	const remedy = "set nats.url, or leave this out"
	for _, s := range []struct{ key, v string }{
		{"nats.creds", o.Creds},
		{"nats.nkey", o.NKey},
		{"nats.user", o.User},
	} {
		if s.v != "" {
			return &OptionError{s.key, s.v, errors.New("is for an external NATS only"), remedy}
		}
	}
	if o.Password != "" {
		return &OptionError{"nats.password", "***", errors.New("is for an external NATS only"), remedy}
	}
	e := &o.Embedded
	if e.Listen == "" && e.ClusterListen == "" {
		for _, s := range []struct{ key, v string }{{"nats.tls.ca", o.TLSCA}, {"nats.tls.cert", o.TLSCert}, {"nats.tls.key", o.TLSKey}} {
			if s.v != "" {
				return &OptionError{s.key, s.v, errors.New("is for an external NATS, or a port of the embedded one"), remedy}
			}
		}
	}
	if o.TLSCert != "" && o.TLSCA == "" && e.ClusterListen != "" {
		return &OptionError{"nats.tls.ca", "", errors.New("the members of a cluster check each other's certificates"), "set it"}
	}
	if (o.TLSCert == "") != (o.TLSKey == "") || o.TLSCert == "" && o.TLSCA != "" {
		return &OptionError{"nats.tls.cert", o.TLSCert, errors.New("certificate and key belong together"), "set both nats.tls.cert and nats.tls.key"}
	}
	if _, err := o.serverTLS(); err != nil {
		return err
	}
	if e.Listen != "" {
		if err := checkGuarded("nats.listen", e.Listen, "publish events, revoke, and undo revocations"); err != nil {
			return err
		}
	}
	if e.ClusterListen == "" {
		if e.ClusterName != "" || len(e.Routes) > 0 {
			return &OptionError{"nats.cluster.listen", "", errors.New("a cluster needs an address for the other members"), "set it, for example to 0.0.0.0:6222"}
		}
		return nil
	}
	if e.ClusterName == "" || strings.ContainsAny(e.ClusterName, " \t\r\n") {
		return &OptionError{"nats.cluster.name", e.ClusterName, errors.New("a cluster needs a name without spaces"), "give every member the same name"}
	}
	if err := checkGuarded("nats.cluster.listen", e.ClusterListen, "join the cluster"); err != nil {
		return err
	}
	if o.DataDir == "" {
		return &OptionError{"data-dir", "", errors.New("a member of a cluster that forgets what it stored ends tickets and revocations for all"), "set it"}
	}
	if len(e.Routes) == 0 {
		return &OptionError{"nats.cluster.routes", "", errors.New("a cluster needs the address of another member"), "list the nats.cluster.listen addresses of the members"}
	}
	for _, r := range e.Routes {
		if _, err := parseAddress("nats.cluster.routes", r); err != nil {
			return err
		}
	}
	return nil
}

// checkGuarded requires a password of an address that others than this machine may reach.
func checkGuarded(key, address, may string) error {
	u, err := parseAddress(key, address)
	if err != nil {
		return err
	}
	if u.User != nil {
		if password, _ := u.User.Password(); password == "" || u.User.Username() == "" {
			return &OptionError{key, redact(address), errors.New("user and password belong together"), "write USER:PASSWORD@HOST:PORT"}
		}
		return nil
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() || u.Hostname() == "localhost" {
		return nil
	}
	return &OptionError{key, redact(address), fmt.Errorf("whoever reaches it may %s", may), "write USER:PASSWORD@HOST:PORT, or listen on loopback"}
}

// parseAddress reads "[user:password@]host:port", with or without "nats://" before it.
func parseAddress(key, s string) (*url.URL, error) {
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
		return nil, &OptionError{key, redact(s), errors.New("not an address"), "write host:port, for example 127.0.0.1:4222"}
	}
	return u, nil
}

func (o *Options) checkExternal() error {
	if _, err := o.servers(); err != nil {
		return err
	}
	if e := o.Embedded; e.Listen != "" || e.ClusterName != "" || e.ClusterListen != "" || len(e.Routes) > 0 {
		return &OptionError{"nats.url", redact(o.URL), errors.New("nats.listen and nats.cluster are for the embedded server only"), "leave one of them out"}
	}
	if (o.User == "") != (o.Password == "") {
		return &OptionError{"nats.user", o.User, errors.New("user and password belong together"), "set both nats.user and nats.password"}
	}
	n := 0
	for _, s := range []string{o.Creds, o.NKey, o.User} {
		if s != "" {
			n++
		}
	}
	if n > 1 {
		return &OptionError{"nats.creds", o.Creds, errors.New("more than one of nats.creds, nats.nkey, nats.user"), "keep one"}
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return &OptionError{"nats.tls.cert", o.TLSCert, errors.New("certificate and key belong together"), "set both nats.tls.cert and nats.tls.key"}
	}
	var probe nats.Options
	return o.authenticate(&probe)
}
