package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// parseSince reads from where on a request wants a history: SEQ, EPOCH.SEQ (the id of an
// event of a stream), last:N, or a time of RFC 3339.
func parseSince(text string) (since wire.Since, ok bool) {
	if n, found := strings.CutPrefix(text, "last:"); found {
		since.Kind = wire.SinceLast
		since.N, ok = parseSeq(n)
		return since, ok
	}
	if epoch, n, found := strings.Cut(text, "."); found || text != "" && !strings.Contains(text, ":") {
		if !found {
			epoch, n = "", text
		}
		if since.N, ok = parseSeq(n); ok && len(epoch) <= wire.MaxEpochBytes && (epoch != "") == found {
			since.Kind = wire.SinceSeq
			if found {
				since.Epoch = []byte(epoch)
			}
			return since, true
		}
	}
	// With the rules for a time in an envelope, which are stricter than those of package time.
	var env wire.Envelope
	quoted := strconv.AppendQuote([]byte(`{"type":"subscribe","topic":"a","since":{"time":`), text)
	if len(text) > len(time.RFC3339Nano) || wire.Parse(append(quoted, `}}`...), &env) != nil {
		return wire.Since{}, false
	}
	return env.Since, true
}

// parseSeq reads a number that is written in digits alone.
func parseSeq(text string) (n uint64, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}
