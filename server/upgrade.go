//go:build linux

package server

import (
	"bytes"
	"net/http"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

var (
	errNotFound = ws.RejectConnectionError(ws.RejectionStatus(http.StatusNotFound),
		ws.RejectionReason("the WebSocket endpoint is "+wire.Path))
	errSubprotocol = ws.RejectConnectionError(ws.RejectionStatus(http.StatusBadRequest),
		ws.RejectionReason("none of the offered subprotocols is "+wire.Subprotocol))
)

// Request implements [loop.Handler]: the path and the subprotocol.
func (s *Server) Request(_ *loop.Conn, r *loop.Request) error {
	path, _, _ := bytes.Cut(r.URI, []byte("?"))
	if string(path) != wire.Path {
		return errNotFound
	}
	if r.Protocols == nil {
		return nil
	}
	// RFC 6455 §4.2.2: answer with one of those offered or refuse; nothing else
	// of the header is echoed.
	for p := range bytes.SplitSeq(r.Protocols, []byte(",")) {
		if string(bytes.TrimSpace(p)) == wire.Subprotocol {
			r.Protocol = wire.Subprotocol
			return nil
		}
	}
	return errSubprotocol
}
