package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// BatchError says that some events of a batch were not published, or perhaps not.
type BatchError struct {
	// Errs has an entry for each event: nil for one that the server has acknowledged, a *wire.Error for one that it
	// has refused, and another error for one without an answer, which may have been published.
	Errs []error
}

func (e *BatchError) Error() string {
	failed := slices.DeleteFunc(slices.Clone(e.Errs), func(err error) bool { return err == nil })
	if len(failed) == 1 && len(e.Errs) == 1 {
		return "publish: " + failed[0].Error()
	}
	return fmt.Sprintf("publish: %d of %d events failed; the first: %v", len(failed), len(e.Errs), failed[0])
}

// Unwrap gives the errors of the events that failed, for errors.Is and errors.As.
func (e *BatchError) Unwrap() []error { return e.Errs }

// PublishBatch publishes events by one HTTP request, in their order and without a connection, which suits a backend
// that publishes now and then, or much at once. rawURL is that of Dial; hc may be nil for http.DefaultClient. nil means
// that the server has acknowledged every event; any other error is a *BatchError. The first result says for each event
// where its stream has put it, if its topic is durable. The slices are not kept.
func PublishBatch(ctx context.Context, hc *http.Client, rawURL, token string, events []Publication) ([]Stored, error) {
	stored := make([]Stored, len(events))
	if len(events) == 0 {
		return stored, nil
	}
	batch := &BatchError{Errs: make([]error, len(events))}
	body, lines := encodeBatch(events, batch.Errs)
	if len(lines) > 0 {
		answered, err := postLines(ctx, hc, rawURL, token, body, lines, stored, batch.Errs)
		for _, i := range lines[answered:] {
			batch.Errs[i] = err
		}
	}
	for _, err := range batch.Errs {
		if err != nil {
			return stored, batch
		}
	}
	return stored, nil
}

// encodeBatch makes lines of the events that can be lines, and says of which. The others get their error.
func encodeBatch(events []Publication, errs []error) (body []byte, lines []int) {
	for i, e := range events {
		switch {
		case !wire.ValidJSON(e.Data):
			errs[i] = &wire.Error{Code: wire.BadEnvelope, Detail: "the data is not JSON"}
			continue
		case e.TTL < 0 || e.TTL > wire.MaxTTL*time.Second:
			errs[i] = &wire.Error{Code: wire.BadEnvelope, Detail: errTTL}
			continue
		case bytes.ContainsAny(e.Data, "\r\n"):
			errs[i] = &wire.Error{Code: wire.BadEnvelope, Detail: "the data holds line breaks: json.Compact removes them"}
			continue
		}
		line, err := json.Marshal(struct {
			Topic string `json:"topic"`
			Token string `json:"token,omitempty"`
			MsgID string `json:"msg_id,omitempty"`
			TTL   uint32 `json:"ttl,omitempty"`
		}{e.Topic, e.Token, e.MsgID, e.ttl()})
		if err != nil {
			errs[i] = err
			continue
		}
		body = append(body, line[:len(line)-1]...)
		body = append(body, `,"data":`...)
		body = append(body, e.Data...)
		body = append(body, "}\n"...)
		lines = append(lines, i)
	}
	return body, lines
}

// postLines sends body, and takes a result for each of lines. It returns for how many there was one, and the error
// that the others have.
func postLines(ctx context.Context, hc *http.Client, rawURL, token string, body []byte, lines []int, stored []Stored, errs []error) (answered int, err error) {
	if hc == nil {
		hc = http.DefaultClient
	}
	resp, err := send(ctx, hc, nil, rawURL, "/v1/publish", token, "application/x-ndjson", body)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return 0, err
		}
		return 0, refusal(resp, text)
	}
	results := bufio.NewScanner(resp.Body)
	for ; answered < len(lines) && results.Scan(); answered++ {
		var r struct {
			OK            bool
			Code, Message string
			Stored
		}
		if err := json.Unmarshal(results.Bytes(), &r); err != nil {
			return answered, fmt.Errorf("the server's result: %w", err)
		}
		stored[lines[answered]] = r.Stored
		if !r.OK {
			code, _ := wire.ParseCode(r.Code)
			errs[lines[answered]] = &wire.Error{Code: code, Detail: r.Message}
		}
	}
	if err := results.Err(); err != nil {
		return answered, err
	}
	return answered, errors.New("the server's answer ended early")
}
