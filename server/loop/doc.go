// Package loop is a WebSocket engine (RFC 6455, server side) on Linux epoll.
//
// An [Engine] runs a few loops, each on its own goroutine. A connection
// belongs to one loop for life, and only that loop's goroutine touches it, so
// reading, handling and writing take no lock. Other goroutines reach a loop
// through its inbox ([Loop.Post], [Loop.Deliver]), which has one; the loop takes
// it once a turn.
//
// turn.go says what a turn of a loop is and in which order it does what. What the inbox
// holds is merged into one contiguous batch a [Group], which is written to each member
// with one write(2).
//
// The package knows frames and nothing of what they carry. A [Handler] gives
// them meaning: notifyd's, or an echo server.
package loop
