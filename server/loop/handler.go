package loop

import (
	"errors"

	"github.com/gobwas/ws"
)

// Handler gives meaning to connections. Every method is called on the
// goroutine of the loop that owns the connection and must not block.
type Handler interface {
	// Request is asked about an upgrade request before it is answered. An error
	// made by [ws.RejectConnectionError] refuses it with that status. r and its
	// slices are valid until Request returns. [ErrPending] leaves the request
	// unanswered: after [Conn.Resume] the same request is asked about again.
	Request(c *Conn, r *Request) error

	// Abandoned is called when a connection has ended whose request Request left
	// unanswered with [ErrPending]: it will not be asked about again. The handler must do
	// no more than note it.
	Abandoned(c *Conn)

	// Open is called once the handshake has been answered with 101.
	Open(c *Conn)

	// Message is called for each complete text or binary message; text is valid
	// UTF-8. The handler may change payload but must not keep it after it
	// returns.
	Message(c *Conn, op ws.OpCode, payload []byte)

	// Post is called for each plain HTTP request that [Options.Posts] has taken. The
	// handler answers it with [Conn.Respond]: at once, or later if it calls
	// [Conn.Pause] first. The next request comes after the answer and, behind a
	// pause, after [Conn.Resume].
	Post(c *Conn, p *Post)

	// Violation is called before the engine closes a connection for what its
	// peer did (RFC 6455 §7.1.7), so that the handler may [Conn.Send] last
	// words. It is not called for a slow peer, to which nothing can be said.
	Violation(c *Conn, code ws.StatusCode)

	// Closed is called once for each connection for which Open or Post was called, or
	// whose first plain HTTP request has not come whole, when nothing more will come from it and nothing can be sent to it: a close
	// frame was sent or received, the last request was answered or is net/http's, or
	// the socket failed (code 1006). The handler
	// must take the connection out of all groups before it returns. It is called
	// from within [Conn.Close] or by the loop itself; when a write fails, at the
	// end of that turn, never from within [Conn.Send].
	Closed(c *Conn, code ws.StatusCode)

	// Expired is called when a batch was due to a member whose Until has
	// passed and whose connection is open. The batch is not delivered to it. The
	// handler may make it Leave, or Close its connection; it must not take other
	// connections out of the group.
	Expired(m *Member)

	// Turn is called in every turn, when all that came in it has been handled and
	// before groups are written to: what the handler gathered for others in the
	// turn may leave now. It returns true while something that left is to be
	// answered, by [Loop.Deliver], [Loop.Post] or [Engine.Answered], within
	// microseconds as a rule: see [Loop.await]. While groups are due something
	// ([Loop.Writing]) they wait for that.
	Turn(l *Loop) bool

	// Tick is called about once a second.
	Tick(l *Loop)
}

// Request is the part of an upgrade request that a Handler decides on. The
// slices are valid during [Handler.Request] alone.
type Request struct {
	// URI is the request target, path and query.
	URI []byte
	// Host is the value of that header.
	Host []byte
	// Protocols is the value of Sec-WebSocket-Protocol; several such headers are
	// joined by commas (RFC 6455 §11.3.4). Nil when the client offered none.
	Protocols []byte
	// Protocol is set by the handler: the subprotocol to answer with, if any.
	Protocol string
	// Authorization, Origin, ForwardedFor and Forwarded are the values of those
	// headers (X-Forwarded-For for the third); several of one name are joined by
	// commas. Nil: there was none.
	Authorization, Origin, ForwardedFor, Forwarded []byte
}

// ErrPending is what [Handler.Request] returns when it cannot tell yet. The
// connection is paused until [Conn.Resume], and the handshake's deadline runs.
var ErrPending = errors.New("the answer is pending")
