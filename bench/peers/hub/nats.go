//go:build linux

package hub

import (
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serveNATS is nats-server itself with its WebSocket port, no authentication, and
// its own protocol. It batches in a goroutine per client: what gathers while that
// goroutine waits for the processor goes out in one write.
func serveNATS(addr string) error {
	host, port, err := split(addr)
	if err != nil {
		return err
	}
	return runNATS(&server.Options{
		Host: host, Port: server.RANDOM_PORT, // of plain TCP, unused
		PingInterval: time.Hour, // the driver answers none
		Websocket:    server.WebsocketOpts{Host: host, Port: port, NoTLS: true},
	})
}

// ServeBus is nats-server for other servers to use, with JetStream, which stores in the folder for temporary files.
func ServeBus(addr string) error {
	host, port, err := split(addr)
	if err != nil {
		return err
	}
	store, err := os.MkdirTemp("", "nats-")
	if err != nil {
		return err
	}
	return runNATS(&server.Options{Host: host, Port: port, JetStream: true, StoreDir: store})
}

func split(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	return host, port, err
}

func runNATS(o *server.Options) error {
	o.NoLog = true
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	return nil
}
