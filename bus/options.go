package bus

import (
	"cmp"
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

// Options says which NATS to use and how. Its zero value is a private embedded server.
type Options struct {
	// URL is an external NATS: one URL, or several of one cluster separated by commas.
	// Empty: a server embedded in this process.
	URL string
	// Creds is a file with a user JWT and its seed.
	Creds string
	// NKey is a file with an nkey seed.
	NKey string
	// User and Password override what stands in URL.
	User, Password string
	// TLSCA, TLSCert, TLSKey are PEM files. A CA, or a
	// certificate with its key, makes TLS compulsory. With an embedded server they are for its ports: the
	// certificate is what it shows to clients and to other members; with a CA all of them must show one of it.
	TLSCA, TLSCert, TLSKey string

	// Prefix is put before every subject, so that an event on topic rooms.42 is the NATS
	// message notify.ev.rooms.42. One or more tokens, at most MaxPrefixBytes. Default DefaultPrefix.
	Prefix string

	// DataDir holds what the embedded server stores. It belongs to one process at a time.
	// Empty: a private temporary directory, removed by Close; nothing outlives the process.
	DataDir string
	// Embedded concerns the embedded server alone.
	Embedded Embedded
	// MaxPayload is the largest payload in bytes that Publish takes, 1 to 8 MiB. The
	// embedded server takes as much from other NATS clients, and at least 65,536; an external server has a
	// limit of its own, and a smaller one is logged as a warning. Default DefaultMaxPayload.
	MaxPayload int
	// Linger is how long interest stays after Unsubscribe, so that a pattern whose subscribers come and
	// go does not hammer NATS. Default DefaultLinger; negative: no time at all.
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
	// Listen opens a port for NATS clients. A client with the password may do everything, as other
	// nodes must. On loopback it may be left out; clients may publish and receive events then, and nothing
	// else.
	Listen string
	// ClusterName, ClusterListen, Routes join several processes
	// into one NATS cluster. Routes are the ClusterListen addresses of the others (its own among them
	// does no harm). All members have the same name and the same user and password.
	ClusterName   string
	ClusterListen string
	Routes        []string
}

// MaxPrefixBytes bounds Options.Prefix: a subject of prefix and topic stays far below the 4,096 bytes
// after which a NATS server closes the connection.
const MaxPrefixBytes = 64

// What the zero values of Options mean.
const (
	DefaultPrefix     = "notify"
	DefaultMaxPayload = 64 << 10
	DefaultLinger     = 5 * time.Second
)

// maxPayloadBytes is the largest payload that nats-server takes without a warning.
const maxPayloadBytes = 8 << 20

// An OptionError is a configuration that cannot work. Value holds no secret.
type OptionError struct {
	Field  string // of Options, such as "URL" or "Embedded.Listen"
	Value  string
	Err    error
	Remedy string   // with %s for each of Others
	Others []string // fields that the remedy is about as well
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("%s %q: %v; %s", e.Field, e.Value, e.Err, e.RemedyWith(func(field string) string { return field }))
}

func optionError(field, value string, err error, remedy string, others ...string) *OptionError {
	return &OptionError{field, value, err, remedy, others}
}

// RemedyWith is the remedy in the words of a caller that has names of its own for the fields of Options.
func (e *OptionError) RemedyWith(name func(field string) string) string {
	if len(e.Others) == 0 {
		return e.Remedy
	}
	names := make([]any, len(e.Others))
	for i, field := range e.Others {
		names[i] = name(field)
	}
	return fmt.Sprintf(e.Remedy, names...)
}

func (e *OptionError) Unwrap() error { return e.Err }

func (o *Options) setDefaults() {
	o.Prefix = cmp.Or(o.Prefix, DefaultPrefix)
	o.MaxPayload = cmp.Or(o.MaxPayload, DefaultMaxPayload)
	o.Linger = max(cmp.Or(o.Linger, DefaultLinger), 0)
	o.Shards = cmp.Or(o.Shards, 1)
	o.Buffer = cmp.Or(o.Buffer, 64<<10)
}

// Check says what is wrong with o, as an *OptionError, without connecting or writing anything. It reads
// the files that o names.
func (o Options) Check() error {
	o.setDefaults()
	if err := checkPrefix(o.Prefix); err != nil {
		return optionError("Prefix", o.Prefix, err, "use a name such as notify")
	}
	for _, b := range []struct {
		field    string
		v, limit int
	}{{"MaxPayload", o.MaxPayload, maxPayloadBytes}, {"Shards", o.Shards, 64}, {"Buffer", o.Buffer, 1 << 24}} {
		if b.v < 1 || b.v > b.limit {
			return optionError(b.field, strconv.Itoa(b.v), errors.New("out of range"), fmt.Sprintf("use 1 to %d", b.limit))
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
	const remedy = "set %s, or leave this out"
	for _, s := range []struct{ field, v string }{
		{"Creds", o.Creds},
		{"NKey", o.NKey},
		{"User", o.User},
	} {
		if s.v != "" {
			return optionError(s.field, s.v, errors.New("is for an external NATS only"), remedy, "URL")
		}
	}
	if o.Password != "" {
		return optionError("Password", "***", errors.New("is for an external NATS only"), remedy, "URL")
	}
	e := &o.Embedded
	if e.Listen == "" && e.ClusterListen == "" {
		for _, s := range []struct{ field, v string }{{"TLSCA", o.TLSCA}, {"TLSCert", o.TLSCert}, {"TLSKey", o.TLSKey}} {
			if s.v != "" {
				return optionError(s.field, s.v, errors.New("is for an external NATS, or a port of the embedded one"), remedy, "URL")
			}
		}
	}
	if o.TLSCert != "" && o.TLSCA == "" && e.ClusterListen != "" {
		return optionError("TLSCA", "", errors.New("the members of a cluster check each other's certificates"), "set it")
	}
	if (o.TLSCert == "") != (o.TLSKey == "") || o.TLSCert == "" && o.TLSCA != "" {
		return optionError("TLSCert", o.TLSCert, errors.New("certificate and key belong together"), "set both this and %s", "TLSKey")
	}
	if _, err := o.serverTLS(); err != nil {
		return err
	}
	if e.Listen != "" {
		if err := checkGuarded("Embedded.Listen", e.Listen, "publish events, revoke, and undo revocations"); err != nil {
			return err
		}
	}
	if e.ClusterListen == "" {
		if e.ClusterName != "" || len(e.Routes) > 0 {
			return optionError("Embedded.ClusterListen", "", errors.New("a cluster needs an address for the other members"), "set it, for example to 0.0.0.0:6222")
		}
		return nil
	}
	if e.ClusterName == "" || strings.ContainsAny(e.ClusterName, " \t\r\n") {
		return optionError("Embedded.ClusterName", e.ClusterName, errors.New("a cluster needs a name without spaces"), "give every member the same name")
	}
	if err := checkGuarded("Embedded.ClusterListen", e.ClusterListen, "join the cluster"); err != nil {
		return err
	}
	if o.DataDir == "" {
		return optionError("DataDir", "", errors.New("a member of a cluster that forgets what it stored ends tickets and revocations for all"), "set it")
	}
	if len(e.Routes) == 0 {
		return optionError("Embedded.Routes", "", errors.New("a cluster needs the address of another member"), "list the addresses that the members have in %s", "Embedded.ClusterListen")
	}
	for _, r := range e.Routes {
		if _, err := parseAddress("Embedded.Routes", r); err != nil {
			return err
		}
	}
	return nil
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

func (o *Options) checkExternal() error {
	if _, err := o.servers(); err != nil {
		return err
	}
	if e := o.Embedded; e.Listen != "" || e.ClusterName != "" || e.ClusterListen != "" || len(e.Routes) > 0 {
		return optionError("URL", redact(o.URL), errors.New("an external NATS has its own ports and cluster"), "leave out %s, %s, %s and %s, or this", "Embedded.Listen", "Embedded.ClusterName", "Embedded.ClusterListen", "Embedded.Routes")
	}
	if (o.User == "") != (o.Password == "") {
		return optionError("User", o.User, errors.New("user and password belong together"), "set both this and %s", "Password")
	}
	n := 0
	for _, s := range []string{o.Creds, o.NKey, o.User} {
		if s != "" {
			n++
		}
	}
	if n > 1 {
		return optionError("Creds", o.Creds, errors.New("more than one way to log in"), "keep one of this, %s and %s", "NKey", "User")
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return optionError("TLSCert", o.TLSCert, errors.New("certificate and key belong together"), "set both this and %s", "TLSKey")
	}
	var probe nats.Options
	return o.authenticate(&probe)
}
