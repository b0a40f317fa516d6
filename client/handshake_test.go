package client

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// portThat is a TCP port of a server that treats each connection with f and closes it.
func portThat(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				stop := make(chan struct{})
				go func() {
					select {
					case <-end:
					case <-stop:
					}
					_ = conn.Close()
				}()
				f(conn)
				close(stop)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		close(end)
		running.Wait()
	})
	return ln.Addr().String()
}

// answer gives what reads something and answers it.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, c)
	}
}

// A URL with the wrong scheme is what the error says, whatever the server makes of it, and for tickets too.
func TestWrongScheme(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	tlsHost := strings.TrimPrefix(secure.URL, "https://")
	const noTLS, isTLS = "begins with ws://", "begins with wss://"
	badRequest := "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
	for name, test := range map[string]struct{ url, want, not string }{
		"TLS to a server that answers in HTTP":   {"wss://" + portThat(t, answer(badRequest)), noTLS, isTLS},
		"TLS to a server that closes":            {"wss://" + portThat(t, answer("")), noTLS, isTLS},
		"TLS to a server that never answers":     {"wss://" + portThat(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), noTLS, isTLS},
		"TLS with a certificate of nobody":       {"wss://" + tlsHost, "certificate", noTLS},
		"plain to Go's TLS":                      {"ws://" + tlsHost, isTLS, noTLS},
		"plain to nginx's TLS":                   {"ws://" + portThat(t, answer(badRequest+"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>")), isTLS, noTLS},
		"plain to Apache's TLS":                  {"ws://" + portThat(t, answer(badRequest+"<p>You're speaking plain HTTP to an SSL-enabled server port.<br />")), isTLS, noTLS},
		"plain to a server that sends alerts":    {"ws://" + portThat(t, answer("\x15\x03\x01\x00\x02\x02\x46")), isTLS, noTLS},
		"plain to a server that answers with it": {"ws://" + portThat(t, answer(strings.Replace(badRequest, "400", "403", 1)+"HTTP request to an HTTPS server")), "403", isTLS},
		"plain to a server that closes":          {"ws://" + portThat(t, answer("")), "EOF", noTLS},
	} {
		for _, strategy := range []Strategy{StrategyMessage, StrategyTicket} {
			t.Run(name+", "+string(strategy), func(t *testing.T) {
				t.Parallel()
				timeout := time.Minute
				if strings.Contains(name, "never") {
					timeout = 200 * time.Millisecond
				}
				_, err := Dial(t.Context(), test.url+wire.Path, Options{
					Strategy: strategy, Token: StaticToken("t"), DialTimeout: timeout, HTTPClient: &http.Client{Transport: &http.Transport{}},
				})
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), test.not) {
					t.Errorf("error %v, want one with %q", err, test.want)
				}
			})
		}
	}
}

// What the server says of a handshake that it refuses reaches the caller.
func TestRefusedHandshakeSaysWhy(t *testing.T) {
	f := newFake(t)
	for status, body := range map[int]string{
		403: "this origin is not allowed", 400: "more than one credential", 401: "the credential is not valid", 502: "<html>", 404: "",
	} {
		f.refuseWith(func() int { return status })
		f.because(body)
		_, err := Dial(t.Context(), f.url, Options{Token: StaticToken("t"), HTTPClient: f.client})
		switch {
		case err == nil || !strings.Contains(err.Error(), http.StatusText(status)):
			t.Errorf("%d: %v", status, err)
		case body != "<html>" && !strings.Contains(err.Error(), body), strings.Contains(err.Error(), "<"):
			t.Errorf("%d %s: %v", status, body, err)
		case errors.Is(err, wire.TokenInvalid) != (status == 401):
			t.Errorf("%d: %v", status, err)
		}
	}
	// A code says more than a status.
	f.refuseWith(func() int { return 401 })
	f.because(`{"code":"token_revoked","message":"no more"}`)
	_, err := Dial(t.Context(), f.url, Options{Token: StaticToken("t"), HTTPClient: f.client})
	wantCode(t, err, wire.TokenRevoked)
}
