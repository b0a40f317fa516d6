package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/notifyd/notifyd/node"
)

type streamsCmd struct {
	Admin string `help:"URL of the admin listener of a node." default:"http://127.0.0.1:9090"`
	JSON  bool   `help:"Print the node's answer, with its counters, instead of a table." name:"json"`
}

// Help is shown by --help.
func (streamsCmd) Help() string {
	return `The table has for each stream what its leader says of it, and how far the subscribers of the node that was asked have been handed it. Exit code 1: a stream is not there, or its leader does not answer.

    notifyd streams
    notifyd streams --json | jq '.[].last'`
}

const (
	streamsTimeout  = 10 * time.Second
	maxStreamsBytes = 1 << 20
)

// Run asks a node.
func (c *streamsCmd) Run(p *process) error {
	ctx, cancel := context.WithTimeout(p.ctx, streamsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.Admin, "/")+"/streams", nil)
	if err != nil {
		return usagef("admin: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStreamsBytes))
	if err != nil {
		return err
	}
	var all []node.StreamStatus
	if resp.StatusCode != http.StatusOK || json.Unmarshal(text, &all) != nil {
		return fmt.Errorf("%s answered %s, and no streams: is it the admin listener of a node?", req.URL, resp.Status)
	}
	if c.JSON {
		_, err = p.stdout.Write(text)
	} else {
		err = printStreams(p.stdout, all)
	}
	for _, s := range all {
		if s.Problem != "" {
			err = errors.Join(err, fmt.Errorf("stream %s: %s", s.Name, s.Problem))
		}
	}
	return err
}

func printStreams(to io.Writer, all []node.StreamStatus) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "STREAM\tEPOCH\tFIRST\tLAST\tEVENTS\tBYTES\tPOSITION\tLAG") // Flush has the error
	for _, s := range all {
		position, lag := "-", "-" // nobody on this node reads it
		if s.Following {
			position, lag = fmt.Sprint(s.Position), fmt.Sprint(s.Lag)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", s.Name, cmp.Or(s.Epoch, "-"), s.First, s.Last, s.Events, s.Bytes, position, lag)
	}
	return w.Flush()
}
