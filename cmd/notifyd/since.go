package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/notifyd/notifyd/client"
)

// since is the value of --since.
type since struct{ client.Since }

// UnmarshalText accepts a seq, a position, a time and how long ago.
func (s *since) UnmarshalText(text []byte) error {
	word := string(text)
	if seq, err := strconv.ParseUint(word, 10, 64); err == nil {
		s.Since = client.After(client.Position{Seq: seq})
		return nil
	}
	if ago, err := time.ParseDuration(word); err == nil && ago >= 0 {
		s.Since = client.SinceTime(time.Now().Add(-ago))
		return nil
	}
	if at, err := time.Parse(time.RFC3339, word); err == nil {
		s.Since = client.SinceTime(at)
		return nil
	}
	if p, err := client.ParsePosition(word); err == nil {
		s.Since = client.After(p)
		return nil
	}
	return fmt.Errorf("%q is no place in a stream: write a seq such as 1042, EPOCH.SEQ, a time such as 2026-01-31T12:00:00Z, how long ago such as 90s or 72h, or 0 for everything", word)
}

// from is what --since and --last ask for.
func (c *subCmd) from() client.Since {
	if c.Last > 0 {
		return client.Last(c.Last)
	}
	return c.Since.Since
}
