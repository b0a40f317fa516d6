//go:build linux

package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// A request that is no upgrade gets an answer that says what to do.
func TestHTTP(t *testing.T) {
	get := func(n *node, path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + n.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Body.Close() }()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	n := one(t, server.Options{})
	if code, body := get(n, wire.Path); code != http.StatusUpgradeRequired || !strings.Contains(body, "WebSocket") {
		t.Error(code, body)
	}
	if code, _ := get(n, "/"); code != http.StatusNotFound {
		t.Error(code)
	}
	n.dial(t).fence()
}

func TestUpgrade(t *testing.T) {
	n := one(t, server.Options{})
	for _, x := range []struct {
		path      string
		protocols []string
		status    int // 0: accepted
		protocol  string
	}{
		{wire.Path, nil, 0, ""},
		{wire.Path + "?x=y", []string{wire.Subprotocol}, 0, wire.Subprotocol},
		{wire.Path, []string{"mqtt", wire.Subprotocol}, 0, wire.Subprotocol},
		{wire.Path, []string{wire.Subprotocol, "mqtt"}, 0, wire.Subprotocol},
		{wire.Path, []string{"mqtt"}, 400, ""},
		{wire.Path, []string{"notifyd.v2"}, 400, ""},
		{wire.Path, []string{"Notifyd.v1"}, 400, ""},
		{wire.Path, []string{"bearer.SECRET"}, 400, ""},
		{wire.Path + "/", nil, 404, ""},
		{"/v1", nil, 404, ""},
		{"/", nil, 404, ""},
	} {
		t.Run(fmt.Sprint(x.path, x.protocols), func(t *testing.T) {
			status := 0
			d := ws.Dialer{Timeout: patience, Protocols: x.protocols, OnStatusError: func(s int, _ []byte, r io.Reader) {
				status = s
				if body, _ := io.ReadAll(io.LimitReader(r, 4096)); strings.Contains(string(body), "SECRET") {
					t.Errorf("echoed: %s", body)
				}
			}}
			conn, _, hs, err := d.Dial(t.Context(), "ws://"+n.addr+x.path)
			if err == nil {
				_ = conn.Close()
			}
			if status != x.status || hs.Protocol != x.protocol || (err == nil) != (x.status == 0) {
				t.Errorf("status %d, protocol %q, %v", status, hs.Protocol, err)
			}
		})
	}
}
