package main

import "time"

// config is everything that serve can be told. The one struct is flags, environment, YAML file and the table in
// docs/configuration.md:
//
//	flag         --limits.message-bytes 64KiB
//	environment  NOTIFYD_LIMITS_MESSAGE_BYTES=64KiB
//	file         limits: {message_bytes: 64KiB}
//
// A flag beats the environment, the environment beats the file, the file beats the default. Rules that span fields are
// in config_check.go.
type config struct {
	Listen       string        `help:"Address for WebSocket clients and HTTP." default:"127.0.0.1:8080"`
	DataDir      string        `help:"Folder for the embedded NATS server's storage. Empty: a temporary folder, removed at exit." placeholder:"DIR"`
	PingInterval time.Duration `help:"Time between pings to each client." default:"25s"`
	DrainDelay   time.Duration `help:"On SIGTERM, go on as ever for so long, with a /readyz that says no, before drain_window begins: as long as load balancers take to see it." default:"0s"`
	DrainWindow  time.Duration `help:"Then tell clients of the restart and go on for half of this time, then spread the closing of connections over the other half." default:"5s"`
	Loops        int           `help:"Event loops. 0: one for every two cores." default:"0"`
	Origins      []origin      `help:"Origin whose pages may connect: https://app.example.com, *.example.com with any scheme, or * for every page. Repeatable. None: pages of the host that the request is for, and with --dev every page." placeholder:"ORIGIN"`
	// What a client itself writes into such a header is never believed.
	TrustedProxies []network `help:"Network of proxies, such as 10.0.0.0/8, whose Forwarded or X-Forwarded-For says where a client is. Repeatable." placeholder:"CIDR"`
	ProxyHeader    string    `help:"The header that these proxies write: forwarded or x-forwarded-for. auto: either; where both are there and disagree, neither counts." default:"auto"`
	PathPrefix     string    `help:"Put before every path, for a proxy that does not take it away: /push makes /push/v1/ws." placeholder:"/PATH"`
	ProxyProtocol  bool      `help:"Each connection begins with a PROXY protocol header, version 1 or 2, that says whom the proxy speaks for. Only proxies may reach the listener then."`

	Streams streamList `help:"Streams, which keep the events of some topics: a list in the file; as a flag or variable the same list as YAML or JSON." placeholder:"LIST"`

	Admin   adminConfig   `embed:"" prefix:"admin."`
	Console consoleConfig `embed:"" prefix:"console."`
	Auth    authConfig    `embed:"" prefix:"auth."`
	NATS    natsConfig    `embed:"" prefix:"nats."`
	Limits  limitsConfig  `embed:"" prefix:"limits."`
	Events  eventsConfig  `embed:"" prefix:"events."`
	Log     logConfig     `embed:"" prefix:"log."`
}

type adminConfig struct {
	Listen string `help:"Address for /healthz, /readyz and /metrics. Empty: off. Keep it private." default:"127.0.0.1:9090"`
	Pprof  bool   `help:"Serve /debug/pprof on the admin address." default:"false"`
}

type consoleConfig struct {
	Enabled bool `help:"Serve the console at /console of the admin address, with what its page asks of /v1. With --dev it is at /console of listen." default:"false"`
}

type authConfig struct {
	Keys            []string      `help:"File with the keys that sign tokens (JWK, JWK Set or PEM; read again on SIGHUP and when it changes), or the https URL of a JWK Set. Repeatable." placeholder:"FILE|URL"`
	Issuer          string        `help:"Required 'iss' of every token. Empty: not checked." placeholder:"ISS"`
	Audience        []string      `help:"Required in the 'aud' of every token. Repeatable: one of them is enough. Empty: not checked." placeholder:"AUD"`
	Leeway          time.Duration `help:"Clock skew allowed on 'exp'." default:"0s"`
	NotBeforeLeeway time.Duration `help:"Clock skew allowed on 'nbf' and 'iat'." default:"5s"`
	CacheEntries    int           `help:"Verified tokens to remember." default:"65536"`
	TokenBytes      byteSize      `help:"Longest token accepted; longer ones are refused before any hashing." default:"8KiB"`
	Workers         int           `help:"Goroutines that verify tokens seen for the first time. 0: half the cores." default:"0"`
	ExpiryNotice    time.Duration `help:"Warn a subscriber so long before its token expires." default:"30s"`

	Issuers      issuerList    `help:"Issuers with a policy of their own, a list in the file; as a flag or variable the same list as YAML or JSON." placeholder:"LIST"`
	JWKSRefresh  time.Duration `help:"Fetch the JWK Sets of URLs again so often; how long a key that was removed there counts at most." default:"5m" name:"jwks-refresh"`
	JWKSCooldown time.Duration `help:"A token by an unknown key makes the node fetch at once, but for each client address not again within this time, and for all of them not within a tenth of it." default:"30s" name:"jwks-cooldown"`
	JWKSTimeout  time.Duration `help:"Time for one fetch." default:"5s" name:"jwks-timeout"`
	JWKSMaxAge   time.Duration `help:"How long the keys of a URL count after the last fetch that succeeded; then their tokens are unavailable until one does. 0: no bound." default:"24h" name:"jwks-max-age"`

	Strategies []strategy    `help:"Ways to present a token: message, first-message, header, subprotocol, ticket, query (which ends up in the logs of proxies)." default:"message,first-message,header,subprotocol,ticket"`
	Require    authRequired  `help:"none, or connection: refuse clients that present no token for the connection." default:"none"`
	Deadline   time.Duration `help:"With auth.require=connection: time until the auth envelope, if the handshake held no token." default:"10s"`
	TicketTTL  time.Duration `help:"How long a ticket may be redeemed." default:"30s" name:"ticket-ttl"`

	RevocationMaxAge time.Duration    `help:"How long without news of revocations, while NATS is away, tokens that are not remembered are still accepted." default:"30s"`
	RevocationOutage revocationOutage `help:"After that: closed refuses them, strict refuses remembered tokens as well, open goes on accepting all." default:"closed"`
}

