package testkit

import (
	"bufio"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var natsVersion = regexp.MustCompile(`"version":"[^"]*"`)

// NATSVersion gives the URL of a server that is the one at url, but says that it is of another version.
func NATSVersion(t testing.TB, url, version string) string {
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = front.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			client, err := front.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serveVersion(client, strings.TrimPrefix(url, "nats://"), version) })
		}
	})
	return "nats://" + front.Addr().String()
}

// serveVersion relays one connection until either side ends it.
func serveVersion(client net.Conn, address, version string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	for from := bufio.NewReader(server); ; {
		line, err := from.ReadString('\n')
		if err != nil {
			return
		}
		payload := 0
		switch verb, _, _ := strings.Cut(line, " "); verb {
		case "INFO":
			line = natsVersion.ReplaceAllString(line, `"version":"`+version+`"`)
		case "MSG", "HMSG": // whose last word is the size
			words := strings.Fields(line)
			if payload, err = strconv.Atoi(words[len(words)-1]); err != nil {
				return
			}
			payload += len("\r\n")
		}
		if _, err := io.WriteString(client, line); err != nil {
			return
		}
		if _, err := io.CopyN(client, from, int64(payload)); err != nil {
			return
		}
	}
}
