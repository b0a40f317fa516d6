package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

// tlsHandshake watches the TLS handshake of a request.
type tlsHandshake struct{ began, done atomic.Bool }

// watch gives the context for the request.
func (h *tlsHandshake) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart: func() { h.began.Store(true) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			h.done.Store(err == nil)
		},
	})
}

// explain adds to the error of a request what a wrong scheme in the URL looks like.
func (h *tlsHandshake) explain(err error) error {
	certificate := (*tls.CertificateVerificationError)(nil)
	switch {
	case h.began.Load() && !h.done.Load() && !errors.As(err, &certificate):
		return fmt.Errorf("no TLS handshake with this port; if it does not speak TLS, the URL begins with ws://: %w", err)
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`): // a TLS alert, RFC 8446 §5.1
		return fmt.Errorf("this port speaks TLS: the URL begins with wss://: %w", err)
	}
	return err
}

// plainTexts are parts of what Go, nginx and Apache answer to a plain request on a TLS port.
var plainTexts = []string{"HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port", "SSL-enabled server port"}

// handshakeError says why there is no WebSocket. resp is nil if the server did not answer.
func handshakeError(err error, resp *http.Response, h *tlsHandshake) error {
	if cause := errors.Unwrap(err); cause != nil { // without the library's prefix
		err = cause
	}
	if resp == nil {
		return h.explain(withoutURL(err))
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return err
	}
	body, readErr := io.ReadAll(resp.Body) // the library has read it, up to 1 KiB
	if readErr != nil {
		return err
	}
	return refusal(resp, body)
}
