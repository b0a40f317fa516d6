package loop

import (
	"cmp"
	"net/netip"
	"runtime"
	"time"
)

// Options are the bounds of an Engine. A zero field takes the default that
// [Options.WithDefaults] names.
type Options struct {
	// Loops is the number of loops; each keeps up to one core busy. Default: one
	// for every two cores, so that NATS has the others.
	Loops int
	// HeadBytes bounds the head of the handshake request: a header line that
	// never ends must not fill the memory. Default 32 KiB.
	HeadBytes int
	// MessageBytes bounds a message, all its fragments together; over it the
	// connection is closed with 1009 as soon as the length is declared.
	// Default 64 KiB.
	MessageBytes int
	// Fragments bounds the frames of one message: empty fragments cost CPU and
	// no bytes, so MessageBytes does not stop them. Default 1,024.
	Fragments int
	// PendingBytes bounds the bytes that wait for a peer that does not read; over it
	// the connection is closed with SlowCode. One message that is larger by itself
	// may wait beside, so that it alone makes no peer slow. Default 1 MiB.
	PendingBytes int
	// SlowCode is the close code for a slow peer. Default 1008.
	SlowCode int
	// Connections and ConnectionsPerIP bound the open sockets, those in the
	// handshake and those given to HTTP included; 0 is no bound. A connection over
	// them is answered with 503 or 429 and closed. An IPv6 client is counted by
	// its /64.
	Connections, ConnectionsPerIP int
	// Exempt says of an address that ConnectionsPerIP is not for it: a proxy's, whose
	// connections count at their clients' once the handler knows these
	// ([Conn.SetAddr]). Any goroutine may call it. It may be nil.
	Exempt func(netip.Addr) bool
	// HandshakeTimeout runs from accept to the end of the request's head.
	// Default 10 s.
	HandshakeTimeout time.Duration
	// MessageTimeout runs from the first byte of a message to its last: a peer
	// that sends a byte a second holds memory otherwise. Default 30 s.
	MessageTimeout time.Duration
	// PingInterval is how long a connection may be silent before it is sent a
	// ping; IdleTimeout is how long it may be silent, pongs counting as sounds,
	// before it is closed. Whole seconds. Defaults 25 s and 75 s.
	PingInterval, IdleTimeout time.Duration
	// CloseTimeout is how long a close handshake may take. Default 5 s.
	CloseTimeout time.Duration
	// ProxyProtocol makes each connection begin with a header of the PROXY
	// protocol, version 1 or 2, that names the client of the proxy in front. Whoever
	// can reach the listener can then claim any address: only proxies may.
	ProxyProtocol bool
	// HTTP accepts the connections whose request is not a WebSocket upgrade, nor one that
	// Posts takes. They first read what was already received. Nil: such a request gets 426.
	HTTP *HandoffListener
	// Posts says of a plain HTTP request, before its body has come, whether
	// [Handler.Post] answers it. It is called on a loop. Nil: all requests are HTTP's.
	Posts func(p *Post) bool
	// EventName is the name of the event as which a stream is sent a message; "" is
	// that of most. It is called on a loop. It may be nil: none has a name.
	EventName func(message []byte) []byte
	// OnRoom is called, from a caller of [Loop.Deliver], when [Engine.HasRoom] is true
	// again. It may be nil.
	OnRoom func()
	// OnDrained is called when all that waited for a connection because its socket had no
	// room has been written, on its loop. It may be nil.
	OnDrained func(c *Conn)
	// OnTurn is called at the end of each turn of a loop, on its goroutine, with how many
	// times it has called write(2) since groups were due nothing before a turn. It must not
	// block. It may be nil.
	OnTurn func(l *Loop, writes int)
	// OnRefuse is called for each request that the engine itself refuses, and why (the
	// Refused constants); addr is "::" while it is not known. It is called on a loop
	// and must not block. It may be nil.
	OnRefuse func(addr netip.Addr, reason string)
	// AcceptError is called when accept(2) fails because there are no descriptors or no
	// memory; accepting goes on by itself. It may be nil.
	AcceptError func(error)
}

// KeepAlive is how long a connection that carries HTTP requests may be silent between two
// of them.
const KeepAlive = 60 * time.Second

// WithDefaults gives o with the defaults in place of zero values.
func (o Options) WithDefaults() Options {
	o.Loops = cmp.Or(o.Loops, max(1, runtime.GOMAXPROCS(0)/2))
	o.HeadBytes = cmp.Or(o.HeadBytes, 32<<10)
	o.MessageBytes = cmp.Or(o.MessageBytes, 64<<10)
	o.Fragments = cmp.Or(o.Fragments, 1024)
	o.PendingBytes = cmp.Or(o.PendingBytes, 1<<20)
	o.SlowCode = cmp.Or(o.SlowCode, 1008)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 10*time.Second)
	o.MessageTimeout = cmp.Or(o.MessageTimeout, 30*time.Second)
	o.PingInterval = cmp.Or(o.PingInterval, 25*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 75*time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 5*time.Second)
	return o
}
