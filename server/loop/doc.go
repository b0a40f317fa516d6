// Package loop is a WebSocket engine (RFC 6455, server side) on Linux epoll.
//
// An [Engine] runs a few loops, each on its own goroutine. A connection
// belongs to one loop for life, and only that loop's goroutine touches it, so
// reading, handling and writing take no lock. Other goroutines reach a loop
// through its inbox ([Loop.Post], [Loop.Deliver]), which has one; the loop takes
// it once a turn.
//
// A turn of a loop is: wait for sockets, read and parse what came, take what
// the inbox holds, merge it into one contiguous batch a [Group], write each
// batch to each member with one write(2), close what has ended, sweep
// deadlines once a second.
//
// The package knows frames and nothing of what they carry. A [Handler] gives
// them meaning: notifyd's, or an echo server.
package loop