type natsConfig struct {
	URL           string        `help:"External NATS server or cluster, comma-separated. Empty: a server embedded in this process." placeholder:"URL" name:"url"`
	Creds         string        `help:"Credentials file for nats.url." placeholder:"FILE"`
	NKey          string        `help:"NKey seed file for nats.url." placeholder:"FILE" name:"nkey"`
	User          string        `help:"User for nats.url." placeholder:"NAME"`
	Password      string        `help:"Password for nats.url; best given as NOTIFYD_NATS_PASSWORD." placeholder:"SECRET"`
	TLSCA         string        `help:"CA certificates that nats.url is checked against. With nats.listen or nats.cluster_listen: that clients and members must show a certificate of." placeholder:"FILE" name:"tls-ca"`
	TLSCert       string        `help:"Client certificate for nats.url, or the certificate of nats.listen and nats.cluster_listen." placeholder:"FILE" name:"tls-cert"`
	TLSKey        string        `help:"Key of the certificate." placeholder:"FILE" name:"tls-key"`
	Prefix        string        `help:"First part of every NATS subject: PREFIX.ev.TOPIC." default:"notify"`
	Listen        string        `help:"Port of the embedded server for other NATS clients, who may do everything with the password. On loopback it may be left out: they publish (not to streams) and receive events then. Empty: no port." placeholder:"[USER:PASSWORD@]HOST:PORT"`
	ClusterName   string        `help:"Name of the cluster that embedded servers form." placeholder:"NAME"`
	ClusterListen string        `help:"Address for the other nodes of the cluster, with the same password on all. On loopback it may be left out." placeholder:"[USER:PASSWORD@]HOST:PORT"`
	Routes        []string      `help:"Another node of the cluster, nats://HOST:PORT. Repeatable." placeholder:"URL"`
	SyncInterval  time.Duration `help:"How often the embedded server syncs to the disk what it stored. What was acknowledged since may be lost when the machine, not only the process, breaks down. 0: before each ack." default:"2m"`
	Replicas      int           `help:"Servers of the NATS cluster that keep a copy of tickets, used tokens and revocations, 1 to 5." default:"1"`
	Linger        time.Duration `help:"Keep the NATS subscription of a pattern so long after its last subscriber left." default:"5s"`
}

type limitsConfig struct {
	MessageBytes      byteSize      `help:"Largest message from a client; over it the connection is closed (1009)." default:"64KiB"`
	HeadBytes         byteSize      `help:"Largest HTTP head of a request: a token, and the cookies of the site." default:"32KiB"`
	Subscriptions     int           `help:"Subscriptions of one connection." default:"1000"`
	PendingBytes      byteSize      `help:"Bytes that may wait for one slow subscriber; over it the connection is closed (4410)." default:"1MiB"`
	Rate              int           `help:"Messages a second that one connection may send. 0: no limit." default:"0"`
	Burst             int           `help:"Messages that may come at once under limits.rate. 0: as many as the rate." default:"0"`
	TicketsPerSubject int           `help:"Tickets that one subject may get in auth.ticket_ttl, of one node; over it the answer is 429. 0: no limit." name:"tickets-per-subject" default:"100"`
	TicketsPerIP      int           `help:"Tickets that one IP address may get in auth.ticket_ttl, of one node; over it the answer is 429. 0: no limit." name:"tickets-per-ip" default:"1000"`
	Connections       int           `help:"Open connections in all. 0, and at most: what the process's descriptors are enough for, less some for all else." default:"0"`
	ConnectionsPerIP  int           `help:"Open connections of one IP address (IPv6: a /64). Behind a proxy set trusted_proxies too. 0: no limit." name:"connections-per-ip" default:"1000"`
	BadEnvelopes      int           `help:"Bad envelopes in a row after which a connection is closed (4400)." default:"10"`
	AuthFailures      int           `help:"Refused tokens in a row after which a connection is closed (4401)." default:"10"`
	Penalty           time.Duration `help:"Longest pause before a client that sends bad signatures or invented tickets is read on. 0: none." default:"1s"`
	HandshakeTimeout  time.Duration `help:"Time for a whole handshake to arrive." default:"10s"`
	MessageTimeout    time.Duration `help:"Time for a whole message to arrive, from its first byte." default:"30s"`
	IdleTimeout       time.Duration `help:"Close a connection from which nothing, not even a pong, came for so long." default:"75s"`
}

type eventsConfig struct {
	From bool `help:"Tell subscribers of durable topics whose token published an event: its 'sub', as from." default:"false"`
}

type logConfig struct {
	Level  logLevel  `help:"debug, info, warn or error." default:"info"`
	Format logFormat `help:"console (for people) or json (for machines)." default:"console"`
}
