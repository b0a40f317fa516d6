package bus

import (
	"cmp"
	"fmt"
	"time"
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

	// Streams are the durable topics.
	Streams []StreamOptions

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
	// SyncInterval is how often what was stored is synced to the disk. Events that were acknowledged since are lost
	// when the machine, and not only the process, ends: where they have Replicas, on a majority of their members at
	// once. Negative: before each ack, which costs a disk's sync for each event, or few events. 0: 2 minutes, as NATS
	// has it.
	SyncInterval time.Duration
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
