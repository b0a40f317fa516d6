//go:build linux

// Echo is a WebSocket echo server on the engine that notifyd runs on, for
// conformance suites and comparisons of engines:
//
//	go run ./bench/echo --listen 127.0.0.1:9001
//
// It answers each message with the same message.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"github.com/notifyd/notifyd/server/loop"
)

type echo struct{}

func (echo) Request(*loop.Conn, *loop.Request) error            { return nil }
func (echo) Abandoned(*loop.Conn)                               {}
func (echo) Open(*loop.Conn)                                    {}
func (echo) Message(c *loop.Conn, op ws.OpCode, payload []byte) { c.Send(op, payload) }
func (echo) Post(*loop.Conn, *loop.Post)                        {}
func (echo) Violation(*loop.Conn, ws.StatusCode)                {}
func (echo) Closed(*loop.Conn, ws.StatusCode)                   {}
func (echo) Expired(*loop.Member)                               {}
func (echo) Turn(*loop.Loop) bool                               { return false }
func (echo) Tick(*loop.Loop)                                    {}

func main() {
	listen := flag.String("listen", "127.0.0.1:9001", "address to listen on")
	loops := flag.Int("loops", 0, "epoll loops; 0: one for every two cores")
	flag.Parse()
	if err := run(*listen, *loops); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// options suit conformance suites, which send messages of 16 MiB and fragments
// of 64 bytes.
func options(loops int) loop.Options {
	return loop.Options{Loops: loops, MessageBytes: 16 << 20, PendingBytes: 64 << 20, Fragments: 1 << 20}
}

func run(listen string, loops int) error {
	eng, err := loop.New(options(loops), echo{})
	if err != nil {
		return err
	}
	ln, err := loop.Listen(listen)
	if err != nil {
		return err
	}
	fmt.Println("listening on", ln.Addr())
	if err := eng.Start(ln); err != nil {
		return err
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	<-stop.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return eng.Drain(ctx, 0)
}
