//go:build linux

package hub

import (
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serveNATS is nats-server itself with its WebSocket port, no authentication, and
// its own protocol. It batches in a goroutine per client: what gathers while that
// goroutine waits for the processor goes out in one write.
func serveNATS(addr string) error {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		Host: host, Port: server.RANDOM_PORT, // of plain TCP, unused
		NoLog:        true,
		PingInterval: time.Hour, // the driver answers none
		Websocket:    server.WebsocketOpts{Host: host, Port: port, NoTLS: true},
	})
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	return nil
}
