// Package e2e tests the real program from the outside: notifyd as processes of its own, a nats-server process that can
// be killed, and clients that others wrote. The servers listen on loopback ports that the kernel picks. The tests run on
// Linux.
package e2e
